"""The losses against a slow loop and autograd."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone

from skxmc import XMCClassifier
from skxmc._ends import Rows
from skxmc._shortlist import keep_hardest, make_shortlist
from skxmc.losses import (
    LOSSES,
    BinaryCrossEntropy,
    DecoupledSoftmax,
    Loss,
    OrderedWeightedLoss,
    SampledSoftmax,
    SquaredHinge,
    make_loss,
    snm_weights,
)
from skxmc.samplers import (
    FrequencySampler,
    FullSampler,
    Problem,
    StochasticNegativeMining,
    UniformSampler,
)

# --- the slow truth -------------------------------------------------------------------------------


def slow_logistic(score, target):
    """-log of the chance of the target, written so that large scores do not overflow."""
    margin = score if target else -score
    return max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))


def slow_sigmoid(score):
    if score < 0:
        return math.exp(score) / (1 + math.exp(score))
    return 1 / (1 + math.exp(-score))


@st.composite
def batches(draw):
    """Scores, targets and weights; about a quarter of the weights is 0."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=5))

    def array(elements):
        return torch.from_numpy(draw(hnp.arrays(np.float32, shape, elements=elements)))

    return (
        array(st.floats(-30, 30, width=32)),
        array(st.sampled_from([0.0, 1.0])),
        array(st.sampled_from([0.0, 1.0, 0.5, 40.0])),
    )


@given(batch=batches())
def test_bce_is_the_weighted_sum_of_logistic_losses(batch):
    value, gradient = BinaryCrossEntropy().value_and_gradient(*batch)
    expected = 0.0
    assert gradient.shape == batch[0].shape
    for score, target, weight, slope in zip(*(a.flatten().tolist() for a in (*batch, gradient))):  # noqa: B905
        expected += weight * slow_logistic(score, target)
        wanted = weight * (slow_sigmoid(score) - target)
        assert slope == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert isinstance(value, float)
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("loss", [make() for make in LOSSES.values()], ids=list(LOSSES))
@given(batch=batches())
def test_every_closed_form_agrees_with_autograd(loss, batch):
    value, gradient = loss.value_and_gradient(*batch)
    expected, expected_gradient = Loss.value_and_gradient(loss, *batch)
    scores, _, weights = batch  # a rounding of the largest term may differ
    largest = float((weights * scores).abs().max())
    assert float(value) == pytest.approx(float(expected), rel=1e-5, abs=1e-5 * max(largest, 1))
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-4)
    assert not gradient.requires_grad


@pytest.mark.parametrize("loss", [make() for make in LOSSES.values()], ids=list(LOSSES))
def test_the_scores_are_left_as_they_are(loss):
    batch = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    before = [a.clone() for a in batch]
    loss.value_and_gradient(*batch)
    assert all(torch.equal(one, other) for one, other in zip(batch, before, strict=True))


@pytest.mark.parametrize("loss", [make() for make in LOSSES.values()], ids=list(LOSSES))
@given(batch=batches(), other=st.floats(-1e4, 1e4, width=32))
def test_places_of_weight_0_have_no_influence(loss, batch, other):
    scores, targets, weights = batch
    value, gradient = loss.value_and_gradient(*batch)
    assert (gradient[weights == 0] == 0).all()
    off = weights == 0
    changed, changed_gradient = loss.value_and_gradient(
        torch.where(off, torch.tensor(other), scores),
        torch.where(off, 1 - targets, targets),
        weights,
    )
    assert float(changed) == pytest.approx(float(value), rel=1e-6, abs=1e-6)
    assert torch.equal(changed_gradient, gradient)


@pytest.mark.parametrize("loss", [make() for make in LOSSES.values()], ids=list(LOSSES))
def test_extreme_scores_give_finite_results(loss):
    scores = torch.tensor([[1e4, -1e4, 1e4, -1e4, 0.0]])
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0]])
    value, gradient = loss.value_and_gradient(scores, targets, torch.ones(1, 5))
    assert math.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_bce_of_extreme_scores_is_their_distance():
    scores = torch.tensor([[1e4, -1e4, 1e4, -1e4]])
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    value, gradient = BinaryCrossEntropy().value_and_gradient(scores, targets, torch.ones(1, 4))
    assert value == pytest.approx(2e4)
    assert gradient.tolist() == [[0, -1, 1, 0]]


def test_a_loss_needs_no_more_than_its_forward():
    class SquaredError(Loss):
        def __init__(self, scale=1.0):
            self.scale = scale

        def forward(self, scores, targets, weights):
            return self.scale * (weights * (scores - targets) ** 2).sum()

    batch = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.5]])
    value, gradient = clone(SquaredError(3.0)).value_and_gradient(*batch)
    assert value == 4.5
    assert gradient.tolist() == [[6.0, 3.0]]


def test_the_base_has_no_forward():
    with pytest.raises(NotImplementedError):
        Loss().value_and_gradient(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1))


def test_names_stand_for_losses_and_objects_for_themselves():
    assert type(make_loss("bce")) is BinaryCrossEntropy
    loss = BinaryCrossEntropy()
    assert make_loss(loss) is loss
    with pytest.raises(ValueError, match=r"loss='bec' is unknown.*'bce'"):
        make_loss("bec")


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_parameter_objects(name):
    loss = make_loss(name)
    assert repr(clone(loss)) == repr(loss)
    assert clone(loss).get_params() == loss.get_params()


# --- every loss against a slow loop over shortlists -----------------------------------------------

N_PLACES, N_POSITIVES = 14, 4
MARGINS = ("hinge", "squared-hinge", "logistic")


def make_batch(seed=0, dtype=torch.float64):
    """Positives first, masked places, importance weights, and rows that lack one kind or both."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (9, N_PLACES))
    targets = np.zeros((9, N_PLACES))
    targets[:, :N_POSITIVES] = 1
    weights = rng.choice([0.0, 1.0, 1.0, 0.5, 3.0], (9, N_PLACES))
    weights[0, :N_POSITIVES] = 0
    weights[1, N_POSITIVES:] = 0
    weights[2] = 0
    weights[3] = 1
    weights[4, N_POSITIVES + 1 :] = 0
    return tuple(torch.from_numpy(a).to(dtype) for a in (scores, targets, weights))


def make_log_expected(seed=0, dtype=torch.float64):
    """0 at positives and at some negatives of unknown count."""
    out = np.log(np.random.default_rng(seed).uniform(0.05, 1, N_PLACES))
    out[: N_POSITIVES + 2] = 0
    return torch.from_numpy(out).to(dtype)


def split(scores, targets, weights, row):
    """Positives and negatives of a row that count: [(score, weight, column)]."""
    kinds = [[], []]
    for c in range(scores.shape[1]):
        if weights[row, c] > 0:
            place = float(scores[row, c]), float(weights[row, c]), c
            kinds[int(targets[row, c] == 0)].append(place)
    return kinds


def slow_phi(margin, u):
    if margin == "logistic":
        return max(0.0, -u) + math.log1p(math.exp(-abs(u)))
    return max(0.0, 1 - u) ** (2 if margin == "squared-hinge" else 1)


def slow_squared_hinge(scores, targets, weights):
    total = 0.0
    for row in range(len(scores)):
        positives, negatives = split(scores, targets, weights, row)
        total += sum(w * slow_phi("squared-hinge", s) for s, w, _ in positives)
        total += sum(w * slow_phi("squared-hinge", -s) for s, w, _ in negatives)
    return total


def slow_bce(scores, targets, weights, smoothing):
    total = 0.0
    for row in range(len(scores)):
        positives, negatives = split(scores, targets, weights, row)
        for s, w, _ in positives:
            total += w * (1 - smoothing) * slow_logistic(s, 1)
            total += w * smoothing * slow_logistic(s, 0)
        total += sum(w * slow_logistic(s, 0) for s, w, _ in negatives)
    return total


def slow_softmax(scores, targets, weights, log_expected=None, decoupled=False):
    """log_expected None: no correction."""
    total = 0.0
    for row in range(len(scores)):
        positives, negatives = split(scores, targets, weights, row)
        rest = 0.0
        for s, _, c in negatives:
            rest += math.exp(s - (0.0 if log_expected is None else float(log_expected[c])))
        every = sum(math.exp(s) for s, _, _ in positives)
        for s, w, _ in positives:
            sum_exp = rest + (math.exp(s) if decoupled else every)
            total += w * (math.log(sum_exp) - s) / len(positives)
    return total


def slow_owl(scores, targets, weights, form, margin, theta):
    """theta: a list by rank, as long as it likes."""
    total = 0.0
    for row in range(len(scores)):
        positives, negatives = split(scores, targets, weights, row)
        ranked = sorted(negatives, reverse=True)
        by_rank = [(s, w * t) for (s, w, _), t in zip(ranked, theta, strict=False)]
        if form == "binary":
            total += sum(w * slow_phi(margin, s) for s, w, _ in positives) / max(1, len(positives))
            total += sum(w * slow_phi(margin, -s) for s, w in by_rank)
            continue
        for own, w in [(s, w) for s, w, _ in positives]:
            cost = sum(t * slow_phi(margin, own - s) for s, t in by_rank)
            total += w * cost / len(positives)
    return total


def check_gradient(function, scores, step=1e-6):
    """The gradient of autograd against central differences, in float64."""
    leaf = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    for i in range(scores.shape[0]):
        for c in range(scores.shape[1]):
            change = torch.zeros_like(scores)
            change[i, c] = step
            slope = float(function(scores + change) - function(scores - change)) / (2 * step)
            assert float(gradient[i, c]) == pytest.approx(slope, rel=1e-4, abs=1e-6)
    assert gradient.abs().max() > 0.01
    return gradient


@pytest.mark.parametrize("seed", range(3))
def test_squared_hinge_is_the_weighted_sum_of_squared_margins(seed):
    batch = make_batch(seed)
    assert float(SquaredHinge().forward(*batch)) == pytest.approx(slow_squared_hinge(*batch))
    check_gradient(lambda scores: SquaredHinge().forward(scores, *batch[1:]), batch[0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_mixes_both_targets_at_positives_only(smoothing):
    loss, batch = BinaryCrossEntropy(smoothing), make_batch(1)
    value, gradient = loss.value_and_gradient(*batch)
    assert value == pytest.approx(slow_bce(*batch, smoothing))
    np.testing.assert_allclose(
        gradient, check_gradient(lambda scores: loss.forward(scores, *batch[1:]), batch[0])
    )


@pytest.mark.parametrize("known", [True, False], ids=["counts known", "unknown"])
@pytest.mark.parametrize("log_q", [True, False])
@pytest.mark.parametrize("make", [SampledSoftmax, DecoupledSoftmax])
def test_softmax_is_the_mean_over_positives_of_their_log_loss(make, log_q, known):
    batch, log_expected = make_batch(2), make_log_expected(2)
    more = {"log_expected": log_expected} if known else {}
    used = log_expected if known and log_q else None
    expected = slow_softmax(*batch, used, decoupled=make is DecoupledSoftmax)
    loss = make(log_q=log_q)
    value, gradient = loss.value_and_gradient(*batch, **more)
    assert value == pytest.approx(expected)
    by_hand = check_gradient(lambda scores: loss.forward(scores, *batch[1:], **more), batch[0])
    np.testing.assert_allclose(gradient, by_hand)
    assert (gradient[0] == 0).all(), "a row without positives has no loss"


def test_log_q_and_decoupling_matter():
    """Else the test above compares equal things."""
    batch, log_expected = make_batch(2), make_log_expected(2)
    ways = {slow_softmax(*batch, q, d) for q in (log_expected, None) for d in (True, False)}
    assert len(ways) == 4


def test_of_a_softmax_the_importance_of_negatives_only_says_whether_they_count():
    scores, targets, weights = make_batch(2)
    other = torch.where((targets == 0) & (weights > 0), 7.0, weights)
    for loss in (SampledSoftmax(), DecoupledSoftmax()):
        assert loss.forward(scores, targets, other) == loss.forward(scores, targets, weights)


THETAS = {
    "top-k of 1": ({"theta": "top-k", "k": 1}, [1.0]),
    "top-k of 3": ({"theta": "top-k", "k": 3}, [1.0] * 3),
    "top-k deeper than there are": ({"theta": "top-k", "k": 50}, [1.0] * 50),
    "snm": ({"theta": "snm", "pool_size": 4, "k": 2}, None),
    "snm of a pool of more than there are": ({"theta": "snm", "pool_size": 60, "k": 2}, None),
    "array": ({"theta": [1.0, 0.7, 0.7, 0.2, 0.0]}, [1.0, 0.7, 0.7, 0.2]),
    "array of one": ({"theta": np.array([2.5])}, [2.5]),
    "array longer than there are": ({"theta": 0.9 ** np.arange(40)}, 0.9 ** np.arange(40)),
    "zeros": ({"theta": [0.0, 0.0]}, []),
}


@pytest.mark.parametrize(("parameters", "theta"), THETAS.values(), ids=THETAS)
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("form", ["binary", "pairwise"])
def test_owl_weighs_negatives_by_their_rank(form, margin, parameters, theta):
    batch = make_batch(3)
    if theta is None:  # of as many negatives as the row has that has most
        n = max(len(split(*batch, row)[1]) for row in range(len(batch[0])))
        theta = snm_weights(n, min(parameters["pool_size"], n), parameters["k"])
    loss = OrderedWeightedLoss(form, margin, **parameters)
    value, gradient = loss.value_and_gradient(*batch)
    assert value == pytest.approx(slow_owl(*batch, form, margin, theta))
    if len(theta):
        by_hand = check_gradient(lambda scores: loss.forward(scores, *batch[1:]), batch[0])
        np.testing.assert_allclose(gradient, by_hand)


VARIANTS = {
    "bce smoothed": BinaryCrossEntropy(0.1),
    "squared hinge": SquaredHinge(),
    "softmax": SampledSoftmax(),
    "decoupled": DecoupledSoftmax(),
    **{
        f"owl {form} {margin} {theta}": OrderedWeightedLoss(form, margin, theta, 3, 4)
        for form in ("binary", "pairwise")
        for margin in MARGINS
        for theta in ("top-k", "snm")
    },
}
variants = pytest.mark.parametrize("loss", VARIANTS.values(), ids=VARIANTS)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_1e4_give_finite_values_and_gradients(loss, dtype):
    scores, targets, weights = make_batch(4, dtype)
    signs = scores.sign() * 1e4
    for extreme in (signs, -signs, torch.full_like(scores, 1e4), torch.full_like(scores, -1e4)):
        more = {"log_expected": make_log_expected(4, dtype)} if loss.uses_log_expected else {}
        value, gradient = loss.value_and_gradient(extreme, targets, weights, **more)
        assert math.isfinite(value)
        assert torch.isfinite(gradient).all()
        assert (gradient[weights == 0] == 0).all()


@variants
@pytest.mark.parametrize("shape", [(3, 0), (3, 1)])
def test_a_batch_without_any_place_that_counts_has_loss_0(loss, shape):
    """Rows without labels meet a sampler that proposes nothing: in-batch, or MIPS that warms up."""
    value, gradient = loss.value_and_gradient(*(torch.zeros(shape) for _ in range(3)))
    assert value == 0
    assert gradient.shape == shape
    assert (gradient == 0).all()


# The weights of theta="snm" go by the row of the batch that has most negatives.
ROW_WISE = {name: loss for name, loss in VARIANTS.items() if not name.endswith("snm")}


@pytest.mark.parametrize("loss", ROW_WISE.values(), ids=ROW_WISE)
def test_the_loss_of_a_batch_is_the_sum_of_its_rows(loss):
    batch = make_batch(5)
    rows = [float(loss.forward(*(a[i : i + 1] for a in batch))) for i in range(len(batch[0]))]
    assert float(loss.forward(*batch)) == pytest.approx(sum(rows))


@variants
def test_negatives_may_stand_in_any_order(loss):
    batch = make_batch(6)
    order = torch.from_numpy(np.random.default_rng(0).permutation(N_PLACES))
    moved = tuple(a[:, order] for a in batch)
    value, gradient = loss.value_and_gradient(*batch)
    moved_value, moved_gradient = loss.value_and_gradient(*moved)
    assert moved_value == pytest.approx(value)
    np.testing.assert_allclose(moved_gradient, gradient[:, order], atol=1e-12)


# --- the weights of stochastic negative mining (papers.md, section 2.3) ---------------------------


def slow_snm_weights(n, pool_size, k):
    total = math.comb(n, pool_size)
    return [
        sum(
            math.comb(j - 1, s) * math.comb(n - j, pool_size - 1 - s)
            for s in range(min(k, pool_size))
        )
        / total
        for j in range(1, n + 1)
    ]


@pytest.mark.parametrize(
    ("k", "first"),
    [
        (1, [0.2667, 0.2023, 0.1517, 0.1124]),
        (3, [0.2667, 0.2667, 0.2667, 0.2641]),
    ],
)
def test_snm_weights_are_the_printed_ones(k, first):
    weights = snm_weights(30, 8, k)
    np.testing.assert_allclose(weights[:4], first, atol=5e-5)
    assert weights[29] == pytest.approx(0, abs=1e-12)


def test_keeping_the_whole_pool_weighs_all_ranks_alike():
    np.testing.assert_allclose(snm_weights(30, 8, 8), 8 / 30)
    np.testing.assert_allclose(snm_weights(30, 8, 100), 8 / 30)


@given(data=st.data(), n=st.integers(1, 60))
def test_snm_weights_follow_the_sum_fall_and_sum_to_what_is_kept(data, n):
    pool_size, k = data.draw(st.integers(1, n)), data.draw(st.integers(1, 70))
    weights = snm_weights(n, pool_size, k)
    np.testing.assert_allclose(weights, slow_snm_weights(n, pool_size, k), rtol=1e-8, atol=1e-12)
    assert (np.diff(weights) <= 1e-12).all()
    assert weights[0] == pytest.approx(pool_size / n)
    assert weights.sum() == pytest.approx(min(k, pool_size))


@pytest.mark.parametrize(("n", "pool_size", "k"), [(30, 8, 1), (12, 5, 3), (9, 9, 2)])
def test_snm_weights_are_how_often_the_procedure_keeps_a_rank(n, pool_size, k):
    rng, n_draws, times = np.random.default_rng(0), 20_000, np.zeros(n)
    for _ in range(n_draws):
        times[np.sort(rng.choice(n, pool_size, replace=False))[:k]] += 1
    chance = snm_weights(n, pool_size, k)
    deviation = np.sqrt(n_draws * chance * (1 - chance))
    assert (abs(times - n_draws * chance) <= 5 * deviation + 1e-6).all()


@pytest.mark.parametrize(
    ("parameters", "what"),
    [((30, 0, 1), "pool_size=0"), ((30, 31, 1), "pool_size=31"), ((30, 8, 0), "k=0")],
)
def test_snm_weights_refuse_what_cannot_be_drawn(parameters, what):
    with pytest.raises(ValueError, match=what):
        snm_weights(*parameters)


# --- losses and samplers together -----------------------------------------------------------------

N_LABELS = 20


def make_problem():
    """A row of three labels, one of none, one of one."""
    Y = np.zeros((30, N_LABELS), np.float32)
    Y[0, [2, 11, 17]] = Y[2, 5] = 1
    Y[np.arange(10, 30), np.arange(20)] = 1
    Y = sp.csr_array(Y)
    return Problem(Rows.of(Y, values=False), np.bincount(Y.indices, minlength=N_LABELS))


def visits(sampler, rows, scores, n_visits, max_positives=256, seed=0):
    """Scores, targets, weights and counts of what the real code makes of a sampler's proposals."""
    problem = make_problem()
    sampler.begin(problem)
    rng, slot = np.random.default_rng(seed), np.full(N_LABELS, -1, np.int32)
    for _ in range(n_visits):
        proposal = sampler.propose(rows, rng)
        out = make_shortlist(problem.Y, rows, [proposal], rng, slot, max_positives)
        columns = np.hstack([out.labels, np.tile(out.shared, (len(rows), 1))])
        out, found = keep_hardest(out, scores.gather(1, torch.from_numpy(columns.clip(0)).long()))
        targets = torch.zeros_like(found)
        targets[:, : out.n_positives] = 1
        weights = torch.from_numpy(out.weights).to(found.dtype)
        yield found, targets, weights, torch.from_numpy(out.log_expected).to(found.dtype)


def assert_mean(values, expected):
    values = np.array(values)
    error = values.std() / np.sqrt(len(values))
    assert error > 0
    assert abs(values.mean() - expected) < 5 * error


def fixed_scores(n_rows, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (n_rows, N_LABELS)))


@pytest.mark.parametrize(
    ("k", "margin"), [(1, "hinge"), (3, "hinge"), (8, "hinge"), (2, "logistic")]
)
def test_snm_is_in_expectation_the_owl_with_its_weights_over_all_labels(k, margin):
    """The pool is drawn from all labels, so that of a row without labels they are its own."""
    plain = OrderedWeightedLoss(margin=margin, theta=np.ones(N_LABELS))
    owls = {
        1: OrderedWeightedLoss(margin=margin, theta="snm", pool_size=8, k=k),
        0: OrderedWeightedLoss(margin=margin, theta=snm_weights(N_LABELS, 8, k)),
        2: OrderedWeightedLoss(margin=margin, theta=snm_weights(N_LABELS, 8, k)),
    }
    for row, owl in owls.items():
        rows, scores = np.array([row]), fixed_scores(1, seed=row)
        (full,) = visits(FullSampler(), rows, scores, 1)
        sampler = StochasticNegativeMining(pool_size=8, n_negatives=k)
        drawn = [float(plain.forward(*a[:3])) for a in visits(sampler, rows, scores, 1000)]
        assert_mean(drawn, float(owl.forward(*full[:3])))


@pytest.mark.parametrize("sampler", [UniformSampler(6), FrequencySampler(9, power=0.5)], ids=repr)
def test_with_log_q_the_sampled_normalizer_is_unbiased(sampler):
    """Of the sum of exp over the negatives: the loss of its one positive gives it away."""
    rows, scores = np.array([2]), fixed_scores(1)
    positive = float(scores[0, 5])
    whole = sum(math.exp(scores[0, label]) for label in range(N_LABELS) if label != 5)
    corrected, plain = [], []
    for *batch, log_expected in visits(sampler, rows, scores, 2500):
        value = float(SampledSoftmax().forward(*batch, log_expected=log_expected))
        corrected.append(math.exp(value + positive) - math.exp(positive))
        value = float(SampledSoftmax(log_q=False).forward(*batch, log_expected=log_expected))
        plain.append(math.exp(value + positive) - math.exp(positive))
    assert_mean(corrected, whole)
    assert np.mean(plain) < 0.8 * whole


@pytest.mark.parametrize("form", ["binary", "pairwise"])
def test_one_positive_a_visit_is_in_expectation_the_mean_over_all(form):
    rows, scores = np.array([0]), fixed_scores(1)
    pick = {
        name: OrderedWeightedLoss(form, "logistic", [1.0, 0.5], reduction=name)
        for name in ("pick-one", "pick-all")
    }
    assert (pick["pick-one"].max_positives, pick["pick-all"].max_positives) == (1, None)
    (full,) = visits(FullSampler(), rows, scores, 1)
    one = [
        float(pick["pick-one"].forward(*a[:3]))
        for a in visits(FullSampler(), rows, scores, 3000, max_positives=1)
    ]
    assert len(np.unique(one)) == 3
    assert_mean(one, float(pick["pick-all"].forward(*full[:3])))


def test_training_picks_one_positive_where_the_reduction_says_so(monkeypatch):
    from skxmc import _training

    asked = set()

    def record(*args):
        out = make_shortlist(*args)
        asked.add(out.n_positives)
        return out

    monkeypatch.setattr(_training, "make_shortlist", record)
    X, Y = np.eye(12), np.ones((12, 4))
    for reduction, expected in (("pick-one", 1), ("pick-all", 4)):
        asked.clear()
        loss = OrderedWeightedLoss(reduction=reduction)
        XMCClassifier("full", loss, hidden_layer_sizes=(4,), max_iter=1, n_jobs=1).fit(X, Y)
        assert asked == {expected}


def test_positives_do_not_compete_in_the_decoupled_softmax():
    scores, targets, weights = make_batch(7)
    scores[3, :N_POSITIVES], weights[3] = 0, 1
    other = scores.clone()
    other[3, 1:N_POSITIVES] += 3
    gradients = {
        loss: [loss.value_and_gradient(a, targets, weights)[1][3, 0] for a in (scores, other)]
        for loss in (DecoupledSoftmax(), SampledSoftmax())
    }
    decoupled, plain = gradients.values()
    assert decoupled[0] == decoupled[1] != 0
    assert abs(plain[0] - plain[1]) > 1e-3


# --- convexity ------------------------------------------------------------------------------------


def midpoint_excess(loss, n_pairs=400, seed=0):
    """The most by which a loss at a midpoint exceeds the mean of the ends; convex: none."""
    rng = np.random.default_rng(seed)
    targets = torch.zeros(1, 8, dtype=torch.float64)
    targets[:, :2] = 1
    weights, worst = torch.ones_like(targets), -np.inf
    for _ in range(n_pairs):
        a, b = (torch.from_numpy(rng.normal(0, 2, (1, 8))) for _ in range(2))
        middle, *ends = (float(loss.forward(x, targets, weights)) for x in ((a + b) / 2, a, b))
        worst = max(worst, middle - sum(ends) / 2)
    return worst


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("form", ["binary", "pairwise"])
def test_owl_is_convex_where_theta_does_not_increase(form, margin):
    for parameters in (
        {"theta": [1.0, 0.5, 0.5, 0.1]},
        {"theta": "top-k", "k": 1},
        {"theta": "top-k", "k": 3},
        {"theta": "snm", "pool_size": 3, "k": 1},
    ):
        assert midpoint_excess(OrderedWeightedLoss(form, margin, **parameters)) <= 1e-9


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("form", ["binary", "pairwise"])
def test_owl_would_not_be_convex_with_an_increasing_theta(form, margin, monkeypatch):
    """Why `begin` refuses it."""

    def unchecked(self, n_negatives):
        return np.pad(self.theta, (0, n_negatives - len(self.theta)))

    monkeypatch.setattr(OrderedWeightedLoss, "_rank_weights", unchecked)
    assert midpoint_excess(OrderedWeightedLoss(form, margin, [0.1, 0.2, 1.0, 2.0])) > 0.1


# --- bad parameters -------------------------------------------------------------------------------

BAD = [
    (OrderedWeightedLoss(theta=[0.5, 1.0]), r"theta increases at rank 2 \(0.5 to 1.0\).*Sort"),
    (OrderedWeightedLoss(theta=[1.0, 0.5, 0.5, 0.7]), "theta increases at rank 4"),
    (OrderedWeightedLoss(theta=[1.0, -0.5]), "theta=.*non-negative"),
    (OrderedWeightedLoss(theta=[1.0, float("nan")]), "theta=.*non-negative"),
    (OrderedWeightedLoss(theta=[float("inf"), 1.0]), "theta=.*non-negative"),
    (OrderedWeightedLoss(theta=[]), r"theta=\[\].*list"),
    (OrderedWeightedLoss(theta=[[1.0]]), "theta=.*list"),
    (OrderedWeightedLoss(theta=1.0), "theta=1.0.*list"),
    (OrderedWeightedLoss(theta="top"), "theta='top'.*'top-k'.*'snm'"),
    (OrderedWeightedLoss(form="unary"), "form='unary'.*'pairwise'"),
    (OrderedWeightedLoss(margin="cubic"), "margin='cubic'.*'squared-hinge'"),
    (OrderedWeightedLoss(reduction="mean"), "reduction='mean'.*'pick-one'"),
    (OrderedWeightedLoss(theta="snm"), "pool_size.*None"),
    (OrderedWeightedLoss(theta="snm", pool_size=0), "pool_size.*0"),
    (OrderedWeightedLoss(theta="snm", pool_size=2.5), "pool_size.*2.5"),
    (OrderedWeightedLoss(k=0), "k=0"),
    (OrderedWeightedLoss(k=1.5), "k=1.5"),
    (OrderedWeightedLoss(theta="snm", pool_size=4, k=-1), "k=-1"),
    (BinaryCrossEntropy(1.0), r"label_smoothing=1.0.*\[0, 1\)"),
    (BinaryCrossEntropy(-0.1), "label_smoothing=-0.1"),
    (BinaryCrossEntropy(float("nan")), "label_smoothing=nan"),
]


@pytest.mark.parametrize(("loss", "match"), BAD, ids=[" ".join(repr(a).split()) for a, _ in BAD])
def test_fit_refuses_bad_parameters_before_training(loss, match, monkeypatch):
    def train(*args):
        raise AssertionError("trained")

    monkeypatch.setattr(XMCClassifier, "_train", train)
    clf = XMCClassifier("full", loss, hidden_layer_sizes=(4,), n_jobs=1)
    with pytest.raises(ValueError, match=f"(?s){match}"):
        clf.fit(np.eye(4), np.eye(4))
