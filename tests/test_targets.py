"""What y may be: 1-d classes, of which there may be nearly as many as rows."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.utils.multiclass import check_classification_targets

from skxmc import XMCClassifier
from skxmc._targets import encode_targets

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
