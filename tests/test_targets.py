"""What y may be: 1-d classes, of which there may be nearly as many as rows."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.utils.multiclass import check_classification_targets

from skxmc import XMCClassifier
from skxmc._targets import count_epochs, count_labels, encode_targets, pace

MANY = {
    "integers": np.arange(60)[::-1] * 7,
    "unsigned": np.arange(60, dtype=np.uint16),
    "strings": np.array([f"class {i}" for i in range(60)]),
    "objects": np.array([f"class {i}" for i in range(60)], object),
}


@pytest.mark.parametrize("y", MANY.values(), ids=MANY)
def test_very_many_classes_are_no_regression(y):
    """No warning: pytest makes an error of each."""
    Y, classes, kind = encode_targets(y)
    assert kind == "classes"
    np.testing.assert_array_equal(classes, np.unique(y))
    np.testing.assert_array_equal(classes[Y.indices], y)
    X = sp.eye_array(60, format="csr")
    clf = XMCClassifier(hidden_layer_sizes=(4,), max_iter=1, n_jobs=1).fit(X, y)
    np.testing.assert_array_equal(clf.classes_, np.unique(y))


def test_floats_of_many_values_are_asked_about_as_scikit_learn_does():
    """By a warning, or before 1.7 not at all."""
    y, told = np.arange(60.0), []
    for ask in (check_classification_targets, encode_targets):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ask(y)
        told.append([str(w.message) for w in caught])
    assert bool(told[0]) == bool(told[1])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.r_[np.arange(40.0), 0.5], "continuous"),
        (np.array([1, 2, None], object), "unknown"),
        (np.zeros((30, 2, 2), int), "unknown"),
    ],
    ids=["a fraction in the last row", "objects", "3-d"],
)
def test_what_is_no_class_is_refused(y, message):
    with pytest.raises(ValueError, match=f"Unknown label type: {message}"):
        encode_targets(y)


def indicator(n_rows, n_labels, per_row):
    """Each row has that many labels, all labels equally often, and a last label no row."""
    flat = np.arange(n_rows * per_row) % n_labels
    indptr = np.arange(n_rows + 1) * per_row
    return sp.csr_array((np.ones(len(flat)), flat, indptr), shape=(n_rows, n_labels + 1))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20_000, 625, 1), (4, 256)),
        ((20_000, 626, 1), (8, 128)),
        ((20_000, 1250, 2), (4, 256)),
        ((6_400, 200, 1), (4, 100)),
        ((6_400, 201, 1), (8, 100)),
        ((4_000, 3, 1), (4, 62)),
        ((3_999, 3, 1), (10, 62)),
        ((3, 2, 1), (10, 8)),
    ],
)
def test_the_pace_goes_by_rows_and_by_rows_a_label(shape, expected):
    Y = indicator(*shape)
    assert pace(count_labels(Y), Y.shape[0]) == expected
    assert count_epochs(None, "linear", Y) == expected[0]
    assert count_epochs(4, "linear", Y) == 4
    assert count_epochs(None, [1, 0.5, 0.25], Y) == 3


def test_factors_say_how_many_epochs_where_max_iter_does_not():
    X, y = np.eye(30, dtype=np.float32), np.arange(30) % 5
    clf = XMCClassifier(hidden_layer_sizes=(4,), learning_rate=[1, 0.5], n_jobs=1).fit(X, y)
    assert clf.n_iter_ == len(clf.loss_curve_) == 2
    assert XMCClassifier(hidden_layer_sizes=(4,), n_jobs=1).fit(X, y).n_iter_ == 10
    for rate in ([], 0.5, [[1, 2]], ["a"]):
        with pytest.raises(ValueError, match="learning_rate"):
            XMCClassifier(learning_rate=rate).fit(X, y)
