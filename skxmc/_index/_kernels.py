"""The compiled loops of exact search: numbers of eight bits, bounds on what they lose, rescoring.

A product of 8-bit integers takes a fifth of the time of one of float32. What it loses is bounded,
for a row q and a label w with their 8-bit forms q' and w' (Cauchy-Schwarz):

    |q.w - q'.w'|  <=  |q - q'| |w|  +  |q'| |w - w'|

A label whose upper bound is not above k lower bounds is not among the k best. The others, about
1.3 k for each row, are scored in float32: the result is exact, and the same bits whatever the
product was made of and however it was cut into blocks.

Bounds are enlarged by what float32 itself may lose. Comparisons are such that NaN passes on to the
exact scores.
"""

import numba
import numpy as np

# As in skxmc/_kernels.py: sums may be reordered, NaN and infinity keep their meaning.
_REORDER = {"reassoc", "contract", "nsz", "arcp"}
_jit = numba.njit(nogil=True, cache=True, error_model="numpy")
_jit_reorder = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=_REORDER)

SCALE, SUM, ERROR, NORM, HIGH, LOW = range(6)  # rows of the label terms
Q_SCALE, Q_SHIFT, Q_ERROR, Q_NORM = range(4)  # columns of the query terms
_GROUPS = 16  # labels of a group when the first threshold is sought
_SMALLEST = np.float32(1e-18)  # numbers below it vanish in sums of squares
_LEAST = np.int32(0x007FFFFF - 2**31)  # the key of minus infinity


@_jit_reorder
def encode_labels(weights, biases, codes, terms):
    """Label rows as scale * code, codes in [-127, 127], and what bounds the loss (6, n).

    Without codes (of length 0) the terms are those of a float32 product, which only rounds.
    """
    n, width = weights.shape
    least = _SMALLEST * np.sqrt(np.float32(width))
    for i in range(n):
        row = weights[i]
        top, square = np.float32(0), np.float32(0)
        for j in range(width):
            top = max(top, abs(row[j]))
            square += row[j] * row[j]
        # A row of zeros (a label not seen in training) has its bias for a score, to the last bit.
        zeros = top == 0
        terms[NORM, i] = 0 if zeros else np.float32(1.001) * np.sqrt(square) + least
        scale = top / np.float32(127)
        total, error = np.float32(0), np.float32(0)
        if len(codes):
            if not (np.float32(1e-30) < scale < np.float32(1e30)):
                scale = np.float32(0)
            inverse = np.float32(1) / scale if scale else np.float32(0)
            for j in range(width):
                code = np.rint(row[j] * inverse)
                code = code if abs(code) <= np.float32(127) else np.float32(0)  # NaN too
                codes[i, j] = np.int8(code)
                lost = row[j] - scale * code
                error += lost * lost
                total += code
            terms[SCALE, i] = scale
        else:
            terms[SCALE, i] = np.float32(1)
        terms[SUM, i] = scale * total
        terms[ERROR, i] = 0 if zeros else np.float32(1.001) * np.sqrt(error) + least
        slack = np.float32(0)
        if not zeros and abs(biases[i]) < np.inf:
            slack = np.float32(2**-20) * abs(biases[i])
        terms[HIGH, i] = biases[i] + slack
        terms[LOW, i] = biases[i] - slack


@_jit_reorder
def encode_queries(hidden, codes, terms):
    """Hidden vectors as scale * code + shift, codes in [-128, 127], and their terms (n, 4).

    The shift spares the sign that the output of a ReLU does not have. Without codes (of length 0)
    the terms are those of a float32 product.
    """
    n, width = hidden.shape
    rounding = np.float32(2**-22) * np.float32(width)  # of a float32 sum of products, and more
    least = _SMALLEST * np.sqrt(np.float32(width))
    for i in range(n):
        row = hidden[i]
        low, high, square = row[0], row[0], np.float32(0)
        for j in range(width):
            low = min(low, row[j])
            high = max(high, row[j])
            square += row[j] * row[j]
        scale, shift = np.float32(1), np.float32(0)
        error, norm, coded = np.float32(0), np.float32(0), np.float32(0)
        if len(codes):
            scale = (high - low) / np.float32(255)
            shift = low
            if not (np.float32(1e-30) < scale < np.float32(1e30)):
                scale = np.float32(0)
            if not abs(shift) < np.float32(1e30):
                shift = np.float32(0)
            shift += np.float32(128) * scale
            inverse = np.float32(1) / scale if scale else np.float32(0)
            for j in range(width):
                code = np.rint((row[j] - shift) * inverse)
                code = code if abs(code) <= np.float32(127) else np.float32(-128)  # NaN too
                codes[i, j] = np.int8(code)
                value = scale * code + shift
                lost = row[j] - value
                error += lost * lost
                norm += value * value
                coded += code * code
        terms[i, Q_SCALE] = scale
        terms[i, Q_SHIFT] = shift
        # The code and the shift may each be larger than the vector that they make up.
        parts = scale * np.sqrt(coded) + abs(shift) * np.sqrt(np.float32(width))
        terms[i, Q_ERROR] = (
            np.float32(1.001) * np.sqrt(error)
            + rounding * np.sqrt(square)
            + np.float32(2**-18) * parts
            + least
        )
        terms[i, Q_NORM] = np.float32(1.001) * np.sqrt(norm) + least


@_jit_reorder
def _lower_bounds(products, query, terms, out):
    scale, shift, error, norm = query[Q_SCALE], query[Q_SHIFT], query[Q_ERROR], query[Q_NORM]
    # 1-d slices, of known stride: else the loop does not use vector registers.
    n = products.size
    scales, sums, lows = terms[SCALE][:n], terms[SUM][:n], terms[LOW][:n]
    errors, norms = terms[ERROR][:n], terms[NORM][:n]
    for c in range(n):
        middle = scale * (np.float32(products[c]) * scales[c]) + shift * sums[c] + lows[c]
        out[c] = middle - (norm * errors[c] + error * norms[c])


@_jit_reorder
def _mark(products, query, terms, first, worst, marks):
    """marks[c] = whether the upper bound of a label is above `worst`."""
    scale, shift, error, norm = query[Q_SCALE], query[Q_SHIFT], query[Q_ERROR], query[Q_NORM]
    end = first + products.size
    scales, sums, highs = terms[SCALE][first:end], terms[SUM][first:end], terms[HIGH][first:end]
    errors, norms = terms[ERROR][first:end], terms[NORM][first:end]
    for c in range(products.size):
        middle = scale * (np.float32(products[c]) * scales[c]) + shift * sums[c] + highs[c]
        marks[c] = not (middle + (norm * errors[c] + error * norms[c]) <= worst)


@_jit
def _first_threshold(lower_bounds, k):
    """A number that k labels exceed: of the best lower bounds of groups of labels the k-th."""
    n = lower_bounds.size
    n_groups = n // _GROUPS if n // _GROUPS > 2 * k else n
    best = lower_bounds[:n_groups]
    for start in range(n_groups, n - n_groups + 1, n_groups):
        part = lower_bounds[start : start + n_groups]
        for c in range(n_groups):
            best[c] = part[c] if part[c] > best[c] else best[c]
    reached = _reached(best, np.empty(n_groups, np.int32), k)
    # A label on it must not be passed over: it may be the first of equals.
    return np.nextafter(reached, np.float32(-np.inf))


@_jit
def _reached(values, keys, k):
    """A number that at least k of the values reach, close to the k-th; minus infinity for NaN.

    `keys` (int32) is scratch. Twenty counts in vector registers, one for each bit of an integer in
    the order of the values, cost less than a heap, whose branches nobody can predict.
    """
    bits = values.view(np.int32)
    for c in range(keys.size):
        key = bits[c] ^ ((bits[c] >> 31) & np.int32(0x7FFFFFFF))
        keys[c] = key if values[c] > -np.inf else _LEAST
    reached = np.int64(-(2**31))
    for bit in range(31, 11, -1):
        trial = np.int32(reached + (1 << bit))
        count = 0
        for c in range(keys.size):
            count += keys[c] >= trial
        if count >= k:
            reached = np.int64(trial)
    if reached <= _LEAST:
        return np.float32(-np.inf)
    out = np.empty(1, np.int32)
    out[0] = reached if reached >= 0 else reached ^ 0x7FFFFFFF
    return out.view(np.float32)[0]


@_jit
def select(products, first, queries, terms, exclude, hidden, weights, biases, state, best):
    """Note the labels of a block that may be among the k best of each row.

    products (B, c): int32 or float32, of labels `first` to `first` + c; blocks come in ascending
    order. queries (B, 4), terms (6, L): see the encoders. exclude: (indptr, indices, rows), labels
    of the row itself are passed over; no rows: none. best: (scores, labels), each (B, k), heaps of
    exact scores. state: of each row a number that k labels reach (B,), and the labels noted:
    how many (B,), which, their upper and lower bounds, (B, m) each.
    """
    indptr, indices, rows = exclude
    thresholds, counts, noted, uppers, lowers = state
    n_rows, n_columns = products.shape
    k, room = best[0].shape[1], noted.shape[1]
    marks = np.zeros(-(-n_columns // 8) * 8, np.uint8)
    words = marks.view(np.uint64)  # eight labels at a glance
    lower_bounds = np.empty(n_columns if first == 0 else 0, np.float32)
    places = np.empty(marks.size + 1, np.int32)
    keys = np.empty(room, np.int32)
    for i in range(n_rows):
        row, query, threshold = products[i], queries[i], thresholds[i]
        if first == 0:
            _lower_bounds(row, query, terms, lower_bounds)
            if rows.size:
                _strike(indptr, indices, rows[i], first, lower_bounds, np.float32(-np.inf))
            threshold = _first_threshold(lower_bounds, k)
        _mark(row, query, terms, first, threshold, marks)
        if rows.size:
            _strike(indptr, indices, rows[i], first, marks[:n_columns], np.uint8(0))
        labels, highs, lows, count = noted[i], uppers[i], lowers[i], counts[i]
        n_marked = _gather(marks, words, places)
        for p in range(n_marked):
            at = first + places[p]
            middle = query[Q_SCALE] * (np.float32(row[places[p]]) * terms[SCALE, at])
            middle += query[Q_SHIFT] * terms[SUM, at]
            loss = query[Q_NORM] * terms[ERROR, at] + query[Q_ERROR] * terms[NORM, at]
            labels[count] = at
            highs[count] = middle + terms[HIGH, at] + loss
            lows[count] = middle + terms[LOW, at] - loss
            count += 1
            if count == room:
                threshold = max(threshold, _reached(lows, keys, k))
                count = _keep(labels, highs, lows, threshold)
                if count > room // 2:
                    threshold = _rescore(
                        hidden[i], weights, biases, labels[:count], highs[:count], threshold,
                        best[0][i], best[1][i],
                    )  # fmt: skip
                    count = 0
        if n_marked and count >= k:
            threshold = max(threshold, _reached(lows[:count], keys[:count], k))
        thresholds[i], counts[i] = threshold, count


@_jit
def _gather(marks, words, places):
    """Where the marks are; returns how many."""
    n = 0
    for w in range(words.size):
        if words[w]:
            for c in range(8 * w, 8 * w + 8):
                places[n] = c  # without a branch that nobody can predict
                n += marks[c]
    return n


@_jit
def _keep(labels, uppers, lowers, threshold):
    """Move the labels that may still be among the best to the front; returns how many."""
    n = 0
    for p in range(labels.size):
        keep = not (uppers[p] < threshold)  # not <=: of equals the first counts
        labels[n], uppers[n], lowers[n] = labels[p], uppers[p], lowers[p]
        n += keep
    return n


@_jit
def _strike(indptr, indices, row, first, values, value):
    for p in range(indptr[row], indptr[row + 1]):
        c = indices[p] - first
        if 0 <= c < values.size:
            values[c] = value


@_jit_reorder
def _rescore(query, weights, biases, noted, uppers, threshold, scores, labels):
    """Merge the labels noted into the k best of a row by exact scores; the new threshold."""
    for p in range(noted.size):
        if uppers[p] < threshold:  # as in `_keep`
            continue
        label = noted[p]
        row = weights[label]
        total = np.float32(0)
        for j in range(query.size):
            total += query[j] * row[j]
        score = total + biases[label]
        if score > scores[0] or (score == scores[0] and label < labels[0]):
            _replace_root(scores, labels, scores.size, score, label)
    return max(threshold, scores[0])


@_jit
def finish(hidden, weights, biases, state, best):
    """Rescore what is left on the lists, and order each row: best first, ties by label."""
    thresholds, counts, noted, uppers, _ = state
    k = best[0].shape[1]
    for i in range(thresholds.size):
        heap, labels, n = best[0][i], best[1][i], counts[i]
        _rescore(
            hidden[i], weights, biases, noted[i, :n], uppers[i, :n], thresholds[i], heap, labels
        )
        for size in range(k - 1, 0, -1):  # heapsort: the worst goes to the end
            score, label = heap[size], labels[size]
            heap[size], labels[size] = heap[0], labels[0]
            _replace_root(heap, labels, size, score, label)


@_jit
def _replace_root(heap, labels, k, score, label):
    """Replace the worst entry and sift it down; of equal scores the higher label is the worse."""
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= k:
            break
        other = child + 1
        if other < k and (
            heap[other] < heap[child]
            or (heap[other] == heap[child] and labels[other] > labels[child])
        ):
            child = other
        if heap[child] > score or (heap[child] == score and labels[child] < label):
            break
        heap[hole], labels[hole] = heap[child], labels[child]
        hole = child
    heap[hole], labels[hole] = score, label
