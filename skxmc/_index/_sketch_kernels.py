"""The compiled loops of approximate search."""

import numpy as np

from skxmc._index._kernels import (
    ERROR,
    HIGH,
    LOW,
    NORM,
    Q_ERROR,
    Q_NORM,
    Q_SCALE,
    Q_SHIFT,
    SCALE,
    SUM,
    _first_threshold,
    _gather,
    _jit,
    _jit_reorder,
    _reached,
)  # fmt: skip
from skxmc._index._row_kernels import _prefetch_rows, _product


@_jit
def note_best(
    products, first, query_scales, scales, biases, wanted, counts, thresholds, noted, values
):
    """Note the labels of a block that may be among the `wanted` best of each row.

    products (n, c), whole numbers, times query_scales (n,) and scales (c,), plus biases (c,), are
    the scores by sketch of labels `first` to `first` + c; blocks come in ascending order. Of each
    row: how many are noted (n,), a score that as many as wanted reach (n,), the labels noted and
    their scores, (n, m) each, m > wanted.
    """
    n_columns, room = products.shape[1], noted.shape[1]
    scores = np.empty(n_columns if first == 0 else 0, np.float32)
    marks = np.zeros(-(-n_columns // 8) * 8, np.uint8)
    words = marks.view(np.uint64)  # eight labels at a glance
    places = np.empty(marks.size + 1, np.int32)
    keys = np.empty(room, np.int32)
    for i in range(len(products)):
        row, scale, threshold, count = products[i], query_scales[i], thresholds[i], counts[i]
        if first == 0 and n_columns > wanted:
            for c in range(n_columns):
                scores[c] = np.float32(row[c]) * scales[c] * scale + biases[c]
            threshold = _first_threshold(scores, wanted)
        for c in range(n_columns):
            marks[c] = np.float32(row[c]) * scales[c] * scale + biases[c] > threshold
        for p in range(_gather(marks, words, places)):
            at = places[p]
            noted[i, count] = first + at
            values[i, count] = np.float32(row[at]) * scales[at] * scale + biases[at]
            count += 1
            if count == room:
                threshold = _reached(values[i], keys, wanted)
                count = _keep(noted[i], values[i], threshold)
                if count > (wanted + room) // 2:  # very many are alike
                    _sort(noted[i, :count], values[i, :count])
                    count, threshold = wanted, values[i, wanted - 1]
        counts[i], thresholds[i] = count, threshold


@_jit
def _keep(labels, scores, threshold):
    """Move those that reach the threshold to the front; returns how many."""
    n = 0
    for p in range(labels.size):
        labels[n], scores[n] = labels[p], scores[p]
        n += scores[p] >= threshold
    return n


@_jit
def _sort(labels, scores):
    """Best first; of equals what was first stays first."""
    order = np.argsort(-scores, kind="mergesort")
    labels[:], scores[:] = labels[order], scores[order]


@_jit
def keep_best(counts, noted, values, wanted, best):
    """Of the labels noted at least the `wanted` best, to best (n, m), and how many, to counts (n,).

    m is somewhat more than wanted, for those that are as good to some digits.
    """
    most = best.shape[1]
    keys = np.empty(noted.shape[1], np.int32)
    for i in range(len(counts)):
        n = counts[i]
        if n > most:
            labels, scores = noted[i, :n], values[i, :n]
            n = _keep(labels, scores, _reached(scores, keys[:n], wanted))
            if n > most:
                _sort(labels[:n], scores[:n])
                n = most
        best[i, :n] = noted[i, :n]
        counts[i] = n


@_jit_reorder
def note(labels, counts, codes, query_terms, table, terms, state, k):
    """Note the labels (n, m) of each query, of which counts (n,) are given, and their bounds.

    As `_kernels.select` notes those that may be among the k best, for `_kernels.finish`. Without
    codes (of length 0) nothing is known of the scores.
    """
    thresholds, noted_counts, noted, uppers, lowers = state
    keys = np.empty(labels.shape[1], np.int32)
    for i in range(len(labels)):
        query, n = query_terms[i], counts[i]
        noted_counts[i] = n
        for p in range(n):
            label = labels[i, p]
            noted[i, p] = label
            uppers[i, p], lowers[i, p] = np.float32(np.inf), np.float32(-np.inf)
            if len(codes):
                if p + 2 < n:
                    _prefetch_rows(table, labels[i, p + 2], 1)
                product = np.float32(_product(codes[i], table[label]))
                middle = query[Q_SCALE] * (product * terms[SCALE, label])
                middle += query[Q_SHIFT] * terms[SUM, label]
                loss = query[Q_NORM] * terms[ERROR, label] + query[Q_ERROR] * terms[NORM, label]
                uppers[i, p] = middle + terms[HIGH, label] + loss
                lowers[i, p] = middle + terms[LOW, label] - loss
        if n >= k:
            thresholds[i] = _reached(lowers[i, :n], keys[:n], k)
