"""The hand-written backward pass against autograd, forward against plain products; the threads."""

import copy
import itertools
import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from skxmc import _training
from skxmc._ends import FIRST_SQUARES, CompiledEnds, Rows, TorchEnds
from skxmc._network import NEGLIGIBLE, Network, Weights, hidden_vectors
from skxmc._shortlist import Shortlist
from skxmc._threads import apart, blocks, count_threads, for_each
from skxmc._training import MIDDLE_RATE, Trainer
from skxmc._units import Units
from skxmc.losses import BinaryCrossEntropy
from skxmc.samplers import Problem, Proposal, Sampler, UniformSampler

N_ROWS, N_FEATURES, N_LABELS, RATE = 12, 15, 9, 0.3
SIZES = [(4,), (4, 5), (4, 5, 3)]
CLOSE = {"rtol": 2e-4, "atol": 2e-6}


def make_weights(sizes=(4,), n_features=N_FEATURES, n_labels=N_LABELS, seed=0):
    """Weights of a size at which no gradient is negligible, biases included."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (0.5 * rng.standard_normal(shape)).astype(np.float32)

    return Weights(
        normal(n_features, sizes[0]),
        [normal(a, b) for a, b in itertools.pairwise(sizes)],
        [normal(a) for a in sizes],
        normal(n_labels, sizes[-1]),
        normal(n_labels),
    )


def make_matrix(kind, n_rows=N_ROWS, seed=0):
    """Rows in either form, two empty, without feature 0; and as float64 for the slow truth."""
    rng = np.random.default_rng(seed)
    X = sp.random(n_rows, N_FEATURES, 0.3, "lil", random_state=rng)
    X[1], X[n_rows - 1], X[:, 0] = 0, 0, 0
    X = sp.csr_array(X, dtype=np.float32)
    return (Rows.of(X) if kind == "sparse" else X.toarray()), X.toarray().astype(float)


def make_labels(n_rows=N_ROWS, seed=0):
    """Rows of 0 to 3 labels; the last row and the last label have none."""
    rng = np.random.default_rng(seed)
    Y = np.zeros((n_rows, N_LABELS), np.float32)
    for i in range(n_rows - 1):
        Y[i, rng.choice(N_LABELS - 1, i % 4, replace=False)] = 1
    return sp.csr_array(Y)


def make_problem(Y, **parameters):
    counts = np.bincount(Y.indices, minlength=Y.shape[1])
    return Problem(Rows.of(Y, values=False), counts, **parameters)


# --- the slow truth: float64 and autograd ---------------------------------------------------------


def slow_hidden(weights, X, masks=None):
    """X (B, n_features), tensors of float64 -> hidden vectors."""
    x = X @ weights.features + weights.hidden_biases[0]
    for layer in range(len(weights.hidden_biases)):
        if layer:
            x = x @ weights.hidden[layer - 1] + weights.hidden_biases[layer]
        x = torch.clamp(x, min=0)
        if masks:
            x = x * masks[layer].double()
    return x


def slow_adagrad(values, squares, gradient, rate, row_wise):
    """One step in place. Row-wise: one sum a row, of the mean of its squared gradients."""
    squared = gradient**2
    squares += squared.mean(1) if row_wise else squared
    step = rate / np.sqrt(squares)
    values -= (step[:, None] if row_wise else step) * gradient


def slow_step(weights, X, shortlist, rate, masks):
    """All weights after one step on a batch, with the gradients of autograd over one formula.

    A label that is one row's own and also shared by all moves twice: first by the shared part.
    """

    def leaf(array):
        return torch.tensor(array, dtype=torch.float64, requires_grad=True)

    features, labels, biases = map(leaf, (weights.features, weights.labels, weights.label_biases))
    hidden_weights, hidden_biases = map(leaf, weights.hidden), map(leaf, weights.hidden_biases)
    net = Weights(features, list(hidden_weights), list(hidden_biases), labels, biases)
    hidden = slow_hidden(net, torch.tensor(X), masks)
    parts = {"shared": (leaf(weights.labels), leaf(weights.label_biases)), "own": (labels, biases)}
    n, r = shortlist.labels.shape
    loss, places = 0.0, []
    for i in range(n):
        for c in range(r + len(shortlist.shared)):
            weight = float(shortlist.weights[i, c])
            if weight == 0:
                continue
            label = shortlist.labels[i, c] if c < r else shortlist.shared[c - r]
            table, bias = parts["own" if c < r else "shared"]
            score = (hidden[i] * table[label]).sum() + bias[label]
            places.append((i, label, score))
            target = float(c < shortlist.n_positives)
            loss = loss + weight * (torch.log1p(torch.exp(score)) - target * score)
    loss.backward()

    out = copy.deepcopy(weights)
    out.features, out.labels, out.label_biases = (
        a.astype(float) for a in (weights.features, weights.labels, weights.label_biases)
    )
    squares = np.full(len(out.features), FIRST_SQUARES)
    slow_adagrad(out.features, squares, features.grad.numpy(), rate, row_wise=True)
    squares, bias_squares = np.full((2, len(out.labels)), FIRST_SQUARES)
    for table, bias in parts.values():
        if table.grad is not None:
            slow_adagrad(out.labels, squares, table.grad.numpy(), rate, row_wise=True)
            slow_adagrad(out.label_biases, bias_squares, bias.grad.numpy(), rate, row_wise=False)
    for name, leaves in (("hidden", net.hidden), ("hidden_biases", net.hidden_biases)):
        values = [a.detach().numpy().copy() for a in leaves]
        for value, a in zip(values, leaves, strict=True):
            squares_of = np.full(value.shape, FIRST_SQUARES)
            slow_adagrad(value, squares_of, a.grad.numpy(), MIDDLE_RATE * rate, row_wise=False)
        setattr(out, name, values)
    return out, loss.item()


def assert_same(weights, expected):
    for name in ("features", "labels", "label_biases"):
        np.testing.assert_allclose(
            getattr(weights, name), getattr(expected, name), err_msg=name, **CLOSE
        )
    for name in ("hidden", "hidden_biases"):
        assert len(getattr(weights, name)) == len(getattr(expected, name))
        for one, other in zip(getattr(weights, name), getattr(expected, name), strict=True):
            np.testing.assert_allclose(one, other, err_msg=name, **CLOSE)


def make_shortlist_of(labels, shared, n_positives):
    """These labels at weight 1, without pools or known counts."""
    n_columns = labels.shape[1] + len(shared)
    weights = np.ones((len(labels), n_columns), np.float32)
    return Shortlist(labels, shared, n_positives, weights, np.zeros(n_columns, np.float32), [])


# --- one step of training -------------------------------------------------------------------------


class Fixed(Sampler):
    """Own and shared proposals with weights, hits, repeats and a label in both."""

    def __init__(self, kind="both"):
        self.kind = kind

    def propose(self, rows, rng):
        every = np.arange(N_LABELS, dtype=np.int32)
        own = (rows[:, None] + np.array([0, 3, 3, 5])) % N_LABELS
        own[::2, 1] = -1
        own = Proposal(own.astype(np.int32), np.array([1.0, 2.5, 0.5, 1.5]))
        shared = Proposal(every[[7, 2, 4, 8]], np.array([3.0, 1.0, 2.0, 1.25]))
        few = Proposal((rows[:, None] % 3).astype(np.int32))
        kinds = {"own": [own], "shared": [shared], "both": [own, shared], "none": [], "few": [few]}
        return {**kinds, "full": [Proposal(every)]}[self.kind]


def one_step(weights, X, kind, ends, dropout, monkeypatch):
    """Train on one batch; returns what changed, and what the step drew: labels, and masks."""
    network = Network(copy.deepcopy(weights))
    network.ends = ends
    Y = make_labels()
    trainer = Trainer(
        network, X, make_problem(Y, batch_size=N_ROWS), Fixed(kind), BinaryCrossEntropy(),
        n_epochs=1, learning_rate=RATE, dropout=dropout,
    )  # fmt: skip
    (worker,) = trainer.workers
    for squares in worker.squares:  # else the first step has no size, only a sign
        squares.fill_(FIRST_SQUARES)
    shortlists, masks = [], []

    def record_shortlist(*args, **kwargs):
        shortlists.append(make_shortlist(*args, **kwargs))
        return shortlists[-1]

    def record_units(width, *args):
        units = draw(width, *args)
        mask = torch.zeros(width)
        mask[units.columns] = units.scale
        masks.append(mask)
        return units

    make_shortlist, draw = _training.make_shortlist, Units.draw
    monkeypatch.setattr(_training, "make_shortlist", record_shortlist)
    monkeypatch.setattr(Units, "draw", record_units)
    rows = np.random.default_rng(1).permutation(N_ROWS)[:8]
    _, value, *_ = trainer.step(worker, rows, 0)
    return network.weights(), value, rows, shortlists[0], masks


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("form", ["sparse", "dense"])
@pytest.mark.parametrize("make_ends", [CompiledEnds, TorchEnds])
def test_a_step_moves_all_weights_as_autograd_says(make_ends, form, sizes, dropout, monkeypatch):
    weights = make_weights(sizes)
    X, plain = make_matrix(form)
    moved, value, rows, shortlist, masks = one_step(
        weights, X, "both", make_ends(), dropout, monkeypatch
    )
    assert len(masks) == (len(sizes) if dropout else 0)
    expected, loss = slow_step(weights, plain[rows], shortlist, RATE, masks)
    assert value == pytest.approx(loss, rel=1e-5)
    assert_same(moved, expected)
    assert abs(moved.features - weights.features).max() > 1e-3


@pytest.mark.parametrize("kind", ["own", "shared", "full", "none"])
@pytest.mark.parametrize("make_ends", [CompiledEnds, TorchEnds])
def test_a_step_moves_all_weights_as_autograd_says_for_every_kind_of_proposal(
    make_ends, kind, monkeypatch
):
    weights = make_weights((4, 5))
    X, plain = make_matrix("sparse")
    moved, value, rows, shortlist, _ = one_step(weights, X, kind, make_ends(), 0.0, monkeypatch)
    expected, loss = slow_step(weights, plain[rows], shortlist, RATE, None)
    assert value == pytest.approx(loss, rel=1e-5)
    assert_same(moved, expected)


@pytest.mark.parametrize("make_ends", [CompiledEnds, TorchEnds])
def test_what_a_step_does_not_touch_keeps_its_very_bits(make_ends, monkeypatch):
    weights = make_weights()
    X, plain = make_matrix("sparse")
    moved, _, rows, shortlist, _ = one_step(weights, X, "few", make_ends(), 0.0, monkeypatch)
    features = ~(plain[rows] != 0).any(0)
    labels = np.setdiff1d(np.arange(N_LABELS), shortlist.labels)
    assert features.any()
    assert labels.size
    np.testing.assert_array_equal(moved.features[features], weights.features[features])
    np.testing.assert_array_equal(moved.labels[labels], weights.labels[labels])
    np.testing.assert_array_equal(moved.label_biases[labels], weights.label_biases[labels])


@pytest.mark.parametrize("make_ends", [CompiledEnds, TorchEnds])
def test_units_that_a_step_leaves_out_keep_their_very_bits(make_ends, monkeypatch):
    weights = make_weights((8, 8))
    X, _ = make_matrix("sparse")
    moved, *_, masks = one_step(weights, X, "both", make_ends(), 0.5, monkeypatch)
    first, last = (mask.numpy() == 0 for mask in masks)
    assert 0 < first.sum() < 8
    np.testing.assert_array_equal(moved.features[:, first], weights.features[:, first])
    np.testing.assert_array_equal(moved.labels[:, last], weights.labels[:, last])
    np.testing.assert_array_equal(moved.hidden[0][first], weights.hidden[0][first])
    np.testing.assert_array_equal(moved.hidden[0][:, last], weights.hidden[0][:, last])
    for mask, now, before in zip(masks, moved.hidden_biases, weights.hidden_biases, strict=True):
        np.testing.assert_array_equal(now[mask == 0], before[mask == 0])


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize(
    ("sizes", "few"), [((100,), (100,)), ((300,), (128,)), ((520, 200), (130, 128))]
)
def test_a_sketch_is_the_network_of_its_first_units(kind, sizes, few):
    weights, (X, slow) = make_weights(sizes), make_matrix(kind)
    hidden = slow @ weights.features[:, : few[0]] + weights.hidden_biases[0][: few[0]]
    if len(few) > 1:
        middle = weights.hidden[0][: few[0], : few[1]]
        hidden = np.maximum(hidden, 0) @ middle + weights.hidden_biases[1][: few[1]]
    found = hidden_vectors(Network(weights).sketch(), X, np.arange(N_ROWS), 1)
    np.testing.assert_allclose(found, np.maximum(hidden, 0), **CLOSE)


@pytest.mark.parametrize("make_ends", [CompiledEnds, TorchEnds])
def test_the_gradient_for_the_hidden_vectors_counts_what_is_too_small_to_move_a_label(make_ends):
    network = Network(make_weights())
    network.ends = make_ends()
    network.labels.prepare_training()
    before = copy.deepcopy(network.weights())
    labels = np.array([[0, 1]], np.int32)
    shortlist = make_shortlist_of(labels, np.empty(0, np.int32), 1)
    gradient = torch.tensor([[0.5 * NEGLIGIBLE, 2 * NEGLIGIBLE]])
    back = network.update_labels(torch.ones(1, 4), gradient, shortlist, RATE)
    np.testing.assert_allclose(back, gradient.numpy() @ before.labels[:2], rtol=1e-5)
    np.testing.assert_array_equal(network.weights().labels[0], before.labels[0])
    assert (network.weights().labels[1] != before.labels[1]).all()


# --- an epoch -------------------------------------------------------------------------------------


class Diary(Sampler):
    """Notes what it is asked; due before step 0 of even epochs and before step 2 of each."""

    def begin(self, problem):
        self.notes = []
        return super().begin(problem)

    def due(self, epoch, step):
        return step == 2 or (step == 0 and epoch % 2 == 0)

    def refresh(self, epoch, step, network, rows):
        self.notes.append(("refresh", epoch, step, rows.tolist()))
        hidden = network.hidden(rows)
        assert hidden.shape == (len(rows), network.label_weights.shape[1])
        assert len(network.label_biases) == len(network.label_weights) == N_LABELS

    def propose(self, rows, rng):
        self.notes.append(("propose", rows.tolist()))
        return Proposal(np.arange(3, dtype=np.int32))


def train(n_epochs, sampler=None, seed=0, **parameters):
    problem = make_problem(make_labels(), batch_size=5, random_state=seed, **parameters)
    sampler = (sampler or UniformSampler(4)).begin(problem)
    network = Network(make_weights((4, 5)))
    trainer = Trainer(
        network, make_matrix("sparse")[0], problem, sampler, BinaryCrossEntropy(),
        n_epochs=n_epochs, learning_rate=RATE, dropout=0.2,
    )  # fmt: skip
    losses = [trainer.epoch(number)[0] for number in range(n_epochs)]
    return network.weights(), losses, sampler


def test_an_epoch_visits_every_row_once_and_refreshes_with_the_rows_ahead():
    _, _, diary = train(2, Diary())
    steps = [-(-N_ROWS // 5)] * 2
    assert [note[0] for note in diary.notes].count("propose") == sum(steps)
    kinds = [note[:3] if note[0] == "refresh" else note[0] for note in diary.notes]
    assert kinds == [
        ("refresh", 0, 0), "propose", "propose", ("refresh", 0, 2), "propose",
        "propose", "propose", ("refresh", 1, 2), "propose",
    ]  # fmt: skip
    visits = [note[1] for note in diary.notes if note[0] == "propose"]
    first, second = (list(itertools.chain(*part)) for part in (visits[:3], visits[3:]))
    assert sorted(first) == sorted(second) == list(range(N_ROWS))
    assert first != second
    refreshed = [note[3] for note in diary.notes if note[0] == "refresh"]
    assert refreshed == [first, first[10:], second[10:]]


def test_one_thread_gives_the_same_bits_at_each_run_and_another_seed_gives_others():
    one, losses, _ = train(3)
    other, other_losses, _ = train(3)
    assert losses == other_losses
    assert one.residual is None
    arrays = [[v for v in vars(w).values() if v is not None] for w in (one, other)]
    for a, b in zip(*arrays, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert not np.array_equal(one.labels, train(3, seed=1)[0].labels)


def test_the_learning_rate_stays_for_a_third_and_falls_linearly_to_0(monkeypatch):
    rates = []
    update_labels = Network.update_labels

    def record(self, hidden, gradient, shortlist, rate):
        rates.append(rate)
        return update_labels(self, hidden, gradient, shortlist, rate)

    monkeypatch.setattr(Network, "update_labels", record)
    train(2)
    np.testing.assert_allclose(rates, RATE * np.minimum(1, 1.5 * (1 - np.arange(6) / 6)))


def test_several_threads_train_on_the_same_weights():
    weights, losses, _ = train(100, n_threads=3)
    # One epoch's loss is noisy with dropout and few rows: over 25 seeds this mean was .54 at most.
    assert np.mean(losses[-10:]) < 0.7 * losses[0]
    assert abs(weights.labels - make_weights((4, 5)).labels).max() > 0.1


# --- forward --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("make_ends", [CompiledEnds, TorchEnds])
def test_dense_and_sparse_rows_have_the_same_hidden_vectors_as_the_plain_formula(make_ends, sizes):
    weights = make_weights(sizes)
    network = Network(weights)
    network.ends = make_ends()
    sparse, plain = make_matrix("sparse")
    dense, _ = make_matrix("dense")
    rows = np.array([3, 1, 0, 3])
    expected = torch.tensor(plain[rows]) @ torch.tensor(weights.features).double()
    tensors = Weights(*map(_double, vars(weights).values()))
    hidden = slow_hidden(tensors, torch.tensor(plain[rows]))
    for X in (sparse, dense):
        np.testing.assert_allclose(network.embed(X, rows), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(network.hidden(X, rows), hidden, rtol=1e-4, atol=1e-6)


def _double(arrays):
    if arrays is None:  # no residual block
        return None
    if isinstance(arrays, list):
        return [torch.tensor(a).double() for a in arrays]
    return torch.tensor(arrays).double()


def slow_scores(weights, hidden, labels, shared):
    out = np.zeros((len(labels), labels.shape[1] + len(shared)))
    for i in range(len(labels)):
        for c, label in enumerate([*labels[i], *shared]):
            if label >= 0:
                out[i, c] = hidden[i].astype(float) @ weights.labels[label].astype(float)
                out[i, c] += weights.label_biases[label]
    return out


SHARED = {
    "none": [],
    "some": [7, 2, 4],
    "all": list(range(N_LABELS)),
    "all in another order": [3, 1, 8, 0, 2, 7, 5, 6, 4],
}


@pytest.mark.parametrize("shared", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("make_ends", [CompiledEnds, TorchEnds])
def test_scores_are_dot_products_of_own_and_shared_labels(make_ends, shared):
    weights = make_weights()
    network = Network(weights)
    network.ends = make_ends()
    labels = np.array([[0, -1, 3], [8, 8, -1]], np.int32)
    shared = np.array(shared, np.int32)
    hidden = np.random.default_rng(0).standard_normal((2, 4), dtype=np.float32)
    shortlist = make_shortlist_of(labels, shared, 1)
    out = network.scores(torch.from_numpy(hidden), shortlist)
    expected = slow_scores(weights, hidden, labels, shared)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n_shared", [20_000, 17_000])
def test_more_shared_labels_than_a_block_holds(n_shared):
    """All labels in order, which need no copy, and a part of them."""
    weights = make_weights((2,), n_labels=20_000)
    network = Network(copy.deepcopy(weights))
    network.labels.prepare_training()
    shared = np.arange(20_000 - n_shared, 20_000, dtype=np.int32)
    shortlist = make_shortlist_of(np.zeros((3, 0), np.int32), shared, 0)
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((3, 2), dtype=np.float32)
    scores = network.scores(torch.from_numpy(hidden), shortlist)
    expected = hidden @ weights.labels[shared].T + weights.label_biases[shared]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)

    gradient = rng.standard_normal((3, n_shared), dtype=np.float32)
    back = network.update_labels(
        torch.from_numpy(hidden), torch.from_numpy(gradient), shortlist, RATE
    )
    np.testing.assert_allclose(back, gradient @ weights.labels[shared], rtol=1e-3, atol=1e-3)
    part = gradient.T @ hidden
    step = RATE / np.sqrt(FIRST_SQUARES + (part**2).mean(1, keepdims=True))
    expected = weights.labels.copy()
    expected[shared] -= step * part
    np.testing.assert_allclose(network.weights().labels, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_hidden_vectors_of_many_rows_are_made_in_blocks(n_threads):
    network = Network(make_weights())
    X, _ = make_matrix("sparse", n_rows=23)
    rows = np.random.default_rng(0).permutation(23)[:20]
    out = hidden_vectors(network, X, rows, n_threads, block=6)
    np.testing.assert_array_equal(out, network.hidden(X, rows))
    assert hidden_vectors(network, X, rows[:0], n_threads).shape == (0, 4)


# --- weights --------------------------------------------------------------------------------------


def test_initial_weights_have_the_documented_shapes_and_scales():
    log_odds = np.linspace(-9, 0, 500)
    weights = Weights.initial(4000, (64, 32), log_odds, np.random.default_rng(0))
    assert weights.features.shape == (4000, 64)
    assert [a.shape for a in weights.hidden] == [(64, 32)]
    assert [a.tolist() for a in weights.hidden_biases] == [[0] * 64, [0] * 32]
    assert weights.labels.shape == (500, 32)
    np.testing.assert_array_equal(weights.label_biases, log_odds.astype(np.float32))
    arrays = [weights.features, *weights.hidden, weights.labels, weights.label_biases]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    assert weights.features.std() == pytest.approx(0.07, rel=0.02)
    assert not weights.labels.any()


def test_a_network_on_the_cpu_shares_memory_with_its_weights_and_takes_read_only_ones():
    weights = make_weights((4, 5))
    for array in (weights.features, weights.labels, *weights.hidden):
        array.flags.writeable = False
    network = Network(weights)  # warnings are errors
    for one, other in zip(
        [network.weights().features, *network.weights().hidden, network.weights().labels],
        [weights.features, *weights.hidden, weights.labels],
        strict=True,
    ):
        assert np.shares_memory(one, other)


def test_a_copy_of_the_weights_stays_when_training_goes_on():
    weights = make_weights((4, 5))
    before = weights.copy()
    weights.labels += 1
    weights.hidden[0] += 1
    assert not np.shares_memory(before.labels, weights.labels)
    assert (weights.hidden[0] - before.hidden[0] > 0.5).all()


def test_a_replica_trains_the_same_weights_with_scratch_of_its_own():
    network = Network(make_weights((4, 5)))
    twin = network.replica()
    assert twin.ends is not network.ends
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += 1
    for one, other in zip(twin.parameters(), network.parameters(), strict=True):
        assert one.requires_grad
        assert torch.equal(one.detach(), other.detach())
    assert twin.labels is network.labels


# --- threads --------------------------------------------------------------------------------------


@pytest.fixture
def three_torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def count_in_a_fresh_thread():
    out = []
    thread = threading.Thread(target=lambda: out.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return out[0]


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n_items", [0, 1, 4, 100])
def test_for_each_draws_every_item_exactly_once(n_items, n_threads):
    done = []
    for_each(done.append, iter(range(n_items)), n_threads)
    assert sorted(done) == list(range(n_items))
    if n_threads == 1:
        assert done == list(range(n_items))


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("error", [KeyError, TimeoutError])  # the latter ends a wait, too
def test_for_each_raises_the_error_of_an_item(n_threads, error):
    def work(item):
        if item == 7:
            time.sleep(0.3)  # the caller has woken meanwhile
            raise error("seven")

    with pytest.raises(error, match="seven"):
        for_each(work, range(20), n_threads)
    assert apart(lambda: time.sleep(0.3) or "done") == "done"


def test_for_each_raises_the_error_of_the_items():
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        for_each(lambda item: None, items(), 2)


@pytest.mark.parametrize("culprit", [0, 1] * 4)  # whichever thread the error falls to
def test_an_error_stops_the_other_threads_after_the_item_that_they_hold(culprit):
    n_items, done, both_hold_one = 300, [], threading.Barrier(2)

    def work(item):
        if item < 2:
            both_hold_one.wait(60)
        if item == culprit:
            raise ValueError("stop")
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(ValueError, match="stop"):
        for_each(work, range(n_items), 2)
    assert len(done) < n_items - 1


def test_for_each_leaves_the_thread_count_of_torch_alone_and_works_with_one(three_torch_threads):
    counts = []
    for_each(lambda item: counts.append(torch.get_num_threads()), range(10), 2)
    assert set(counts) == {1}
    assert torch.get_num_threads() == 3
    assert count_in_a_fresh_thread() == 3
    with pytest.raises(ZeroDivisionError):
        for_each(lambda item: 1 // item, range(10), 2)
    assert torch.get_num_threads() == 3
    assert count_in_a_fresh_thread() == 3


def test_for_each_works_from_several_callers_at_the_same_time(three_torch_threads):
    """Also the callers' own counts and the process-wide default survive, whoever ends first."""
    sums, counts = [], []
    start = threading.Barrier(4)

    def call():
        start.wait()
        done = []
        for_each(done.append, range(25), 2)
        sums.append(sum(done))
        counts.append(torch.get_num_threads())

    for _ in range(50):
        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert sums == [300] * 200
    assert set(counts) == {3}
    assert torch.get_num_threads() == 3
    assert count_in_a_fresh_thread() == 3


def test_for_each_may_be_called_from_within_its_own_work():
    done = []
    for_each(lambda item: for_each(done.append, range(item), 2), range(5), 2)
    assert sorted(done) == sorted(i for n in range(5) for i in range(n))


def test_count_threads_takes_all_cores_where_the_data_is_large_enough(three_torch_threads):
    assert count_threads(None, n_rows=100, n_enough=100) == 3
    assert count_threads(None, n_rows=99, n_enough=100) == 1
    assert count_threads(2, n_rows=99, n_enough=100) == 2
    assert count_threads(-1, n_rows=1, n_enough=100) >= 1
    assert count_threads(-1, 1, 100) - count_threads(-2, 1, 100) in (0, 1)
    assert count_threads(-10_000, 1, 100) == 1


@pytest.mark.parametrize(("n", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (6, 3)])
def test_blocks_cover_a_range(n, size):
    parts = blocks(n, size)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
    assert all(0 < part.stop - part.start <= size for part in parts)
