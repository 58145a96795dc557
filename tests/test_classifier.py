"""XMCClassifier from the outside: what it takes, what it returns, what it learns, what it refuses.

`xmc` makes a small estimator with one thread, whose runs repeat bit for bit; `assert_same_model`
compares the weights of two fitted ones.
"""

import multiprocessing
import os
import pickle
import random
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, normalize

from skxmc import XMCClassifier, _fitting
from skxmc._training import Trainer
from skxmc.datasets import make_xmc
from skxmc.losses import BinaryCrossEntropy, SquaredHinge
from skxmc.metrics import precision_at_k, precision_at_k_scorer, propensities, ranking_scorers
from skxmc.samplers import SAMPLERS, MIPSSampler, UniformSampler

FAST = {
    "hidden_layer_sizes": (16,),
    "n_estimators": 1,
    "max_iter": 2,
    "batch_size": 32,
    "positive_weight": None,
    "tail_bias": 0.0,
    "neighbor_weight": 0.0,
    "dropout": 0.3,
    "n_jobs": 1,
}
SAMPLER_SETTINGS = [
    *SAMPLERS,
    "in-batch+uniform",
    "mips+uniform",
    MIPSSampler(3, refresh_steps=5) + UniformSampler(20, shared=False),
]


def xmc(sampler="mips+uniform", *, random_state=0, **parameters):
    return XMCClassifier(sampler, random_state=random_state, **{**FAST, **parameters})


def weights_of(clf):
    return [
        clf.feature_weights_,
        *clf.hidden_weights_,
        *clf.hidden_biases_,
        clf.label_weights_,
        clf.label_biases_,
    ]


def assert_same_model(a, b):
    for left, right in zip(weights_of(a), weights_of(b), strict=True):
        np.testing.assert_array_equal(left, right)


def dense(matrix):
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


def popularity_precision(Y, Y_test):
    """P@1 of predicting the most frequent training label for every row."""
    best = int(np.argmax(Y.sum(axis=0)))
    return precision_at_k(Y_test, np.full((Y_test.shape[0], 1), best), k=1)


@pytest.fixture(scope="module")
def data():
    """Small: 400 rows, 300 features, 60 labels."""
    return make_xmc(400, 300, 60, random_state=0)


@pytest.fixture(scope="module")
def reference(data):
    return xmc().fit(*data)


@pytest.fixture(scope="module")
def learnable():
    """Train and test parts of a problem on which a good model is far ahead of popularity."""
    X, Y = make_xmc(2500, 2000, 150, noise=0.5, random_state=0)
    return train_test_split(X, Y, test_size=500, random_state=0)


# -- X in every form -------------------------------------------------------------------------------


def with_indices(matrix, dtype):
    """The same CSR, CSC or COO matrix, with indices of this type."""
    if matrix.format == "coo":
        at = matrix.row.astype(dtype), matrix.col.astype(dtype)
        if hasattr(matrix, "coords"):
            matrix.coords = at
        else:  # scipy 1.12
            matrix.row, matrix.col = at
        assert matrix.row.dtype == dtype
    else:
        matrix.indices = matrix.indices.astype(dtype)
        matrix.indptr = matrix.indptr.astype(dtype)
        assert matrix.indices.dtype == dtype
    return matrix


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_sparse_X_of_any_form_gives_the_same_bits(data, reference, form, kind, index, dtype):
    X, Y = data
    given = with_indices(getattr(sp, f"{form}_{kind}")(X, dtype=dtype), index)
    clf = xmc().fit(given, Y)
    assert_same_model(clf, reference)
    np.testing.assert_array_equal(clf.decision_function(given), reference.decision_function(X))


def converted(matrix, form):
    with warnings.catch_warnings():  # DIA is not made for matrices like ours
        warnings.simplefilter("ignore", sp.SparseEfficiencyWarning)
        return getattr(sp, form)(matrix)


@pytest.mark.parametrize("form", ["lil_array", "dok_array", "bsr_array", "dia_array", "lil_matrix"])
def test_the_slow_sparse_formats_are_converted(data, reference, form):
    X, Y = data
    assert_same_model(xmc().fit(converted(X, form), Y), reference)


def reversed_rows(X):
    """The same CSR matrix with the entries of each row in descending order."""
    order = np.concatenate(
        [np.arange(a, b)[::-1] for a, b in zip(X.indptr, X.indptr[1:], strict=False)]
    )
    out = sp.csr_array((X.data[order], X.indices[order], X.indptr), shape=X.shape)
    assert not out.has_sorted_indices
    return out


def halved_twice(X):
    """The same CSR matrix with each entry stored as two halves."""
    parts = np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), X.indptr * 2
    out = sp.csr_array(parts, shape=X.shape)
    assert not out.has_canonical_format
    return out


def with_stored_zeros(X):
    """The same CSR matrix with a stored zero in front of each row that does not use feature 0."""
    free = np.flatnonzero(X[:, [0]].toarray()[:, 0] == 0)
    coo = X.tocoo()
    row, col = np.append(coo.row, free), np.append(coo.col, np.zeros_like(free))
    values = np.append(coo.data, np.zeros(len(free), X.dtype))
    out = sp.csr_array((values, (row, col)), shape=X.shape)
    assert out.nnz == X.nnz + len(free) > X.nnz
    return out


@pytest.mark.parametrize("change", [reversed_rows, halved_twice, with_stored_zeros])
def test_how_a_sparse_X_is_stored_does_not_matter(data, reference, change):
    X, Y = data
    given = change(X)
    before = given.copy()
    clf = xmc().fit(given, Y)
    assert_same_model(clf, reference)
    np.testing.assert_array_equal(clf.decision_function(given), reference.decision_function(X))
    for name in ("data", "indices", "indptr"):  # and the caller's matrix is left as it was
        np.testing.assert_array_equal(getattr(given, name), getattr(before, name))


def memory_mapped(array, folder, name="array"):
    path = folder / f"{name}.npy"
    np.save(path, array)
    out = np.load(path, mmap_mode="r")
    assert isinstance(out, np.memmap)
    assert not out.flags.writeable
    return out


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "change",
    [
        lambda A, folder: A.astype(np.float64),
        lambda A, folder: np.asfortranarray(A),
        lambda A, folder: np.repeat(A, 2, axis=1)[:, ::2],
        lambda A, folder: A.tolist(),
        lambda A, folder: read_only(A),
        lambda A, folder: memory_mapped(A, folder),
        lambda A, folder: pd.DataFrame(A).rename(columns=str),
        lambda A, folder: pd.DataFrame(A.astype(np.float64)).rename(columns=str),
    ],
    ids=["float64", "Fortran", "strided", "lists", "read-only", "memmap", "frame", "frame64"],
)
def test_dense_X_of_any_form_gives_the_same_bits(data, change, tmp_path):
    A, Y = data[0].toarray(), data[1]
    expected = xmc().fit(A, Y)
    given = change(A, tmp_path)
    clf = xmc().fit(given, Y)
    assert_same_model(clf, expected)
    np.testing.assert_array_equal(clf.decision_function(given), expected.decision_function(A))


def test_dense_X_trains_the_model_of_the_same_sparse_X(data, reference):
    X, Y = data
    clf = xmc().fit(X.toarray(), Y)
    for left, right in zip(weights_of(clf), weights_of(reference), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)  # sums in another order
    np.testing.assert_allclose(
        reference.decision_function(X.toarray()), reference.decision_function(X), rtol=1e-4
    )


@pytest.mark.parametrize("dtype", [np.int8, np.int64, bool])
def test_counts_and_flags_train_as_the_same_floats_do(data, dtype):
    X, Y = data
    flags = (X > 0).astype(np.float32)
    expected = xmc().fit(flags, Y)
    assert_same_model(xmc().fit(flags.astype(dtype), Y), expected)


def test_frame_columns_are_remembered_and_checked(data):
    X, Y = data
    frame = pd.DataFrame(X.toarray(), columns=[f"word {j}" for j in range(X.shape[1])])
    clf = xmc().fit(frame, Y)
    assert list(clf.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(frame.rename(columns={"word 0": "another"}))


def test_sparse_frame_gives_the_bits_of_its_matrix(data, reference):
    X, Y = data
    frame = pd.DataFrame.sparse.from_spmatrix(X).rename(columns=str)
    assert_same_model(xmc().fit(frame, Y), reference)


def test_memory_mapped_sparse_X_and_Y_are_trained_on_in_place(data, reference, tmp_path):
    mapped = []
    for name, matrix in zip("XY", data, strict=True):
        parts = [
            memory_mapped(getattr(matrix, part), tmp_path, name + part)
            for part in ("data", "indices", "indptr")
        ]
        mapped.append(sp.csr_array(tuple(parts), shape=matrix.shape))
    clf = xmc().fit(*mapped)
    assert_same_model(clf, reference)
    np.testing.assert_array_equal(clf.predict_topk(mapped[0])[1], clf.predict_topk(data[0])[1])


# -- y in every form -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide():
    """300 labels, more than an int8 or uint8 can count, with the model trained on them."""
    X, Y = make_xmc(500, 100, 300, random_state=1)
    assert len(np.unique(Y.indices[Y.indices > 255])) > 5
    return X, Y, xmc("uniform").fit(X, Y)


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
def test_sparse_y_of_any_format_gives_the_same_bits(wide, form, kind):
    X, Y, expected = wide
    assert_same_model(xmc("uniform").fit(X, converted(Y, f"{form}_{kind}")), expected)


DTYPES = [bool, np.int8, np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_y_of_any_dtype_gives_the_same_bits(wide, dtype):
    X, Y, expected = wide
    assert_same_model(xmc("uniform").fit(X, Y.astype(dtype)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_y_of_any_dtype_gives_the_same_bits(wide, dtype):
    X, Y, expected = wide
    assert_same_model(xmc("uniform").fit(X, Y.toarray().astype(dtype)), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda Y: with_indices(Y.copy(), np.int64),
        lambda Y: with_indices(sp.csc_array(Y), np.int64),
        reversed_rows,
        with_stored_zeros,
        lambda Y: Y.toarray().tolist(),
        lambda Y: np.asfortranarray(Y.toarray()),
        lambda Y: read_only(Y.toarray()),
        lambda Y: pd.DataFrame(Y.toarray().astype(int)),
    ],
    ids=["int64", "int64 csc", "unsorted", "zeros", "lists", "Fortran", "read-only", "frame"],
)
def test_how_y_is_stored_does_not_matter(wide, change):
    X, Y, expected = wide
    assert_same_model(xmc("uniform").fit(X, change(Y)), expected)


def test_fit_leaves_y_as_it_was(wide):
    X, Y, _ = wide
    given = with_stored_zeros(Y)
    before = given.copy()
    xmc("uniform").fit(X, given)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(given, name), getattr(before, name))


NAMES = np.array(["ant", "bee", "cat", "dog", "eel"])


@pytest.mark.parametrize(
    ("y_of", "classes"),
    [
        (lambda at: at * 10 - 5, np.arange(5) * 10 - 5),
        (lambda at: (at * 10).astype(np.int8), np.arange(5) * 10),
        (lambda at: NAMES[at], NAMES),
        (lambda at: NAMES[at].astype(object), NAMES),
        (lambda at: NAMES[at].tolist(), NAMES),
        (lambda at: pd.Series(NAMES[at]), NAMES),
    ],
    ids=["ints", "int8", "strings", "objects", "list", "series"],
)
def test_one_class_a_row_trains_as_an_indicator_with_one_label_a_row(data, y_of, classes):
    X = data[0]
    at = np.random.default_rng(0).integers(0, 5, X.shape[0])
    expected = xmc("full").fit(X, sp.csr_array(np.eye(5)[at]))
    clf = xmc("full").fit(X, y_of(at))
    assert_same_model(clf, expected)
    np.testing.assert_array_equal(clf.classes_, classes)
    best = np.argmax(expected.decision_function(X), axis=1)
    np.testing.assert_array_equal(clf.predict(X), classes[best])
    assert clf.score(X, y_of(at)) == np.mean(best == at)


# -- containers of predictions ---------------------------------------------------------------------

KINDS = ("sparse", "sparse matrix", "dense", "dense bool", "classes", "strings", "two classes")


@pytest.fixture(scope="module")
def fitted(data):
    """A fitted model for each kind of y."""
    X, Y = data
    at = np.random.default_rng(0).integers(0, 5, X.shape[0])
    targets = [
        Y.astype(np.int64), sp.csc_matrix(Y), Y.toarray().astype(np.int32),
        Y.toarray().astype(bool), at, NAMES[at], at % 2,
    ]  # fmt: skip
    settings = {"max_iter": 8, "learning_rate_init": 0.3}
    return {kind: xmc("full", **settings).fit(X, y) for kind, y in zip(KINDS, targets, strict=True)}


def all_scores(clf, X):
    """(n, L) logits, whatever the kind of y."""
    clf = clone_fitted(clf, top_k=None)
    labels, scores = clf.predict_topk(X, k=len(clf.classes_))
    out = np.empty_like(scores)
    np.put_along_axis(out, np.searchsorted(clf.classes_, labels), scores, axis=1)
    return out


def clone_fitted(clf, **parameters):
    """A copy of a fitted model that predicts with other parameters."""
    out = clone(clf)
    out.__dict__.update(clf.__dict__)
    return out.set_params(**parameters)


@pytest.mark.parametrize("kind", ["sparse", "sparse matrix"])
@pytest.mark.parametrize("top_k", [None, 3])
def test_predict_is_sparse_where_y_was(data, fitted, kind, top_k):
    X, _ = data
    clf = clone_fitted(fitted[kind], top_k=top_k)
    predicted = clf.predict(X)
    assert isinstance(predicted, sp.csr_array)
    assert predicted.dtype == np.int64
    expected = all_scores(clf, X) > 0
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(predicted.toarray(), expected)


@pytest.mark.parametrize("kind", ["dense", "dense bool"])
@pytest.mark.parametrize("top_k", [None, 3])
def test_predict_is_dense_where_y_was(data, fitted, kind, top_k):
    X, _ = data
    clf = clone_fitted(fitted[kind], top_k=top_k)
    predicted = clf.predict(X)
    assert isinstance(predicted, np.ndarray)
    assert predicted.dtype == np.int64
    np.testing.assert_array_equal(predicted, all_scores(clf, X) > 0)


@pytest.mark.parametrize("kind", ["classes", "strings", "two classes"])
@pytest.mark.parametrize("top_k", [None, 1])
def test_predict_is_the_best_class_where_y_was_1d(data, fitted, kind, top_k):
    X, _ = data
    clf = clone_fitted(fitted[kind], top_k=top_k)
    predicted = clf.predict(X)
    assert predicted.shape == (X.shape[0],)
    assert predicted.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(predicted, clf.classes_[all_scores(clf, X).argmax(1)])
    assert len(np.unique(predicted)) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_keep_float32(data, fitted, kind, dtype):
    X = data[0].astype(dtype)
    clf = fitted[kind]
    for top_k in (None, 2):
        clf = clone_fitted(fitted[kind], top_k=top_k)
        assert clf.decision_function(X).dtype == np.float32
        assert clf.predict_proba(X).dtype == np.float32
    assert clf.predict_topk(X, k=2)[1].dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_dense_scores_have_a_column_for_each_label(data, fitted, kind):
    X, _ = data
    clf = fitted[kind]
    scores, chances, every = clf.decision_function(X), clf.predict_proba(X), all_scores(clf, X)
    assert type(scores) is type(chances) is np.ndarray
    if kind == "two classes":
        np.testing.assert_allclose(scores, every[:, 1] - every[:, 0], rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(scores, every, rtol=1e-4, atol=1e-5)
    of = softmax(every, axis=1) if "class" in kind or kind == "strings" else expit(every)
    np.testing.assert_allclose(chances, of, rtol=1e-4)
    assert chances.min() > 0
    assert chances.max() < 1


@pytest.mark.parametrize("top_k", [1, 2, 5, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_top_k_scores_are_sparse_and_hold_the_k_best(data, fitted, kind, top_k):
    X, _ = data
    clf = clone_fitted(fitted[kind], top_k=top_k)
    n, n_labels = X.shape[0], len(clf.classes_)
    k = min(top_k, n_labels)
    ranked = np.searchsorted(clf.classes_, clf.predict_topk(X, k=k)[0])
    every = {"decision_function": all_scores(clf, X)}
    every["predict_proba"] = fitted[kind].predict_proba(X)
    for method, full in every.items():
        out = getattr(clf, method)(X)
        assert isinstance(out, sp.csr_array)
        assert out.shape == (n, n_labels)
        np.testing.assert_array_equal(np.diff(out.indptr), k)
        np.testing.assert_array_equal(out.indices.reshape(n, k), np.sort(ranked, axis=1))
        stored = np.take_along_axis(full, out.indices.reshape(n, k), axis=1)
        np.testing.assert_allclose(out.data.reshape(n, k), stored, rtol=1e-4, atol=1e-6)
        assert out.has_canonical_format


def test_top_k_stores_scores_that_are_zero_too(data, fitted):
    X, _ = data
    clf = clone_fitted(fitted["sparse"], top_k=4)
    clf.label_weights_ = np.zeros_like(clf.label_weights_)
    clf.label_biases_ = np.zeros_like(clf.label_biases_)
    np.testing.assert_array_equal(np.diff(clf.decision_function(X).indptr), 4)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_metrics_agree_on_dense_sparse_and_ranked_predictions(data, fitted, k):
    X, Y = data
    clf = fitted["sparse"]
    of_ranks = precision_at_k(Y, clf.predict_topk(X, k=k)[0], k=k)
    assert precision_at_k(Y, clf.decision_function(X), k=k) == pytest.approx(of_ranks)
    few = clone_fitted(clf, top_k=5)
    assert precision_at_k(Y, few.decision_function(X), k=k) == pytest.approx(of_ranks)
    assert precision_at_k(Y, few.predict_proba(X), k=k) == pytest.approx(of_ranks)
    assert of_ranks > popularity_precision(Y, Y) / k


@pytest.mark.parametrize("kind", ["sparse", "sparse matrix", "dense", "dense bool"])
def test_score_is_precision_at_1(data, fitted, kind):
    X, Y = data
    best = fitted[kind].decision_function(X).argmax(axis=1)
    expected = Y.toarray()[np.arange(X.shape[0]), best].mean()
    for y in (Y, sp.csc_matrix(Y), Y.toarray()):
        assert fitted[kind].score(X, y) == pytest.approx(expected)
    assert clone_fitted(fitted[kind], top_k=3).score(X, Y) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["classes", "strings", "two classes"])
def test_score_of_1d_y_is_accuracy(data, fitted, kind):
    X, _ = data
    clf = fitted[kind]
    y = clf.classes_[np.arange(X.shape[0]) % len(clf.classes_)]
    assert clf.score(X, y) == np.mean(clf.predict(X) == y)


# -- ranking ---------------------------------------------------------------------------------------


def fabricate(n_features, feature_weights, label_weights, label_biases, **parameters):
    """A model of one hidden layer that has these weights, without training it."""
    Y = sp.csr_array(np.eye(4))
    clf = xmc("full", **parameters).fit(sp.csr_array((4, n_features), dtype=np.float32), Y)
    clf.classes_ = np.arange(len(label_weights))
    clf.feature_weights_ = feature_weights.astype(np.float32)
    clf.hidden_biases_ = [np.zeros(feature_weights.shape[1], np.float32)]
    clf.label_weights_ = label_weights.astype(np.float32)
    clf.label_biases_ = label_biases.astype(np.float32)
    return clf


@pytest.fixture(scope="module", params=[1, 5, 9000], ids="{} labels".format)
def whole_numbers(request):
    """X, a model of small whole numbers (no rounding, many ties), and its exact scores."""
    rng = np.random.default_rng(0)
    n_labels = request.param
    features, labels = rng.integers(-2, 3, (12, 8)), rng.integers(-2, 3, (n_labels, 8))
    biases = rng.integers(-3, 3, n_labels)
    X = rng.integers(0, 4, (300, 12)) * (rng.random((300, 12)) < 0.3)
    scores = np.maximum(X @ features, 0) @ labels.T + biases
    return sp.csr_array(X.astype(np.float32)), fabricate(12, features, labels, biases), scores


@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("k", [1, 5, 100, np.int64(3)])
def test_predict_topk_is_a_stable_argsort_of_the_scores(whole_numbers, k, n_jobs):
    X, clf, scores = whole_numbers
    labels, values = clone_fitted(clf, n_jobs=n_jobs).predict_topk(X, k=k)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # ties: the lower index first
    np.testing.assert_array_equal(labels, order)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, axis=1))


def test_decision_function_is_the_network_written_out(whole_numbers):
    X, clf, scores = whole_numbers
    np.testing.assert_array_equal(clf.decision_function(X), scores)
    np.testing.assert_array_equal(clf.predict(X).toarray(), scores > 0)


def test_predict_topk_agrees_with_the_dense_scores_of_a_trained_model(data, reference):
    X, _ = data
    labels, values = reference.predict_topk(X, k=7)
    scores = reference.decision_function(X)
    best_first = -np.sort(-scores, axis=1)[:, :7]
    np.testing.assert_allclose(values, best_first, rtol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(scores, labels, 1), best_first, rtol=1e-4)
    assert (np.diff(values, axis=1) <= 0).all()
    assert all(len(set(row)) == 7 for row in labels.tolist())


def test_ties_go_to_the_label_that_stands_first(data, fitted):
    X, _ = data
    for kind in ("sparse", "strings"):
        clf = clone_fitted(fitted[kind])
        clf.label_weights_ = np.zeros_like(clf.label_weights_)
        clf.label_biases_ = np.full_like(clf.label_biases_, -1.5)
        labels, values = clf.predict_topk(X, k=3)
        np.testing.assert_array_equal(labels, np.tile(clf.classes_[:3], (X.shape[0], 1)))
        np.testing.assert_array_equal(values, np.float32(-1.5))


def test_predict_topk_returns_entries_of_classes(data, fitted):
    X, _ = data
    labels, _ = fitted["strings"].predict_topk(X, k=2)
    assert set(labels.ravel()) <= set(NAMES)
    np.testing.assert_array_equal(labels[:, 0], fitted["strings"].predict(X))


@pytest.mark.parametrize("kind", KINDS)
def test_k_is_clipped_to_the_number_of_labels(data, fitted, kind):
    X, _ = data
    clf = fitted[kind]
    labels, scores = clf.predict_topk(X[:10], k=10**6)
    assert labels.shape == scores.shape == (10, len(clf.classes_))
    np.testing.assert_array_equal(np.sort(labels, axis=1), np.tile(clf.classes_, (10, 1)))


@pytest.mark.parametrize("k", [0, -1, 2.0, "3", None, True])
def test_bad_k_is_refused_by_name(data, reference, k):
    with pytest.raises(ValueError, match=re.escape(f"k={k!r} must be an integer of at least 1")):
        reference.predict_topk(data[0], k=k)


MEMORY = """
import resource, sys
import numpy as np, scipy.sparse as sp
sys.path.insert(0, {tests!r})
from test_classifier import fabricate
rng = np.random.default_rng(0)
n_labels = 200_000
X = sp.random_array((2_000, 50), density=0.1, random_state=0, dtype=np.float32, format="csr")
labels = rng.standard_normal((n_labels, 8), dtype=np.float32)
clf = fabricate(50, rng.standard_normal((50, 8)), labels, np.full(n_labels, -20.0), top_k=5)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 ** (
        2 if sys.platform == "darwin" else 1
    )

clf.predict_topk(X[:2], k=5)  # compiles and imports
before = peak()
clf.predict_topk(X, k=5)
clf.decision_function(X)
ranking = peak()
clf.predict(X[:1000])
print(ranking - before, peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is not on Windows")
def test_rankings_and_predictions_of_200_000_labels_never_become_a_dense_matrix():
    """2,000 x 200,000 scores in float32 would be 1,600 MB, the thousand of `predict` 800 MB."""
    code = MEMORY.format(tests=str(Path(__file__).parent))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    ranking, predict = map(float, run.stdout.split())
    assert ranking < 150
    assert predict < 400


# -- odd data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_unseen_labels_keep_their_columns_behind_the_trained_ones(data, kind):
    X, Y = data
    Y = Y.toarray()
    unseen = np.array([0, 7, 8, 59])
    Y[:, unseen] = 0
    seen = np.flatnonzero(Y.any(axis=0))
    unseen = np.setdiff1d(np.arange(60), seen)
    Y = sp.csr_array(Y) if kind == "sparse" else Y
    clf = xmc().fit(X, Y)
    np.testing.assert_array_equal(clf.classes_, np.arange(60))
    assert clf.decision_function(X).shape == clf.predict(X).shape == (400, 60)
    labels, _ = clf.predict_topk(X, k=60)
    np.testing.assert_array_equal(np.sort(labels[:, : len(seen)], axis=1), np.tile(seen, (400, 1)))
    # One and the same score, so that they tie, by index.
    np.testing.assert_array_equal(labels[:, len(seen) :], np.tile(unseen, (400, 1)))
    assert (clf.predict_proba(X)[:, unseen] > 0).all()
    assert_same_model_on(clf, xmc().fit(X, dense(Y)[:, seen]), seen)


def assert_same_model_on(clf, smaller, columns):
    np.testing.assert_array_equal(clf.feature_weights_, smaller.feature_weights_)
    np.testing.assert_array_equal(clf.label_weights_[columns], smaller.label_weights_)
    np.testing.assert_array_equal(clf.label_biases_[columns], smaller.label_biases_)


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_unseen_labels_stay_behind_whatever_the_scale_of_X(data, scale):
    X, Y = data
    seen = np.flatnonzero(Y[:100].sum(axis=0))
    assert 0 < len(seen) < 60
    clf = xmc(max_iter=5).fit(X[:100], Y[:100])
    labels, _ = clf.predict_topk(X * scale, k=len(seen))
    np.testing.assert_array_equal(np.sort(labels, axis=1), np.tile(seen, (400, 1)))


def test_rows_without_features_or_labels_are_trained_and_predicted(data):
    X, Y = data[0].tolil(), data[1].tolil()
    X[:20], Y[10:30] = 0, 0
    X, Y = X.tocsr(), Y.tocsr()
    assert (np.diff(X.indptr) == 0).sum() >= 20
    assert (np.diff(Y.indptr) == 0).sum() >= 20
    for rows in (X, X.toarray()):
        clf = xmc().fit(rows, Y)
        scores = clf.decision_function(rows)
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(scores[:20], np.tile(scores[0], (20, 1)))
        assert clf.predict_topk(rows, k=3)[0].shape == (400, 3)


def test_X_without_any_feature_learns_how_frequent_labels_are(data):
    Y = data[1]
    X = sp.csr_array((400, 5), dtype=np.float32)
    clf = xmc("full", max_iter=5).fit(X, Y)
    assert clf.predict_topk(X, k=1)[0][0, 0] == np.argmax(Y.sum(axis=0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_label_is_enough(data, sampler):
    X, Y = data
    Y = Y[:, [int(np.argmax(Y.sum(axis=0)))]]
    for y in (Y, sp.csr_array(np.ones((400, 1)))):
        clf = xmc(sampler).fit(X, y)
        labels, scores = clf.predict_topk(X)
        assert labels.shape == scores.shape == (400, 1)
        assert clf.decision_function(X).shape == clf.predict(X).shape == (400, 1)
        assert np.isfinite(scores).all()


def test_one_class_is_predicted_for_every_row(data):
    X = data[0]
    clf = xmc().fit(X, np.full(X.shape[0], "only"))
    assert set(clf.predict(X)) == {"only"}
    np.testing.assert_allclose(clf.predict_proba(X), 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_row_is_enough(data, sampler):
    X, Y = data
    clf = xmc(sampler).fit(X[:1], Y[:1])
    has = np.flatnonzero(Y[:1].toarray())
    assert set(clf.predict_topk(X[:1], k=len(has))[0][0]) == set(has)


@pytest.mark.parametrize("batch_size", [1, 400, 401, 100_000, None])
def test_batches_may_be_as_large_or_small_as_one_likes(data, batch_size):
    clf = xmc(batch_size=batch_size).fit(*data)
    assert np.isfinite(clf.decision_function(data[0])).all()
    assert clf.n_iter_ == len(clf.loss_curve_) == 2


def test_rows_of_more_labels_than_a_shortlist_takes_are_trained():
    Y = np.ones((20, 700), int)
    Y[10:, :350] = 0
    X = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    clf = xmc("uniform", max_iter=30, learning_rate_init=0.5, batch_size=2, dropout=0.0).fit(X, Y)
    labels, _ = clf.predict_topk(X[10:], k=350)
    assert (labels >= 350).mean() > 0.95


# -- the network and its training ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "shapes"),
    [
        ((16,), [(300, 16), (16,), (60, 16)]),
        ([16], [(300, 16), (16,), (60, 16)]),
        (16, [(300, 16), (16,), (60, 16)]),
        (np.array([16]), [(300, 16), (16,), (60, 16)]),
        ((16, 8), [(300, 16), (16, 8), (16,), (8,), (60, 8)]),
        ([8, 4, 12], [(300, 8), (8, 4), (4, 12), (8,), (4,), (12,), (60, 12)]),
    ],
)
def test_hidden_layers_have_the_sizes_asked_for(data, sizes, shapes):
    X, Y = data
    clf = xmc(hidden_layer_sizes=sizes).fit(X, Y)
    found = weights_of(clf)
    assert [a.shape for a in found[:-1]] == shapes
    assert found[-1].shape == (60,)
    assert {a.dtype for a in found} == {np.dtype(np.float32)}


@pytest.mark.parametrize("sampler", SAMPLER_SETTINGS, ids=str)
def test_the_loss_falls(data, sampler):
    clf = xmc(sampler, max_iter=6).fit(*data)
    assert len(clf.loss_curve_) == clf.n_iter_ == 6
    assert all(isinstance(value, float) for value in clf.loss_curve_)
    assert clf.loss_curve_[-1] < 0.9 * clf.loss_curve_[0]
    assert clf.validation_scores_ is None


def test_every_layer_is_trained(data):
    X, Y = data
    short, long = (
        xmc(hidden_layer_sizes=(8, 8, 8), max_iter=n, learning_rate_init=0.3).fit(X, Y)
        for n in (1, 4)
    )
    for before, after in zip(weights_of(short), weights_of(long), strict=True):
        assert not np.array_equal(before, after)


def test_early_stopping_restores_the_best_weights(data, monkeypatch):
    """With precision@1 told: best in the third epoch, and no better in the three after it."""
    told = [0.1, 0.2, 0.6, 0.5, 0.6, 0.3, 0.9, 0.9]
    monkeypatch.setattr(_fitting, "precision_at_k", mock.Mock(side_effect=told))
    epoch, seen = Trainer.epoch, []

    def watched(self, *args):
        loss = epoch(self, *args)
        seen.append(self.network.weights().copy())
        return loss

    monkeypatch.setattr(Trainer, "epoch", watched)
    clf = xmc(early_stopping=True, max_iter=8, hidden_layer_sizes=(16, 8)).fit(*data)
    assert clf.validation_scores_ == told[:6]
    assert clf.n_iter_ == len(clf.loss_curve_) == len(seen) == 6
    best = seen[2]
    np.testing.assert_array_equal(clf.feature_weights_, best.features)
    np.testing.assert_array_equal(clf.hidden_weights_[0], best.hidden[0])
    np.testing.assert_array_equal(clf.hidden_biases_[1], best.hidden_biases[1])
    assert not np.array_equal(clf.feature_weights_, seen[-1].features)
    trained = np.flatnonzero(clf.label_weights_.any(axis=1))
    np.testing.assert_array_equal(clf.label_weights_[trained], best.labels)
    np.testing.assert_array_equal(clf.label_biases_[trained], best.label_biases)


def test_early_stopping_watches_precision_at_1_on_rows_that_it_does_not_train_on(
    learnable, monkeypatch
):
    X, _, Y, _ = learnable
    parts = []

    def split(*arrays, **how):
        parts.extend(train_test_split(*arrays, **how))
        return parts

    monkeypatch.setattr(_fitting, "train_test_split", split)
    n_rows = []
    epoch = Trainer.epoch
    monkeypatch.setattr(
        Trainer, "epoch", lambda self, *args: n_rows.append(self.n_rows) or epoch(self, *args)
    )
    clf = xmc(early_stopping=True, validation_fraction=0.25, max_iter=3).fit(X, Y)
    assert set(n_rows) == {1500}
    held = parts[1]
    assert held.shape == (500,)
    assert clf.n_iter_ == len(clf.validation_scores_) == 3
    assert clf.score(X[held], Y[held]) == pytest.approx(max(clf.validation_scores_))
    assert max(clf.validation_scores_) > popularity_precision(Y, Y)


def test_early_stopping_stops_on_a_plateau():
    """Features that say nothing: the best is reached at once, and never surpassed for long."""
    X = sp.csr_array(np.ones((200, 1), np.float32))
    clf = xmc(early_stopping=True, n_iter_no_change=2, max_iter=50).fit(X, np.arange(200) % 10 < 7)
    assert len(clf.validation_scores_) == clf.n_iter_ < 50
    best = int(np.argmax(clf.validation_scores_))
    assert clf.n_iter_ == best + 1 + 2


@pytest.mark.parametrize("y", ["sparse", "classes"])
def test_early_stopping_takes_each_kind_of_y(data, y):
    X, Y = data
    y = Y if y == "sparse" else np.arange(400) % 4
    clf = xmc(early_stopping=True).fit(X, y)
    assert len(clf.validation_scores_) == 2
    assert all(0 <= score <= 1 for score in clf.validation_scores_)
    assert clf.predict_topk(X, k=2)[0].shape == (400, 2)


LINE = r"epoch +{}/3 +loss +\d+\.\d{{4}}{} +\d+\.\d s +[\d,]+ rows/s"


@pytest.mark.parametrize("early_stopping", [False, True])
def test_verbose_prints_a_line_an_epoch(data, capsys, early_stopping):
    clf = xmc("uniform", verbose=1, max_iter=3, early_stopping=early_stopping).fit(*data)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    held = r" +held-out P@1 \d\.\d{4}" if early_stopping else ""
    for i, line in enumerate(lines):
        assert re.search(LINE.format(i + 1, held), line), line
        assert f"{clf.loss_curve_[i]:.4f}" in line


def test_nothing_is_printed_by_default(data, capfd):
    xmc(early_stopping=True).fit(*data).predict_topk(data[0])
    out = capfd.readouterr()
    assert out.out == out.err == ""


# -- repeatability, and what is left alone ---------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLER_SETTINGS, ids=str)
def test_one_thread_gives_the_same_bits_at_each_run(data, sampler):
    first, second = (xmc(sampler, random_state=3).fit(*data) for _ in range(2))
    assert_same_model(first, second)
    assert first.loss_curve_ == second.loss_curve_
    other = xmc(sampler, random_state=4).fit(*data)
    assert not np.array_equal(first.label_weights_, other.label_weights_)


def test_early_stopping_gives_the_same_bits_at_each_run(data):
    first, second = (xmc(early_stopping=True, random_state=3).fit(*data) for _ in range(2))
    assert_same_model(first, second)
    assert first.validation_scores_ == second.validation_scores_


def test_random_state_may_be_a_generator_that_moves_on(data):
    generator = np.random.RandomState(0)
    first, second = (xmc(random_state=generator).fit(*data) for _ in range(2))
    assert not np.array_equal(first.label_weights_, second.label_weights_)
    generator = np.random.RandomState(0)
    assert_same_model(xmc(random_state=generator).fit(*data), first)


def test_fit_twice_equals_fit_once(data):
    X, Y = data
    other_X, other_Y = make_xmc(100, 50, 30, random_state=5)
    clf = xmc(early_stopping=True).fit(other_X, other_Y).set_params(early_stopping=False)
    clf.fit(X, Y)
    assert_same_model(clf, xmc().fit(X, Y))
    assert clf.validation_scores_ is None
    assert len(clf.classes_) == 60


@pytest.mark.parametrize("sampler", ["uniform", "mips+uniform"])
def test_two_threads_learn_as_well_as_one(learnable, sampler):
    X, X_test, Y, Y_test = learnable
    settings = {"hidden_layer_sizes": (64,), "max_iter": 5}
    one, two = (
        xmc(sampler, n_jobs=n_jobs, **settings).fit(X, Y).score(X_test, Y_test) for n_jobs in (1, 2)
    )
    assert one > popularity_precision(Y, Y_test) + 0.2
    assert two == pytest.approx(one, abs=0.06)


def test_threads_do_not_change_predictions(data, reference):
    X = sp.vstack([data[0]] * 5, format="csr")
    threaded = clone_fitted(reference, n_jobs=2)
    for method in ("predict_topk", "decision_function", "predict_proba"):
        one, two = (np.asarray(getattr(clf, method)(X)) for clf in (reference, threaded))
        np.testing.assert_array_equal(one, two)


@pytest.fixture
def torch_threads():
    """Three threads for torch, a number that no default is."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def assert_torch_threads(n):
    """In this thread, and in one that starts now: torch counts each on its own."""
    assert torch.get_num_threads() == n
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == n


@pytest.mark.parametrize("n_jobs", [None, 1, 2])
def test_global_state_is_left_alone(data, n_jobs, torch_threads):
    X, Y = data
    states = [np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()]  # noqa: NPY002
    for early_stopping in (False, True):
        clf = xmc(n_jobs=n_jobs, early_stopping=early_stopping).fit(X, Y)
    for method in (clf.predict, clf.predict_topk, clf.decision_function, clf.predict_proba):
        method(X)
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]
    assert_torch_threads(torch_threads)
    assert torch.is_grad_enabled()


def test_an_error_in_training_leaves_the_threads_of_torch_as_they_were(data, torch_threads):
    with (
        mock.patch.object(Trainer, "step", side_effect=RuntimeError("stop here")),
        pytest.raises(RuntimeError, match="stop here"),
    ):
        xmc(n_jobs=2).fit(*data)
    assert_torch_threads(torch_threads)


def test_threads_leave_the_warning_filters_alone(data, monkeypatch):
    """`warnings.catch_warnings` is not for threads: where two overlap, a filter stays behind."""
    A, Y = data[0].toarray(), data[1]
    enter, threads = warnings.catch_warnings.__enter__, set()

    def watched(self):
        threads.add(threading.current_thread())
        return enter(self)

    monkeypatch.setattr(warnings.catch_warnings, "__enter__", watched)
    xmc(n_jobs=2).fit(A, Y).predict_topk(A)
    assert threads <= {threading.main_thread()}


def test_parameter_objects_are_not_changed_by_fit(data):
    sampler = MIPSSampler(2, refresh_steps=3) + UniformSampler(5)
    loss, sizes = BinaryCrossEntropy(), [16, 8]
    before = joblib.hash([sampler, loss, sizes])
    clf = xmc(sampler, loss=loss, hidden_layer_sizes=sizes).fit(*data)
    assert clf.sampler is sampler
    assert clf.loss is loss
    assert joblib.hash([sampler, loss, sizes]) == before
    assert set(vars(sampler)) == {"first", "second"}
    assert set(vars(sampler.second)) == {"n_negatives", "shared", "importance"}


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_a_fitted_model_keeps_nothing_of_its_training(data, weight):
    """Arrays, lists of arrays and plain values: no index, sampler, optimizer or torch object."""
    clf = xmc(early_stopping=True, neighbor_weight=weight).fit(*data)
    fitted = {name: value for name, value in vars(clf).items() if name not in clf.get_params()}
    for name, value in fitted.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if name != "_kept":  # of predictions, and empty in copies
                assert isinstance(item, (np.ndarray, int, float, str, type(None))), name


# -- saving and cloning ----------------------------------------------------------------------------


def assert_same_predictions(a, b, X):
    for method in ("decision_function", "predict_proba"):
        np.testing.assert_array_equal(getattr(a, method)(X), getattr(b, method)(X))
    for left, right in zip(a.predict_topk(X), b.predict_topk(X), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(dense(a.predict(X)), dense(b.predict(X)))


@pytest.mark.parametrize("kind", KINDS)
def test_pickle_and_joblib_round_trips_predict_the_same(data, fitted, kind, tmp_path):
    X, clf = data[0], fitted[kind]
    assert_same_predictions(pickle.loads(pickle.dumps(clf)), clf, X)
    joblib.dump(clf, tmp_path / "clf.joblib")
    assert_same_predictions(joblib.load(tmp_path / "clf.joblib"), clf, X)
    mapped = joblib.load(tmp_path / "clf.joblib", mmap_mode="r")
    assert isinstance(mapped.label_weights_, np.memmap)
    assert_same_predictions(mapped, clf, X)
    assert_same_predictions(mapped, clf, X.toarray())


def test_clone_forgets_the_fit_and_keeps_the_parameters(data):
    clf = xmc(MIPSSampler(2) + UniformSampler(5), hidden_layer_sizes=(16, 8)).fit(*data)
    twin = clone(clf)
    with pytest.raises(NotFittedError):
        twin.predict(data[0])
    assert repr(twin) == repr(clf)
    assert twin.sampler is not clf.sampler
    assert_same_model(twin.fit(*data), clf)


def _predict_one(clf, X, out):
    out.put(clf.predict_topk(X[:1], 3)[0].tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_single_rows_are_ranked_in_threads_and_forked_processes_alike(data):
    """They have a kept thread, which does not survive a fork, and leave torch's setting alone."""
    X, _ = data
    clf = xmc().fit(*data)
    before = torch.get_num_threads()
    expected = clf.predict_topk(X, 3)[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: clf.predict_topk(X[i : i + 1], 3)[0][0], range(40)))
    np.testing.assert_array_equal(found, expected[:40])
    assert torch.get_num_threads() == before
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: of threads at a fork
        child = context.Process(target=_predict_one, args=(clf, X, out))
        child.start()
    assert out.get(timeout=60) == expected[:1].tolist()
    child.join(60)
    assert child.exitcode == 0


# -- what is refused, and when ---------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    def epoch(self, *args):
        pytest.fail("training began")

    monkeypatch.setattr(Trainer, "epoch", epoch)


def put(matrix, value, *, sparse):
    """The matrix with one value replaced."""
    out = matrix.astype(np.float64).toarray()
    out[3, 2] = value
    return sp.csr_array(out) if sparse else out


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_nan_and_infinity_in_X_are_refused(data, no_training, sparse, value, name):
    X, Y = data
    with pytest.raises(ValueError, match=f"Input X contains {name}"):
        xmc().fit(put(X, value, sparse=sparse), Y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_in_prediction(data, reference, value):
    for sparse in (True, False):
        bad = put(data[0], value, sparse=sparse)
        for method in ("predict", "predict_topk", "decision_function", "predict_proba"):
            with pytest.raises(ValueError, match="Input X contains"):
                getattr(reference, method)(bad)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_nan_and_infinity_in_y_are_refused(data, no_training, sparse, value, name):
    X, Y = data
    with pytest.raises(ValueError, match=f"Input y contains {name}"):
        xmc().fit(X, put(Y, value, sparse=sparse))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("value", [-1, 2, 0.5])
def test_entries_other_than_0_and_1_are_refused_with_a_remedy(data, no_training, sparse, value):
    X, Y = data
    message = r"y must be a binary indicator matrix.*Got the entry .*\(y > 0\)"
    with pytest.raises(ValueError, match=message):
        xmc().fit(X, put(Y, value, sparse=sparse))


def test_a_label_given_twice_is_refused(data, no_training):
    X, Y = data
    with pytest.raises(ValueError, match="y must be a binary indicator matrix"):
        xmc().fit(X, sp.csr_array((Y.data.repeat(2), Y.indices.repeat(2), Y.indptr * 2), Y.shape))


@pytest.mark.parametrize("dtype", [str, object])
def test_columns_of_names_are_sent_to_the_binarizer(data, no_training, dtype):
    y = np.resize(["ant", "bee", "cat", "dog", "eel"], (400, 2)).astype(dtype)
    with pytest.raises(ValueError, match=r"y must be.*MultiLabelBinarizer\(sparse_output=True\)"):
        xmc().fit(data[0], y)


def test_lists_of_names_are_refused(data, no_training):
    with pytest.raises(ValueError, match=r"MultiLabelBinarizer|inhomogeneous|sequence of seq"):
        xmc().fit(data[0], [["ant"], ["bee", "cat"]] * 200)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.linspace(0, 1, 400), "Unknown label type: continuous"),
        (np.zeros((400, 60)), "y has no label at all"),
        (sp.csr_array((400, 60)), "y has no label at all"),
        (sp.csr_array((399, 60)), "inconsistent numbers of samples"),
        (np.zeros(401, int), "inconsistent numbers of samples"),
        (None, "requires y to be passed"),
        (np.zeros((400, 2, 2), int), "y|dim"),
    ],
    ids=["continuous", "empty", "empty sparse", "short", "long", "none", "3-d"],
)
def test_bad_y_is_refused(data, no_training, y, message):
    with pytest.raises(ValueError, match=message):
        xmc().fit(data[0], y)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.empty((0, 5)), "0 sample"),
        (sp.csr_array((0, 5)), "0 sample"),
        (np.empty((400, 0)), "0 feature"),
        (sp.csr_array((400, 0)), "0 feature"),
        (np.full((400, 2), "word"), "could not convert|dtype"),
        (np.ones(400), "Expected 2D array"),
    ],
    ids=["no row", "no row sparse", "no feature", "no feature sparse", "strings", "1-d"],
)
def test_bad_X_is_refused(data, no_training, X, message):
    with pytest.raises(ValueError, match=message):
        xmc().fit(X, data[1][: len(X) if isinstance(X, np.ndarray) else X.shape[0]])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sampler", "unifrom", r"sampler='unifrom' .*'unifrom'.*'uniform'.*'mips\+uniform'"),
        ("sampler", "mips+", r"sampler='mips\+'.*unknown.*Known are"),
        ("sampler", "", "sampler='' .*Known are"),
        ("sampler", 3, "'sampler' parameter"),
        ("sampler", None, "'sampler' parameter"),
        ("sampler", MIPSSampler(index="annoy"), "index='annoy' is unknown.*'faiss'"),
        ("sampler", UniformSampler(1000), r"n_negatives=1000 .*\d+ labels of y.*Ask for fewer"),
        ("sampler", UniformSampler(0), "n_negatives=0 .*positive integer"),
        ("sampler", UniformSampler(importance=2), r"importance=2 .*\[0, 1\]"),
        ("sampler", MIPSSampler(1000), "n_negatives=1000 .*Ask for fewer"),
        ("sampler", MIPSSampler(5, n_candidates=3), "n_candidates=3 .*n_negatives=5"),
        ("sampler", MIPSSampler(refresh_epochs=0), "refresh_epochs=0 .*>= 1"),
        ("sampler", MIPSSampler() + UniformSampler(1000), "n_negatives=1000 .*Ask for fewer"),
        ("loss", "bcee", "loss='bcee' is unknown. Known are 'bce'"),
        ("loss", 3, "'loss' parameter"),
        ("hidden_layer_sizes", (), r"hidden_layer_sizes=\(\) must hold .*\(512,\)"),
        ("hidden_layer_sizes", (0,), r"hidden_layer_sizes=\(0,\) must hold"),
        ("hidden_layer_sizes", (16, -1), r"hidden_layer_sizes=\(16, -1\) must hold"),
        ("hidden_layer_sizes", (16.5,), r"hidden_layer_sizes=\(16.5,\) must hold"),
        ("hidden_layer_sizes", ("16",), r"hidden_layer_sizes=\('16',\) must hold"),
        ("max_iter", 0, "'max_iter' parameter"),
        ("max_iter", 2.5, "'max_iter' parameter"),
        ("batch_size", 0, "'batch_size' parameter"),
        ("learning_rate_init", 0.0, "'learning_rate_init' parameter"),
        ("dropout", 1.0, "'dropout' parameter"),
        ("dropout", -0.1, "'dropout' parameter"),
        ("top_k", 0, "'top_k' parameter"),
        ("validation_fraction", 1.0, "'validation_fraction' parameter"),
        ("n_iter_no_change", 0, "'n_iter_no_change' parameter"),
        ("random_state", "seed", "'random_state' parameter"),
        ("n_jobs", 0, "n_jobs"),
        ("n_jobs", 1.5, "'n_jobs' parameter"),
        ("device", "gpu0", "device='gpu0' is unknown: 'auto', 'cpu'"),
        ("device", "meta", "device='meta'"),
        ("device", "mps", "device='mps'"),
        ("device", 0, "'device' parameter"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused_by_name(data, no_training, name, value, message):
    with pytest.raises(ValueError, match=message):
        XMCClassifier(**{**FAST, name: value}).fit(*data)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there_is_refused_with_a_remedy(data, no_training, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device='{device}'.*no GPU.*device='auto' or 'cpu'"):
        xmc(device=device).fit(*data)


def test_faiss_that_is_not_installed_is_asked_for_before_training(data, no_training, monkeypatch):
    from skxmc import _index

    monkeypatch.setattr(_index.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'skxmc\[faiss\]'"):
        xmc(MIPSSampler(index="faiss")).fit(*data)


def test_early_stopping_needs_a_labelled_row_to_train_on(data, no_training, monkeypatch):
    def split(rows, **how):
        return rows[1:], rows[:1]

    monkeypatch.setattr(_fitting, "train_test_split", split)
    Y = sp.csr_array(([1], ([0], [1])), shape=(400, 3))  # the held-out row has the only label
    with pytest.raises(ValueError, match="early_stopping=True leaves no row with a label"):
        xmc(early_stopping=True).fit(data[0], Y)


METHODS = ("predict", "predict_topk", "decision_function", "predict_proba")


@pytest.mark.parametrize("method", [*METHODS, "score"])
def test_predicting_before_fit_is_refused(data, method):
    arguments = data if method == "score" else data[:1]
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(xmc(), method)(*arguments)


@pytest.mark.parametrize("method", METHODS)
def test_another_number_of_features_is_refused(data, reference, method):
    X, _ = data
    for narrow in (X[:, :299], X[:, :299].toarray(), sp.hstack([X, X], format="csr")):
        with pytest.raises(ValueError, match=r"X has \d+ features, but XMCClassifier .* 300"):
            getattr(reference, method)(narrow)


# -- scikit-learn's model selection ----------------------------------------------------------------

GRID = {"sampler": ["uniform", "mips+uniform", MIPSSampler(3) + UniformSampler(20)]}


def test_grid_search_over_samplers_with_one_scorer(learnable):
    X, X_test, Y, Y_test = learnable
    search = GridSearchCV(
        xmc(top_k=5), GRID, scoring=precision_at_k_scorer(1), cv=2, error_score="raise"
    ).fit(X, Y)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 3
    assert (scores > popularity_precision(Y, Y)).all()
    assert search.best_params_["sampler"] == GRID["sampler"][int(np.argmax(scores))]
    assert search.score(X_test, Y_test) == search.best_estimator_.score(X_test, Y_test)


def test_grid_search_scores_are_those_of_fits_by_hand(learnable):
    X, _, Y, _ = learnable
    X, Y = X[:600], Y[:600]
    search = GridSearchCV(
        xmc(top_k=5), GRID, scoring=ranking_scorers(k=(1, 3)), refit="P@1", cv=2,
        error_score="raise",
    ).fit(X, Y)  # fmt: skip
    assert {"mean_test_P@1", "mean_test_P@3", "mean_test_nDCG@3"} <= set(search.cv_results_)
    for i, sampler in enumerate(GRID["sampler"]):
        for fold, (train, test) in enumerate(KFold(2).split(X)):
            labels, _ = xmc(sampler).fit(X[train], Y[train]).predict_topk(X[test], k=3)
            for k in (1, 3):
                found = search.cv_results_[f"split{fold}_test_P@{k}"][i]
                assert found == pytest.approx(precision_at_k(Y[test], labels, k=k))
    assert_same_model(search.best_estimator_, xmc(**search.best_params_).fit(X, Y))


def test_nested_parameters_of_a_sum_are_searched(data):
    grid = {"sampler__first__n_negatives": [1, 4], "sampler__second__importance": [0.0, 1.0]}
    sampler = MIPSSampler(2) + UniformSampler(10)
    search = GridSearchCV(xmc(sampler, top_k=3), grid, cv=2, error_score="raise").fit(*data)
    best = search.best_estimator_.sampler
    assert best.first.n_negatives == search.best_params_["sampler__first__n_negatives"]
    assert best.second.importance == search.best_params_["sampler__second__importance"]
    assert sampler.first.n_negatives == 2
    assert len(set(search.cv_results_["mean_test_score"])) > 1  # they do change the model


TOPICS = {
    "bread": "flour yeast oven dough crust",
    "soup": "broth carrot ladle simmer pot",
    "chess": "rook bishop pawn gambit castle",
    "sailing": "mast jib harbour anchor keel",
}


@pytest.fixture(scope="module")
def texts():
    """Forty-eight short texts of one or two topics, and their lists of topics."""
    rng = np.random.default_rng(0)
    names = list(TOPICS)
    documents, tags = [], []
    for i in range(48):
        own = {names[i % 4], *([names[(i + 1) % 4]] if i % 3 == 0 else [])}
        words = [w for tag in sorted(own) for w in rng.choice(TOPICS[tag].split(), 3)]
        documents.append(" ".join(["the", *words, "of", "it"]))
        tags.append(sorted(own))
    return documents, tags


def test_texts_and_lists_of_tags_through_a_pipeline(texts):
    documents, tags = texts
    binarizer = MultiLabelBinarizer(sparse_output=True)
    Y = binarizer.fit_transform(tags)
    settings = {"max_iter": 60, "batch_size": 4, "learning_rate_init": 0.3, "dropout": 0.0}
    pipe = make_pipeline(TfidfVectorizer(), xmc("full", **settings)).fit(documents, Y)
    new = ["yeast and flour", "a gambit with the bishop", "anchor in the harbour"]
    expected = [("bread",), ("chess",), ("sailing",)]
    assert binarizer.inverse_transform(pipe.predict(new)) == expected
    assert pipe.score(documents, Y) == 1.0
    ranked, _ = pipe[-1].predict_topk(pipe[:-1].transform(new), k=1)
    assert [(name,) for name in binarizer.classes_[ranked[:, 0]]] == expected


def test_grid_search_over_a_pipeline_of_texts(texts):
    documents, tags = texts
    Y = MultiLabelBinarizer(sparse_output=True).fit_transform(tags)
    pipe = make_pipeline(TfidfVectorizer(), xmc("full", top_k=2, max_iter=20, batch_size=4))
    grid = {"tfidfvectorizer__max_features": [2, None], "xmcclassifier__dropout": [0.0, 0.3]}
    scoring = ranking_scorers(k=1)
    search = GridSearchCV(pipe, grid, scoring=scoring, refit="P@1", cv=3, error_score="raise")
    search.fit(documents, Y)
    assert search.best_params_["tfidfvectorizer__max_features"] is None
    assert search.best_score_ > 0.8


# -- learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLER_SETTINGS, ids=str)
def test_every_sampler_is_far_ahead_of_popularity(learnable, sampler):
    X, X_test, Y, Y_test = learnable
    clf = xmc(sampler, hidden_layer_sizes=(64,), max_iter=5).fit(X, Y)
    assert clf.score(X_test, Y_test) > popularity_precision(Y, Y_test) + 0.25


def test_dense_embeddings_are_learnt_from(learnable):
    X, X_test, Y, Y_test = learnable
    svd = TruncatedSVD(50, random_state=0).fit(X)
    E, E_test = (normalize(svd.transform(part)).astype(np.float32) for part in (X, X_test))
    clf = xmc(hidden_layer_sizes=(64,), max_iter=10).fit(E, Y)
    assert clf.score(E_test, Y_test) > popularity_precision(Y, Y_test) + 0.25


def test_more_hidden_layers_learn(learnable):
    X, X_test, Y, Y_test = learnable
    clf = xmc(hidden_layer_sizes=(64, 64), max_iter=10).fit(X, Y)
    assert clf.score(X_test, Y_test) > popularity_precision(Y, Y_test) + 0.25


# --- weights of positives -------------------------------------------------------------------------


def test_positive_weights_follow_their_formulas_and_keep_the_mean_of_the_loss(data):
    from skxmc._targets import positive_weights

    Y = sp.csr_array(data[1])
    counts = np.asarray(Y.sum(axis=0)).ravel()
    slow = {
        "propensity": [2 / p - 1 for p in propensities(Y)],
        "class-balanced": [0.1 / (1 - 0.9 ** max(n, 1)) for n in counts],
        "own": list(range(1, len(counts) + 1)),
    }
    for kind, weights in slow.items():
        found = positive_weights(np.array(weights) if kind == "own" else kind, counts, Y.shape[0])
        mean = sum(w * n for w, n in zip(weights, counts, strict=True)) / counts.sum()
        np.testing.assert_allclose(found, np.array(weights) / mean, rtol=1e-5)
    assert positive_weights(None, counts, Y.shape[0]) is None


def test_equal_positive_weights_change_nothing_and_a_heavy_label_is_ranked_higher(data):
    X, Y = data
    plain = xmc().fit(X, Y)
    equal = xmc(positive_weight=np.full(60, 3.0)).fit(X, Y)
    np.testing.assert_array_equal(plain.label_weights_, equal.label_weights_)
    rare = int(np.argsort(np.asarray(Y.sum(axis=0)).ravel())[30])
    weights = np.ones(60)
    weights[rare] = 50
    heavy = xmc(positive_weight=weights).fit(X, Y)
    rank = [
        np.argsort(np.argsort(-clf.decision_function(X), axis=1), axis=1)[:, rare].mean()
        for clf in (plain, heavy)
    ]
    assert rank[1] < rank[0] - 1


@pytest.mark.parametrize("weight", ["rare", np.ones(59), -np.ones(60), np.zeros(60)])
def test_bad_positive_weights_are_refused(data, weight):
    with pytest.raises(ValueError, match="positive_weight"):
        xmc(positive_weight=weight).fit(*data)


# --- active negatives -----------------------------------------------------------------------------


def test_the_active_share_of_negatives_is_kept_and_printed_for_losses_with_a_margin(data, capsys):
    clf = xmc("full", loss=SquaredHinge(), max_iter=8, verbose=1).fit(*data)
    assert len(clf.active_fraction_) == 8
    assert all(0 < share < 1 for share in clf.active_fraction_)
    assert f"active {clf.active_fraction_[-1]:.1%}" in capsys.readouterr().out
    assert xmc(max_iter=2).fit(*data).active_fraction_ is None  # logistic: all are active


def test_the_active_share_is_that_of_a_slow_count():
    """One step from known weights: every label's score is its bias."""
    X, Y = np.zeros((4, 3)), np.eye(4, 6, dtype=int)
    Y[:, 4:] = 1
    clf = xmc("full", loss=SquaredHinge(), max_iter=1, batch_size=4, hidden_layer_sizes=(2,))
    clf.fit(X, Y)
    odds = np.log((Y.sum(axis=0) + 0.5) / (4 - Y.sum(axis=0) + 0.5))  # what the biases start from
    active = sum(odds[label] > -1 for row in Y for label in np.flatnonzero(row == 0))
    assert clf.active_fraction_ == [pytest.approx(active / (Y == 0).sum())]
