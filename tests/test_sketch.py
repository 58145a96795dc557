"""Approximate search: the shortlist beside a sort, what it finds beside exact search."""

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, train_test_split
from test_exact_search import WAYS, reals
from test_index import label_rows

from skxmc import XMCClassifier
from skxmc._index import ExactIndex, Sketch, SketchIndex, _sketch, _sketch_kernels
from skxmc.datasets import make_xmc
from skxmc.distributed import ShardedXMCClassifier
from skxmc.ensemble import average
from skxmc.metrics import precision_at_k, precision_at_k_scorer


@pytest.fixture(params=WAYS)
def int8(request, monkeypatch):
    monkeypatch.setattr(_sketch, "int8_is_fast", lambda: request.param)
    monkeypatch.setattr("skxmc._index._exact.int8_is_fast", lambda: request.param)
    return request.param


def indexes(weights, biases):
    return SketchIndex(Sketch(weights)).build(weights, biases), ExactIndex().build(weights, biases)


def recall(exact, found):
    return np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])


# -- the shortlist ---------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    n_labels=st.integers(1, 400),
    wanted=st.integers(1, 30),
    size=st.sampled_from([7, 64, 1000]),
    spread=st.sampled_from([0, 1, 3, 10_000]),  # few numbers are full of ties
    order=st.sampled_from(["as drawn", "rising", "falling"]),
    seed=st.integers(0, 2**16),
)
def test_a_shortlist_is_the_front_of_a_stable_sort(n_labels, wanted, size, spread, order, seed):
    rng = np.random.default_rng(seed)
    products = rng.integers(-spread, spread + 1, (4, n_labels)).astype(np.int32)
    if order != "as drawn":
        products = np.sort(products)[:, :: 1 if order == "rising" else -1].copy()
    scales = rng.choice([0.5, 1.0], n_labels).astype(np.float32)
    biases = rng.integers(-1, 2, n_labels).astype(np.float32)
    query_scales = np.array([1, 2, 0.25, 0], np.float32)
    scores = products * scales * query_scales[:, None] + biases
    counts, thresholds = np.zeros(4, np.int64), np.full(4, -np.inf, np.float32)
    noted, values = np.empty((4, 4 * wanted), np.int32), np.empty((4, 4 * wanted), np.float32)
    for start in range(0, n_labels, size):
        part = slice(start, start + size)
        _sketch_kernels.note_best(
            products[:, part].copy(), start, query_scales, scales[part], biases[part],
            wanted, counts, thresholds, noted, values,
        )  # fmt: skip
    best = np.full((4, wanted + 2), -1, np.int32)
    _sketch_kernels.keep_best(counts, noted, values, wanted, best)
    for own, n, row in zip(best, counts, scores, strict=True):
        assert len(set(own[:n])) == n
        assert min(wanted, n_labels) <= n <= wanted + 2
        first = np.argsort(-row, kind="stable")[:wanted]
        missing = np.setdiff1d(first, own[:n])
        # Of those that equal the last some may be others.
        np.testing.assert_array_equal(row[missing], row[first[-1]])
        assert np.sort(row[own[:n]])[::-1][: len(first)].tolist() == row[first].tolist()


@pytest.mark.parametrize("n", [3, 300])
@pytest.mark.parametrize("k", [1, 4])
def test_the_best_of_candidates_are_those_of_a_slow_loop(n, k):
    rng = np.random.default_rng(n + k)
    weights = torch.from_numpy(rng.standard_normal((200, 40)).astype(np.float32))
    biases = torch.from_numpy(rng.standard_normal(200).astype(np.float32))
    weights[7], biases[9] = 0, -1e30
    hidden = torch.relu(torch.from_numpy(rng.standard_normal((n, 40)).astype(np.float32)))
    candidates = np.array([rng.permutation(200)[:20] for _ in range(n)], np.int32)
    counts = rng.integers(0, 21, n)
    for i, count in enumerate(counts):
        candidates[i, count:] = -5
    index = ExactIndex().build(weights, biases)
    scores, labels = index.topk_among(hidden, candidates, counts, k, 2)
    every = (hidden.double() @ weights.double().T + biases.double()).numpy()
    for i, count in enumerate(counts):
        own = np.sort(candidates[i, :count])
        best = own[np.argsort(-every[i, own], kind="stable")][:k]
        np.testing.assert_array_equal(labels[i], np.append(best, [-1] * (k - len(best))))
        np.testing.assert_allclose(scores[i, : len(best)], every[i, best], rtol=1e-5, atol=1e-5)
        assert np.isneginf(scores[i, len(best) :]).all()


def test_of_all_labels_it_finds_the_same_bits_as_exact_search():
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.integers(-2, 3, (90, 16)).astype(np.float32))  # full of ties
    hidden = torch.from_numpy(rng.integers(0, 3, (500, 16)).astype(np.float32))
    index = ExactIndex().build(weights, weights[:, 0].contiguous())
    every = np.array([rng.permutation(90) for _ in range(500)], np.int32)
    found = index.topk_among(hidden, every, np.full(500, 90), 7)
    for one, other in zip(found, index.topk(hidden, 7), strict=True):
        np.testing.assert_array_equal(one, other)


# -- the search ------------------------------------------------------------------------------------


def test_where_label_vectors_lie_along_few_axes_it_is_exact_search(int8):
    hidden, weights, biases = reals(np.random.default_rng(0), 300, 6400, 200)
    turn = torch.linalg.qr(torch.randn(200, 200, generator=torch.Generator().manual_seed(0)))[0]
    turned = weights @ turn
    turned[:, 40:] *= 1e-4
    found, exact = (index.topk(hidden, 5) for index in indexes(turned @ turn.T, biases))
    assert recall(exact[1], found[1]) > 0.999
    same = (found[1] == exact[1]).all(1)
    np.testing.assert_array_equal(found[0][same], exact[0][same])


def test_its_scores_are_exact_whatever_it_finds(int8):
    hidden, weights, biases = reals(np.random.default_rng(1), 300, 6400, 256)
    index, _ = indexes(weights, biases)
    scores, labels = index.topk(hidden, 5)
    every = hidden.double() @ weights.double().T + biases.double()
    np.testing.assert_allclose(scores, every.gather(1, torch.from_numpy(labels).long()), 1e-5, 1e-4)
    assert (np.diff(scores) <= 0).all()
    # Noise has no leading axes: a quarter of the numbers, and a shortlist of an eightieth.
    _, best = ExactIndex().build(weights, biases).topk(hidden, 5)
    assert 0.5 < recall(best, labels) < 1


def test_threads_and_few_rows_find_the_same(int8):
    hidden, weights, biases = reals(np.random.default_rng(2), 600, 6400, 128)
    index, _ = indexes(weights, biases)
    labels = index.topk(hidden, 3)[1]
    for other in (index.topk(hidden, 3, n_threads=2), index.topk(hidden[:4], 3)):
        n = len(other[0])
        assert (other[1] == labels[:n]).mean() > 0.999  # a sketch of a row may round otherwise
    again = SketchIndex(Sketch(weights, 2)).build(weights, biases).topk(hidden, 3)
    np.testing.assert_array_equal(again[1], labels)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_row_that_says_nothing_is_ranked_as_by_exact_search(int8, value):
    hidden, weights, biases = reals(np.random.default_rng(3), 300, 6400, 128)
    biases[:] = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 6400).astype(np.float32))
    hidden[7] = value
    found, exact = (index.topk(hidden, 6) for index in indexes(weights, biases))
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_array_equal(one[7], other[7])


def test_labels_that_training_has_not_seen_stay_behind():
    hidden, weights, biases = reals(np.random.default_rng(4), 50, 6400, 128)
    weights[::2], biases[::2] = 0, -1e30
    _, labels = indexes(weights, biases)[0].topk(hidden, 5)
    assert (labels % 2 == 1).all()


def test_dead_units_and_a_table_of_zeros():
    hidden, weights, biases = reals(np.random.default_rng(5), 40, 6400, 128)
    weights[:, 3:] = 0
    found, exact = (index.topk(hidden, 5) for index in indexes(weights, biases))
    np.testing.assert_array_equal(found[1], exact[1])
    weights[:] = 0
    found, exact = (index.topk(hidden, 5) for index in indexes(weights, biases))
    np.testing.assert_array_equal(found[1], exact[1])


def test_it_scores_all_where_that_costs_no_more():
    hidden, weights, biases = reals(np.random.default_rng(6), 20, 6400, 128)
    index, exact = indexes(weights, biases)
    exclude, rows = label_rows(20, 6400, 0.01, np.random.default_rng(0)), np.arange(20)
    for arguments in ((7,), (5, exclude, rows)):
        for one, other in zip(*(i.topk(hidden, *arguments) for i in (index, exact)), strict=True):
            np.testing.assert_array_equal(one, other)
    assert (index.topk(hidden, 5)[1] != exact.topk(hidden, 5)[1]).any()
    without = SketchIndex(None).build(weights, biases)
    np.testing.assert_array_equal(without.topk(hidden, 5)[1], exact.topk(hidden, 5)[1])
    assert not Sketch.pays(16_383, 1024)
    assert not Sketch.pays(500_000, 255)
    assert Sketch.pays(16_384, 256)
    assert index.topk(hidden[:0], 5)[1].shape == (0, 5)


def test_axes_are_those_of_all_labels_whatever_few_of_them_are(monkeypatch):
    """Labels far apart are looked at, and one that is not finite, or huge, is one of many."""
    hidden, weights, biases = reals(np.random.default_rng(7), 200, 6400, 128)
    weights[:, 30:] *= 1e-3
    weights[:400] = weights[:400].flip(1)
    monkeypatch.setattr(_sketch, "_SAMPLE", 300)
    weights[44], weights[66] = 1e20, np.nan  # each 22nd is looked at
    exact = ExactIndex().build(weights, biases).topk(hidden, 5)[1]
    assert recall(exact, indexes(weights, biases)[0].topk(hidden, 5)[1]) > 0.9


def test_axes_do_not_depend_on_the_threads_of_the_caller():
    weights = reals(np.random.default_rng(8), 1, 6400, 256)[1]
    before, axes = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            axes.append(Sketch(weights).axes)
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*axes)


@pytest.mark.parametrize("k", [5, 50])  # by sketch, and of all
def test_several_threads_search_at_once_from_the_first_search_on(k):
    hidden, weights, biases = reals(np.random.default_rng(9), 12, 6400, 256)
    expected = indexes(weights, biases)[0].topk(hidden, k)
    for _ in range(5):
        index, _ = indexes(weights, biases)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, i=index: i.topk(hidden, k), range(8)))
        for scores, labels in found:
            np.testing.assert_array_equal(labels, expected[1])
            np.testing.assert_array_equal(scores, expected[0])


# -- of a classifier -------------------------------------------------------------------------------


def xmc(**parameters):
    defaults = {
        "hidden_layer_sizes": (64,), "max_iter": 3, "batch_size": 64, "n_jobs": 1,
        "random_state": 0, "search": "approximate",
    }  # fmt: skip
    return XMCClassifier(**{**defaults, **parameters})


@pytest.fixture
def few_are_many(monkeypatch):
    """So that fits are short, and a shortlist is one."""
    small = {
        "MANY_LABELS": 500, "_WIDE": 64, "_SHARE": 4, "_FEWEST": 8, "_PER_WANTED": 4,
        "_LEAST": 8, "_PART": 8,
    }  # fmt: skip
    for name, value in small.items():
        monkeypatch.setattr(_sketch, name, value)


@pytest.fixture(scope="module")
def data():
    X, Y = make_xmc(2500, 3000, 1000, random_state=0)
    return train_test_split(X, Y, test_size=500, random_state=0)  # X, X_test, Y, Y_test


@pytest.fixture
def clf(data, few_are_many):
    return xmc(neighbor_weight=0.0).fit(data[0], data[2])


def copy(clf, **parameters):
    return pickle.loads(pickle.dumps(clf)).set_params(**parameters)


@pytest.mark.usefixtures("few_are_many")
def test_it_is_switched_on_and_off(clf, data):
    X_test, Y_test = data[1], data[3]
    found = (on := copy(clf)).predict_topk(X_test)[0]
    assert isinstance(on._predictor(X_test).index, SketchIndex)
    exact = on.set_params(search="exact").predict_topk(X_test)[0]
    assert type(on._predictor(X_test).index) is ExactIndex
    assert 0.9 < recall(exact, found) < 1
    assert precision_at_k(Y_test, found, k=1) == pytest.approx(
        precision_at_k(Y_test, exact, k=1), abs=0.01
    )
    np.testing.assert_array_equal(
        on.set_params(search="approximate").predict_topk(X_test)[0], found
    )


@pytest.mark.usefixtures("few_are_many")
def test_what_ranks_as_predict_topk_does_searches_alike(clf, data):
    X_test, Y_test = data[1], data[3]
    clf = copy(clf, tail_bias=0.0, top_k=3)
    labels = clf.predict_topk(X_test, k=3)[0]
    for ranked in (clf.decision_function(X_test), clf.predict_proba(X_test)):
        np.testing.assert_array_equal(np.sort(labels).ravel(), ranked.indices)
    assert clf.score(X_test, Y_test) == precision_at_k(Y_test, labels, k=1)


@pytest.mark.usefixtures("few_are_many")
def test_neighbours_vote_on_what_it_finds(clf, data):
    X, X_test, Y, _ = data
    clf = xmc(neighbor_weight=0.2).fit(X, Y)
    found = clf.predict_topk(X_test)[0]
    assert recall(copy(clf, search="exact").predict_topk(X_test)[0], found) > 0.9


@pytest.mark.usefixtures("few_are_many")
def test_late_fusion_goes_by_it_too(data):
    X, X_test, Y, _ = data
    clf = xmc(late_fusion=0.5, max_iter=1).fit(X, Y)
    found = clf.predict_topk(X_test)[0]
    assert recall(copy(clf, search="exact").predict_topk(X_test)[0], found) > 0.9


@pytest.mark.usefixtures("few_are_many")
def test_a_sketch_is_made_once(clf, data, monkeypatch):
    made, real = [], Sketch.__init__
    monkeypatch.setattr(Sketch, "__init__", lambda self, *args: made.append(1) or real(self, *args))
    clf = copy(clf)
    assert not any(isinstance(value, Sketch) for value in vars(clf).values())
    for tail_bias in (0.0, 0.5, -1.0):
        clf.set_params(tail_bias=tail_bias, top_k=3)
        clf.predict_topk(data[1])
        clf.predict_proba(data[1][:2])
    assert made == [1]


@pytest.mark.usefixtures("few_are_many")
def test_a_fit_says_what_it_finds_and_warns_where_that_is_little(data, capsys, monkeypatch):
    X, _, Y, _ = data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = xmc(neighbor_weight=0.0, verbose=1).fit(X, Y)
    said = [line for line in capsys.readouterr().out.splitlines() if "search='approx" in line]
    assert len(said) == 1
    share = float(said[0].split("finds ")[1].split("%")[0])
    exact = copy(clf, search="exact", verbose=0).predict_topk(X)[0]
    assert 100 * recall(exact, copy(clf, verbose=0).predict_topk(X)[0]) == pytest.approx(
        share, abs=2
    )
    monkeypatch.setattr(_sketch, "_LEAST", 1)
    monkeypatch.setattr(_sketch, "_PART", 64)
    with pytest.warns(
        UserWarning, match=r"^search='approximate' finds \d+\.\d% of the 5 best"
    ) as w:
        xmc(max_iter=1).fit(X, Y)
    assert w[0].filename == __file__
    with warnings.catch_warnings():  # a stream comes in small pieces
        warnings.simplefilter("error")
        xmc(tail_bias=0.0).partial_fit(X, Y)
        xmc(sampler="label-embedding", max_iter=1).fit(X, Y)  # ranks among a shortlist of its own


@pytest.mark.usefixtures("few_are_many")
def test_grid_search_streams_classes_and_averages(data):
    X, X_test, Y, _ = data
    grid = {"search": ["exact", "approximate"]}
    search = GridSearchCV(xmc(max_iter=1), grid, cv=2, scoring=precision_at_k_scorer(1)).fit(X, Y)
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)

    stream = xmc(neighbor_weight=0.0)
    for part in (slice(0, 1000), slice(1000, 2000)):
        stream.partial_fit(X[part], Y[part])
        found = stream.predict_topk(X_test)[0]  # by a sketch of what it is now
        assert recall(copy(stream, search="exact").predict_topk(X_test)[0], found) > 0.9

    y = Y.indices[Y.indptr[:-1]]
    classes = xmc(max_iter=1).fit(X, y)
    exact = copy(classes, search="exact").predict(X_test)
    assert (classes.predict(X_test) == exact).mean() > 0.95

    both = average([xmc(random_state=i, max_iter=1).fit(X, Y) for i in (0, 1)])
    assert both.search == "approximate"
    found = both.predict_topk(X_test)[0]
    assert recall(both.set_params(search="exact").predict_topk(X_test)[0], found) > 0.9


@pytest.mark.usefixtures("few_are_many")
def test_dense_scores_are_of_all_labels(clf, data):
    dense = [
        copy(clf, search=search).decision_function(data[1]) for search in ("exact", "approximate")
    ]
    np.testing.assert_array_equal(*dense)


@pytest.mark.usefixtures("few_are_many")
def test_what_it_cannot_be_is_refused(clf, data):
    X, X_test, Y, _ = data
    with pytest.raises(
        ValueError, match=r"^search='sketch' is unknown: set it to 'exact' or 'appr"
    ):
        copy(clf, search="sketch").predict_topk(X_test)
    with pytest.raises(ValueError, match="The 'search' parameter of XMCClassifier must"):
        xmc(search="sketch").fit(X, Y)
    with pytest.raises(ValueError, match=r"^search='approximate' is not supported by several"):
        ShardedXMCClassifier(xmc()).fit(X, Y)


@pytest.mark.usefixtures("few_are_many")
def test_rows_without_a_word(clf, data):
    empty = sp.csr_array((2, data[0].shape[1]), dtype=np.float32)
    labels = clf.predict_topk(empty)[0]
    np.testing.assert_array_equal(labels, copy(clf, search="exact").predict_topk(empty)[0])


@pytest.mark.usefixtures("few_are_many")
def test_other_label_weights_have_a_sketch_of_their_own(clf, data):
    clf = copy(clf)
    clf.predict_topk(data[1])
    clf.label_weights_ = np.roll(clf.label_weights_, 1, axis=0)
    found = clf.predict_topk(data[1])
    for one, other in zip(found, copy(clf).predict_topk(data[1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_classifier_of_few_labels_has_no_sketch(data, capsys):
    X, X_test, Y, _ = data
    clf = xmc(max_iter=1, verbose=1).fit(X, Y)
    assert not clf._predictor(X_test).index.approximates
    assert "search" not in capsys.readouterr().out


@pytest.mark.usefixtures("few_are_many")
def test_callbacks_of_a_fit_rank_all_labels(data):
    pytest.importorskip("sklearn.callback")
    from sklearn.callback import ScoringMonitor

    X, X_test, Y, _ = data
    monitor = ScoringMonitor(scoring=precision_at_k_scorer(3))
    clf = xmc(max_iter=2).set_callbacks(monitor).fit(X, Y)
    assert clf.search == "approximate"
    assert clf.predict_topk(X_test)[0].shape == (500, 5)
