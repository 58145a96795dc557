"""The compiled loop of iterative stratification; `model_selection.py` says what it is for."""

import heapq

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def stratify(indptr, indices, label_indptr, label_rows, sizes, shares, needed, first):
    """Deal rows out to parts of these sizes, the rows of the rarest label first.

    indptr, indices: the labels of each row; label_indptr, label_rows: the rows of each label.
    sizes (k,) int64: summing to the number of rows. shares (k,) int64: how a label's rows should be
    divided; the sizes, save that a remainder of one row must not draw every rare label to a part.
    needed (k,) bool: whether a label should have a row outside this part. first (n,) int64: the
    part that a row prefers among equals, the others following in a circle. Returns the part of each
    row, (n,) int32.
    """
    n_rows, n_labels, n_parts = indptr.size - 1, label_indptr.size - 1, sizes.size
    part = np.full(n_rows, -1, np.int32)
    room = sizes.copy()
    total = shares.sum()
    counts = np.diff(label_indptr)
    left = counts.copy()  # rows of a label that are not dealt out yet
    dealt = np.zeros((n_labels, n_parts), np.int32)
    lost = np.empty(n_parts, np.int64)

    # A number holds both, rows left and label. What is out of date is passed over when it comes up.
    heap = [left[m] * n_labels + m for m in range(n_labels) if left[m]]
    heapq.heapify(heap)
    while heap:
        n_left, label = divmod(heapq.heappop(heap), n_labels)
        if left[label] != n_left:
            continue
        for p in range(label_indptr[label], label_indptr[label + 1]):
            row = label_rows[p]
            if part[row] >= 0:
                continue
            lost[:] = 0  # labels that would have no row outside the part
            for q in range(indptr[row], indptr[row + 1]):
                m = indices[q]
                if left[m] == 1:
                    for j in range(n_parts):
                        lost[j] += needed[j] and dealt[m, j] == counts[m] - 1
            best, best_wish = -1, 0
            for t in range(n_parts):
                j = (first[row] + t) % n_parts
                if not room[j]:
                    continue
                # The label's rows that the part lacks, times the total: no ties lost by rounding.
                wish = counts[label] * shares[j] - dealt[label, j] * total
                if (
                    best < 0
                    or lost[j] < lost[best]
                    or (
                        lost[j] == lost[best]
                        and (wish > best_wish or (wish == best_wish and room[j] > room[best]))
                    )
                ):
                    best, best_wish = j, wish
            part[row] = best
            room[best] -= 1
            for q in range(indptr[row], indptr[row + 1]):
                m = indices[q]
                dealt[m, best] += 1
                left[m] -= 1
                if m != label and left[m]:
                    heapq.heappush(heap, left[m] * n_labels + m)

    for row in range(n_rows):  # those without labels
        if part[row] < 0:
            best = first[row]
            for t in range(1, n_parts):
                j = (first[row] + t) % n_parts
                if room[j] > room[best]:
                    best = j
            part[row] = best
            room[best] -= 1
    return part
