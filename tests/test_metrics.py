"""The ranking metrics against slow loops, published weights, scikit-learn and bad input."""

import math
import os
import pickle
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import ndcg_score, top_k_accuracy_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from skxmc import metrics
from skxmc.metrics import (
    label_coverage_at_k,
    ndcg_at_k,
    precision_at_k,
    precision_at_k_scorer,
    propensities,
    psndcg_at_k,
    psp_at_k,
    psp_at_k_scorer,
    ranking_scorers,
    recall_at_k,
)

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SKXMC_DATA", ROOT.parent / "shared" / "data"))
SPARSE = [
    f"{form}_{kind}"
    for form in ("csr", "csc", "coo", "lil", "dok", "bsr")
    for kind in ("array", "matrix")
]
PLAIN = [precision_at_k, recall_at_k, ndcg_at_k, label_coverage_at_k]
WEIGHTED = [psp_at_k, psndcg_at_k]
EVERY = [*PLAIN, *WEIGHTED]

# --- the slow truth -------------------------------------------------------------------------------


def slow_top(score_of, k):
    """Rank a dict of label -> score: the higher score first, then the lower label."""
    return sorted(score_of, key=lambda label: (-score_of[label], label))[:k]


def slow_dcg(gains):
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


def slow(metric, true, tops, k, p, skip_unlabeled=False):
    """Compute a metric from sets of true labels and lists of ranked ones (None = no label)."""
    rows = [(t, top) for t, top in zip(true, tops, strict=True) if t or not skip_unlabeled]
    if not any(t for t, _ in rows):
        return 0.0
    n = len(rows)
    if metric is precision_at_k:
        return sum(sum(j in t for j in top) / k for t, top in rows) / n
    if metric is recall_at_k:
        return sum(sum(j in t for j in top) / len(t) for t, top in rows if t) / n
    if metric is ndcg_at_k:
        return (
            sum(
                slow_dcg([float(j in t) for j in top]) / slow_dcg([1.0] * min(k, len(t)))
                for t, top in rows
                if t
            )
            / n
        )
    if metric is label_coverage_at_k:
        found = {j for t, top in rows for j in top if j in t}
        return len(found) / len({j for t, _ in rows for j in t})
    got = best = 0.0
    for t, top in rows:
        if not t:
            continue
        gains = [1 / p[j] if j in t else 0.0 for j in top]
        ideal = sorted((1 / p[j] for j in t), reverse=True)[:k]
        if metric is psp_at_k:
            got, best = got + sum(gains) / k, best + sum(ideal) / k
        else:
            norm = slow_dcg([1.0] * min(k, len(t)))
            got, best = got + slow_dcg(gains) / norm, best + slow_dcg(ideal) / norm
    return (got / n) / (best / n)


def call(metric, y_true, y_score, k, p, **kwargs):
    if metric in WEIGHTED:
        kwargs["propensities"] = p
    value = metric(y_true, y_score, k, **kwargs)
    assert type(value) is float
    assert 0 <= value <= 1 + 1e-12
    return value


def as_sparse(form, dense, stored):
    """Store the entries of `dense` that `stored` marks, zeros included, in one of the formats."""
    row, col = np.nonzero(stored)
    coo = sp.coo_array((dense[row, col], (row, col)), shape=dense.shape)
    return getattr(sp, form)(coo)


@st.composite
def cases(draw):
    n, n_labels = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    k = draw(st.integers(1, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    y = rng.random((n, n_labels)) < draw(st.sampled_from([0.0, 0.15, 0.5, 1.0]))
    values = draw(
        st.sampled_from([[0.0], [-1.0, 0.0, 1.0], [-np.inf, -0.0, 0.0, 2.5, np.inf], None])
    )
    shape = (n, n_labels)
    scores = rng.normal(size=shape) if values is None else rng.choice(values, size=shape)
    stored = rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    p = rng.uniform(0.05, 1.0, size=n_labels)
    return y, scores, stored, k, p


def true_sets(y):
    return [set(np.flatnonzero(row)) for row in y]


@settings(deadline=None, max_examples=150)
@given(cases(), st.sampled_from([np.float32, np.float64, np.float16]), st.booleans())
def test_dense_scores_agree_with_the_loop(case, dtype, skip_unlabeled):
    y, scores, _, k, p = case
    scores = scores.astype(dtype)
    tops = [slow_top(dict(enumerate(row)), k) for row in scores.tolist()]
    for block in (2**20, 7):  # 7: a row or a few at a time
        with mock.patch("skxmc.metrics._ranking._BLOCK", block):
            for metric in EVERY:
                want = slow(metric, true_sets(y), tops, k, p, skip_unlabeled)
                got = call(metric, y, scores, k, p, skip_unlabeled=skip_unlabeled)
                assert got == pytest.approx(want, abs=1e-12)


@settings(deadline=None, max_examples=150)
@given(cases(), st.sampled_from(SPARSE), st.sampled_from(SPARSE), st.booleans())
def test_sparse_scores_agree_with_the_loop(case, score_form, y_form, skip_unlabeled):
    y, scores, stored, k, p = case
    if score_form.startswith(("bsr", "dok", "lil")):
        stored &= scores != 0  # these keep no zeros, or keep more of them
        if score_form.startswith("bsr"):
            stored[:] = True  # a block is stored whole
    tops = [
        slow_top({j: s for j, s in enumerate(row) if stored[i, j]}, k)
        for i, row in enumerate(scores.tolist())
    ]
    sparse_y = getattr(sp, y_form)(y.astype(np.int8))
    sparse_scores = as_sparse(score_form, scores, stored)
    for block in (2**20, 7):
        with mock.patch("skxmc.metrics._ranking._BLOCK", block):
            for metric in EVERY:
                want = slow(metric, true_sets(y), tops, k, p, skip_unlabeled)
                got = call(metric, sparse_y, sparse_scores, k, p, skip_unlabeled=skip_unlabeled)
                assert got == pytest.approx(want, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(cases(), st.integers(0, 12), st.sampled_from([np.int8, np.int32, np.int64]))
def test_rankings_agree_with_the_loop(case, m, dtype):
    y, scores, stored, k, p = case
    ranking = np.argsort(-scores, axis=1)
    ranking = np.where(np.take_along_axis(stored, ranking, axis=1), ranking, -1)[:, :m]
    if m > y.shape[1]:
        ranking = np.pad(ranking, ((0, 0), (1, 0)), constant_values=-1)
    for metric in EVERY:
        want = slow(metric, true_sets(y), [row[:k] for row in ranking.tolist()], k, p)
        assert call(metric, y, ranking.astype(dtype), k, p) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize("width", [40, 3_000])
def test_wide_rows_with_ties_at_the_border(metric, width):
    rng = np.random.default_rng(0)
    y = sp.csr_array(rng.random((60, width)) < 0.05)
    scores = rng.integers(0, 4, size=y.shape).astype(np.float32)
    scores[:10] = 0  # every entry ties
    p = rng.uniform(0.1, 1, size=width)
    true = true_sets(y.toarray())
    for k in (1, 5, 17):
        tops = [slow_top(dict(enumerate(row)), k) for row in scores.tolist()]
        assert call(metric, y, scores, k, p) == pytest.approx(slow(metric, true, tops, k, p))


def test_rows_of_very_different_length():
    """Sparse rows are padded in groups of like length; no row may lose or gain an entry."""
    rng = np.random.default_rng(0)
    length = np.array([0, 1, 2, 3, 4, 900, 7, 8, 0, 511, 512, 1])
    scores = sp.lil_array((len(length), 1_000))
    for i, m in enumerate(length):
        scores[i, rng.choice(1_000, m, replace=False)] = rng.normal(size=m)
    y = rng.random(scores.shape) < 0.3
    dense = scores.toarray()
    tops = [slow_top({j: row[j] for j in np.flatnonzero(row)}, 6) for row in dense]
    want = slow(precision_at_k, true_sets(y), tops, 6, None)
    assert precision_at_k(y, scores, 6) == pytest.approx(want)


# --- what the specification says ------------------------------------------------------------------


def test_precision_divides_by_k():
    y = [[1, 0, 0], [0, 0, 0]]
    assert precision_at_k(y, [[0.9, 0.5, 0.1]] * 2, k=2) == 0.25
    assert precision_at_k(y, [[0.9, 0.5, 0.1]] * 2, k=2, skip_unlabeled=True) == 0.5
    assert precision_at_k(y, [[0.9, 0.5, 0.1]] * 2, k=10, skip_unlabeled=True) == 0.1


def test_psp_is_a_ratio_of_means_and_not_a_mean_of_ratios():
    p = np.array([1.0, 0.1])
    y, ranking = [[1, 0], [0, 1]], [[0], [0]]
    assert psp_at_k(y, ranking, 1, propensities=p) == pytest.approx(1 / 11)  # not 1 / 2


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize("k", [1, 2, 3, 7, 40])
def test_the_ideal_ranking_scores_one(metric, k):
    """Also where rows have fewer than k labels, except for P@k, which divides by k."""
    rng = np.random.default_rng(1)
    y = rng.random((50, 30)) < 0.1
    y[np.arange(50), rng.integers(30, size=50)] = True
    p = rng.uniform(0.1, 1, size=30)
    got = call(metric, y, y / p, k, p)
    if metric in WEIGHTED or metric is ndcg_at_k:
        assert got == pytest.approx(1, abs=1e-14)
    elif metric is precision_at_k:
        assert got == pytest.approx(np.mean(np.minimum(y.sum(1), k) / k))
    elif k == 40:
        assert got == 1


@pytest.mark.parametrize(("A", "B"), [(0.55, 1.5), (0.5, 0.4), (0.6, 2.6)])
@pytest.mark.parametrize(("n", "log_n"), [(15_539, 9.651), (490_449, 13.103)])
def test_a_label_seen_once_weighs_ln_n(A, B, n, log_n):
    y = sp.coo_array((np.ones(12), (np.arange(12), [0] * 1 + [1] * 11)), shape=(n, 3))
    weight = 1 / propensities(y, A=A, B=B)
    assert weight[0] == pytest.approx(math.log(n), rel=1e-14)
    assert weight[0] == pytest.approx(log_n, abs=5e-4)
    assert weight[2] == pytest.approx(1 + (math.log(n) - 1) * (B + 1) ** A * B**-A)  # never seen


def test_propensities_grow_to_one():
    y = np.arange(3_000)[:, None] < np.arange(0, 3_001, 10)
    p = propensities(y)
    assert p.dtype == np.float64
    assert p.shape == (301,)
    assert (np.diff(p) > 0).all()
    assert 0 < p[0] < p[-1] < 1
    assert propensities(np.ones((10**6, 1), dtype=bool))[0] > 0.98


def test_propensities_of_every_form_of_labels():
    y = np.array([[1, 0], [0, 1], [1, 0], [1, 0]])
    want = propensities(y)
    for form in SPARSE:
        np.testing.assert_array_equal(propensities(getattr(sp, form)(y)), want)
    np.testing.assert_array_equal(propensities(["a", "b", "a", "a"]), want)
    np.testing.assert_array_equal(propensities(["a", "b", "a", "a"], labels=["b", "a"]), want[::-1])


def test_propensities_agree_with_the_published_weights():
    folder = DATA / "eurlex4k_labels"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; name the data folder in SKXMC_DATA")
    published = np.loadtxt(folder / "inv_prop.txt")  # 1 / p_l to five significant digits
    y_train = sp.load_npz(folder / "Y_train.npz")
    last_digit = 10.0 ** (np.floor(np.log10(published)) - 4)
    assert (np.abs(1 / propensities(y_train) - published) <= 0.501 * last_digit).all()


@pytest.mark.parametrize("metric", EVERY)
def test_no_label_at_all_scores_zero(metric):
    p = np.full(4, 0.5)
    for y in (np.zeros((3, 4)), sp.csr_array((3, 4)), sp.csr_array(([0.0], ([1], [2])), (3, 4))):
        for score in (np.ones((3, 4)), sp.csr_array((3, 4)), np.zeros((3, 1), dtype=int)):
            for skip in (False, True):
                assert call(metric, y, score, 5, p, skip_unlabeled=skip) == 0


def test_absent_scores_rank_last_and_never_hit():
    scores = sp.csr_array(([-5.0, 0.0], ([0, 0], [2, 3])), shape=(1, 4))
    assert precision_at_k([[0, 0, 0, 1]], scores, k=1) == 1
    assert precision_at_k([[0, 0, 1, 0]], scores, k=2) == 0.5
    assert precision_at_k([[1, 1, 0, 0]], scores, k=4) == 0


def test_even_minus_infinity_ranks_before_absent():
    scores = sp.csr_array((np.array([-np.inf]), ([0], [2])), shape=(2, 3))
    scores = sp.csr_array(scores + sp.csr_array(([1.0, 1.0], ([1, 1], [0, 1])), shape=(2, 3)))
    assert recall_at_k([[0, 0, 1], [0, 0, 0]], scores, k=1) == 0.5


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float32, bool])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csc_matrix])
def test_narrow_indicators_with_many_labels(dtype, container):
    """scikit-learn 1.9.1's label_binarize permutes the columns of an int8 y beyond 128."""
    rng = np.random.default_rng(0)
    y = rng.random((40, 700)) < 0.02
    scores = rng.random(y.shape)
    for metric in PLAIN:
        assert metric(container(y.astype(dtype)), scores, 50) == metric(y, scores, 50)
    np.testing.assert_array_equal(propensities(container(y.astype(dtype))), propensities(y))


def test_integer_sparse_scores_are_scores():
    scores = sp.csr_array(np.array([[0, 3, 200], [9, 0, 0]], dtype=np.uint8))
    assert precision_at_k([[0, 0, 1], [1, 0, 0]], scores, k=1) == 1
    assert precision_at_k([[0, 1, 0], [1, 0, 0]], scores > 0, k=1) == 1  # a tie, to the lower


def test_frames_lists_and_memory_maps(tmp_path):
    y, scores = [[1, 0, 1], [0, 1, 0]], [[0.1, 0.2, 0.9], [0.8, 0.3, 0.1]]
    want = recall_at_k(y, scores, 1)
    frame = pd.DataFrame(y, columns=list("abc"))
    assert recall_at_k(frame, pd.DataFrame(scores), 1) == want
    assert recall_at_k(frame.astype("Int64"), pd.DataFrame(scores, dtype=object), 1) == want
    np.save(tmp_path / "scores.npy", scores)
    assert recall_at_k(y, np.load(tmp_path / "scores.npy", mmap_mode="r"), 1) == want


def test_inputs_stay_as_they_are():
    """Summing duplicates, sorting indices and dropping zeros happen in a copy."""
    y = sp.csr_array((np.array([1, 0, 1]), np.array([2, 0, 1]), np.array([0, 2, 3])), shape=(2, 3))
    s = sp.csr_array((np.array([1.0, 2, 3]), np.array([2, 0, 0]), np.array([0, 1, 3])), (2, 3))
    before = [a.copy() for m in (y, s) for a in (m.data, m.indices, m.indptr)]
    psp_at_k(y, s, 2, propensities=[0.5] * 3)
    after = [a for m in (y, s) for a in (m.data, m.indices, m.indptr)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_extreme_shapes_are_never_densified():
    n, n_labels = 100_000, 500_000  # 200 GB as float32
    rng = np.random.default_rng(0)
    at = np.repeat(np.arange(n), 5), rng.integers(n_labels, size=5 * n)
    y = sp.coo_array((np.ones(5 * n), at), shape=(n, n_labels)).tocsr()
    y.data[:] = 1
    scores = sp.csr_array((rng.random(y.nnz), y.indices, y.indptr), shape=y.shape)
    p = propensities(y)
    n_true = np.diff(y.indptr)
    assert precision_at_k(y, scores) == pytest.approx(n_true.mean() / 5)
    assert recall_at_k(y, scores) == 1
    assert psp_at_k(y, scores, propensities=p) == pytest.approx(1)
    assert label_coverage_at_k(y, scores) == 1


def test_metrics_import_no_torch():
    """The package itself may: an empty one stands in for it."""
    code = f"""if True:
        import sys, types
        package = sys.modules["skxmc"] = types.ModuleType("skxmc")
        package.__path__ = [{str(ROOT / "skxmc")!r}]
        import skxmc.metrics
        assert not {{"torch", "numba"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


# --- scikit-learn as oracle -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_ndcg_agrees_with_scikit_learn(k):
    rng = np.random.default_rng(k)
    y, scores = rng.random((80, 12)) < 0.3, rng.random((80, 12))  # without ties
    assert ndcg_at_k(y, scores, k) == pytest.approx(ndcg_score(y, scores, k=k))


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("classes", [np.arange(5), np.array(list("vwxyz")), -np.arange(5.0)[::-1]])
def test_classes_agree_with_top_k_accuracy(k, classes):
    rng = np.random.default_rng(0)
    y, scores = rng.choice(classes, size=70), rng.random((70, 5))
    want = top_k_accuracy_score(y, scores, k=k)
    assert recall_at_k(y, scores, k) == pytest.approx(want)
    assert precision_at_k(y, scores, k) == pytest.approx(want / k)
    few = y[y != classes[2]]
    want = top_k_accuracy_score(few, scores[: len(few)], k=k, labels=classes)
    assert recall_at_k(few, scores[: len(few)], k, labels=classes) == pytest.approx(want)
    reverse = scores[: len(few), ::-1]  # columns in any order, which scikit-learn refuses
    assert recall_at_k(few, reverse, k, labels=classes[::-1]) == pytest.approx(want)


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("k", [1, 2])
def test_binary_decision_values_agree_with_top_k_accuracy(low, k):
    rng = np.random.default_rng(0)
    y = rng.choice(["no", "yes"], size=60)
    scores = rng.uniform(low, 1, size=60).astype(np.float32)
    scores[:4] = 0.5 if low == 0 else 0.0  # on the threshold
    with pytest.warns(UserWarning, match="meaningless") if k == 2 else nullcontext():
        want = top_k_accuracy_score(y, scores, k=k)
    assert recall_at_k(y, scores, k) == pytest.approx(want)
    two = np.column_stack([np.full(60, 0.5 if low == 0 else 0.0), scores])
    assert recall_at_k(y, two, k) == pytest.approx(want)
    assert recall_at_k(["yes"], np.float32([2.0]), 1, labels=["no", "yes"]) == 1


# --- scorers --------------------------------------------------------------------------------------


class Popular(ClassifierMixin, BaseEstimator):
    """Scores labels by frequency plus a term that depends on the row, dense or sparse."""

    calls: ClassVar = Counter()

    def __init__(self, shift=0, output="dense"):
        self.shift = shift
        self.output = output

    def fit(self, X, y):
        self.classes_ = np.arange(y.shape[1])
        self.frequency_ = np.asarray(y.sum(axis=0)).ravel() / y.shape[0]
        return self

    def decision_function(self, X):
        self.calls["decision_function"] += 1
        scores = self.frequency_ + 0.1 * np.sin(np.outer(X[:, 0], 1 + self.classes_)) + self.shift
        if self.output == "dense":
            return scores
        every = np.ones(scores.shape, dtype=bool)
        return as_sparse("csr_array", scores, every)  # an entry each, negative ones too


class PopularProba(Popular):
    """The same with predict_proba alone."""

    @property
    def decision_function(self):
        raise AttributeError("decision_function")

    def predict_proba(self, X):
        return 1 / (1 + np.exp(-Popular.__dict__["decision_function"](self, X)))


def problem(n_labels, n=90):
    rng = np.random.default_rng(n_labels)
    X = rng.normal(size=(n, 2))
    Y = sp.csr_array(rng.random((n, n_labels)) < np.linspace(0.6, 0.05, n_labels))
    return X, Y.astype(np.int8)


@pytest.mark.parametrize("container", ["csr_array", "csc_matrix", "dense"])
@pytest.mark.parametrize("n_labels", [2, 8])
def test_grid_search_with_many_metrics_and_one_call(container, n_labels):
    X, Y = problem(n_labels)
    p = propensities(Y)
    y = Y.toarray() if container == "dense" else getattr(sp, container)(Y)
    scoring = ranking_scorers(k=(1, 3), propensities=p)
    grid = {"output": ["dense", "csr"], "shift": [0, -100.0]}
    Popular.calls.clear()
    search = GridSearchCV(Popular(), grid, scoring=scoring, refit="P@1", cv=KFold(3)).fit(X, y)
    assert Popular.calls["decision_function"] == 4 * 3  # not times 8 metrics
    for name in scoring:
        means = search.cv_results_[f"mean_test_{name}"]
        np.testing.assert_allclose(means, means[0])  # dense or sparse, positive or negative
    fold = next(KFold(3).split(X))
    scores = Popular().fit(X[fold[0]], Y[fold[0]]).decision_function(X[fold[1]])
    want = psp_at_k(Y[fold[1]], scores, 3, propensities=p)
    assert search.cv_results_["split0_test_PSP@3"][0] == pytest.approx(want)


def test_two_labels_need_decision_function():
    """With two labels classes_ looks binary, and scikit-learn halves predict_proba."""
    X, Y = problem(2)
    dense = Y.toarray()
    assert precision_at_k_scorer(1)(Popular().fit(X, Y), X, dense) > 0.5
    model = PopularProba().fit(X, Y)
    with pytest.raises(ValueError, match="y_score is 1-d, but y_true has 2 labels"):
        precision_at_k_scorer(1)(model, X, dense)
    assert precision_at_k(dense, model.predict_proba(X), 1) > 0.5


def test_scorers_fall_back_on_predict_proba():
    X, Y = problem(6)
    scorer = precision_at_k_scorer(2)
    assert scorer(PopularProba().fit(X, Y), X, Y) == scorer(Popular().fit(X, Y), X, Y)
    # A tree returns a list of (n, 2) arrays, which scikit-learn stacks. It knows its own rows.
    tree = DecisionTreeClassifier(random_state=0).fit(X, Y.toarray())
    assert precision_at_k_scorer(1, skip_unlabeled=True)(tree, X, Y) == 1


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"]])
def test_scorers_of_classes(classes):
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = np.asarray(classes)[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5) * (len(classes) > 2)]
    knn = KNeighborsClassifier(3)
    values = cross_val_score(knn, X, y, scoring=precision_at_k_scorer(1))
    np.testing.assert_allclose(values, cross_val_score(knn, X, y, scoring="accuracy"))
    fold = y != "b"
    scorer = precision_at_k_scorer(1, labels=classes)
    assert scorer(knn.fit(X, y), X[fold], y[fold]) == knn.score(X[fold], y[fold])


def test_every_scorer_calls_its_metric():
    X, Y = problem(7)
    Y = sp.vstack([sp.csr_array((5, 7), dtype=Y.dtype), Y[5:]])
    model, p = Popular().fit(X, Y), propensities(Y)
    scores = model.decision_function(X)
    for metric in EVERY:
        factory = getattr(metrics, f"{metric.__name__}_scorer")
        bound = {"propensities": p} if metric in WEIGHTED else {}
        want = metric(Y, scores, 2, **bound)
        scorer = factory(2, **bound)
        assert scorer(model, X, Y) == want
        assert pickle.loads(pickle.dumps(scorer))(model, X, Y) == want
        assert factory(**bound)(model, X, Y) == metric(Y, scores, 5, **bound)
    want = precision_at_k(Y, scores, 1, skip_unlabeled=True)
    assert want > precision_at_k(Y, scores, 1)
    assert ranking_scorers(1, skip_unlabeled=True)["P@1"](model, X, Y) == want


def test_ranking_scorers_names():
    assert list(ranking_scorers()) == ["P@1", "P@3", "P@5", "nDCG@1", "nDCG@3", "nDCG@5"]
    assert list(ranking_scorers(np.int64(2))) == ["P@2", "nDCG@2"]
    assert list(ranking_scorers(range(1, 3), [0.5])) == [
        *("P@1", "P@2", "nDCG@1", "nDCG@2"),
        *("PSP@1", "PSP@2", "PSnDCG@1", "PSnDCG@2"),
    ]


def test_propensities_are_not_cut_into_folds():
    """With as many labels as rows, routed metadata would be."""
    X, Y = problem(30, n=30)
    scoring = psp_at_k_scorer(3, propensities=propensities(Y))
    search = GridSearchCV(Popular(), {}, scoring=scoring, cv=3, error_score="raise").fit(X, Y)
    assert 0 < search.best_score_ < 1


# --- what is refused ------------------------------------------------------------------------------

Y23, S23 = np.array([[1, 0, 0], [0, 1, 1]]), np.array([[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]])
S23_NAN = np.where(S23 == 0.3, np.nan, S23)


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize(
    ("y", "score", "k", "error", "message"),
    [
        (Y23, S23, 0, ValueError, "k must be at least 1, got 0"),
        (Y23, S23, -2, ValueError, "k must be at least 1, got -2"),
        (Y23, S23, 1.0, TypeError, "k must be an integer, got 1.0 of type float"),
        (Y23, S23, True, TypeError, "k must be an integer, got True"),
        (Y23, S23, (1, 3), TypeError, "k must be an integer"),
        (np.zeros((0, 3)), np.zeros((0, 3)), 1, ValueError, r"y_true is empty, shape \(0, 3\)"),
        (sp.csr_array((2, 0)), np.zeros((2, 0)), 1, ValueError, "y_true is empty"),
        (-Y23, S23, 1, ValueError, "zeros and ones only, got the value -1"),
        (Y23 / 2, S23, 1, ValueError, "zeros and ones only, got the value 0.5"),
        (sp.csr_array(Y23 * 3), S23, 1, ValueError, "zeros and ones only, got the value 3"),
        (np.where(Y23, np.nan, 0), S23, 1, ValueError, "zeros and ones only, got the value nan"),
        (
            sp.coo_array(([1, 1], ([0, 0], [1, 1])), shape=(2, 3)),
            S23,
            1,
            ValueError,
            "got the value 2",
        ),
        (np.array([["a", "b"]]), S23[:1, :2], 1, ValueError, "MultiLabelBinarizer"),
        (Y23[None], S23, 1, ValueError, "y_true must be a 2-d indicator .* 3 dimension"),
        (np.array([0, np.nan]), S23, 1, ValueError, "y_true contains NaN"),
        (Y23, S23[:1], 1, ValueError, r"y_true has 2 rows, but y_score has shape \(1, 3\)"),
        (Y23, S23[:, :2], 1, ValueError, "labels unseen in training must keep their columns"),
        (Y23, sp.csr_array(S23)[:, :2], 1, ValueError, "unseen in training must keep"),
        (["a", "b"], S23, 1, ValueError, "y_score has 3 columns. Name the classes .* labels="),
        (["a", "b", "c"], S23[:, 0], 1, ValueError, "y_true has 3 rows"),
        (["a", "a"], S23[:, 0], 1, ValueError, "y_score is 1-d, but y_true has 1 labels"),
        (Y23[:, :2], S23[:, 0], 1, ValueError, "y_score is 1-d, but y_true has 2 labels"),
        (Y23, S23[..., None], 1, ValueError, r"y_score must be 2-d, got shape \(2, 3, 1\)"),
        (Y23, np.array(0.5), 1, ValueError, r"y_score has shape \(\)"),
        (Y23, S23_NAN, 1, ValueError, "y_score contains NaN"),
        (Y23, S23_NAN, 3, ValueError, "y_score contains NaN"),
        (Y23, S23_NAN.astype(np.float32), 2, ValueError, "y_score contains NaN"),
        (Y23, sp.csr_array(S23_NAN), 1, ValueError, "y_score contains NaN"),
        (Y23, sp.csr_array(S23_NAN), 5, ValueError, "y_score contains NaN"),
        (Y23, S23 + 1j, 1, ValueError, "real numbers, got dtype complex128"),
        (Y23, [["a"], ["b"]], 1, ValueError, "real numbers, got dtype <U1"),
        (Y23, Y23, 1, ValueError, "these look like scores; cast them to float"),
        (Y23, [[0, 1, 1], [2, 1, 0]], 1, ValueError, "the same label twice: these look like"),
        (Y23, [[0, 3], [2, 1]], 1, ValueError, r"3 is none \(0 to 2.*look like scores; cast"),
        (Y23, [[0, 1], [2, -2]], 1, ValueError, r"-2 is none \(0 to 2, or -1 for no label\)"),
        (Y23, Y23.astype(bool), 1, ValueError, "dtype bool .* these look like the output of pred"),
        (["a", "b"], np.array([0, 1]), 1, ValueError, "these look like the output of predict"),
    ],
)
def test_refused(metric, y, score, k, error, message):
    bound = {"propensities": np.full(np.shape(y)[-1], 0.5)} if metric in WEIGHTED else {}
    with pytest.raises(error, match=message):
        metric(y, score, k, **bound)


@pytest.mark.parametrize("width", [20, 2_000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_is_found_wherever_it_stands(width, dtype):
    y = np.eye(2, width)
    for at in range(0, width, width // 20):
        scores = np.arange(2 * width, dtype=dtype).reshape(2, width) / 10
        scores[1, at] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            precision_at_k(y, scores, 3)


def test_sparse_vectors_are_refused():
    y = sp.coo_array(np.array([1, 0, 1]))
    if y.ndim == 2:
        pytest.skip("this scipy has no sparse vectors")
    with pytest.raises(ValueError, match=r"y_true must be .* got coo_array with 1 dimension"):
        precision_at_k(y, S23[0])


def test_labels_are_checked():
    with pytest.raises(ValueError, match=r"contains the class b, which is not in labels"):
        precision_at_k(["a", "b"], S23, labels=["a", "c", "d"])
    with pytest.raises(ValueError, match=r"contains the class 9, which is not in labels"):
        precision_at_k([1, 9], S23, labels=[1, 2, 3])
    with pytest.raises(ValueError, match="labels must be a 1-d array of classes, each of them on"):
        precision_at_k(["a", "b"], S23, labels=["a", "b", "b"])
    with pytest.raises(ValueError, match="labels= names the columns of 1-d class labels"):
        precision_at_k(Y23, S23, labels=["a", "b", "c"])


@pytest.mark.parametrize("metric", WEIGHTED)
@pytest.mark.parametrize(
    ("p", "message"),
    [
        (None, r"propensities is None: pass p_l as skxmc.metrics.propensities\(Y_train\)"),
        ([0.5, 0.5], "propensities has 2 values, but y_true has 3 .* keep theirs"),
        ([[0.5, 0.5, 0.5]], r"propensities must be 1-d.*got shape \(1, 3\)"),
        ([0.5, 7.26, 1.9], r"in \(0, 1\], got 7.26 for label 1: .* inv_prop.txt do, pass 1 / that"),
        ([0.5, 0.5, 0], r"propensities must lie in \(0, 1\], got 0.0 for label 2"),
        ([0.5, -1, 0], "got -1.0 for label 1"),
        ([np.nan, 1, 1], "got nan for label 0"),
    ],
)
def test_bad_propensities(metric, p, message):
    with pytest.raises(ValueError, match=message):
        metric(Y23, S23, propensities=p)
    if p is None or len(p) != 2:  # the scorer does not know the number of labels yet
        with pytest.raises(ValueError, match=message):
            getattr(metrics, f"{metric.__name__}_scorer")(propensities=p)


def test_propensities_are_refused():
    with pytest.raises(ValueError, match=r"Y_train has 2 row\(s\): .* at least 3"):
        propensities(Y23)
    with pytest.raises(ValueError, match="Y_train must be a binary indicator"):
        propensities(Y23 * 2)
    for bad in (0, -1, np.inf, np.nan, "x"):
        with pytest.raises(ValueError, match="A must be a positive number"):
            propensities(np.eye(3), A=bad)
        with pytest.raises(ValueError, match="B must be a positive number"):
            propensities(np.eye(3), B=bad)


def test_scorers_refuse_a_bad_k_at_once():
    for factory in (precision_at_k_scorer, ranking_scorers):
        with pytest.raises(ValueError, match="k must be at least 1"):
            factory(0)
        with pytest.raises(TypeError, match="k must be an integer"):
            factory(2.5)
    with pytest.raises(ValueError, match="k is empty"):
        ranking_scorers(())


def test_every_public_name_exists():
    assert metrics.__all__ == sorted(metrics.__all__)
    assert all(callable(getattr(metrics, name)) for name in metrics.__all__)
