"""The compiled loops of the CPU: sparse rows against a wide table.

A batch touches a few thousand rows of two huge tables (features x width, labels x width). Generic
autograd gathers copies of those rows, sorts and scatters their gradients; here each is read and
written in place. Every kernel releases the GIL, so that threads each train on their own batch, and
none starts threads of its own: on shared cores the barriers of fine-grained parallel loops cost
more than the loops.

The ragged lists of (id, coefficient) that a batch holds are given as `starts` and `ends` into flat
arrays: rows of a CSR matrix, or the rows of a padded (B, m) array. An id of -1 is skipped.
The twin of this file in plain torch is `_ends.py`; the two are tested against each other.
"""

import numba
import numpy as np

# Sums may be reordered, which lets dot products use vector registers. NaN and infinity keep their
# meaning. The order is fixed by the machine code, so that equal calls give equal bits.
_REORDER = {"reassoc", "contract", "nsz", "arcp"}
_jit = numba.njit(nogil=True, cache=True, error_model="numpy")
_jit_reorder = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=_REORDER)


@_jit_reorder
def gather_sum(starts, ends, ids, coefficients, table, out):
    """out[i] = sum of coefficient * table[id] over the list of row i."""
    n_rows, width = out.shape
    for i in range(n_rows):
        total = out[i]
        total[:] = np.float32(0)
        for p in range(starts[i], ends[i]):
            row = ids[p]
            if row < 0:
                continue
            c = coefficients[p]
            source = table[row]
            for j in range(width):
                total[j] += c * source[j]


@_jit_reorder
def gather_dot(starts, ends, ids, hidden, table, biases, out):
    """out[p] = hidden[i] . table[id] + biases[id] for each place p in the list of row i."""
    width = hidden.shape[1]
    for i in range(hidden.shape[0]):
        query = hidden[i]
        for p in range(starts[i], ends[i]):
            row = ids[p]
            if row < 0:
                out[p] = np.float32(0)
                continue
            source = table[row]
            total = np.float32(0)
            for j in range(width):
                total += query[j] * source[j]
            out[p] = total + biases[row]


# Inlined: whether the compiler merges a helper from the cache would show in the last bits.
@numba.njit(nogil=True, error_model="numpy", fastmath=_REORDER, inline="always")
def _adagrad_row(gradient, row, squares, rate):
    """One step of row-wise Adagrad; returns the row's sum of mean squared gradients."""
    width = row.size
    square = np.float32(0)
    for j in range(width):
        square += gradient[j] * gradient[j]
    total = squares + square / np.float32(width)
    step = rate / np.sqrt(total)
    for j in range(width):
        row[j] -= step * gradient[j]
    return total


@numba.njit(nogil=True, error_model="numpy", fastmath=_REORDER, inline="always")
def _adagrad_number(gradient, row, numbers, squares, rate):
    squares[row] += gradient * gradient
    numbers[row] -= rate * gradient / np.sqrt(squares[row])


@_jit_reorder
def scatter_adagrad(
    starts, ends, ids, coefficients, source, table, squares, biases, bias_squares, rate, skip, slot
):
    """Update table[id] by the sum of coefficient * source[i] over all places that hold the id.

    Places are grouped by id first (a counting sort: `slot`, int32, one entry a table row, all -1
    before and after), so that a row is read and written once however often the batch holds it.
    Coefficients smaller than `skip` are passed over. `biases` of length 0: the table has none.
    """
    n_places = 0
    for i in range(source.shape[0]):
        n_places += ends[i] - starts[i]
    unique = np.empty(n_places, np.int32)
    first = np.zeros(n_places + 1, np.int32)  # first[u + 1]: count of group u, later its end
    n_unique = 0
    for i in range(source.shape[0]):
        for p in range(starts[i], ends[i]):
            row = ids[p]
            if row < 0 or abs(coefficients[p]) < skip:
                continue
            u = slot[row]
            if u < 0:
                u = n_unique
                slot[row] = u
                unique[u] = row
                n_unique += 1
            first[u + 1] += 1
    for u in range(n_unique):
        first[u + 1] += first[u]
    place_row = np.empty(first[n_unique], np.int32)
    place_coefficient = np.empty(first[n_unique], np.float32)
    cursor = first[:n_unique].copy()
    for i in range(source.shape[0]):
        for p in range(starts[i], ends[i]):
            row = ids[p]
            if row < 0 or abs(coefficients[p]) < skip:
                continue
            q = cursor[slot[row]]
            cursor[slot[row]] = q + 1
            place_row[q] = i
            place_coefficient[q] = coefficients[p]

    width = source.shape[1]
    gradient = np.empty(width, np.float32)
    for u in range(n_unique):
        row = unique[u]
        slot[row] = -1
        gradient[:] = np.float32(0)
        bias_gradient = np.float32(0)
        for q in range(first[u], first[u + 1]):
            c = place_coefficient[q]
            bias_gradient += c
            vector = source[place_row[q]]
            for j in range(width):
                gradient[j] += c * vector[j]
        squares[row] = _adagrad_row(gradient, table[row], squares[row], rate)
        if biases.size:
            _adagrad_number(bias_gradient, row, biases, bias_squares, rate)


@_jit_reorder
def row_adagrad(ids, gradients, bias_gradients, table, squares, biases, bias_squares, rate):
    """Update table[ids[u]] by gradients[u]; the ids are distinct."""
    for u in range(ids.size):
        row = ids[u]
        squares[row] = _adagrad_row(gradients[u], table[row], squares[row], rate)
        if biases.size:
            _adagrad_number(bias_gradients[u], row, biases, bias_squares, rate)


@_jit
def fill_shortlist(indptr, indices, rows, n_positives, labels, shared, mask, slot):
    """Put the positives in front of the proposals and mask accidental hits and repeats.

    labels (B, r): columns from `n_positives` on hold proposals, -1 for none; the columns before
    are filled here. shared (s,): distinct proposals for every row. mask (B, r + s), all False: set
    to True where a place counts. A row of more than `n_positives` labels gets that many of them,
    evenly spaced from the place that labels[i, 0] holds; none of the others becomes a negative.
    slot: int32, one entry a label, all -1 before and after. In between, the column of a shared
    label, or -2 - i for a label that row i has already.
    """
    n_rows, r = labels.shape
    for c in range(shared.size):
        slot[shared[c]] = c
    for i in range(n_rows):
        begin, end = indptr[rows[i]], indptr[rows[i] + 1]
        count = end - begin
        mask[i, r:] = True
        for p in range(begin, end):
            _take(indices[p], i, r, mask, slot)
        start = labels[i, 0] if n_positives and count > n_positives else 0
        for j in range(n_positives):
            labels[i, j] = -1
            if count > n_positives:
                labels[i, j] = indices[begin + (start + j * count // n_positives) % count]
            elif j < count:
                labels[i, j] = indices[begin + j]
            mask[i, j] = labels[i, j] >= 0
        for j in range(n_positives, r):
            if labels[i, j] >= 0:
                mask[i, j] = _take(labels[i, j], i, r, mask, slot)
        for p in range(begin, end):
            _release(indices[p], slot)
        for j in range(n_positives, r):
            if labels[i, j] >= 0:
                _release(labels[i, j], slot)
                if not mask[i, j]:
                    labels[i, j] = -1
    for c in range(shared.size):
        slot[shared[c]] = -1


@_jit
def _take(label, i, r, mask, slot):
    """Give the label to row i's own places; False where the row has it already."""
    c = slot[label]
    if c >= 0:
        new = mask[i, r + c]
        mask[i, r + c] = False
        return new
    slot[label] = -2 - i
    return c != -2 - i


@_jit
def _release(label, slot):
    if slot[label] < -1:
        slot[label] = -1


@_jit
def interleave(table, n_members):
    """Row i of member m, at m * n + i before, moves to i * n_members + m, in place."""
    n = len(table) // n_members
    moved = np.zeros(len(table), np.bool_)
    for start in range(len(table)):
        if moved[start]:
            continue
        row = table[start].copy()
        at = start
        while not moved[at]:  # the row in hand takes the place of the next, until the circle ends
            to = at % n * n_members + at // n
            for j in range(row.size):
                row[j], table[to, j] = table[to, j], row[j]
            moved[at] = True
            at = to
