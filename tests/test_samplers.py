"""One contract for all samplers and their sums; what each draws, against counts and plain loops."""

import itertools
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone

from skxmc import XMCClassifier, samplers
from skxmc._ends import Rows
from skxmc._shortlist import keep_hardest, make_shortlist
from skxmc.losses import BinaryCrossEntropy
from skxmc.samplers import (
    SAMPLERS,
    ClusteredInBatchSampler,
    FrequencySampler,
    FullSampler,
    InBatchSampler,
    MIPSSampler,
    Problem,
    Proposal,
    Sampler,
    StochasticNegativeMining,
    UniformSampler,
    UnionSampler,
    make_sampler,
)
from skxmc.samplers._clustered import N_AXES, main_axes

N_ROWS, N_LABELS, WIDTH, BATCH = 30, 20, 4, 4


def name_of(sampler):
    return " ".join(repr(sampler).split())


EVERYONE = {
    **{name: name for name in SAMPLERS},
    **{
        name: name
        for name in (
            "mips+uniform",
            "in-batch+uniform",
            "clustered-in-batch+uniform",
            "full+mips",
            "mips+in-batch+uniform",
            "frequency + uniform + in-batch",
            "snm+in-batch",
            "snm+full+snm",
        )
    },
    **{
        name_of(a): a
        for a in (
            UniformSampler(4),
            UniformSampler(N_LABELS),
            UniformSampler(5, shared=False),
            UniformSampler(3, importance=1),
            FrequencySampler(4, power=0.5, importance=1.0),
            FrequencySampler(N_LABELS, power=0.0),
            MIPSSampler(2, n_candidates=6, refresh_steps=2),
            MIPSSampler(3, n_candidates=3, keep=False, use_bias=False, index="exact"),
            MIPSSampler(1, refresh_epochs=2, warmup_epochs=1),
            MIPSSampler(2, n_candidates=4, skip=3),
            ClusteredInBatchSampler(4, 1, schedule=None),
            StochasticNegativeMining(8, 3),
            StochasticNegativeMining(8, 3, shared=False),
            StochasticNegativeMining(N_LABELS, N_LABELS, schedule="linear"),
        )
    },
    "objects": MIPSSampler(2) + UniformSampler(3, shared=False) + FrequencySampler(4),
    "objects on the right": UniformSampler(3) + (InBatchSampler() + MIPSSampler(2)),
}
everyone = pytest.mark.parametrize("sampler", EVERYONE.values(), ids=EVERYONE)


def make_labels(seed=0, unseen=True):
    """Rows of 0 to 5 labels of unequal frequency; one row has none, one all; one label none."""
    rng = np.random.default_rng(seed)
    Y = np.zeros((N_ROWS, N_LABELS), np.float32)
    chances = np.arange(1, N_LABELS + 1) / (N_LABELS * (N_LABELS + 1) / 2)
    for i in range(N_ROWS):
        Y[i, rng.choice(N_LABELS, 1 + i % 5, replace=False, p=chances)] = 1
    Y[np.arange(N_LABELS), np.arange(N_LABELS)] = 1
    Y[20], Y[21] = 0, 1
    if unseen:
        Y[:, 3] = 0
    return sp.csr_array(Y)


def make_problem(Y=None, **parameters):
    Y = make_labels() if Y is None else Y
    parameters = {"batch_size": BATCH, "log": lambda text: None, **parameters}
    counts = np.bincount(Y.indices, minlength=Y.shape[1])
    return Problem(Rows.of(Y, values=False), counts, **parameters)


class StubNetwork:
    """Scores without ties; notes which rows it is asked for."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

        self.vectors = normal(N_ROWS, WIDTH)
        self.label_weights, self.label_biases = normal(N_LABELS, WIDTH), 3 * normal(N_LABELS)
        self.asked = []

    def hidden(self, rows):
        self.asked.append(rows.tolist())
        return self.vectors[rows]


def begun(sampler, problem=None, network=None, epochs=2):
    """A clone that has begun a run and seen the refreshes of its first epochs."""
    sampler = clone(make_sampler(sampler)).begin(problem or make_problem())
    network = network or StubNetwork()
    for epoch in range(epochs):
        for step, begin in enumerate(range(0, N_ROWS, BATCH)):
            if sampler.due(epoch, step):
                sampler.refresh(epoch, step, network, np.arange(begin, N_ROWS))
    return sampler


def proposals_of(sampler, rows, rng):
    proposed = sampler.propose(rows, rng)
    return [proposed] if isinstance(proposed, Proposal) else proposed


def state(sampler):
    return {
        name: state(value) if isinstance(value, Sampler) else value
        for name, value in vars(sampler).items()
    }


def positives(problem, row):
    return problem.Y.indices[problem.Y.indptr[row] : problem.Y.indptr[row + 1]].tolist()


# --- the contract ---------------------------------------------------------------------------------


@everyone
def test_begin_on_a_clone_and_fit_leave_the_object_as_it_was(sampler):
    sampler = make_sampler(sampler)
    before, params = state(sampler), sampler.get_params()
    begun(sampler).propose(np.arange(4), np.random.default_rng(0))
    assert state(sampler) == before
    X = sp.eye_array(N_ROWS, format="csr")
    clf = XMCClassifier(sampler, hidden_layer_sizes=(4,), max_iter=2, n_jobs=1, random_state=0)
    clf.fit(X, make_labels(unseen=False))
    assert clf.sampler is sampler
    assert state(sampler) == before
    assert sampler.get_params() == params


@everyone
def test_proposals_have_the_documented_shapes_and_ids_in_range(sampler):
    sampler = begun(sampler)
    for size in (4, 1, 7):
        rows = np.random.default_rng(size).permutation(N_ROWS)[:size]
        proposals = proposals_of(sampler, rows, np.random.default_rng(0))
        assert proposals
        for proposal in proposals:
            labels = proposal.labels
            assert labels.dtype == np.int32
            assert labels.ndim in (1, 2)
            assert labels.size
            assert labels.max() < N_LABELS
            if labels.ndim == 1:
                assert labels.min() >= 0
                assert len(set(labels.tolist())) == len(labels)
            else:
                assert len(labels) == size
                assert labels.min() >= -1
            for extra in (proposal.weight, proposal.log_expected):
                assert np.broadcast_shapes(np.shape(extra), labels.shape[-1:]) == labels.shape[-1:]
            assert (np.asarray(proposal.weight) > 0).all()


@everyone
def test_equal_generators_draw_equal_proposals_and_others_do_not_break_them(sampler):
    one, other = begun(sampler), begun(sampler)
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(N_ROWS)[:4]
        drawn = [proposals_of(a, rows, np.random.default_rng(seed)) for a in (one, other)]
        assert len(drawn[0]) == len(drawn[1])
        for a, b in zip(*drawn, strict=True):
            np.testing.assert_array_equal(a.labels, b.labels)
            np.testing.assert_array_equal(a.weight, b.weight)
            np.testing.assert_array_equal(a.log_expected, b.log_expected)
        proposals_of(other, rows[:2], np.random.default_rng(99))


@everyone
def test_proposals_make_a_shortlist(sampler):
    """For all rows: also the one without labels and the one that has them all."""
    problem = make_problem()
    sampler = begun(sampler, problem)
    rows, slot = np.arange(N_ROWS), np.full(N_LABELS, -1, np.int32)
    rng = np.random.default_rng(0)
    out = make_shortlist(problem.Y, rows, proposals_of(sampler, rows, rng), rng, slot)
    own = out.labels.shape[1]
    for i in rows:
        labels = np.concatenate([out.labels[i], out.shared])
        counted = labels[out.weights[i] > 0].tolist()
        assert len(set(counted)) == len(counted)
        p = out.n_positives
        assert set(counted) >= set(positives(problem, i))
        negatives = [
            *out.labels[i, p:][out.weights[i, p:own] > 0],
            *out.shared[out.weights[i, own:] > 0],
        ]
        assert not set(negatives) & set(positives(problem, i))
        assert negatives or i == 21


@everyone
def test_samplers_are_parameter_objects(sampler):
    sampler = make_sampler(sampler)
    assert clone(sampler) is not sampler
    assert repr(clone(sampler)) == repr(sampler)
    again = eval(repr(sampler), vars(samplers).copy())
    assert state(again) == state(sampler)
    assert state(pickle.loads(pickle.dumps(sampler))) == state(sampler)


@everyone
def test_due_takes_any_epoch_and_step(sampler):
    sampler = begun(sampler)
    for epoch in range(3):
        for step in range(5):
            assert sampler.due(epoch, step) in (True, False)


# --- how often labels are proposed ----------------------------------------------------------------

WEIGHED = {
    name_of(a): a
    for a in (
        FullSampler(),
        UniformSampler(6),
        UniformSampler(N_LABELS),
        UniformSampler(10, shared=False),
        FrequencySampler(6),
        FrequencySampler(6, power=0.0),
        FrequencySampler(10, power=0.5),
        FrequencySampler(6, power=1.0),
        FrequencySampler(N_LABELS, power=2.0),
    )
}


@pytest.mark.parametrize("sampler", WEIGHED.values(), ids=WEIGHED)
def test_labels_are_among_the_proposed_as_often_as_log_expected_says(sampler):
    sampler = begun(sampler)
    rng, n_draws = np.random.default_rng(0), 4000
    times, expected = np.zeros(N_LABELS), np.zeros(N_LABELS)
    for _ in range(n_draws):
        (proposal,) = proposals_of(sampler, np.arange(3), rng)
        own = proposal.labels.ndim == 2
        labels = proposal.labels[1] if own else proposal.labels  # of one row
        chances = np.exp(np.broadcast_to(proposal.log_expected, labels.shape))
        expected[labels] = chances
        times[np.unique(labels)] += 1
    drawn = times > 0
    assert drawn.sum() >= N_LABELS - 3
    assert (expected <= 1 + 1e-6).all()
    variance = n_draws * expected * (1 - expected)
    deviation = (times - n_draws * expected)[drawn] / np.sqrt(np.maximum(variance, 1e-6))[drawn]
    assert abs(deviation).max() < 5
    assert (deviation**2).sum() < N_LABELS + 5 * np.sqrt(2 * N_LABELS)  # chi-square


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0, 2.0])
def test_frequency_sampler_follows_the_power_of_the_frequencies(power):
    """The first of one draw, against the share of each label; no label without rows."""
    problem = make_problem()
    weights = [float(c) ** power if c else 0.0 for c in problem.label_counts]
    share = np.array(weights) / sum(weights)
    sampler = begun(FrequencySampler(1, power=power), problem)
    rng, n_draws = np.random.default_rng(1), 20_000
    times = np.zeros(N_LABELS)
    for _ in range(n_draws):
        times[sampler.propose(np.arange(2), rng).labels] += 1
    assert times[3] == 0
    seen = share > 0
    variance = (n_draws * share * (1 - share))[seen]
    assert ((times - n_draws * share)[seen] ** 2 < 25 * variance).all()


def test_uniform_sampler_draws_for_the_batch_or_for_each_row():
    rng = np.random.default_rng(0)
    assert begun(UniformSampler(7)).propose(np.arange(4), rng).labels.shape == (7,)
    own = begun(UniformSampler(7, shared=False)).propose(np.arange(4), rng).labels
    assert own.shape == (4, 7)
    assert len({tuple(row) for row in own.tolist()}) == 4


def test_full_sampler_proposes_all_labels_to_all():
    proposal = begun(FullSampler()).propose(np.arange(4), np.random.default_rng(0))
    assert proposal.labels.tolist() == list(range(N_LABELS))
    assert (proposal.weight, proposal.log_expected) == (1.0, 0.0)


def test_in_batch_sampler_proposes_the_labels_of_the_batch():
    problem = make_problem()
    sampler, rng = begun(InBatchSampler(), problem), np.random.default_rng(0)
    for rows in ([0, 5, 20], [4], [20], [20, 20]):
        expected = sorted({label for row in rows for label in positives(problem, row)})
        assert sampler.propose(np.array(rows), rng).labels.tolist() == expected


@pytest.mark.parametrize("batch_size", [2, 7, 32, 60, 64])
def test_in_batch_counts_are_how_often_another_row_of_the_batch_carries_the_label(batch_size):
    """Over the batches of permutations, the last smaller ones too, for rows that lack the label."""
    rng, n_rows, n_labels = np.random.default_rng(0), 60, 12
    Y = rng.random((n_rows, n_labels)) < np.geomspace(0.02, 0.6, n_labels)
    Y[0] = True
    Y[:, -1] = [*[True] * (n_rows - 1), False]
    sampler = clone(InBatchSampler()).begin(
        make_problem(sp.csr_array(Y.astype(np.float32)), batch_size=batch_size)
    )
    last = n_rows % batch_size
    for size in {min(batch_size, n_rows), last} - {0, 1}:
        times, visits, said = np.zeros(n_labels), np.zeros(n_labels), np.full(n_labels, np.nan)
        for _ in range(3000):
            rows = rng.permutation(n_rows)[:size]
            proposal = sampler.propose(rows, rng)
            said[proposal.labels] = np.exp(proposal.log_expected)
            lacks = ~Y[rows[0]]
            visits += lacks
            times[proposal.labels] += lacks[proposal.labels]
        assert not np.isnan(said).any()
        assert (said <= 1).all()
        error = np.sqrt(said * (1 - said) / visits)
        assert (abs(times / visits - said) < 5 * error + 1e-9).all()
        assert said[-1] == 1  # all rows but one carry it


@pytest.mark.parametrize("n_rows", [1, 2, 3, 5])
def test_in_batch_counts_of_few_rows_are_finite(n_rows):
    Y = sp.csr_array(np.tril(np.ones((n_rows, n_rows), np.float32)))
    sampler = clone(InBatchSampler()).begin(make_problem(Y, batch_size=2))
    for rows in ([0], [n_rows - 1], [n_rows - 1, 0]):
        proposal = sampler.propose(np.array(rows), np.random.default_rng(0))
        assert np.isfinite(proposal.log_expected).all()
        assert (proposal.log_expected <= 0).all()


def test_without_a_number_half_of_few_labels_are_drawn_and_200_of_many():
    rng = np.random.default_rng(0)
    assert begun(UniformSampler()).propose(np.arange(2), rng).labels.shape == (10,)
    many = make_problem(sp.csr_array(np.ones((1, 2000))))
    sampler = clone(UniformSampler()).begin(many)
    assert sampler.propose(np.arange(1), rng).labels.shape == (200,)


@pytest.mark.parametrize("importance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("make", [UniformSampler, FrequencySampler])
def test_importance_is_the_power_of_the_inverse_expectation(make, importance):
    proposal = begun(make(6, importance=importance)).propose(np.arange(2), np.random.default_rng(0))
    expected = np.exp(np.broadcast_to(proposal.log_expected, proposal.labels.shape))
    weight = np.broadcast_to(proposal.weight, proposal.labels.shape)
    np.testing.assert_allclose(weight, expected**-importance)
    if make is UniformSampler:
        np.testing.assert_allclose(weight, (N_LABELS / 6) ** importance)


# --- importance 1 is unbiased ---------------------------------------------------------------------


class Hard(Sampler):
    """The same few labels for each row at weight 1: positives of the row and -1 among them."""

    def propose(self, rows, rng):
        labels = (rows[:, None] * 3 + np.arange(4)) % N_LABELS
        labels[:, 3] = -1
        return Proposal(labels.astype(np.int32))


def full_weights(problem, rows):
    """Every label of every row once: what the loss over all labels sums over."""
    out = shortlist_of(FullSampler().begin(problem), problem, rows, np.random.default_rng(0))
    return dense_weights(out, len(rows))


def shortlist_of(sampler, problem, rows, rng):
    slot = np.full(N_LABELS, -1, np.int32)
    return make_shortlist(problem.Y, rows, proposals_of(sampler, rows, rng), rng, slot)


def dense_weights(shortlist, n):
    """Weight of each label of each row, (n, N_LABELS)."""
    out = np.zeros((n, N_LABELS))
    labels = np.hstack([shortlist.labels, np.tile(shortlist.shared, (n, 1))])
    at, columns = np.nonzero(shortlist.weights)
    np.add.at(out, (at, labels[at, columns]), shortlist.weights[at, columns])
    return out


UNBIASED = {
    name_of(a): a
    for a in (
        UniformSampler(6, importance=1),
        UniformSampler(10, shared=False, importance=1),
        FrequencySampler(8, importance=1),
        FrequencySampler(12, power=0.3, importance=1),
        Hard() + UniformSampler(5, importance=1),
        Hard() + UniformSampler(10, shared=False, importance=1),
        Hard() + FrequencySampler(8, importance=1),
    )
}


@pytest.mark.parametrize("sampler", UNBIASED.values(), ids=UNBIASED)
def test_importance_1_is_unbiased_for_the_loss_over_all_labels(sampler):
    """Given the positives, and given the hard labels at weight 1 (papers.md, section 7, idea 1)."""
    problem, rows = make_problem(make_labels(unseen=False)), np.array([0, 4, 20, 7])
    sampler, rng = begun(sampler, problem), np.random.default_rng(0)
    scores = torch.from_numpy(np.random.default_rng(1).normal(0, 3, (len(rows), N_LABELS)))
    targets = torch.zeros_like(scores)
    for i, row in enumerate(rows):
        targets[i, positives(problem, row)] = 1

    def loss(weights):
        return BinaryCrossEntropy().value_and_gradient(scores, targets, torch.from_numpy(weights))[
            0
        ]

    full = full_weights(problem, rows)
    np.testing.assert_array_equal(full, 1)
    draws = [
        dense_weights(shortlist_of(sampler, problem, rows, rng), len(rows)) for _ in range(4000)
    ]
    losses = np.array([loss(weights) for weights in draws])
    assert losses.std() > 0
    error = losses.std() / np.sqrt(len(losses))
    assert abs(losses.mean() - loss(full)) < 5 * error
    # The same for each label: so the gradients are unbiased too.
    draws = np.array(draws)
    error = draws.std(0) / np.sqrt(len(draws))
    assert (abs(draws.mean(0) - full) <= 5 * error + 1e-6).all()
    assert (draws[:, targets.numpy() > 0] == 1).all()


def test_without_importance_the_negatives_weigh_less_than_in_the_loss_over_all_labels():
    problem, rows = make_problem(), np.array([0, 4])
    sampler, rng = begun(UniformSampler(5), problem), np.random.default_rng(0)
    draws = [dense_weights(shortlist_of(sampler, problem, rows, rng), 2) for _ in range(500)]
    assert set(np.unique(draws)) == {0, 1}
    negatives = np.ones((2, N_LABELS), bool)
    for i, row in enumerate(rows):
        negatives[i, positives(problem, row)] = False
    assert np.mean(draws, 0)[negatives].mean() == pytest.approx(5 / N_LABELS, abs=0.05)


# --- hard negatives -------------------------------------------------------------------------------


def slow_candidates(problem, network, row, n_candidates, keep=True, use_bias=True):
    """The best labels by score, best first, less the row's positives."""
    scores = []
    for label in range(N_LABELS):
        score = float(network.vectors[row] @ network.label_weights[label])
        scores.append(score + (float(network.label_biases[label]) if use_bias else 0.0))
    ranked = sorted(range(N_LABELS), key=lambda label: -scores[label])
    own = positives(problem, row)
    if keep:
        return [label for label in ranked if label not in own][:n_candidates]
    return [label for label in ranked[:n_candidates] if label not in own]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("n", [1, 5, N_LABELS])
@pytest.mark.parametrize("index", ["exact", "auto"])
def test_with_as_many_candidates_as_negatives_mips_proposes_exactly_the_best(
    index, n, keep, use_bias
):
    problem, network = make_problem(), StubNetwork()
    sampler = MIPSSampler(n, n_candidates=n, keep=keep, use_bias=use_bias, index=index)
    sampler = begun(sampler, problem, network, epochs=1)
    rows = np.random.default_rng(0).permutation(N_ROWS)
    labels = sampler.propose(rows, np.random.default_rng(0)).labels
    assert labels.shape == (N_ROWS, n)
    for i, row in enumerate(rows):
        expected = slow_candidates(problem, network, row, n, keep, use_bias)
        assert sorted(labels[i][labels[i] >= 0].tolist()) == sorted(expected)


def test_the_bias_and_keep_matter():
    """Else the test above compares equal things."""
    problem, network = make_problem(), StubNetwork()
    ways = [
        [slow_candidates(problem, network, row, 5, keep, bias) for row in range(N_ROWS)]
        for keep in (True, False)
        for bias in (True, False)
    ]
    assert all(a != b for i, a in enumerate(ways) for b in ways[:i])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("n", "n_candidates"), [(2, 10), (4, 6), (3, 7), (5, 9), (1, 20), (6, 20)])
def test_mips_draws_distinct_candidates_and_in_time_all_of_them(n, n_candidates, keep):
    problem, network = make_problem(), StubNetwork()
    sampler = MIPSSampler(n, n_candidates=n_candidates, keep=keep)
    sampler = begun(sampler, problem, network, epochs=1)
    rows, rng = np.arange(N_ROWS), np.random.default_rng(0)
    expected = [slow_candidates(problem, network, row, n_candidates, keep) for row in rows]
    reached = [set() for _ in rows]
    for _ in range(300):
        labels = sampler.propose(rows, rng).labels
        assert labels.shape == (N_ROWS, n)
        for row in rows:
            drawn = labels[row][labels[row] >= 0].tolist()
            assert len(set(drawn)) == len(drawn), "a label twice"
            assert len(drawn) == min(n, len(expected[row]))
            reached[row] |= set(drawn)
    assert reached == [set(a) for a in expected]


def test_mips_draws_every_candidate_equally_often_where_the_strata_are_equal():
    problem, network = make_problem(), StubNetwork()
    sampler = begun(MIPSSampler(2, n_candidates=10), problem, network, epochs=1)
    rng, n_draws = np.random.default_rng(0), 4000
    times = np.zeros(N_LABELS)
    for _ in range(n_draws):
        times[sampler.propose(np.array([0]), rng).labels[0]] += 1
    candidates = slow_candidates(problem, network, 0, 10)
    assert times.sum() == times[candidates].sum()
    assert (abs(times[candidates] - n_draws / 5) < 5 * np.sqrt(n_draws * 0.2 * 0.8)).all()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("n", "skip"), [(1, 1), (4, 2), (3, 0), (6, 12), (6, 19)])
def test_mips_skips_the_best_labels_beside_the_positives(n, skip, keep):
    problem, network = make_problem(), StubNetwork()
    sampler = MIPSSampler(n, n_candidates=n, skip=skip, keep=keep)
    sampler = begun(sampler, problem, network, epochs=2)
    labels = sampler.propose(np.arange(N_ROWS), np.random.default_rng(0)).labels
    assert labels.shape == (N_ROWS, n)
    for row in range(N_ROWS):
        fetched = slow_candidates(problem, network, row, min(skip + n, N_LABELS), keep)
        assert sorted(labels[row][labels[row] >= 0].tolist()) == sorted(fetched[skip:])


DUE = [
    ({}, {(0, 0), (2, 0), (4, 0)}),
    ({"refresh_epochs": 1}, {(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)}),
    ({"refresh_epochs": 3, "warmup_epochs": 1}, {(1, 0), (4, 0)}),
    ({"warmup_epochs": 9}, set()),
    (
        {"refresh_epochs": 1, "refresh_steps": 2},
        {(epoch, step) for epoch in range(5) for step in (0, 2, 4)},
    ),
    (
        {"refresh_steps": 3, "warmup_epochs": 3, "refresh_epochs": 2},
        {(3, 0), (3, 3), (4, 3)},
    ),
    ({"refresh_steps": 9}, {(0, 0), (2, 0), (4, 0)}),
]


@pytest.mark.parametrize(("parameters", "expected"), DUE, ids=[str(case[0]) for case in DUE])
def test_mips_is_due_when_its_schedule_says_so(parameters, expected):
    sampler = clone(MIPSSampler(**parameters)).begin(make_problem())
    due = {(epoch, step) for epoch in range(5) for step in range(6) if sampler.due(epoch, step)}
    assert due == expected


def test_before_its_first_refresh_mips_proposes_nothing():
    sampler = clone(MIPSSampler(2, warmup_epochs=1)).begin(make_problem())
    assert proposals_of(sampler, np.arange(3), np.random.default_rng(0)) == []
    both = clone(MIPSSampler(2) + UniformSampler(3)).begin(make_problem())
    (proposal,) = proposals_of(both, np.arange(3), np.random.default_rng(0))
    assert proposal.labels.shape == (3,)


def test_mips_looks_up_the_rows_ahead():
    order = np.random.default_rng(0).permutation(N_ROWS)
    network = StubNetwork()
    sampler = clone(MIPSSampler(2, n_candidates=2)).begin(make_problem())
    sampler.refresh(0, 0, network, order)
    assert sum(network.asked, []) == order.tolist()  # noqa: RUF017


def test_with_refresh_steps_mips_looks_up_only_the_rows_of_the_steps_ahead():
    order = np.random.default_rng(0).permutation(N_ROWS)
    problem, network = make_problem(), StubNetwork()
    sampler = clone(MIPSSampler(2, n_candidates=2, refresh_steps=3)).begin(problem)
    rng = np.random.default_rng(0)
    sampler.refresh(0, 0, network, order)
    assert network.asked == [order[:12].tolist()]
    labels = sampler.propose(order, rng).labels
    assert (labels[12:] == -1).all()
    expected = [sorted(slow_candidates(problem, network, row, 2)) for row in order[:12]]
    # Row 21 has all labels, and so no hard negatives.
    got = [sorted(row[row >= 0].tolist()) for row in labels[:12]]
    assert got == expected

    other = StubNetwork(seed=1)
    sampler.refresh(0, 3, other, order[12:])
    assert other.asked == [order[12:24].tolist()]
    labels = sampler.propose(order, rng).labels
    assert [sorted(row[row >= 0].tolist()) for row in labels[:12]] == expected
    expected = [sorted(slow_candidates(problem, other, row, 2)) for row in order[12:24]]
    assert [sorted(row[row >= 0].tolist()) for row in labels[12:24]] == expected


def test_a_refresh_sees_the_weights_as_they_are_then():
    problem, network = make_problem(), StubNetwork()
    sampler = begun(MIPSSampler(3, n_candidates=3), problem, network, epochs=1)
    before = sampler.propose(np.arange(5), np.random.default_rng(0)).labels
    network.label_weights *= -1
    network.label_biases *= -1
    still = sampler.propose(np.arange(5), np.random.default_rng(0)).labels
    np.testing.assert_array_equal(before, still)
    sampler.refresh(1, 0, network, np.arange(N_ROWS))
    after = sampler.propose(np.arange(5), np.random.default_rng(0)).labels
    assert sorted(after[0].tolist()) == sorted(slow_candidates(problem, network, 0, 3))
    assert sorted(after[0].tolist()) != sorted(before[0].tolist())


def test_mips_by_default_draws_5_of_50_and_fewer_of_few_labels():
    def asked(n_labels):
        problem = make_problem(sp.csr_array(np.eye(2, n_labels)))
        network = StubNetwork()
        rng = np.random.default_rng(0)
        network.label_weights = torch.from_numpy(rng.normal(size=(n_labels, WIDTH))).float()
        network.label_biases = torch.zeros(n_labels)
        sampler = clone(MIPSSampler()).begin(problem)
        sampler.refresh(0, 0, network, np.arange(2))
        draws = [sampler.propose(np.arange(2), rng).labels for _ in range(500)]
        return draws[0].shape[1], len(np.unique(np.array(draws)[:, 0]))

    assert asked(1000) == (5, 50)
    assert asked(40) == (5, 20)
    assert asked(4) == (2, 2)


@pytest.mark.parametrize("name", ["faiss", "pynndescent"])
def test_mips_asks_the_index_that_it_is_told(name, monkeypatch):
    from skxmc import _index

    if name == "faiss":
        pytest.importorskip("faiss")
    built = []

    class Recorded(_index.ExactIndex):
        def build(self, weights, biases=None):
            built.append((self.random_state, self.n_threads))
            return super().build(weights, biases)

    monkeypatch.setitem(_index._KINDS, name, Recorded)
    begun(MIPSSampler(2, index=name), make_problem(random_state=7, n_threads=2), epochs=1)
    assert built == [(7, 2)]


# --- stochastic negative mining -------------------------------------------------------------------


def pool_of(*labels, keep, weight=1.0):
    return Proposal(np.array(labels, np.int32), weight, keep=keep)


def own_pool(seed, size, keep):
    labels = np.random.default_rng(seed).integers(-1, N_LABELS, (N_ROWS, size))
    return Proposal(labels.astype(np.int32), keep=keep)


POOLS = {
    "shared": [pool_of(*range(3, 15), keep=3)],
    "shared with weights": [pool_of(4, 9, 2, 7, keep=2, weight=np.array([2.0, 3.0, 4.0, 5.0]))],
    "own, with repeats and gaps": [own_pool(0, 9, keep=2)],
    "as many as the pool": [pool_of(1, 5, 9, keep=3)],
    "more than the pool": [pool_of(1, 5, 9, keep=30)],
    "fewer valid than k": [pool_of(*range(N_LABELS), keep=N_LABELS - 1), own_pool(1, 3, keep=3)],
    "two shared": [pool_of(*range(0, 12), keep=2), pool_of(*range(6, 20), keep=4)],
    "two own": [own_pool(0, 9, keep=2), own_pool(1, 5, keep=1)],
    "own and shared": [own_pool(0, 9, keep=2), pool_of(*range(0, 12), keep=3)],
    "beside others": [
        Proposal(np.arange(5, dtype=np.int32), 2.0, np.log(0.25)),
        pool_of(*range(2, 14), keep=3),
        Proposal((np.arange(2 * N_ROWS).reshape(-1, 2) % N_LABELS).astype(np.int32), 0.5, -1.0),
        own_pool(2, 8, keep=2),
    ],
    "all taken by another": [Proposal(np.arange(N_LABELS, dtype=np.int32)), pool_of(3, 4, keep=1)],
    "no pool": [Proposal(np.arange(7, dtype=np.int32), 3.0)],
}


def counted(shortlist, scores, row):
    """{label: (positive, weight, score, log_expected or None)} of places of a row that count."""
    labels, out = [*shortlist.labels[row], *shortlist.shared], {}
    for c, label in enumerate(labels):
        if shortlist.weights[row, c] > 0:
            assert label >= 0
            assert int(label) not in out, "a label counts twice"
            expected = float(shortlist.log_expected[c])
            place = float(shortlist.weights[row, c]), float(scores[row, c])
            known = None if np.isnan(expected) else expected
            out[int(label)] = (c < shortlist.n_positives, *place, known)
    return out


def slow_hardest(shortlist, scores, row):
    every = counted(shortlist, scores, row)
    labels = [*shortlist.labels[row], *shortlist.shared]
    for columns, k in shortlist.pools:
        pool = [int(labels[c]) for c in columns if shortlist.weights[row, c] > 0]
        pool.sort(key=lambda label: -every[label][2])
        for label in pool[k:]:
            del every[label]
        for label in pool[:k]:  # how often one is kept is not known
            every[label] = (*every[label][:3], 0.0)
    return every


@pytest.mark.parametrize("proposals", POOLS.values(), ids=POOLS)
def test_of_each_pool_the_hardest_labels_are_kept_and_all_else_stays(proposals):
    problem, rng = make_problem(make_labels(unseen=False)), np.random.default_rng(0)
    rows, slot = np.arange(N_ROWS), np.full(N_LABELS, -1, np.int32)
    before = make_shortlist(problem.Y, rows, proposals, rng, slot)
    of_labels = torch.from_numpy(rng.permutation(N_ROWS * N_LABELS).reshape(N_ROWS, N_LABELS) + 0.5)
    columns = np.hstack([before.labels, np.tile(before.shared, (N_ROWS, 1))]).astype(np.int64)
    scores = of_labels.float().gather(1, torch.from_numpy(columns.clip(0)))
    scores[torch.from_numpy(before.weights == 0)] = 1e9  # what does not count is never kept
    after, kept = keep_hardest(before, scores)
    assert after.n_positives == before.n_positives
    assert after.labels.dtype == after.shared.dtype == np.int32
    assert after.weights.dtype == after.log_expected.dtype == np.float32
    r = after.labels.shape[1]
    n_kept = sum(min(k, len(columns)) for columns, k in before.pools)
    n_places = scores.shape[1] - sum(len(columns) for columns, _ in before.pools) + n_kept
    assert after.weights.shape == kept.shape == (N_ROWS, n_places)
    assert len(after.log_expected) == n_places == r + len(after.shared)
    np.testing.assert_array_equal(after.labels < 0, after.weights[:, :r] == 0)
    for row in rows:
        assert counted(after, kept, row) == slow_hardest(before, scores, row)
    assert after.pools == []
    again, same = keep_hardest(after, kept)
    assert again is after
    assert same is kept


@pytest.mark.parametrize("pool_first", [True, False])
@pytest.mark.parametrize("other_own", [True, False])
@pytest.mark.parametrize("pool_own", [True, False])
def test_a_pool_drops_no_label_that_another_sampler_proposes(pool_own, other_own, pool_first):
    problem, rng = make_problem(make_labels(unseen=False)), np.random.default_rng(0)
    rows, slot = np.arange(N_ROWS), np.full(N_LABELS, -1, np.int32)
    every, wanted = np.arange(N_LABELS, dtype=np.int32), np.arange(4, 9, dtype=np.int32)
    pool = Proposal(np.tile(every, (N_ROWS, 1)) if pool_own else every, keep=1)
    other = Proposal(np.tile(wanted, (N_ROWS, 1)) if other_own else wanted, 2.0, -1.0)
    proposals = [pool, other] if pool_first else [other, pool]
    before = make_shortlist(problem.Y, rows, proposals, rng, slot)
    assert (slot == -1).all()
    scores = torch.from_numpy(rng.standard_normal(before.weights.shape))
    after, kept = keep_hardest(before, scores)
    for row in rows:
        places = counted(after, kept, row)
        for label in set(wanted.tolist()) - set(positives(problem, row)):
            assert places[label][0] is False
            assert (places[label][1], places[label][3]) == (2.0, -1.0)  # as the other says
        more = set(places) - set(wanted.tolist()) - set(positives(problem, row))
        assert len(more) == (row != 21)  # the best of the pool beside them


def kept_by_epoch(sampler, n_epochs):
    sampler = clone(sampler).begin(make_problem())
    kept = []
    for epoch in range(n_epochs):
        sampler.start_epoch(epoch, n_epochs)
        kept.append(sampler.propose(np.arange(3), np.random.default_rng(0)).keep)
    return kept


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, [2] * 4),
        ("linear", [16, 11, 7, 2]),  # 16, 11 1/3, 6 2/3, 2
        ("geometric", [16, 8, 4, 2]),
    ],
)
def test_the_schedule_of_snm_moves_from_the_whole_pool_to_the_negatives_asked(schedule, expected):
    sampler = StochasticNegativeMining(16, 2, schedule=schedule)
    assert kept_by_epoch(sampler, 4) == expected
    assert kept_by_epoch(sampler, 1) == [2]
    long = kept_by_epoch(sampler, 30)
    assert (long[0], long[-1]) == (expected[0], 2)
    assert long == sorted(long, reverse=True)


def test_a_sum_moves_the_schedules_of_both_its_parts():
    snm = StochasticNegativeMining(16, 2, schedule="geometric")
    both = clone(snm + snm).begin(make_problem())
    for epoch, expected in enumerate([16, 8, 4, 2]):
        both.start_epoch(epoch, 4)
        proposals = both.propose(np.arange(3), np.random.default_rng(0))
        assert [proposal.keep for proposal in proposals] == [expected] * 2


def test_training_tells_the_sampler_each_epoch(monkeypatch):
    told = []
    monkeypatch.setattr(
        StochasticNegativeMining,
        "start_epoch",
        lambda self, epoch, n_epochs: told.append((epoch, n_epochs)),
    )
    X = sp.eye_array(N_ROWS, format="csr")
    clf = XMCClassifier("snm+uniform", hidden_layer_sizes=(4,), n_estimators=1, max_iter=3)
    clf.fit(X, make_labels(unseen=False))
    assert told == [(0, 3), (1, 3), (2, 3)]


def test_the_pool_of_snm_is_drawn_for_the_batch_or_for_each_row():
    rng = np.random.default_rng(0)
    shared = begun(StochasticNegativeMining(7, 2)).propose(np.arange(4), rng)
    assert shared.labels.shape == (7,)
    own = begun(StochasticNegativeMining(7, 2, shared=False)).propose(np.arange(4), rng)
    assert own.labels.shape == (4, 7)
    assert len({tuple(row) for row in own.labels.tolist()}) == 4
    times = np.zeros(N_LABELS)
    sampler = begun(StochasticNegativeMining(7, 2))
    for _ in range(2000):
        times[sampler.propose(np.arange(4), rng).labels] += 1
    chance = 7 / N_LABELS
    assert (abs(times - 2000 * chance) < 5 * np.sqrt(2000 * chance * (1 - chance))).all()


def test_without_numbers_snm_keeps_a_twentieth_of_400_and_one_of_few():
    def asked(n_labels):
        problem = make_problem(sp.csr_array(np.ones((1, n_labels))))
        proposal = begun_on(problem).propose(np.arange(1), np.random.default_rng(0))
        return len(proposal.labels), proposal.keep

    def begun_on(problem):
        return clone(StochasticNegativeMining()).begin(problem)

    assert asked(2000) == (400, 20)
    assert asked(20) == (10, 1)
    assert asked(1) == (1, 1)


# --- clustered batches ----------------------------------------------------------------------------


class Clumps:
    """A network whose rows lie in clumps, far from each other."""

    def __init__(self, n_rows, clump, width=16, noise=0.05):
        rng = np.random.default_rng(0)
        self.clump = rng.permutation(np.arange(n_rows) // clump)
        self.vectors = rng.standard_normal((n_rows, width))[self.clump]
        self.vectors += noise * rng.standard_normal((n_rows, width))
        self.n_calls = 0

    def hidden(self, rows):
        self.n_calls += 1
        return torch.from_numpy(self.vectors[rows].astype(np.float32))

    sketch = hidden


def clustered(n_rows, *parameters, **more):
    Y = sp.csr_array(np.ones((n_rows, 1), np.float32))
    return clone(ClusteredInBatchSampler(*parameters, **more)).begin(make_problem(Y))


@pytest.mark.parametrize("n_rows", [1, 2, 7, 64, 100, 257])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 64, 1000])
@pytest.mark.parametrize("kind", ["clumps", "zeros", "equal", "few values"])
def test_clustered_batches_visit_each_row_once_whatever_the_vectors(n_rows, size, kind):
    network = Clumps(n_rows, 4)
    if kind != "clumps":
        network.vectors[:] = {"zeros": 0.0, "equal": 3.0, "few values": network.vectors[0]}[kind]
    if kind == "few values":
        network.vectors[::2] = 0
    order = clustered(n_rows, size, schedule=None).order_rows(0, network, np.random.default_rng(0))
    if size == 1:
        assert order is None
        assert network.n_calls == 0
        return
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n_rows))


@pytest.mark.parametrize("n_rows", [64, 400, 404])
def test_rows_that_lie_together_share_a_cluster_and_so_a_batch(n_rows):
    network = Clumps(n_rows, 8)
    sampler = clustered(n_rows, 8, schedule=None)
    order = sampler.order_rows(0, network, np.random.default_rng(0))
    clumps = network.clump[order].tolist()
    runs = [len(list(run)) for _, run in itertools.groupby(clumps)]
    together = sum(run >= 4 for run in runs) / (n_rows / 8)
    assert together > 0.6
    shuffled = network.clump[np.random.default_rng(0).permutation(n_rows)].tolist()
    assert max(len(list(run)) for _, run in itertools.groupby(shuffled)) < 4


class Vectors:
    def __init__(self, vectors):
        self.vectors = torch.from_numpy(vectors.astype(np.float32))

    def hidden(self, rows):
        return self.vectors[rows]

    sketch = hidden


def test_main_axes_keep_what_vectors_of_few_dimensions_have_and_the_longest_of_many():
    rng = np.random.default_rng(0)
    few = rng.standard_normal((500, 5)) @ rng.standard_normal((5, 40))
    found = main_axes(Vectors(few), 500, rng, n_axes=5, n_sample=100)
    assert found.shape == (500, 5)
    np.testing.assert_allclose(found @ found.T, few @ few.T, rtol=1e-3, atol=1e-2)
    scales = 0.5 ** np.arange(40)
    many = rng.standard_normal((500, 40)) * scales
    units = many / np.linalg.norm(many, axis=1)[:, None]
    best = np.linalg.eigvalsh(units.T @ units)[-5:].sum()  # no 5 axes have more of them
    found = main_axes(Vectors(units), 500, rng, n_axes=5, n_sample=500)
    assert (found**2).sum() == pytest.approx(best, rel=1e-4)
    assert main_axes(Vectors(many), 500, rng).shape == (500, N_AXES)
    assert main_axes(Vectors(many[:, :20]), 500, rng).shape == (500, 20)


def test_clusters_are_balanced():
    """Found again by where rows stand in two epochs: clusters move, their rows stay together."""
    network, rng = Clumps(300, 50), np.random.default_rng(0)
    sampler = clustered(300, 8, refresh_epochs=99, schedule=None)
    orders = [sampler.order_rows(epoch, network, rng) for epoch in range(30)]
    near = np.zeros((300, 300), int)
    for order in orders:
        place = np.argsort(order)
        near += abs(place[:, None] - place) < 8
    sizes = (near == len(orders)).sum(1)
    assert sorted(sizes.tolist()) == [4] * 4 + [8] * 296


def test_clusters_and_the_rows_within_them_are_shuffled_each_epoch():
    network, rng = Clumps(80, 8), np.random.default_rng(0)
    sampler = clustered(80, 8, refresh_epochs=3, schedule=None)
    orders = [sampler.order_rows(epoch, network, rng).reshape(-1, 8) for epoch in range(4)]
    assert network.n_calls == 4  # in two epochs, for a sample of rows and for all
    sets = [[frozenset(part) for part in order.tolist()] for order in orders]
    assert set(sets[0]) == set(sets[1]) == set(sets[2])
    assert sets[0] != sets[1] != sets[2]
    of_one = next(iter(sets[0]))
    rows = [orders[i][sets[i].index(of_one)].tolist() for i in range(3)]
    assert rows[0] != rows[1] != rows[2]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [(None, [8] * 4), ("linear", [1, 3, 6, 8]), ("geometric", [1, 2, 4, 8])],
)
def test_clusters_grow_as_the_schedule_says(schedule, expected):
    network = Clumps(64, 8)
    sampler = clustered(64, 8, refresh_epochs=1, schedule=schedule)
    sizes = []
    for epoch in range(4):
        sampler.start_epoch(epoch, 4)
        order = sampler.order_rows(epoch, network, np.random.default_rng(0))
        sizes.append(1 if order is None else sampler._built)
    assert sizes == expected
    sampler = clustered(64, 8, schedule=schedule)
    sampler.start_epoch(0, 1)
    assert sampler.order_rows(0, network, np.random.default_rng(0)) is not None


def test_equal_generators_give_equal_clusters_and_others_do_not():
    network = Clumps(100, 8, noise=3)

    def order(seed):
        return clustered(100, schedule=None).order_rows(0, network, np.random.default_rng(seed))

    np.testing.assert_array_equal(order(1), order(1))
    assert (order(1) != order(2)).any()


def test_the_chance_to_meet_a_label_of_a_clustered_batch_is_unknown():
    proposal = begun("clustered-in-batch").propose(np.arange(4), np.random.default_rng(0))
    plain = begun("in-batch").propose(np.arange(4), np.random.default_rng(0))
    assert np.isnan(proposal.log_expected).all()
    assert np.isfinite(plain.log_expected).all()
    np.testing.assert_array_equal(proposal.labels, plain.labels)


# --- the order of rows ----------------------------------------------------------------------------


class Ordered(UniformSampler):
    """Visits the rows in an order of its own; notes the batches that it is asked for."""

    seen = []  # noqa: RUF012  (of the class: training uses a clone)

    def __init__(self, order=None):
        super().__init__(3)
        self.order = order

    def order_rows(self, epoch, network, rng):
        assert network.hidden(np.arange(2)).shape == (2, 4)
        return None if self.order is None else np.array(self.order)

    def propose(self, rows, rng):
        self.seen.append(rows.tolist())
        return super().propose(rows, rng)


def visits(sampler, monkeypatch):
    monkeypatch.setattr(Ordered, "seen", [])
    X = sp.eye_array(N_ROWS, format="csr")
    clf = XMCClassifier(
        sampler,
        hidden_layer_sizes=(4,),
        max_iter=2,
        batch_size=7,
        n_estimators=1,
        n_jobs=1,
        random_state=0,
    )
    clf.fit(X, make_labels(unseen=False))
    return Ordered.seen


def test_training_visits_the_rows_in_the_order_of_the_sampler(monkeypatch):
    backwards = list(range(N_ROWS))[::-1]
    expected = [backwards[i : i + 7] for i in range(0, N_ROWS, 7)] * 2
    for sampler in (
        Ordered(backwards),
        UniformSampler(3) + Ordered(backwards),
        Ordered(backwards) + ClusteredInBatchSampler(schedule=None),
        Ordered() + (UniformSampler(3) + Ordered(backwards)),
    ):
        seen = visits(sampler, monkeypatch)
        assert [batch for i, batch in enumerate(seen) if batch not in seen[:i]] == expected[:5]
        assert seen[-1] == expected[-1]


def test_without_an_order_training_shuffles_anew_in_each_epoch(monkeypatch):
    seen = visits(Ordered(), monkeypatch)
    epochs = [sum(seen[:5], []), sum(seen[5:], [])]  # noqa: RUF017
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(N_ROWS))


@pytest.mark.parametrize("order", [[0] * N_ROWS, [*range(N_ROWS - 1)], [*range(1, N_ROWS + 1)]])
def test_an_order_that_is_no_permutation_is_refused(order, monkeypatch):
    with pytest.raises(ValueError, match=r"(?s)order_rows of Ordered.*each row once, or None"):
        visits(Ordered(order), monkeypatch)


# --- sums -----------------------------------------------------------------------------------------


class Spy(Sampler):
    """Due in every `every`-th epoch; counts its refreshes."""

    def __init__(self, every=1):
        self.every = every

    def begin(self, problem):
        self.refreshed = []
        return super().begin(problem)

    def due(self, epoch, step):
        return step == 0 and epoch % self.every == 0

    def refresh(self, epoch, step, network, rows):
        self.refreshed.append(epoch)

    def propose(self, rows, rng):
        return Proposal(np.array([self.every], np.int32))


def test_a_sum_is_due_when_a_part_is_and_refreshes_only_that_part():
    both = clone(Spy(2) + Spy(3)).begin(make_problem())
    due = [epoch for epoch in range(7) if both.due(epoch, 0)]
    assert due == [0, 2, 3, 4, 6]
    for epoch in due:
        both.refresh(epoch, 0, None, np.arange(3))
    assert both.first.refreshed == [0, 2, 4, 6]
    assert both.second.refreshed == [0, 3, 6]
    assert not both.due(0, 1)


def test_a_sum_proposes_what_its_parts_propose_in_their_order():
    three = clone(Spy(2) + Spy(3) + Spy(4)).begin(make_problem())
    proposals = proposals_of(three, np.arange(2), np.random.default_rng(0))
    assert [proposal.labels.tolist() for proposal in proposals] == [[2], [3], [4]]


def test_a_sampler_may_be_added_to_itself():
    spy = Spy(2)
    both = clone(spy + spy).begin(make_problem())
    assert both.first is not both.second
    assert vars(spy) == {"every": 2}


def test_parameters_of_the_parts_of_a_sum_are_reached_by_name():
    both = MIPSSampler() + UniformSampler()
    assert both.set_params(first__n_negatives=3, second__shared=False) is both
    assert both.first.n_negatives == 3
    assert both.second.shared is False
    three = make_sampler("mips+in-batch+uniform")
    three.set_params(first__first__n_candidates=30, second__n_negatives=7)
    assert three.get_params()["first__first__n_candidates"] == 30
    assert three.second.n_negatives == 7
    with pytest.raises(ValueError, match="n_candidates"):
        both.set_params(second__n_candidates=3)


# --- names ----------------------------------------------------------------------------------------


def test_names_joined_by_plus_stand_for_sums_of_default_objects():
    for name, made in SAMPLERS.items():
        assert type(make_sampler(name)) is made
    three = make_sampler(" mips +uniform+  in-batch ")
    assert repr(three) == repr(MIPSSampler() + UniformSampler() + InBatchSampler())
    assert isinstance(three, UnionSampler)
    assert isinstance(three.first, UnionSampler)
    sampler = UniformSampler(3)
    assert make_sampler(sampler) is sampler


@pytest.mark.parametrize("name", ["unifrom", "", "mips+", "mips++uniform", "MIPS"])
def test_unknown_names_are_refused_with_those_that_are_known(name):
    wrong = next(part.strip() for part in name.split("+") if part.strip() not in SAMPLERS)
    with pytest.raises(ValueError, match="unknown sampler") as caught:
        make_sampler(name)
    assert repr(name) in str(caught.value)
    assert f"sampler {wrong!r}" in str(caught.value)
    assert all(repr(known) in str(caught.value) for known in SAMPLERS)


# --- bad parameters -------------------------------------------------------------------------------

BAD = [
    *(
        (make(n_negatives=value), f"n_negatives={value!r}", "positive integer or None")
        for make in (UniformSampler, FrequencySampler, MIPSSampler, StochasticNegativeMining)
        for value in (0, -3, 2.5, 4.0, "many")
    ),
    *(
        (make(n_negatives=21), "n_negatives=21", "20 labels.*(fewer|None)")
        for make in (UniformSampler, FrequencySampler, MIPSSampler, StochasticNegativeMining)
    ),
    (UniformSampler(21, shared=False), "n_negatives=21", "20 labels.*(fewer|None)"),
    (MIPSSampler(2, n_candidates=21), "n_candidates=21", "20 labels.*(fewer|None)"),
    (MIPSSampler(2, n_candidates=0), "n_candidates=0", "positive integer or None"),
    (MIPSSampler(5, n_candidates=4), "n_candidates=4", "n_negatives=5.*(Raise|None)"),
    (MIPSSampler(n_candidates=4), "n_candidates=4", "n_negatives=5.*(Raise|None)"),
    *(
        (make(3, importance=value), f"importance={value!r}", r"\[0, 1\]")
        for make in (UniformSampler, FrequencySampler)
        for value in (2, -0.1, float("nan"))
    ),
    (MIPSSampler(index="annoy"), "index='annoy'", "Known are.*'exact'"),
    (MIPSSampler(index=None), "index=None", "Known are.*'exact'"),
    (MIPSSampler(refresh_epochs=0), "refresh_epochs=0", "integer >= 1"),
    (MIPSSampler(refresh_epochs=1.5), "refresh_epochs=1.5", "integer >= 1"),
    (MIPSSampler(refresh_steps=0), "refresh_steps=0", "integer >= 1"),
    (MIPSSampler(warmup_epochs=-1), "warmup_epochs=-1", "integer >= 0"),
    (MIPSSampler(skip=-1), "skip=-1", "integer >= 0"),
    (MIPSSampler(skip=N_LABELS), f"skip={N_LABELS}", "Lower it"),
    (MIPSSampler(skip=1.5), "skip=1.5", "integer >= 0"),
    *(
        (StochasticNegativeMining(value), f"pool_size={value!r}", "positive integer or None")
        for value in (0, -1, 2.5, "all")
    ),
    (StochasticNegativeMining(21), "pool_size=21", "20 labels.*(fewer|None)"),
    (StochasticNegativeMining(5, 6), "n_negatives=6", "pool of 5.*(Lower|raise)"),
    (StochasticNegativeMining(n_negatives=11), "n_negatives=11", "pool of 10.*(Lower|raise)"),
    (StochasticNegativeMining(schedule="cosine"), "schedule='cosine'", "'linear' or 'geometric'"),
    *(
        (ClusteredInBatchSampler(**{name: value}), f"{name}={value!r}", "integer >= 1")
        for name in ("cluster_size", "refresh_epochs")
        for value in (0, -1, 2.5, True, None)
    ),
    (ClusteredInBatchSampler(schedule="cosine"), "schedule='cosine'", "'linear' or 'geometric'"),
    (FrequencySampler(3, power=float("nan")), "power=nan", "finite|number"),
]


@pytest.mark.parametrize("place", ["alone", "first", "second"])
@pytest.mark.parametrize(("sampler", "what", "remedy"), BAD, ids=[name_of(case[0]) for case in BAD])
def test_bad_parameters_are_refused_before_any_work(sampler, what, remedy, place):
    """The message names the argument, its value, and what to do."""
    other = UniformSampler(3)
    sampler = {"alone": sampler, "first": sampler + other, "second": other + sampler}[place]
    with pytest.raises(ValueError, match=f"(?s){remedy}") as caught:
        clone(sampler).begin(make_problem())
    assert what in str(caught.value)


def test_fit_refuses_more_negatives_than_labels():
    X = sp.eye_array(N_ROWS, format="csr")
    clf = XMCClassifier(UniformSampler(N_LABELS + 1), hidden_layer_sizes=(4,), random_state=0)
    with pytest.raises(ValueError, match=r"n_negatives=21.*20 labels"):
        clf.fit(X, make_labels(unseen=False))


def test_a_sampler_must_propose():
    with pytest.raises(NotImplementedError):
        Sampler().begin(make_problem()).propose(np.arange(2), np.random.default_rng(0))


def test_all_labels_may_be_drawn_of_many():
    """Above 10,000 labels NumPy draws all of them in another order."""
    n_labels = 12_000
    Y = sp.csr_array((np.ones(4), (np.arange(4), np.arange(4))), shape=(4, n_labels))
    sampler = clone(UniformSampler(n_labels)).begin(make_problem(Y))
    labels = sampler.propose(np.arange(4), np.random.default_rng(0)).labels
    assert sorted(labels.tolist()) == list(range(n_labels))
