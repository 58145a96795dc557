"""What the metrics accept as true labels, k and propensities, and what they say to the rest."""

import numbers

import numpy as np
import scipy.sparse as sp


def _check_k(k):
    if isinstance(k, bool | np.bool_) or not isinstance(k, numbers.Integral):
        raise TypeError(f"k must be an integer, got {k!r} of type {type(k).__name__}.")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    return int(k)


def _canonical_csr(matrix):
    """Return `matrix` as CSR with sorted indices and no duplicates; the caller's stays as it is."""
    csr = sp.csr_array(matrix)
    if not csr.has_canonical_format:
        csr = csr.copy()  # csr_array() shares the caller's arrays, and summing works in place
        csr.sum_duplicates()
    return csr


def _indicator(y, labels=None, *, name="y_true"):
    """Turn true labels in any accepted form into a canonical boolean CSR array (n, L).

    `labels` are the classes that the columns stand for, where `y` is 1-d.
    """
    if not sp.issparse(y):
        y = np.asarray(y)
    if y.ndim not in (1, 2) or (sp.issparse(y) and y.ndim == 1):
        raise ValueError(
            f"{name} must be a 2-d indicator (n_samples, n_labels) or a dense 1-d array of class "
            f"labels, got {type(y).__name__} with {y.ndim} dimension(s)."
        )
    if 0 in y.shape:
        raise ValueError(
            f"{name} is empty, shape {y.shape}: at least one row and one label column are needed."
        )
    if y.ndim == 1:
        return _indicator_of_classes(y, labels, name)
    if labels is not None:
        raise ValueError(
            f"labels= names the columns of 1-d class labels, but {name} is an indicator of shape "
            f"{y.shape}, whose columns are the labels: leave labels out."
        )
    return _indicator_of_sparse(y, name) if sp.issparse(y) else _indicator_of_dense(y, name)


def _indicator_of_sparse(y, name):
    y = _canonical_csr(y)  # duplicate entries are summed here, so (1, 1) at one place is a 2
    _check_binary(y.data, name)
    present = y.data.astype(bool)
    y = sp.csr_array((present, y.indices, y.indptr), shape=y.shape)
    if not present.all():
        y = y.copy()  # the indices may still be the caller's
        y.eliminate_zeros()
    return y


def _indicator_of_dense(y, name):
    if y.dtype.kind not in "biuf":
        try:
            y = y.astype(np.float64)  # DataFrames with nullable integers arrive as objects
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} must be a binary indicator (n_samples, n_labels), got dtype {y.dtype}; "
                "turn lists of label names into one with sklearn's MultiLabelBinarizer."
            ) from None
    _check_binary(y, name)
    return sp.csr_array(y.astype(bool, copy=False))


def _check_binary(values, name):
    wrong = (values != 0) & (values != 1)  # NaN differs from both
    if wrong.any():
        raise ValueError(
            f"{name} must be a binary indicator, zeros and ones only, got the value "
            f"{values[wrong][0]!s}; class labels go in as a 1-d array, and counts or relevance "
            f"grades as ({name} > 0)."
        )


def _indicator_of_classes(y, labels, name):
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise ValueError(f"{name} contains NaN.")
    classes = np.unique(y) if labels is None else np.asarray(labels)  # (L,)
    if classes.ndim != 1 or len(np.unique(classes)) < len(classes):
        raise ValueError("labels must be a 1-d array of classes, each of them once.")
    order = np.argsort(classes, kind="stable")
    ascending = classes[order]
    at = np.minimum(np.searchsorted(ascending, y), len(classes) - 1)  # (n,)
    unknown = ascending[at] != y
    if np.any(unknown):
        raise ValueError(
            f"{name} contains the class {y[unknown][0]!s}, which is not in labels: labels must "
            "name the classes of all the columns of y_score, as the classes_ of a classifier do."
        )
    n = len(y)
    return sp.csr_array(
        (np.ones(n, dtype=bool), order[at], np.arange(n + 1)), shape=(n, len(classes))
    )


def _check_propensities(propensities, n_labels=None):
    """Return propensities as a float64 array (L,) in (0, 1]."""
    remedy = "pass p_l as skxmc.metrics.propensities(Y_train) returns it"
    if propensities is None:
        raise ValueError(f"propensities is None: {remedy}.")
    p = np.asarray(propensities, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(
            f"propensities must be 1-d, one value a label, got shape {p.shape}: {remedy}."
        )
    if n_labels is not None and len(p) != n_labels:
        raise ValueError(
            f"propensities has {len(p)} values, but y_true has {n_labels} label columns: {remedy}, "
            "from a Y_train with the same columns (labels unseen in training keep theirs)."
        )
    wrong = ~((p > 0) & (p <= 1))  # NaN is wrong too
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"propensities must lie in (0, 1], got {p[first]} for label {first}: {remedy}; where "
            "you hold the inverse 1 / p_l, as files named inv_prop.txt do, pass 1 / that."
        )
    return p
