"""From scores to ranked label columns, and from these to hits, a block of rows at a time."""

import numpy as np
import scipy.sparse as sp
from sklearn.utils import gen_batches

from ._inputs import _canonical_csr, _check_k, _indicator

_BLOCK = 2**20  # scores per block of rows: small enough to stay in cache, few enough Python steps


def _prepare(y_true, y_score, k, labels):
    """Return the true labels as a CSR indicator (n, L), and the ranked ones, k a row at most."""
    k = _check_k(k)
    y = _indicator(y_true, labels)
    return y, _ranking(y_score, y.shape, k, of_classes=np.ndim(y_true) == 1)


def _hits(y, ranked):
    """Say which of the ranked labels (n, m) are true: a boolean array (n, m)."""
    n, n_labels = y.shape
    if not y.nnz:
        return np.zeros(ranked.shape, dtype=bool)
    row = np.arange(n, dtype=np.int64)
    # One number per (row, label) pair. int64 by force: 150k rows x 670k labels overflow int32.
    true = np.repeat(row, np.diff(y.indptr)) * n_labels + y.indices  # (nnz,) ascending
    asked = row[:, None] * n_labels + ranked  # (n, m)
    at = np.minimum(np.searchsorted(true, asked), y.nnz - 1)
    return (true[at] == asked) & (ranked >= 0)  # a -1 makes the key of the row before


def _ranking(y_score, shape, k, *, of_classes=False):
    """Turn scores in any accepted form into label columns (n, <= k), best first, -1 = none.

    There are fewer than k columns where no row can fill them. `of_classes` says that the true
    labels were 1-d classes, so that 1-d decision values make sense.
    """
    n, n_labels = shape
    if not sp.issparse(y_score):
        y_score = np.asarray(y_score)
        if y_score.dtype.kind == "O":
            y_score = y_score.astype(np.float64)
    kind = y_score.dtype.kind
    if kind not in "biuf":
        raise ValueError(f"y_score must hold real numbers, got dtype {y_score.dtype}.")
    if y_score.shape[:1] != (n,):
        raise ValueError(f"y_true has {n} rows, but y_score has shape {y_score.shape}.")
    if sp.issparse(y_score):
        _check_columns(y_score, n_labels, of_classes)
        return _rank_sparse(y_score, k)
    if kind == "b" or (kind in "iu" and y_score.ndim != 2):
        raise ValueError(
            f"y_score has dtype {y_score.dtype} and {y_score.ndim} dimension(s): these look like "
            "the output of predict. Pass decision_function or predict_proba, or cast to float."
        )
    if kind in "iu":
        return _rank_given(y_score, n_labels, k)
    if y_score.ndim == 1 and of_classes and n_labels == 2:
        y_score = _two_columns(y_score)
    _check_columns(y_score, n_labels, of_classes)
    return _rank_dense(y_score, min(k, n_labels))


def _check_columns(y_score, n_labels, of_classes):
    if y_score.ndim == 1:
        raise ValueError(
            f"y_score is 1-d, but y_true has {n_labels} labels: pass one score for each row and "
            "label. (A scorer of scikit-learn cuts the predict_proba of two labels to column 1; "
            "it takes decision_function first, which stays whole.)"
        )
    if y_score.ndim != 2:
        raise ValueError(f"y_score must be 2-d, got shape {y_score.shape}.")
    if y_score.shape[1] == n_labels:
        return
    mismatch = f"y_true has {n_labels} labels, but y_score has {y_score.shape[1]} columns. "
    if of_classes:
        raise ValueError(
            mismatch + "Name the classes of the columns with labels=, for example "
            "labels=classifier.classes_: y_true alone may lack some of them."
        )
    raise ValueError(
        mismatch + "Both need the same columns in the same order; labels unseen in training must "
        "keep their columns, though these are empty."
    )


def _two_columns(decision):
    """Set 1-d binary scores against their threshold, as sklearn's top_k_accuracy_score does."""
    proba = decision.min() >= 0 and decision.max() <= 1
    threshold = np.full_like(decision, 0.5 if proba else 0.0)
    return np.column_stack([threshold, decision])  # (n, 2): a tie goes to class 0, as it does there


def _rank_given(ranking, n_labels, k):
    """Check an integer ranking (n, m) and cut it to its first k columns."""
    hint = "these look like scores; cast them to float"
    for rows in gen_batches(len(ranking), max(1, _BLOCK // max(1, ranking.shape[1]))):
        block = np.sort(ranking[rows].astype(np.int64), axis=1)  # (b, m) ascending
        wrong = block[(block < -1) | (block >= n_labels)]
        if len(wrong):
            raise ValueError(
                "y_score is an integer array, so it is read as ranked label columns, but "
                f"{wrong[0]} is none (0 to {n_labels - 1}, or -1 for no label): if {hint}."
            )
        if ((block[:, 1:] == block[:, :-1]) & (block[:, 1:] >= 0)).any():
            raise ValueError(
                "y_score is an integer array, so it is read as ranked label columns, but a row "
                f"names the same label twice: {hint}."
            )
    return ranking[:, :k].astype(np.int64)  # (n, min(k, m)); its -1 may make it wider than L


def _rank_dense(scores, k):
    n, n_labels = scores.shape
    ranked = np.empty((n, k), dtype=np.int64)
    for rows in gen_batches(n, max(1, _BLOCK // n_labels)):
        ranked[rows] = _top_positions(scores[rows], k)
    return ranked


def _rank_sparse(scores, k):
    scores = _canonical_csr(scores)
    data = scores.data if scores.dtype.kind == "f" else scores.data.astype(np.float64)
    start, length = scores.indptr[:-1].astype(np.int64), np.diff(scores.indptr)
    k = min(k, length.max())
    ranked = np.full((scores.shape[0], k), -1, dtype=np.int64)
    # Rows are padded into dense blocks with others whose length has as many bits, so that a block
    # is at least half full, however long the longest row.
    bits = np.frexp(length)[1]
    for n_bits in np.unique(bits[length > 0]):
        members = np.flatnonzero(bits == n_bits)
        width = length[members].max()
        for batch in gen_batches(len(members), int(max(1, _BLOCK // width))):
            rows = members[batch]
            stored = np.arange(width) < length[rows, None]  # (b, width)
            at = np.where(stored, start[rows, None] + np.arange(width), 0)
            # The padding stands behind the stored entries, so it loses even to a stored -inf.
            top = _top_positions(np.where(stored, data[at], -np.inf), min(k, width))
            found = np.take_along_axis(stored, top, axis=1)
            label = scores.indices[np.take_along_axis(at, top, axis=1)]
            ranked[rows, : top.shape[1]] = np.where(found, label, -1)
    return ranked


def _top_positions(scores, k):
    """Return the positions (b, k) of the k best in each row (b, w), ties to the lower position."""
    b, width = scores.shape
    position = np.broadcast_to(np.arange(width), (b, width))
    if k < width:
        best = np.partition(scores, width - k, axis=1)[:, width - k :]  # (b, k), NaN among the best
        _check_nan(best)
        kth = best[:, :1]  # (b, 1)
        chosen = scores >= kth  # (b, w)
        if np.count_nonzero(chosen) > b * k:
            chosen = _without_late_ties(scores, kth, k)
        position = np.flatnonzero(chosen).reshape(b, k) % width  # ascending in each row
    values = np.take_along_axis(scores, position, axis=1)
    _check_nan(values)
    return np.take_along_axis(position, np.argsort(-values, axis=1, kind="stable"), axis=1)


def _without_late_ties(scores, kth, k):
    """Mark k entries a row: those above the k-th score, then the first of those equal to it."""
    above, tied = scores > kth, scores == kth  # (b, w)
    room = k - np.count_nonzero(above, axis=1)  # (b,) places left for the tied
    nth = np.cumsum(tied, axis=1, dtype=np.int32)  # 1 at the first tie of its row
    return above | (tied & (nth <= room[:, None]))


def _check_nan(values):
    if np.isnan(values).any():
        raise ValueError("y_score contains NaN, which has no rank.")
