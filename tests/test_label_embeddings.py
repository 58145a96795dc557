"""Paper C: residual block, label embeddings, rates by epoch, late fusion, presets.

The oracles are torch's own spectral norm and Adam, and slow loops.
"""

import copy
import itertools
import math
import pickle
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, train_test_split
from torch.nn.utils.parametrizations import spectral_norm

from skxmc import XMCClassifier, presets
from skxmc._centroids import label_centroids, unit_rows
from skxmc._choices import FUSION_WEIGHTS
from skxmc._ends import Rows
from skxmc._network import Network, Weights
from skxmc._prediction import FUSED, rank_by_cosine
from skxmc._ranking import fuse
from skxmc._training import Trainer
from skxmc.datasets import make_xmc
from skxmc.losses import BinaryCrossEntropy
from skxmc.metrics import precision_at_k
from skxmc.samplers import LabelEmbeddingSampler, Problem, UniformSampler
from skxmc.samplers._label_embedding import LabelMap

FAST = {
    "hidden_layer_sizes": (16,),
    "n_estimators": 1,
    "max_iter": 2,
    "batch_size": 32,
    "positive_weight": None,
    "tail_bias": 0.0,
    "dropout": 0.3,
    "n_jobs": 1,
}


def xmc(sampler="mips+uniform", *, random_state=0, **parameters):
    return XMCClassifier(sampler, random_state=random_state, **{**FAST, **parameters})


@pytest.fixture(scope="module")
def data():
    """400 rows, 300 features, 60 labels."""
    return make_xmc(400, 300, 60, random_state=0)


@pytest.fixture(scope="module")
def learnable():
    X, Y = make_xmc(2500, 2000, 150, noise=0.5, random_state=0)
    return train_test_split(X, Y, test_size=500, random_state=0)


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(Trainer, "epoch", lambda self, number: pytest.fail("training began"))


@pytest.fixture
def three_torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def begun_samplers(monkeypatch):
    """The clones that runs have begun."""
    found, begin = [], LabelEmbeddingSampler.begin

    def spy(self, problem):
        found.append(self)
        return begin(self, problem)

    monkeypatch.setattr(LabelEmbeddingSampler, "begin", spy)
    return found


def held_out(X, Y, clf):
    """The split that `fit` makes of its own seed."""
    seed = np.random.RandomState(clf.random_state).randint(2**31 - 1)
    return train_test_split(X, Y, test_size=clf.validation_fraction, random_state=seed)


# --- the residual block ---------------------------------------------------------------------------


def make_weights(sizes, n_features=15, n_labels=9, seed=0):
    """Weights at which ReLUs are open as often as not; R is far from the identity."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    hidden = [normal(a, b) for a, b in itertools.pairwise(sizes)]
    residual = normal(sizes[-1], sizes[-1]), normal(sizes[-1])
    return Weights(
        normal(n_features, sizes[0]), hidden, [normal(a) for a in sizes],
        normal(n_labels, sizes[-1]), normal(n_labels), residual,
    )  # fmt: skip


class Block(torch.nn.Module):
    """Layers and the block as torch has them: v + ReLU(R v + r) under its own spectral norm."""

    def __init__(self, weights):
        super().__init__()
        layers = [torch.nn.Linear(*a.shape) for a in weights.hidden]
        for layer, a, b in zip(layers, weights.hidden, weights.hidden_biases[1:], strict=True):
            layer.weight.data, layer.bias.data = torch.tensor(a.T), torch.tensor(b)
        self.first = torch.nn.Parameter(torch.tensor(weights.hidden_biases[0]))
        self.layers = torch.nn.ModuleList(layers)
        matrix, bias = weights.residual
        self.block = torch.nn.Linear(*matrix.shape)
        self.block.weight.data, self.block.bias.data = torch.tensor(matrix), torch.tensor(bias)
        self.block = spectral_norm(self.block)

    def forward(self, x, masks):
        masks = iter(masks)
        x = torch.relu(x + self.first) * next(masks)
        for layer in self.layers:
            x = torch.relu(layer(x)) * next(masks)
        return x + torch.relu(self.block(x)) * next(masks)

    def parameters_in_our_order(self):
        layers = list(self.layers)
        return [
            *(layer.weight for layer in layers), self.first, *(layer.bias for layer in layers),
            self.block.parametrizations.weight.original, self.block.bias,
        ]  # fmt: skip


@pytest.mark.parametrize("dropout", [0, 0.5])
@pytest.mark.parametrize("sizes", [(6,), (4, 6)])
def test_residual_block_and_its_gradients_are_those_of_torch_with_spectral_norm(sizes, dropout):
    weights, rng = make_weights(sizes), np.random.default_rng(1)
    module = Block(copy.deepcopy(weights)).train()
    network = Network(weights)
    network.prepare_training(rng)
    twin = network.replica()
    for _ in range(300):  # until both power iterations are done
        module.block(torch.zeros(1, 6))
        twin.middle(torch.zeros(1, sizes[0]))
    x = rng.standard_normal((8, sizes[0])).astype(np.float32)
    one, other = (torch.tensor(x, requires_grad=True) for _ in range(2))
    thin = twin.thinned(dropout, rng)
    kept = [np.arange(n) for n in sizes]
    masks = [torch.ones(n) for n in (*sizes, sizes[-1])]
    if dropout:
        kept = [units.columns for units in thin.units]
        for mask, units in zip(masks, [*thin.units, thin.units[-1]], strict=True):
            mask.zero_()[units.columns] = units.scale
    out = thin.middle(one[:, kept[0]])
    expected = module(other, masks)[:, kept[-1]]
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    back = torch.from_numpy(rng.standard_normal(out.shape).astype(np.float32))
    ours = torch.autograd.grad(out, [one, *twin.parameters()], back)
    theirs = torch.autograd.grad(expected, [other, *module.parameters_in_our_order()], back)
    n_layers = len(weights.hidden)
    for i, (mine, his) in enumerate(zip(ours, theirs, strict=True)):
        his = his.T if 1 <= i <= n_layers else his  # torch keeps weights transposed
        torch.testing.assert_close(mine, his, rtol=2e-3, atol=2e-4)
    assert abs(ours[-2]).max() > 0.1


def test_the_residual_block_starts_as_the_identity_so_that_hidden_vectors_double():
    made = [
        Weights.initial(30, (8, 5), np.zeros(4), np.random.default_rng(0), residual)
        for residual in (False, True)
    ]
    X, rows = np.random.default_rng(1).random((6, 30), dtype=np.float32), np.arange(6)
    plain, double = (Network(weights).hidden(X, rows) for weights in made)
    assert plain.max() > 0.1
    torch.testing.assert_close(double, 2 * plain)
    assert made[0].residual is None


def make_trainer(n_threads=1, sizes=(12,), **parameters):
    X, Y = make_xmc(300, 200, 40, random_state=0)
    counts = np.bincount(Y.indices, minlength=Y.shape[1])
    problem = Problem(Rows.of(Y, values=False), counts, batch_size=16, n_threads=n_threads)
    weights = Weights.initial(200, sizes, np.zeros(40), np.random.default_rng(0), residual=True)
    parameters = {"n_epochs": 4, "learning_rate": 0.3, "dropout": 0.2, **parameters}
    return Trainer(
        Network(weights), Rows.of(sp.csr_array(X, dtype=np.float32)), problem,
        UniformSampler(10).begin(problem), BinaryCrossEntropy(), **parameters,
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [(12,), (9, 12)])
def test_hidden_vectors_in_a_run_are_those_of_the_weights_it_returns(sizes):
    """Also where the power iteration is not done, and however often they are asked for."""
    trainer, rows = make_trainer(sizes=sizes), np.arange(300)
    for number in range(2):
        trainer.epoch(number)
        hidden = trainer.hidden(rows)
        weights = trainer.network.weights()
        torch.testing.assert_close(
            Network(weights).hidden(trainer.X, rows), hidden, rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(trainer.hidden(rows), hidden, rtol=0, atol=0)
        again = trainer.network.weights().residual[0]
        np.testing.assert_array_equal(again, weights.residual[0])
    assert abs(weights.residual[1]).max() > 1e-3  # it was trained


@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("sizes", [(16,), (12, 16)])
def test_the_spectral_norm_stays_1_in_training(learnable, sizes, n_jobs):
    X, _, Y, _ = learnable
    clf = xmc("uniform", residual=True, hidden_layer_sizes=sizes, n_jobs=n_jobs).fit(X, Y)
    matrix, bias = clf.residual_
    assert np.linalg.norm(matrix, 2) == pytest.approx(1, abs=2e-3)
    assert matrix.shape == (16, 16)
    assert bias.shape == (16,)
    assert matrix.dtype == bias.dtype == np.float32
    assert abs(matrix - np.eye(16)).max() > 0.1


def test_residual_predictions_follow_the_formula_and_repeat(data):
    X, Y = data
    clf, twin = (xmc(residual=True).fit(X, Y) for _ in range(2))
    for one, other in zip(clf.residual_, twin.residual_, strict=True):
        np.testing.assert_array_equal(one, other)
    v = np.maximum(X @ clf.feature_weights_ + clf.hidden_biases_[0], 0)
    matrix, bias = clf.residual_
    z = v + np.maximum(v @ matrix.T + bias, 0)
    expected = z @ clf.label_weights_.T + clf.label_biases_
    np.testing.assert_allclose(clf.decision_function(X), expected, rtol=1e-4, atol=1e-4)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.decision_function(X), clf.decision_function(X))
    assert xmc().fit(X, Y).residual_ is None


def test_early_stopping_keeps_the_residual_block_of_the_best_epoch(data):
    X, Y = data
    clf = xmc(
        "uniform", residual=True, early_stopping=True, max_iter=6, n_iter_no_change=1,
        late_fusion="auto", learning_rate_init=1.0,
    ).fit(X, Y)  # fmt: skip
    _, X_held, _, Y_held = held_out(X, Y, clf)
    clf.late_fusion_ = None
    assert clf.score(X_held, Y_held) == max(clf.validation_scores_)


# --- centroids ------------------------------------------------------------------------------------


class Stub:
    """Hidden vectors of rows; notes how many are asked for at a time."""

    def __init__(self, vectors, n_labels=0):
        self.vectors = torch.as_tensor(vectors)
        self.label_weights = torch.zeros(n_labels, self.vectors.shape[1])
        self.asked = []

    def hidden(self, rows):
        self.asked.append(len(rows))
        return self.vectors[rows]


def make_labels(n_rows=30, n_labels=20, seed=0):
    """0 to 4 labels a row, unequally often; labels 3 and the last have no row."""
    rng = np.random.default_rng(seed)
    Y = np.zeros((n_rows, n_labels), np.float32)
    chances = np.arange(1, n_labels + 1) / (n_labels * (n_labels + 1) / 2)
    for i in range(n_rows):
        Y[i, rng.choice(n_labels, i % 5, replace=False, p=chances)] = 1
    Y[:, [3, n_labels - 1]] = 0
    return sp.csr_array(Y)


def pairs_of(Y):
    """All (row, label), one by one."""
    dense = Y.toarray()
    return [(i, label) for i in range(dense.shape[0]) for label in np.flatnonzero(dense[i])]


def slow_centroids(vectors, Y):
    out = np.zeros((Y.shape[1], vectors.shape[1]))
    for label in range(Y.shape[1]):
        own = [vectors[i].astype(float) for i, other in pairs_of(Y) if other == label]
        if own:
            out[label] = np.mean(own, axis=0)
    return out


def normal(n, width, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


@pytest.mark.parametrize("block_size", [1, 7, 15, 30, 1000])
def test_centroids_are_the_means_of_the_labels_rows(block_size):
    Y, network = make_labels(), Stub(normal(30, 4))
    out = label_centroids(network, Rows.of(Y, values=False), 20, block_size)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, slow_centroids(normal(30, 4), Y), rtol=1e-5, atol=1e-6)
    assert not out[[3, 19]].any()
    assert network.asked == [min(block_size, 30 - a) for a in range(0, 30, block_size)]


def test_centroids_of_one_row():
    Y = sp.csr_array(np.ones((1, 2)))
    out = label_centroids(Stub(np.array([[1.0, -2.0]], np.float32)), Rows.of(Y), 2)
    np.testing.assert_array_equal(out, [[1, -2], [1, -2]])


class Endless:
    """Hidden vectors that exist only while they are asked for."""

    def __init__(self, width):
        self.width = width

    def hidden(self, rows):
        return torch.from_numpy(np.ones((len(rows), self.width), np.float32))


@pytest.mark.parametrize("n_labels", [2_000, 200_000])
def test_centroids_need_little_more_than_themselves(n_labels):
    n, width, block = 60_000, 64, 4096
    rng = np.random.default_rng(0)
    indices = rng.integers(0, n_labels // 4, (n, 4)) + np.arange(4) * (n_labels // 4)
    Y = Rows(np.arange(0, 4 * n + 1, 4), indices.ravel().astype(np.int32), None, (n, n_labels))
    tracemalloc.start()
    out = label_centroids(Endless(width), Y, n_labels, block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(np.unique(out)) <= {0, 1}
    floats = n_labels * width + 6 * block * width  # a block's hidden vectors and its 4 labels' each
    assert peak < 1.2 * 4 * floats
    assert n_labels > 2_000 or peak < 4 * 4 * n * width / 5  # one vector for each pair


def test_unit_rows_have_length_1_and_zeros_stay():
    rows = np.array([[3, 4], [0, 0], [0, -1e-5]], np.float32)
    np.testing.assert_allclose(unit_rows(rows), [[0.6, 0.8], [0, 0], [0, -1]])


# --- the map and its training ---------------------------------------------------------------------


def slow_loss(embeddings, vectors, Y):
    """The mean of log(1 + |u - z|^2), pair by pair."""
    terms = [
        math.log1p(sum((float(u) - float(z)) ** 2 for u, z in zip(a, b, strict=True)))
        for a, b in ((embeddings[label], vectors[i]) for i, label in pairs_of(Y))
    ]
    return sum(terms) / len(terms)


def problem_of(Y, **parameters):
    counts = np.bincount(Y.indices, minlength=Y.shape[1])
    parameters = {"log": lambda text: None, **parameters}
    return Problem(Rows.of(Y, values=False), counts, **parameters)


def embeddings_of(label_map, centroids):
    return label_map(torch.from_numpy(centroids)).numpy()


def fit_map(label_map, Y, vectors, n_passes, batch_size, rate=0.01, n_rows_at_once=32768, seed=0):
    centroids = slow_centroids(vectors, Y).astype(np.float32)
    loss = label_map.fit(
        Stub(vectors), Rows.of(Y, values=False), centroids, n_passes, rate, batch_size,
        np.random.default_rng(seed), n_rows_at_once,
    )  # fmt: skip
    return loss, centroids


@pytest.mark.parametrize("batch_size", [1, 10, 1000])
@pytest.mark.parametrize("n_rows_at_once", [1, 7, 30, 1000])
def test_a_pass_visits_every_pair_once_in_random_order(n_rows_at_once, batch_size):
    Y, vectors = make_labels(), np.arange(30, dtype=np.float32)[:, None]
    rng, orders = np.random.default_rng(0), []
    for _ in range(2):
        network, found = Stub(vectors), []
        batches = LabelMap._pairs(network, Rows.of(Y), batch_size, rng, n_rows_at_once)
        for block in batches:
            for hidden, labels in block:
                assert 0 < len(hidden) == len(labels) <= batch_size
                found += zip(hidden[:, 0].int().tolist(), labels.tolist(), strict=True)
        assert sorted(found) == pairs_of(Y)
        assert max(network.asked) <= n_rows_at_once
        orders.append(found)
    assert orders[0] != orders[1] != sorted(orders[1])


def test_the_map_starts_as_the_identity_and_its_loss_is_the_lorentzian():
    Y, vectors = make_labels(), normal(30, 4)
    label_map = LabelMap(4, None, np.random.default_rng(0))
    centroids = slow_centroids(vectors, Y).astype(np.float32)
    np.testing.assert_array_equal(embeddings_of(label_map, centroids), centroids)
    loss, _ = fit_map(label_map, Y, vectors, 1, 1000)  # one step: its loss is that of the start
    assert loss == pytest.approx(slow_loss(centroids, vectors, Y), rel=1e-5)


@pytest.mark.parametrize("n_hidden", [None, 3, 40])
def test_training_the_map_lowers_the_loss(n_hidden):
    Y = make_labels(200)
    vectors = normal(200, 4)
    vectors[:20] += 20  # outliers, for which a centroid is not the best place
    label_map = LabelMap(4, n_hidden, np.random.default_rng(0))
    centroids = slow_centroids(vectors, Y).astype(np.float32)
    before = slow_loss(embeddings_of(label_map, centroids), vectors, Y)
    loss, _ = fit_map(label_map, Y, vectors, 30, 32)
    after = slow_loss(embeddings_of(label_map, centroids), vectors, Y)
    assert after < before - 0.1
    assert loss == pytest.approx(after, abs=0.1)
    assert not any(p.requires_grad for layer in label_map.layers for p in layer)


@pytest.mark.parametrize("n_hidden", [None, 7])
def test_the_steps_are_those_of_torch_with_adam_over_explicit_pairs(n_hidden):
    Y, vectors, rate = make_labels(), normal(30, 4), 0.02
    label_map = LabelMap(4, n_hidden, np.random.default_rng(0))
    modules = [torch.nn.Linear(*weight.shape) for weight, _ in label_map.layers]
    for module, (weight, bias) in zip(modules, label_map.layers, strict=True):
        module.weight.data, module.bias.data = weight.T.clone(), bias.clone()
    model = torch.nn.Sequential(*modules)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    _, centroids = fit_map(label_map, Y, vectors, 3, 10, rate, n_rows_at_once=13)
    rng = np.random.default_rng(0)
    for _ in range(3):
        for block in LabelMap._pairs(Stub(vectors), Rows.of(Y), 10, rng, 13):
            for hidden, labels in block:
                embedded = model(torch.from_numpy(centroids)[torch.from_numpy(labels).long()])
                loss = torch.log(1 + ((embedded - hidden) ** 2).sum(1)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    for module, (weight, bias) in zip(modules, label_map.layers, strict=True):
        torch.testing.assert_close(weight, module.weight.detach().T, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(bias, module.bias.detach(), rtol=1e-3, atol=1e-5)


def test_two_layers_have_the_widths_asked_and_torch_s_scale():
    layers = LabelMap(50, 400, np.random.default_rng(0)).layers
    assert [tuple(weight.shape) for weight, _ in layers] == [(50, 400), (400, 50)]
    for weight, bias in layers:
        bound = len(weight) ** -0.5
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert bias.abs().max().item() <= bound
        assert abs(weight.mean().item()) < 0.05 * bound


# --- the sampler ----------------------------------------------------------------------------------


def begun(sampler, Y=None, vectors=None, epochs=(0,), **problem):
    Y = make_labels() if Y is None else Y
    vectors = normal(len(Y.indptr) - 1, 4) if vectors is None else vectors
    sampler = clone(sampler).begin(problem_of(Y, **problem))
    for epoch in epochs:
        sampler.refresh(epoch, 0, Stub(vectors, Y.shape[1]), np.arange(len(vectors)))
    return sampler


def slow_candidates(sampler, Y, vectors, row, n):
    """Brute force: cosines over the embeddings of today, without the row's own labels."""
    u = sampler.embed_labels(slow_centroids(vectors, Y).astype(np.float32)).astype(float)
    z = vectors[row].astype(float)
    own = {label for i, label in pairs_of(Y) if i == row}
    cosines = {
        label: u[label] @ z / np.linalg.norm(u[label]) / np.linalg.norm(z)
        for label in range(Y.shape[1])
        if label not in own
    }
    best = sorted(cosines, key=cosines.get, reverse=True)[:n]
    return best + [-1] * (n - len(best))


def dense_labels(n_rows=30, n_labels=20):
    """As `make_labels`, but every label has a row; one row has all, one none."""
    Y = make_labels(n_rows, n_labels).toarray()
    Y[np.arange(n_labels), np.arange(n_labels)] = 1
    Y[20], Y[21] = 0, 1
    return sp.csr_array(Y)


@pytest.mark.parametrize("n_hidden", [None, 6])
@pytest.mark.parametrize("n", [1, 5, 20])
def test_the_candidates_are_the_labels_of_highest_cosine_beside_the_positives(n, n_hidden):
    Y, vectors = dense_labels(), normal(30, 4) * np.arange(1, 31)[:, None].astype(np.float32)
    parameters = {"n_hidden": n_hidden, "n_passes": 3, "learning_rate": 0.05}
    sampler = begun(LabelEmbeddingSampler(None, n, **parameters), Y, vectors)
    proposed = sampler.propose(np.arange(30), np.random.default_rng(0)).labels
    expected = [slow_candidates(sampler, Y, vectors, row, n) for row in range(30)]
    np.testing.assert_array_equal(proposed, expected)
    moved = sampler.embed_labels(np.eye(4, dtype=np.float32))
    assert abs(moved - np.eye(4)).max() > 0.02  # the map was trained


def test_a_few_of_the_candidates_are_drawn_at_each_visit():
    Y, vectors, rows = dense_labels(), normal(30, 4), np.arange(30)
    sampler, rng = begun(LabelEmbeddingSampler(5, 10), Y, vectors), np.random.default_rng(0)
    drawn = np.stack([sampler.propose(rows, rng).labels for _ in range(60)])  # (60, 30, 5)
    for row in rows:
        candidates = set(slow_candidates(sampler, Y, vectors, row, 10)) - {-1}
        assert set(drawn[:, row].ravel().tolist()) - {-1} == candidates
        valid = drawn[:, row][drawn[:, row] >= 0].reshape(60, -1)
        assert all(len(set(visit)) == len(visit) == min(5, len(candidates)) for visit in valid)
        assert not candidates & {label for i, label in pairs_of(Y) if i == row}


@pytest.mark.parametrize(
    ("given", "n_labels", "expected"),
    [
        ((None, None), 500, (100, 100)),
        ((None, None), 31, (16, 16)),
        ((None, None), 1, (1, 1)),
        ((5, None), 500, (5, 100)),
        ((20, None), 31, (20, 20)),
        ((None, 300), 500, (300, 300)),
        ((5, 300), 500, (5, 300)),
    ],
)
def test_how_many_candidates_there_are_and_how_many_are_drawn(given, n_labels, expected):
    Y = sp.csr_array(np.eye(n_labels, dtype=np.float32))
    sampler = clone(LabelEmbeddingSampler(*given)).begin(problem_of(Y))
    assert (sampler._n, sampler._n_candidates) == expected


def test_a_cycle_begins_at_every_refresh_epochs_th_epoch():
    sampler = clone(LabelEmbeddingSampler(refresh_epochs=3)).begin(problem_of(make_labels()))
    due = [(epoch, step) for epoch in range(7) for step in range(4) if sampler.due(epoch, step)]
    assert due == [(0, 0), (3, 0), (6, 0)]
    assert not sampler.propose(np.arange(3), np.random.default_rng(0))  # before the first


def test_the_map_is_kept_from_cycle_to_cycle():
    logged = []
    sampler = begun(
        LabelEmbeddingSampler(learning_rate=0.02), dense_labels(), epochs=(), log=logged.append
    )
    network, centroids = Stub(normal(30, 4), 20), normal(20, 4, seed=1)
    np.testing.assert_array_equal(sampler.embed_labels(centroids), centroids)
    embedded = [centroids]
    for epoch in (0, 3, 6):
        sampler.refresh(epoch, 0, network, np.arange(30))
        embedded.append(sampler.embed_labels(centroids))
    steps = [np.linalg.norm(b - a) for a, b in itertools.pairwise(embedded)]
    assert min(steps) > 0
    far = [np.linalg.norm(a - centroids) for a in embedded[1:]]
    assert far[0] < far[1] < far[2]  # of steps as small, a new start would come no farther
    losses = [
        float(re.search(r"distance\^2\) ([\d.]+)$", text)[1]) for text in logged if "log(" in text
    ]
    assert losses[0] > losses[1] > losses[2]
    sampler.n_passes = 0
    sampler.refresh(9, 0, network, np.arange(30))
    np.testing.assert_array_equal(sampler.embed_labels(centroids), embedded[-1])


def test_cycles_repeat_and_other_seeds_differ():
    Y, rows = dense_labels(), np.arange(30)
    sampler = LabelEmbeddingSampler(3, 10, n_hidden=5, batch_size=8)
    one, same, other = (begun(sampler, Y, random_state=seed) for seed in (0, 0, 1))
    labels = [s.propose(rows, np.random.default_rng(0)).labels for s in (one, same, other)]
    np.testing.assert_array_equal(labels[0], labels[1])
    assert (labels[0] != labels[2]).any()
    centroids = normal(20, 4)
    np.testing.assert_array_equal(one.embed_labels(centroids), same.embed_labels(centroids))


def test_sums_embed_labels_as_their_part_does():
    both = LabelEmbeddingSampler(learning_rate=0.1) + UniformSampler(3)
    sampler = begun(both, dense_labels())
    centroids = normal(20, 4)
    expected = sampler.first.embed_labels(centroids)
    assert abs(expected - centroids).max() > 0.01
    np.testing.assert_array_equal(sampler.embed_labels(centroids), expected)
    swapped = begun(UniformSampler(3) + LabelEmbeddingSampler(learning_rate=0.1), dense_labels())
    np.testing.assert_array_equal(swapped.embed_labels(centroids), expected)
    np.testing.assert_array_equal(UniformSampler().embed_labels(centroids), centroids)


def test_embeddings_lie_where_the_label_weights_do():
    sampler = begun(LabelEmbeddingSampler(), epochs=())
    network = Stub(normal(30, 4))
    network.label_weights = torch.empty(20, 4, device="meta")  # as on a GPU
    vectors, biases = sampler._vectors(network)
    assert vectors.device.type == "meta"
    assert biases is None


def test_a_cycle_leaves_the_threads_of_torch_alone_meanwhile(three_torch_threads):
    counts = []

    class Watched(Stub):
        def hidden(self, rows):
            with ThreadPoolExecutor(1) as pool:
                counts.append(pool.submit(torch.get_num_threads).result())
            return super().hidden(rows)

    sampler = begun(LabelEmbeddingSampler(), epochs=())
    sampler.refresh(0, 0, Watched(normal(30, 4), 20), np.arange(30))
    assert set(counts) == {3}


BAD = [
    *(
        ({name: value}, f"{name}={value!r}", "positive integer or None")
        for name in ("n_negatives", "n_candidates")
        for value in (0, -1, 2.5, "all")
    ),
    ({"n_negatives": 61}, "n_negatives=61", "60 labels.*fewer"),
    ({"n_candidates": 61}, "n_candidates=61", "60 labels.*fewer"),
    ({"n_negatives": 5, "n_candidates": 4}, "n_candidates=4", "n_negatives=5.*Raise"),
    *(
        ({name: value}, f"{name}={value!r}", "integer >= 1")
        for name in ("refresh_epochs", "n_hidden", "batch_size")
        for value in (0, -1, 1.5, "two")
    ),
    ({"refresh_epochs": None}, "refresh_epochs=None", "integer >= 1"),
    ({"n_passes": -1}, "n_passes=-1", "integer >= 0"),
    ({"n_passes": None}, "n_passes=None", "integer >= 0"),
    *(
        ({"learning_rate": value}, f"learning_rate={value!r}", "must be positive")
        for value in (0, -0.1, float("nan"), float("inf"), "fast", None)
    ),
    ({"index": "annoy"}, "index='annoy'", "Known are.*'exact'"),
]


@pytest.mark.parametrize(("given", "what", "remedy"), BAD, ids=lambda value: str(value))
def test_bad_parameters_are_refused_before_any_work(data, no_training, given, what, remedy):
    with pytest.raises(ValueError, match=remedy) as caught:
        xmc(LabelEmbeddingSampler(**given)).fit(*data)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    "parameters", [{}, {"residual": True}, {"hidden_layer_sizes": (16, 12), "residual": True}]
)
def test_label_embeddings_train_the_same_bits_twice_and_with_threads_as_well(data, parameters):
    X, Y = data
    one, other = (xmc("label-embedding", **parameters).fit(X, Y) for _ in range(2))
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    several = xmc("label-embedding", n_jobs=3, max_iter=20, **parameters).fit(X, Y)
    # The mean of a few epochs: one alone, of three racing threads, is noisy.
    assert np.mean(several.loss_curve_[-5:]) < 0.9 * several.loss_curve_[0]


# --- learning rates by epoch ----------------------------------------------------------------------


def test_rates_of_each_schedule():
    steps = -(-300 // 16)
    numbers = np.arange(4 * steps)

    def rates(schedule):
        trainer = make_trainer(schedule=schedule)
        return np.array([trainer.rate(int(number)) for number in numbers])

    np.testing.assert_allclose(rates("linear"), 0.3 * (1 - numbers / (4 * steps)))
    np.testing.assert_allclose(rates("constant"), 0.3)
    held = np.minimum(1, 1.5 * (1 - numbers / (4 * steps)))  # for a third of the steps
    np.testing.assert_allclose(rates("cooldown"), 0.3 * held)
    factors = [1, 0.5, 2, 0]
    np.testing.assert_allclose(rates(np.array(factors)), 0.3 * np.repeat(factors, steps))


def test_the_schedule_reaches_the_steps(data, monkeypatch):
    rates, step = [], Network.update_labels

    def spy(self, hidden, gradient, shortlist, rate):
        rates.append(rate)
        return step(self, hidden, gradient, shortlist, rate)

    monkeypatch.setattr(Network, "update_labels", spy)
    xmc("uniform", max_iter=3, learning_rate=[1, 0.5, 0.25], learning_rate_init=0.2).fit(*data)
    np.testing.assert_allclose(rates, 0.2 * np.repeat([1, 0.5, 0.25], 13))
    fits = [
        xmc("uniform", learning_rate=schedule).fit(*data).label_weights_
        for schedule in ("constant", (1, 1), np.ones(2))
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(fits[0], other)
    assert (xmc("uniform").fit(*data).label_weights_ != fits[0]).any()


@pytest.mark.parametrize(
    "value",
    [[1.0], [1, 1, 1], [1, -0.5], [1, np.nan], [1, np.inf], ["a", "b"], [[1, 1]], "cosine", 0.1,
     None, [None, 1], [[1], [1, 2]]],
    ids=str,
)  # fmt: skip
def test_bad_learning_rates_are_refused_by_name(data, no_training, value):
    with pytest.raises(ValueError, match="learning_rate"):
        xmc("uniform", max_iter=2, learning_rate=value).fit(*data)


# --- late fusion ----------------------------------------------------------------------------------


def slow_fuse(rankings, beta):
    """The sums of one row: a dictionary."""
    sums = {}
    for weight, (labels, scores) in zip((beta, 1 - beta), rankings, strict=True):
        top = 1 / (1 + math.exp(-scores[0])) if scores[0] > -math.inf else 1
        for label, score in zip(labels, scores, strict=True):
            if label >= 0:
                share = 1 / (1 + math.exp(-score)) / top if score > -math.inf else 0
                sums[label] = sums.get(label, 0) + weight * share
    return sums


@st.composite
def rankings(draw):
    n_labels, n = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    out = []
    for _ in range(2):
        k = draw(st.integers(1, n_labels))
        labels = np.stack([rng.permutation(n_labels)[:k] for _ in range(n)])
        scores = rng.normal(0, draw(st.sampled_from([0.3, 5])), (n, k))
        scores = np.round(scores, draw(st.sampled_from([0, 6])))  # with ties or without
        scores = -np.sort(-scores, axis=1).astype(np.float32)
        scores = scores.astype(np.float32)
        n_none = draw(st.integers(0, k))
        labels[0, k - n_none :], scores[0, k - n_none :] = -1, -np.inf
        out.append((labels, scores))
    return out


@settings(max_examples=150)
@given(rankings(), st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0]), st.integers(1, 30))
def test_fusion_is_that_of_a_slow_loop(rankings, beta, k):
    labels, sums = fuse(*rankings, beta, k)
    width = sum(ranking[0].shape[1] for ranking in rankings)
    assert labels.shape == sums.shape == (len(rankings[0][0]), min(k, width))
    assert sums.dtype == np.float32
    for i in range(len(labels)):
        expected = slow_fuse([(a[i].tolist(), b[i].tolist()) for a, b in rankings], beta)
        n = min(k, len(expected))
        found = labels[i, :n].tolist()
        assert len(set(found)) == n
        np.testing.assert_allclose(sums[i, :n], [expected[label] for label in found], rtol=1e-5)
        best = sorted(expected.values(), reverse=True)[:n]
        np.testing.assert_allclose(sums[i, :n], best, rtol=1e-5)
        assert np.isneginf(sums[i, n:]).all()


def test_fusion_ranks_scores_whose_sigmoids_are_0_or_1():
    """Rows far out: sigmoids of 60 and 50 are both 1, of -800 and -900 both 0."""
    for high in (60, -800, 1e6, -1e6):
        scores = np.array([[high, high - 10, high - 100]], np.float32)
        other = np.array([[4, 0, 9]]), np.array([[0.9, 0.5, -0.5]], np.float32)
        labels, sums = fuse((np.array([[7, 2, 5]]), scores), other, 1.0, 5)
        assert labels[0, :3].tolist() == [7, 2, 5]
        assert sums[0, 0] == 1
        labels, _ = fuse((np.array([[7, 2, 5]]), scores), other, 0.0, 5)
        assert labels[0, :3].tolist() == [4, 0, 9]


@pytest.fixture(scope="module")
def fused(learnable):
    X, _, Y, _ = learnable
    return xmc(late_fusion=0.5, max_iter=4).fit(X, Y)


def hidden_of(clf, X):
    return np.maximum(X @ clf.feature_weights_ + clf.hidden_biases_[0], 0)


@pytest.mark.parametrize("scale", [1, 1e4])
def test_beta_1_ranks_as_the_classifier_and_beta_0_by_cosine(learnable, fused, scale):
    X = scale * learnable[1]
    clf = clone(fused)
    vars(clf).update(vars(fused))
    clf.late_fusion_ = None
    plain, _ = clf.predict_topk(X, k=20)
    clf.late_fusion_ = 1.0
    labels, sums = clf.predict_topk(X, k=20)
    np.testing.assert_array_equal(labels, plain)
    assert sums.max() == 1
    clf.late_fusion_ = 0.0
    labels, _ = clf.predict_topk(X, k=20)
    z = hidden_of(clf, X).astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cosines = z @ clf.label_embeddings_.T.astype(float)
    best = -np.sort(-cosines, axis=1)[:, :20]
    np.testing.assert_allclose(np.take_along_axis(cosines, labels, 1), best, atol=1e-5)
    assert (labels != plain).any()


def test_fused_rankings_are_those_of_a_slow_loop_over_all_labels(learnable, fused):
    X = learnable[1][:40]
    labels, sums = fused.predict_topk(X, k=7)
    logits = fused.decision_function(X).astype(float)  # dense: the classifier's own
    z = hidden_of(fused, X).astype(float)
    cosines = z @ fused.label_embeddings_.T / np.linalg.norm(z, axis=1, keepdims=True)
    for i in range(len(labels)):
        lists = []
        for scores in (logits[i], cosines[i]):
            best = np.argsort(-scores)[:FUSED]  # 100 of the 150
            lists.append((best.tolist(), scores[best].tolist()))
        expected = slow_fuse(lists, 0.5)
        np.testing.assert_allclose(sums[i], [expected[label] for label in labels[i]], rtol=1e-4)
        np.testing.assert_allclose(sums[i], sorted(expected.values())[:-8:-1], rtol=1e-4)


def test_label_embeddings_are_the_unit_means_of_hidden_vectors(learnable, fused):
    X, _, Y, _ = learnable
    expected = unit_rows(slow_centroids(hidden_of(fused, X), Y))
    np.testing.assert_allclose(fused.label_embeddings_, expected, rtol=1e-3, atol=1e-5)
    assert fused.late_fusion_ == 0.5


def test_label_embeddings_are_mapped_as_the_sampler_has_learnt_to(data, begun_samplers):
    X, Y = data
    clf = xmc(LabelEmbeddingSampler(learning_rate=0.02), late_fusion=0.5).fit(X, Y)
    (sampler,) = begun_samplers
    seen = np.flatnonzero(Y.sum(axis=0))
    centroids = slow_centroids(hidden_of(clf, X), Y)[seen].astype(np.float32)
    mapped = centroids
    for weight, bias in sampler._map.layers:
        mapped = mapped @ weight.numpy() + bias.numpy()
    found = clf.label_embeddings_[seen]
    np.testing.assert_allclose(found, unit_rows(mapped), rtol=1e-3, atol=1e-4)
    assert abs(found - unit_rows(centroids)).max() > 0.01


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("sampler", ["uniform", "label-embedding"])
def test_auto_chooses_as_brute_force_on_the_rows_held_out(data, sampler, early_stopping):
    X, Y = data
    clf = xmc(
        sampler, late_fusion="auto", validation_fraction=0.3, early_stopping=early_stopping
    ).fit(X, Y)
    X_fit, X_held, Y_fit, Y_held = held_out(X, Y, clf)
    again = clone(clf).set_params(late_fusion=0.5)
    assert Y_held.shape[0] == 120
    assert (clf.validation_scores_ is None) != early_stopping
    if not early_stopping:  # the rows held out are not trained on
        again.fit(X_fit, Y_fit)
        np.testing.assert_array_equal(again.label_embeddings_, clf.label_embeddings_)
    chosen, scores = clf.late_fusion_, {}
    for beta in FUSION_WEIGHTS:
        clf.late_fusion_ = beta
        labels, _ = clf.predict_topk(X_held, k=5)
        hits = [[Y_held[i, label] for label in row] for i, row in enumerate(labels)]
        scores[beta] = np.mean([np.mean([row[:k] for row in hits]) for k in (1, 3, 5)])
    best = max(scores.values())
    assert chosen == max(beta for beta in scores if scores[beta] >= best - 1e-12)
    assert best > min(scores.values())


@pytest.mark.parametrize("late_fusion", [None, 0.5])
def test_trained_on_shortlists_alone_a_classifier_ranks_no_other_label(learnable, late_fusion):
    """Scores of labels far from a row are untrained: the 100 nearest of the 150 count."""
    X, X_test, Y, _ = learnable
    clf = xmc("label-embedding", max_iter=4, late_fusion=late_fusion).fit(X, Y)
    assert clf.shortlist_size_ == 75  # FUSED is more
    dense = clf.decision_function(X_test)
    z = hidden_of(clf, X_test).astype(float)
    cosines = z @ clf.label_embeddings_.T.astype(float)
    counted = dense > -1e30
    np.testing.assert_array_equal(counted.sum(1), FUSED)
    lowest = np.where(counted, cosines, np.inf).min(1)
    assert (np.where(counted, -np.inf, cosines).max(1) <= lowest + 1e-5 * abs(lowest)).all()
    logits = z @ clf.label_weights_.T + clf.label_biases_
    np.testing.assert_allclose(dense[counted], logits[counted], rtol=1e-3, atol=1e-3)
    clf.late_fusion_ = None
    labels, scores = clf.predict_topk(X_test, k=20)
    np.testing.assert_array_equal(labels, np.argsort(-dense, axis=1, kind="stable")[:, :20])
    np.testing.assert_allclose(scores, np.take_along_axis(dense, labels, 1), rtol=1e-4, atol=1e-5)
    assert clf.predict_topk(X_test, k=120)[0].shape == (500, 120)
    free = xmc("label-embedding+uniform").fit(X, Y)
    assert free.shortlist_size_ is free.label_embeddings_ is None


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n_labels", [60, 150])
def test_labels_without_a_training_row_come_last(n_labels, beta):
    X, Y = make_xmc(400, 300, n_labels, random_state=0)
    unseen = np.arange(0, n_labels, 5)
    Y = Y.toarray()
    Y[:, unseen] = 0
    unseen = np.flatnonzero(Y.sum(0) == 0)
    clf = xmc(late_fusion=beta).fit(X, sp.csr_array(Y))
    assert not clf.label_embeddings_[unseen].any()
    for rows in (X, 1e5 * X, sp.csr_array((2, 300))):  # also rows without features
        labels, sums = clf.predict_topk(rows, k=n_labels)
        np.testing.assert_array_equal(
            np.sort(labels), np.tile(np.arange(n_labels), (len(labels), 1))
        )
        n = n_labels - len(unseen)
        assert not np.isin(labels[:, :n], unseen).any()
        assert np.isfinite(sums).all()


def test_labels_without_an_embedding_are_not_ranked_by_cosine_even_where_cosines_are_negative():
    network = Network(make_weights((4,)))
    hidden = network.hidden(np.eye(15, dtype=np.float32), np.arange(15))
    embeddings = -unit_rows(normal(9, 4) ** 2)  # all cosines are negative
    seen = np.arange(9) % 3 > 0
    embeddings[~seen] = 0
    X, rows = np.eye(15, dtype=np.float32), hidden.sum(1) > 0
    labels, cosines = rank_by_cosine(network, embeddings, seen, X, 15, 9, 1)
    assert rows.sum() > 5
    assert (np.sort(labels)[:, 3:] == np.flatnonzero(seen)).all()
    assert (labels[:, 6:] == -1).all()
    assert (cosines[rows, :6] < 0).all()
    assert np.isneginf(cosines[:, 6:]).all()


def test_top_k_holds_the_sums_and_probabilities_stay_the_classifiers(learnable, fused):
    X, Y = learnable[1], learnable[3]
    labels, sums = fused.predict_topk(X, k=4)
    clf = clone(fused).set_params(top_k=4)
    vars(clf).update({k: v for k, v in vars(fused).items() if k != "top_k"})
    ranked = clf.decision_function(X)
    assert ranked.shape == (X.shape[0], 150)
    np.testing.assert_array_equal(np.diff(ranked.indptr), 4)
    np.testing.assert_array_equal(np.take_along_axis(ranked.toarray(), labels, 1), sums)
    assert precision_at_k(Y, ranked, k=1) == fused.score(X, Y)
    proba = fused.predict_proba(X)
    np.testing.assert_allclose(proba, 1 / (1 + np.exp(-fused.decision_function(X))), rtol=1e-4)
    four = clf.predict_proba(X).toarray()
    at = four > 0
    np.testing.assert_allclose(four[at], proba[at], rtol=1e-5)
    assert (np.where(at, 0, proba).max(1) <= np.where(at, four, 1).min(1) + 1e-6).all()


@pytest.mark.parametrize("beta", [0.3, "auto"])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 7])
def test_one_class_a_row_and_few_classes(n_classes, beta):
    X, _ = make_xmc(120, 100, 20, random_state=0)
    y = np.array(list("abcdefg"))[np.arange(120) % n_classes]
    clf = xmc("uniform", late_fusion=beta).fit(X, y)
    labels, _ = clf.predict_topk(X, k=10)
    assert labels.shape == (120, n_classes)
    assert all(len(set(row)) == n_classes for row in labels)
    assert clf.late_fusion_ in FUSION_WEIGHTS
    best = clf.classes_[clf.predict_proba(X).argmax(1)]
    np.testing.assert_array_equal(clf.predict(X), best)  # scikit-learn's contract
    assert clf.score(X, y) == np.mean(best == y)


@pytest.mark.parametrize("n_labels", [1, 2, 4])
def test_few_labels_in_an_indicator_with_auto(n_labels):
    X, _ = make_xmc(80, 50, 20, random_state=0)
    Y = np.eye(n_labels, dtype=int)[np.arange(80) % n_labels]
    Y[::7] = 0
    clf = xmc("label-embedding", late_fusion="auto", residual=True).fit(X, sp.csr_array(Y))
    labels, _ = clf.predict_topk(X, k=5)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(n_labels), (80, 1)))


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_one_row_one_label_each(form):
    X = np.ones((1, 3))
    X = sp.csr_array(X) if form == "sparse" else X
    clf = xmc("label-embedding", late_fusion=0.5, residual=True).fit(X, [[1, 0]])
    assert clf.predict_topk(X, k=5)[0].tolist() == [[0, 1]]
    np.testing.assert_allclose(np.linalg.norm(clf.label_embeddings_, axis=1), [1, 0], atol=1e-6)


def test_dense_rows_two_layers_residual_and_rows_without_labels(data):
    X, Y = data[0].toarray(), data[1].toarray()
    Y[::5] = 0
    clf = xmc(
        "label-embedding", hidden_layer_sizes=(20, 12), residual=True, late_fusion="auto",
        early_stopping=True,
    ).fit(X, Y)  # fmt: skip
    assert clf.label_embeddings_.shape == (60, 12)
    assert clf.predict_topk(X[:3], k=60)[0].shape == (3, 60)


def test_saving_cloning_and_searching(data):
    X, Y = data
    clf = xmc("label-embedding", late_fusion="auto", residual=True).fit(X, Y)
    again = pickle.loads(pickle.dumps(clf))
    for one, other in zip(clf.predict_topk(X), again.predict_topk(X), strict=True):
        np.testing.assert_array_equal(one, other)
    twin = clone(clf)
    assert not hasattr(twin, "late_fusion_")
    np.testing.assert_array_equal(twin.fit(X, Y).label_embeddings_, clf.label_embeddings_)
    values = [None, 0.1, 0.5, "auto"]
    search = GridSearchCV(xmc("uniform"), {"late_fusion": values}, cv=2).fit(X, Y)
    assert list(search.cv_results_["param_late_fusion"]) == values
    best = search.best_estimator_
    assert (best.late_fusion_ is None) == (search.best_params_["late_fusion"] is None)
    plain = xmc("uniform").fit(X, Y)
    assert plain.late_fusion_ is plain.label_embeddings_ is None


@pytest.mark.parametrize("value", [-0.1, 1.1, "best", float("nan")])
def test_bad_weights_are_refused_by_name(data, no_training, value):
    with pytest.raises(ValueError, match="late_fusion"):
        xmc(late_fusion=value).fit(*data)


def test_auto_needs_a_labelled_row_to_train_on(no_training, monkeypatch):
    X, Y = np.eye(4), np.eye(4, dtype=int)
    Y[1:] = 0
    monkeypatch.setattr("skxmc._fitting.train_test_split", lambda rows, **_: (rows[1:], rows[:1]))
    with pytest.raises(ValueError, match=r"late_fusion='auto'.*validation_fraction"):
        xmc(late_fusion="auto").fit(X, Y)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
def test_everything_together_on_a_gpu(learnable):
    X, X_test, Y, Y_test = learnable
    scores = [
        xmc("label-embedding", residual=True, late_fusion="auto", max_iter=8, device=device)
        .fit(X, Y)
        .score(X_test, Y_test)
        for device in ("cpu", "cuda")
    ]
    assert scores[1] == pytest.approx(scores[0], abs=0.05)


# --- presets --------------------------------------------------------------------------------------

# papers.md 3.7: labels, epochs, r, batch, K, H, label rate, label epochs, label batch, dlr_step.
PAPER = {
    "EURLex-4K": (3_993, 26, 8, 255, 400, 1000, 0.003, 8, 256, 14),
    "Wiki10-31K": (30_938, 26, 6, 255, 600, 600, 0.003, 8, 512, 14),
    "AmazonCat-13K": (13_330, 26, 4, 255, 500, 600, 0.0002, 4, 256, 14),
    "Amazon-670K": (670_091, 21, 8, 128, 500, 900, 0.001, 4, 512, 14),
    "WikiLSHTC-325K": (325_056, 21, 18, 255, 500, 1400, 0.001, 4, 512, 14),
    "Delicious-200K": (205_443, 21, 18, 255, 500, 1400, 0.001, 2, 512, 14),
    "LF-AmazonTitles-131K": (131_073, 21, 7, 255, 500, 1200, 0.001, 6, 512, 14),
    "AmazonTitles-3M": (2_812_281, 21, 7, 255, 400, 1200, 0.001, 4, 512, 8),
    "WikiSeeAlsoTitles-350K": (352_072, 26, 20, 255, 500, 1200, 0.001, 6, 512, 14),
    "WikiTitles-500K": (501_070, 21, 7, 256, 400, 1200, 0.003, 4, 512, 8),
}
HALVINGS = {(26, 14): [14, 21, 25], (21, 14): [14], (21, 8): [8, 10, 15, 20]}


@pytest.mark.parametrize("name", PAPER)
def test_lightdxml_has_the_settings_of_the_paper(name):
    size, epochs, cycle, batch, k, width, rate, passes, pairs, step = PAPER[name]
    by_name, by_size = presets.lightdxml(name), presets.lightdxml(size)
    assert repr(by_name) == repr(by_size)
    assert repr(by_name) == repr(presets.lightdxml(round(size * 1.02)))
    sampler = by_name.sampler
    assert sampler.get_params() == {
        "n_negatives": None, "n_candidates": k, "refresh_epochs": cycle, "n_hidden": width,
        "n_passes": passes, "learning_rate": rate, "batch_size": pairs, "index": "auto",
    }  # fmt: skip
    assert (by_name.max_iter, by_name.batch_size) == (epochs, batch)
    assert by_name.hidden_layer_sizes == (300,)
    assert by_name.residual is True
    assert by_name.dropout == 0.5
    assert by_name.late_fusion == "auto"
    factors = by_name.learning_rate
    halvings = HALVINGS[epochs, step]
    assert factors == [0.5 ** sum(epoch >= at for at in halvings) for epoch in range(epochs)]


def test_every_size_of_the_table_is_tested():
    assert set(presets._LIGHTDXML) == set(PAPER)
    assert all(repr(name)[1:-1] in presets.lightdxml.__doc__ for name in PAPER)


@pytest.mark.parametrize("size", [0, -3, 2.5, None, "EURLex", "eurlex-4k"])
def test_unknown_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size="):
        presets.lightdxml(size)


def test_small_sizes_shorten_the_shortlist_and_parameters_replace_the_papers():
    assert presets.lightdxml(101).sampler.n_candidates == 51
    assert presets.lightdxml(1).sampler.n_candidates == 1
    clf = presets.lightdxml(10**9, max_iter=16, dropout=0.1, sampler="uniform", n_jobs=1)
    assert len(clf.learning_rate) == clf.max_iter == 16
    assert clf.learning_rate[:11] == [1] * 8 + [0.5] * 2 + [0.25]
    assert (clf.dropout, clf.sampler, clf.n_jobs) == (0.1, "uniform", 1)
    with pytest.raises(TypeError, match="widht"):
        presets.lightdxml(10, widht=3)


def test_lightdxml_is_far_ahead_of_the_most_frequent_label(learnable):
    X, X_test, Y, Y_test = learnable
    clf = presets.lightdxml(
        150, max_iter=6, hidden_layer_sizes=(32,), batch_size=32, random_state=0, n_jobs=1
    ).fit(X, Y)
    frequent = np.full((500, 1), np.argmax(Y.sum(axis=0)))
    assert clf.score(X_test, Y_test) > 2 * precision_at_k(Y_test, frequent, k=1)
    assert clf.late_fusion_ in FUSION_WEIGHTS


def test_quick_takes_a_part_of_the_defaults_time_and_others_parameters():
    clf = presets.quick(max_iter=7, top_k=3)
    assert (clf.n_estimators, clf.max_iter, clf.batch_size, clf.top_k) == (1, 7, None, 3)
    assert clf.sampler == XMCClassifier().sampler


def test_papers_presets_are_one_network_without_weights_or_tail_bias():
    for clf in (presets.lightdxml(5000), presets.few_mips()):
        assert (clf.n_estimators, clf.positive_weight, clf.tail_bias) == (1, None, 0.0)
    assert presets.lightdxml(5000, n_estimators=3).n_estimators == 3


def test_few_mips_is_the_papers_code():
    clf = presets.few_mips(loss="softmax")
    hard, uniform = clf.sampler.first, clf.sampler.second
    expected = {
        "n_negatives": 5, "n_candidates": 5, "keep": False, "use_bias": False, "skip": 0,
        "refresh_epochs": 1, "refresh_steps": 1000, "warmup_epochs": 0, "index": "auto",
    }  # fmt: skip
    assert hard.get_params() == expected
    assert (uniform.n_negatives, uniform.shared) == (3000, False)
    assert clf.loss == "softmax"
