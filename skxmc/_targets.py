"""The label side of `fit`: what y may be, and the two forms that it takes inside.

Either a binary indicator, dense or sparse (n, L), whose `classes_` are the column numbers; or 1-d
classes, which are one positive a row.
"""

from numbers import Real

import numpy as np
import scipy.sparse as sp
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from skxmc._ends import canonical
from skxmc.metrics._propensities import _of_counts

_BINARIZE = "MultiLabelBinarizer(sparse_output=True) makes an indicator from lists of labels."


def encode_targets(y, classes=None):
    """Turn y into an indicator; `classes`: those of the columns, where they are known before.

    Returns
    -------
    Y : csr_array of shape (n, L)
        Without explicit zeros, indices sorted and distinct; a sparse y that is so is not copied,
        since it may lie on disk.
    classes : ndarray of shape (L,)
    kind : {"sparse", "dense", "classes"}
        The container of y, which predictions will have too.
    """
    if sp.issparse(y):
        return _indicator(sp.csr_array(y), classes), np.arange(y.shape[1]), "sparse"
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf":
        return _indicator(sp.csr_array(y), classes), np.arange(y.shape[1]), "dense"
    if y.ndim == 2 and y.shape[1] > 1:
        raise ValueError(
            f"y must be a binary indicator matrix of 0 and 1, or 1-d classes. {_BINARIZE}"
        )
    # Only of floats does it look at all values; of others, it would take many classes of few rows
    # each for a regression.
    check_classification_targets(y if y.dtype.kind == "f" else y[:20])
    found, at = np.unique(column_or_1d(y, warn=True), return_inverse=True)
    n = len(at)
    if classes is None:
        classes = found
    else:
        new = found[~np.isin(found, classes)]
        if new.size:
            raise ValueError(
                f"y has the class {new[0]!r}, which `classes` of the first call lacks."
            )
        at = np.searchsorted(classes, found)[at]
    Y = sp.csr_array(
        (np.ones(n, np.int8), at.astype(np.int32), np.arange(n + 1)), shape=(n, len(classes))
    )
    return Y, classes, "classes"


def count_labels(Y):
    """How many rows carry each label of an indicator, (L,) int64."""
    counts = np.zeros(Y.shape[1], np.int64)
    for part in _parts(Y.indices):  # numpy would make all of them int64 at once
        counts += np.bincount(part, minlength=len(counts))
    return counts


def pace(counts, n_rows):
    """Epochs and rows in a batch, by what there is to learn from: labels of so many rows, (L,).

    Labels that many rows have are learnt in fewer epochs, and of larger batches: what more would
    teach are the training rows themselves. Few rows make few steps as it is.
    """
    if n_rows < 4_000:
        n_epochs, most = 10, 128
    else:
        many = counts.sum() >= 32 * np.count_nonzero(counts)
        n_epochs, most = (4, 256) if many else (8, 128)
    return n_epochs, int(np.clip(n_rows // 64, 8, most))


def count_epochs(max_iter, learning_rate, Y):
    """`max_iter`; where it is None, what else is known."""
    if max_iter is not None:
        return max_iter
    if not isinstance(learning_rate, str):
        return max(1, np.size(learning_rate))
    return pace(count_labels(Y), Y.shape[0])[0]


def select_labels(Y, labels):
    """Columns of an indicator that hold all its entries, ascending; Y itself where that is all."""
    if len(labels) == Y.shape[1]:
        return Y
    place = np.zeros(Y.shape[1], np.int32)
    place[labels] = np.arange(len(labels))
    indices = np.empty(Y.nnz, np.int32)
    for part, out in zip(_parts(Y.indices), _parts(indices), strict=True):
        out[:] = place[part]
    Y = sp.csr_array((Y.data, indices, Y.indptr), shape=(Y.shape[0], len(labels)))
    Y.has_canonical_format = True
    return Y


def without_rows(Y, rows):
    """An indicator in which these rows carry no label."""
    counts = np.diff(Y.indptr)
    kept = np.ones(len(counts), bool)
    kept[rows] = False
    entries = np.repeat(kept, counts)
    indptr = np.append(0, np.cumsum(counts * kept)).astype(Y.indptr.dtype)
    Y = sp.csr_array((Y.data[entries], Y.indices[entries], indptr), shape=Y.shape)
    Y.has_canonical_format = True
    return Y


def positive_weights(kind, counts, n_rows):
    """How much a positive of each label weighs in the loss, (L,) float32, or None for all alike.

    `counts` (L,): how many of `n_rows` rows carry each label. The weights have mean 1 over all
    positives, so that the loss keeps its scale.
    """
    if kind is None:
        return None
    if isinstance(kind, Real) or (isinstance(kind, str) and kind == "propensity"):
        weights = np.exp(tail_offsets(counts, n_rows) * (1 if isinstance(kind, str) else kind))
    elif isinstance(kind, str) and kind == "class-balanced":
        weights = 0.1 / (1 - 0.9 ** np.maximum(counts, 1))
    else:
        weights = np.asarray(kind, dtype=np.float64)
        if weights.shape != counts.shape or not (weights >= 0).all() or not weights.any():
            raise ValueError(
                f"positive_weight={kind!r} must be None, 'propensity', 'class-balanced', a power "
                f"of the propensity weights, or {len(counts)} numbers >= 0, one for each label."
            )
    return (weights * (counts.sum() / (weights @ counts))).astype(np.float32)


def tail_offsets(counts, n_rows):
    """What the convex propensity-scored loss adds to a label's log-odds: log(2 / p - 1), (L,).

    The propensity model wants three rows; of fewer, all labels are alike.
    """
    if n_rows < 3:
        return np.zeros(len(counts), np.float32)
    return np.log(2 / _of_counts(counts, n_rows) - 1).astype(np.float32)


def refuse_lists(y):
    """Raise where y holds a list of labels for each row, which numpy would only call ragged."""
    if isinstance(y, (list, tuple)) and any(isinstance(row, (list, tuple, set)) for row in y):
        sizes = {len(row) if hasattr(row, "__len__") else -1 for row in y}
        if len(sizes) > 1 or any(isinstance(row, set) for row in y):
            raise ValueError(f"y holds lists of labels. {_BINARIZE}")


def _parts(array, size=2**22):
    """Views of a long array, for work whose result should not be as long."""
    return [array[start : start + size] for start in range(0, len(array), size)]


def _indicator(Y, classes):
    if classes is not None and Y.shape[1] != len(classes):
        raise ValueError(f"y has {Y.shape[1]} columns, but there are {len(classes)} labels.")
    Y = canonical(Y)
    for part in _parts(Y.data):
        wrong = part[part != 1]
        if wrong.size:
            raise ValueError(
                "y must be a binary indicator matrix: each entry 0 or 1. "
                f"Got the entry {wrong[0]!r}; binarise y first, e.g. (y > 0).astype(int)."
            )
    if not Y.nnz and classes is None:
        raise ValueError("y has no label at all: every entry is 0. Nothing can be learnt from it.")
    return Y
