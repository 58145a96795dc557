"""The compiled loops of the shortlist: labels of a batch, and the places that count."""

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from skxmc._kernels import _jit


@intrinsic
def _trailing_zeros(typing, word):
    """How many zeros are below the lowest bit of a word that has one."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), True))

    return numba.uint64(numba.uint64), generate


@_jit
def _mark(words, label):
    """Set the label's bit; False where it was set."""
    at, bit = np.uint64(label) >> np.uint64(6), np.uint64(1) << (np.uint64(label) & np.uint64(63))
    new = not words[at] & bit
    words[at] |= bit
    return new


@_jit
def _marked(words, n):
    """The n labels whose bits are set, ascending."""
    labels = np.empty(n, np.int32)
    at = 0
    for w in range(words.size):
        word = words[w]
        while word:
            labels[at] = np.uint64(64 * w) + _trailing_zeros(word)
            word &= word - np.uint64(1)
            at += 1
    return labels


@_jit
def draw_distinct(n_labels, uniform):
    """As many distinct labels as there are numbers in uniform (n,), in [0, 1): each set as likely.

    Floyd's way: the t-th is one of the first m = n_labels - n + t + 1, and the m-th if that is
    among them already. (J. Bentley, R. Floyd, "A Sample of Brilliance", CACM 30(9), 1987)
    """
    n = uniform.size
    words = np.zeros(n_labels // 64 + 1, np.uint64)
    labels = np.empty(n, np.int32)
    for t in range(n):
        last = n_labels - n + t
        label = int(uniform[t] * (last + 1))
        if not _mark(words, label):
            label = last
            _mark(words, label)
        labels[t] = label
    return labels


@_jit
def labels_of(indptr, indices, rows, n_labels):
    """The labels that any of these rows of a CSR matrix has, ascending."""
    words = np.zeros(n_labels // 64 + 1, np.uint64)
    n = 0
    for row in rows:
        for p in range(indptr[row], indptr[row + 1]):
            n += _mark(words, indices[p])
    return _marked(words, n)


@_jit
def first_of_each(labels, slot):
    """Where each label is for the first time, in the ascending order of the labels.

    slot: int32, one entry a label, all -1 before and after.
    """
    words = np.zeros(slot.size // 64 + 1, np.uint64)
    n = 0
    for p in range(labels.size):
        if _mark(words, labels[p]):
            slot[labels[p]] = p
            n += 1
    found = _marked(words, n)
    places = np.empty(n, np.int64)
    for u in range(n):
        places[u] = slot[found[u]]
        slot[found[u]] = -1
    return places


@_jit
def are_labels(own, first, shared, n_labels):
    """Whether labels are: own (B, r) from column `first` on, negative for none, and shared."""
    highest = np.int32(-1)
    for i in range(own.shape[0]):
        for j in range(first, own.shape[1]):
            highest = max(highest, own[i, j])
    lowest = np.int32(0)
    for c in range(shared.size):
        highest, lowest = max(highest, shared[c]), min(lowest, shared[c])
    return lowest == 0 and highest < n_labels


@_jit
def draw_from_strata(candidates, rows, uniform, out):
    """out[i, k]: one of the k-th part of the valid candidates of rows[i], which come first.

    uniform (B, n), in [0, 1): which one. A row of n valid candidates or fewer gets them all, then
    -1.
    """
    n = uniform.shape[1]
    for i in range(rows.size):
        mine = candidates[rows[i]]
        n_valid = 0
        while n_valid < mine.size and mine[n_valid] >= 0:
            n_valid += 1
        for k in range(n):
            at = k
            if n_valid > n:
                begin = k * n_valid // n
                at = begin + int(uniform[i, k] * ((k + 1) * n_valid // n - begin))
            out[i, k] = mine[at]


@_jit
def fill_shortlist(
    indptr, indices, rows, n_positives, labels, shared, weights, positive_weights, out, slot
):
    """Put the positives in front of the proposals and weigh accidental hits and repeats by 0.

    labels (B, r): columns from `n_positives` on hold proposals, -1 for none; the columns before
    are filled here. shared (s,): distinct proposals for every row. weights (r + s,) of the columns,
    and positive_weights (L,), or (0,) for 1, of the labels among positives; out (B, r + s): of
    each place, 0 where it does not count. A row of more than `n_positives` labels gets that many
    of them, evenly spaced from a place that the number in labels[i, 0] says; none of the others
    becomes a negative.
    slot: int32, one entry a label, all -1 before and after. In between, the column of a shared
    label, or -2 - i for a label that row i has already.
    """
    n_rows, r = labels.shape
    mask = np.empty(r + shared.size, np.bool_)  # of a row: whether a place counts
    for c in range(shared.size):
        slot[shared[c]] = c
    for i in range(n_rows):
        begin, end = indptr[rows[i]], indptr[rows[i] + 1]
        count = end - begin
        mask[r:] = True
        for p in range(begin, end):
            _take(indices[p], i, r, mask, slot)
        start = labels[i, 0] % count if n_positives and count > n_positives else 0
        for j in range(n_positives):
            labels[i, j] = -1
            if count > n_positives:
                labels[i, j] = indices[begin + (start + j * count // n_positives) % count]
            elif j < count:
                labels[i, j] = indices[begin + j]
            mask[j] = labels[i, j] >= 0
        for j in range(n_positives, r):
            if labels[i, j] >= 0:
                mask[j] = _take(labels[i, j], i, r, mask, slot)
        for p in range(begin, end):
            _release(indices[p], slot)
        for j in range(n_positives, r):
            if labels[i, j] >= 0:
                _release(labels[i, j], slot)
                if not mask[j]:
                    labels[i, j] = -1
            else:
                mask[j] = False
        for c in range(r + shared.size):
            out[i, c] = weights[c] if mask[c] else np.float32(0)
        for j in range(n_positives if positive_weights.size else 0):
            if mask[j]:
                out[i, j] *= positive_weights[labels[i, j]]
    for c in range(shared.size):
        slot[shared[c]] = -1


@_jit
def _take(label, i, r, mask, slot):
    """Give the label to row i's own places; False where the row has it already."""
    c = slot[label]
    if c >= 0:
        new = mask[r + c]
        mask[r + c] = False
        return new
    slot[label] = -2 - i
    return c != -2 - i


@_jit
def _release(label, slot):
    if slot[label] < -1:
        slot[label] = -1
