"""The compiled loops of the CPU: sparse rows against a wide table.

A batch touches a few thousand rows of two huge tables (features x width, labels x width). Generic
autograd gathers copies of those rows, sorts and scatters their gradients; here each is read and
written in place. Every kernel releases the GIL, so that threads each train on their own batch, and
none starts threads of its own: on shared cores the barriers of fine-grained parallel loops cost
more than the loops.

The ragged lists of (id, coefficient) that a batch holds are given as `starts` and `ends` into flat
arrays: rows of a CSR matrix, or the rows of a padded (B, m) array. An id of -1 is skipped.
Of a table, `spans` (n, 2) say which columns take part, ascending and apart: what stands beside its
rows, such as a row's gradient, holds these alone. They are unsigned, since a place that might be
negative is counted from the end, and to find out keeps a loop from vector registers.
The twin of this file in plain torch is `_ends.py`; the two are tested against each other.
"""

from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

# Sums may be reordered, which lets dot products use vector registers. NaN and infinity keep their
# meaning. The order is fixed by the machine code, so that equal calls give equal bits.
_REORDER = {"reassoc", "contract", "nsz", "arcp"}
_jit = numba.njit(nogil=True, cache=True, error_model="numpy")
_jit_reorder = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=_REORDER)


def are_compiled():
    """Whether machine code of these kernels, as they stand here, is on disk or in memory."""
    if gather_sum.signatures:
        return True
    at = gather_sum.py_func.__code__.co_firstlineno
    return any(Path(gather_sum.stats.cache_path).glob(f"_kernels.gather_sum-{at}.*.nbi"))


@intrinsic
def _prefetch(typing, table, row, column):
    """Ask the memory for the cache line of table[row, column], and do not wait for it."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, args[0])
        place = cgutils.get_item_pointer(
            context, builder, kind, array, args[1:], wraparound=False, boundscheck=False
        )
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        read, often, data = number(0), number(3), number(1)
        builder.call(call, [builder.bitcast(place, byte), read, often, data])
        return context.get_dummy_value()

    return numba.void(table, row, column), generate


# Helpers are inlined: whether the compiler merges one from the cache would show in the last bits.
_inline = numba.njit(nogil=True, error_model="numpy", fastmath=_REORDER, inline="always")


@_inline
def _prefetch_row(table, row, spans):
    for s in range(spans.shape[0]):
        for j in range(np.int64(spans[s, 0]), np.int64(spans[s, 1]), 16):  # 64 bytes, a cache line
            _prefetch(table, np.int64(row), j)


@_inline
def _all_columns(table):
    spans = np.zeros((1, 2), np.uint64)
    spans[0, 1] = table.shape[1]
    return spans


@_inline
def _add_rows(total, begin, end, ids, coefficients, table, spans):
    """Add coefficient * table[id] over a list to the total, four rows at a time.

    The sum is then read and written a quarter as often, and four rows are on their way from memory
    at once: 1.5 times as fast as one by one.
    """
    whole = begin + (end - begin) // 4 * 4
    for p in range(begin, whole, 4):
        a, b, c, d = coefficients[p : p + 4]
        row_a, row_b = table[ids[p]], table[ids[p + 1]]
        row_c, row_d = table[ids[p + 2]], table[ids[p + 3]]
        at = np.uint64(0)
        for s in range(spans.shape[0]):
            k, n = spans[s, 0], spans[s, 1] - spans[s, 0]
            for j in range(n):
                first = a * row_a[k + j] + b * row_b[k + j]
                total[at + j] += first + (c * row_c[k + j] + d * row_d[k + j])
            at += n
    for p in range(whole, end):
        a, row_a = coefficients[p], table[ids[p]]
        at = np.uint64(0)
        for s in range(spans.shape[0]):
            k, n = spans[s, 0], spans[s, 1] - spans[s, 0]
            for j in range(n):
                total[at + j] += a * row_a[k + j]
            at += n


@_jit_reorder
def gather_sum(starts, ends, ids, coefficients, table, spans, out):
    """out[i] = sum of coefficient * table[id] over the list of row i."""
    n_rows = out.shape[0]
    longest = 0
    for i in range(n_rows):
        longest = max(longest, ends[i] - starts[i])
    valid = np.empty(longest, np.int32)
    valid_coefficients = np.empty(longest, np.float32)
    for i in range(n_rows):
        n = 0
        for p in range(starts[i], ends[i]):
            if ids[p] >= 0:
                valid[n] = ids[p]
                valid_coefficients[n] = coefficients[p]
                n += 1
        out[i, :] = np.float32(0)
        _add_rows(out[i], 0, n, valid, valid_coefficients, table, spans)


@_jit_reorder
def gather_dot(starts, ends, ids, hidden, table, spans, biases, out):
    """out[p] = hidden[i] . table[id] + biases[id] for each place p in the list of row i."""
    for i in range(hidden.shape[0]):
        query = hidden[i]
        for p in range(starts[i], ends[i]):
            row = ids[p]
            if row < 0:
                out[p] = np.float32(0)
                continue
            source = table[row]
            total = np.float32(0)
            at = np.uint64(0)
            for s in range(spans.shape[0]):
                k, n = spans[s, 0], spans[s, 1] - spans[s, 0]
                for j in range(n):
                    total += query[at + j] * source[k + j]
                at += n
            out[p] = total + biases[row]


@_jit
def take_rows(ids, table, spans, out):
    """out[u] = table[ids[u]]."""
    for u in range(ids.size):
        if u + 1 < ids.size:
            _prefetch_row(table, ids[u + 1], spans)
        source, mine = table[ids[u]], out[u]
        at = np.uint64(0)
        for s in range(spans.shape[0]):
            k, n = spans[s, 0], spans[s, 1] - spans[s, 0]
            for j in range(n):
                mine[at + j] = source[k + j]
            at += n


@_inline
def _adagrad_row(gradient, row, spans, squares, rate):
    """One step of row-wise Adagrad; returns the row's sum of mean squared gradients.

    The mean is over all columns: those that take no part have a gradient of 0.
    """
    square = np.float32(0)
    for j in range(gradient.size):
        square += gradient[j] * gradient[j]
    total = squares + square / np.float32(row.size)
    step = rate / np.sqrt(total)
    at = np.uint64(0)
    for s in range(spans.shape[0]):
        k, n = spans[s, 0], spans[s, 1] - spans[s, 0]
        for j in range(n):
            row[k + j] -= step * gradient[at + j]
        at += n
    return total


@_inline
def _adagrad_number(gradient, row, numbers, squares, rate):
    squares[row] += gradient * gradient
    numbers[row] -= rate * gradient / np.sqrt(squares[row])


@_jit_reorder
def scatter_adagrad(
    starts, ends, ids, coefficients, source, table, spans, squares, biases, bias_squares, rate,
    skip, slot,
):  # fmt: skip
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

    gradient, every = np.empty(source.shape[1], np.float32), _all_columns(source)
    for u in range(n_unique):
        row = unique[u]
        slot[row] = -1
        if u + 1 < n_unique:  # on its way while this row is worked on: 1.4 times as fast
            _prefetch_row(table, unique[u + 1], spans)
        gradient[:] = np.float32(0)
        bias_gradient = np.float32(0)
        for q in range(first[u], first[u + 1]):
            bias_gradient += place_coefficient[q]
        _add_rows(gradient, first[u], first[u + 1], place_row, place_coefficient, source, every)
        squares[row] = _adagrad_row(gradient, table[row], spans, squares[row], rate)
        if biases.size:
            _adagrad_number(bias_gradient, row, biases, bias_squares, rate)


@_jit_reorder
def row_adagrad(ids, gradients, bias_gradients, table, spans, squares, biases, bias_squares, rate):
    """Update table[ids[u]] by gradients[u]; the ids are distinct."""
    for u in range(ids.size):
        row = ids[u]
        if u + 1 < ids.size:
            _prefetch_row(table, ids[u + 1], spans)
        squares[row] = _adagrad_row(gradients[u], table[row], spans, squares[row], rate)
        if biases.size:
            _adagrad_number(bias_gradients[u], row, biases, bias_squares, rate)


@_jit_reorder
def adagrad(weights, squares, gradients, rate):
    """One step of Adagrad for each number, all flat."""
    for i in range(weights.size):
        squares[i] += gradients[i] * gradients[i]
        weights[i] -= rate * gradients[i] / (np.sqrt(squares[i]) + np.float32(1e-10))


@_jit_reorder
def rectify(inputs, biases, spans, scale, out):
    """Fill in scale * max(inputs + biases, 0), the biases of all columns; NaN stays NaN."""
    for i in range(inputs.shape[0]):
        at = np.uint64(0)
        for s in range(spans.shape[0]):
            k, n = spans[s, 0], spans[s, 1] - spans[s, 0]
            for j in range(n):
                x = inputs[i, at + j] + biases[k + j]
                out[i, at + j] = np.float32(0) if x < np.float32(0) else scale * x
            at += n


@_jit_reorder
def rectify_back(hidden, gradient, spans, scale, out, biases):
    """From d loss / d hidden to d loss / d inputs, and added up in the columns of biases."""
    for i in range(hidden.shape[0]):
        at = np.uint64(0)
        for s in range(spans.shape[0]):
            k, n = spans[s, 0], spans[s, 1] - spans[s, 0]
            for j in range(n):
                slope = scale if hidden[i, at + j] > np.float32(0) else np.float32(0)
                out[i, at + j] = slope * gradient[i, at + j]
                biases[k + j] += out[i, at + j]
            at += n


@_jit_reorder
def summarize(gradient, weights, first):
    """Of the columns from `first` on: sum of |gradient|, how many are not 0, and weights not 0."""
    total, n_active, n_weights = 0.0, 0, 0
    for i in range(gradient.shape[0]):
        mine, counts = gradient[i, first:], weights[i, first:]
        part = np.float32(0)
        active = counted = np.int32(0)
        for j in range(mine.size):
            part += abs(mine[j])
            active += np.int32(mine[j] != np.float32(0))
            counted += np.int32(counts[j] != np.float32(0))
        total, n_active, n_weights = total + part, n_active + active, n_weights + counted
    return total, n_active, n_weights


@_jit_reorder
def binary_cross_entropy(scores, targets, weights, smoothing, gradient):
    """The sum of weight * (log(1 + exp(score)) - target * score); fills in its gradient (B, m).

    targets (B, m), or (1, m) for all rows.
    exp and log are spelled out, since a call to either would keep the loop from vector registers.
    Both are right to the last bits of float32, NaN stays NaN.
    """
    total = 0.0
    for i in range(scores.shape[0]):
        mine = targets[min(i, len(targets) - 1)]
        part = np.float32(0)
        for j in range(scores.shape[1]):
            s, w = scores[i, j], weights[i, j]
            t = mine[j] * (np.float32(1) - smoothing)
            x = -abs(s)
            x = np.float32(-87) if x < np.float32(-87) else x
            # exp(x) = 2^n exp(x - n log 2), and 2^n has the bits of n in its exponent
            n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
            y = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
            e = np.float32(1.9875691500e-4)
            e = e * y + np.float32(1.3981999507e-3)
            e = e * y + np.float32(8.3334519073e-3)
            e = e * y + np.float32(4.1665795894e-2)
            e = e * y + np.float32(1.6666665459e-1)
            e = e * y + np.float32(5.0000001201e-1)
            e = e * y * y + y + np.float32(1)
            e *= np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
            e = np.float32(0) if abs(s) > np.float32(87) else e
            # log(1 + e) = 2 artanh(z)
            z = e / (np.float32(2) + e)
            z2 = z * z
            series = np.float32(1 / 11)
            series = series * z2 + np.float32(1 / 9)
            series = series * z2 + np.float32(1 / 7)
            series = series * z2 + np.float32(1 / 5)
            series = series * z2 + np.float32(1 / 3)
            series = series * z2 + np.float32(1)
            positive = s > np.float32(0)
            softplus = (s if positive else np.float32(0)) + np.float32(2) * z * series
            part += w * (softplus - t * s)
            sigmoid = (np.float32(1) if positive else e) / (np.float32(1) + e)
            gradient[i, j] = w * (sigmoid - t)
        total += part
    return total


@_jit_reorder
def bisect_rows(vectors, scale, size, uniform, n_iter):
    """Halve the rows by spherical 2-means, and each half again, down to clusters of `size`.

    vectors (n, H), of which scale (n,) makes unit vectors; uniform (n,), in [0, 1): where the
    halving of a part starts. Returns the rows (n,) int32, cluster after cluster. A loop here since
    there are as many parts as clusters, and most of them are small.
    """
    n_rows, width = vectors.shape
    every = _all_columns(vectors)
    order = np.arange(n_rows).astype(np.int32)
    projection = np.empty(n_rows, np.float32)
    total = np.empty(width, np.float32)
    left, to_right = np.empty_like(total), np.empty_like(total)
    begins, ends = np.empty(64, np.int64), np.empty(64, np.int64)  # the parts still to be halved
    begins[0], ends[0], n_parts = 0, n_rows, 1
    while n_parts:
        n_parts -= 1
        begin, end = begins[n_parts], ends[n_parts]
        n_clusters = -(-(end - begin) // size)
        if n_clusters < 2:
            continue
        n_left = n_clusters // 2 * size
        rows = order[begin:end].copy()
        scales = scale[rows]
        total[:] = np.float32(0)
        _add_rows(total, 0, rows.size, rows, scales, vectors, every)
        start = rows[int(uniform[begin] * rows.size)]
        for j in range(width):
            to_right[j] = scale[start] * vectors[start, j]
        _project(vectors, rows, scales, to_right, projection)
        far = rows[np.argmin(projection[: rows.size])]
        for j in range(width):  # from one centre to the other
            to_right[j] = scale[far] * vectors[far, j] - to_right[j]
        for _ in range(n_iter):
            _project(vectors, rows, scales, to_right, projection)
            at = np.argsort(projection[: rows.size])
            rows, scales = rows[at], scales[at]
            left[:] = np.float32(0)
            _add_rows(left, 0, n_left, rows, scales, vectors, every)
            square_left = square_right = np.float32(0)
            for j in range(width):
                square_left += left[j] * left[j]
                square_right += (total[j] - left[j]) * (total[j] - left[j])
            length_left = max(np.sqrt(square_left), np.float32(1e-12))
            length_right = max(np.sqrt(square_right), np.float32(1e-12))
            for j in range(width):
                to_right[j] = (total[j] - left[j]) / length_right - left[j] / length_left
        order[begin:end] = rows
        begins[n_parts], ends[n_parts] = begin, begin + n_left
        begins[n_parts + 1], ends[n_parts + 1] = begin + n_left, end
        n_parts += 2
    return order


@_inline
def _project(vectors, rows, scales, direction, out):
    for i in range(rows.size):
        vector = vectors[rows[i]]
        total = np.float32(0)
        for j in range(direction.size):
            total += vector[j] * direction[j]
        out[i] = scales[i] * total


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
