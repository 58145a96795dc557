"""The compiled loops of `RowIndex`."""

import numpy as np

from skxmc._index._kernels import _first_threshold, _gather, _jit, _jit_reorder, _reached
from skxmc._kernels import _inline, _prefetch


@_inline
def _prefetch_rows(table, first, n):
    """Ask for n rows (n, D) int8 of the memory, as far as there are so many."""
    for r in range(first, min(first + n, len(table))):
        for j in range(0, table.shape[1], 64):  # a cache line
            _prefetch(table, np.int64(r), np.int64(j))


@_inline
def _product(query, row):
    total = np.int32(0)
    for j in range(query.size):
        total = np.int32(total + np.int32(query[j]) * np.int32(row[j]))
    return total


@_jit_reorder
def multiply(queries, table):
    """Products of queries (n, D) and a table (m, D), int8, as (n, m) int32."""
    out = np.empty((len(queries), len(table)), np.int32)
    for i in range(len(queries)):
        for r in range(len(table)):
            out[i, r] = _product(queries[i], table[r])
    return out


@_jit
def nearest_clusters(products, scales, clusters):
    """The clusters (n, c) of highest product (n, m) times their scale (m,), in no certain order."""
    n_clusters, wanted = products.shape[1], clusters.shape[1]
    values, scratch = np.empty(n_clusters, np.float32), np.empty(n_clusters, np.float32)
    keys = np.empty(n_clusters, np.int32)
    marks = np.zeros(-(-n_clusters // 8) * 8, np.uint8)
    words = marks.view(np.uint64)  # eight clusters at a glance
    high, places = np.empty(n_clusters, np.float32), np.empty(marks.size + 1, np.int32)
    for i in range(len(products)):
        row = products[i]
        for c in range(n_clusters):
            values[c] = np.float32(row[c]) * scales[c]
        scratch[:] = values
        least = _first_threshold(scratch, wanted)
        for c in range(n_clusters):
            marks[c] = values[c] >= least
        n = _gather(marks, words, places)
        for p in range(n):
            high[p] = values[places[p]]
        # It is close below the highest: those above it are as many as wanted, or some more.
        least = _reached(high[:n], keys[:n], wanted)
        n_kept = 0
        for p in range(n):
            if high[p] >= least:
                high[n_kept], places[n_kept] = high[p], places[p]
                n_kept += 1
        if n_kept > wanted:
            best_first = np.argsort(-high[:n_kept], kind="mergesort")
            clusters[i] = places[best_first[:wanted]]
        else:
            clusters[i] = places[:wanted]


@_jit_reorder
def _compare(query, codes, scales, start, cosines):
    """Cosines of a query, but for its scale, and the rows from `start` on."""
    for r in range(cosines.size):
        cosines[r] = np.float32(_product(query, codes[start + r])) * scales[start + r]


@_jit
def nearest_rows(queries, query_scales, clusters, size, codes, scales, rows, cosines, found):
    """The rows of highest cosine in the clusters of each query, best first, ties by row.

    queries (n, D) int8 and `query_scales` (n,) make unit vectors; clusters (n, c), of
    `size` rows each but the last; codes (N, D) int8 and `scales` (N,) make unit vectors, cluster
    after cluster, of the `rows` (N,). To cosines (n, k) and found (n, k).
    """
    k, most = cosines.shape[1], clusters.shape[1] * size
    values = np.empty(most, np.float32)
    scratch, places = np.empty(most, np.int32), np.empty(most, np.int32)
    bits = values.view(np.int32)
    keys = np.empty(most, np.int64)
    for i in range(len(queries)):
        n = 0
        for c in range(clusters.shape[1]):
            start = clusters[i, c] * size
            m = min(size, len(codes) - start)
            if c + 1 < clusters.shape[1]:
                _prefetch_rows(codes, clusters[i, c + 1] * size, size)
            _compare(queries[i], codes, scales, start, values[n : n + m])
            for r in range(m):
                places[n + r] = start + r
            n += m
        least = _reached(values[:n], scratch[:n], k) if n > k else np.float32(-np.inf)
        n_kept = 0
        for p in range(n):
            if values[p] >= least:
                # Falls as the cosine does, and as the row rises.
                order = np.int64(bits[p] ^ ((bits[p] >> 31) & np.int32(0x7FFFFFFF)))
                keys[n_kept] = (order << 32) - rows[places[p]]
                scratch[n_kept] = p
                n_kept += 1
        best = np.argsort(-keys[:n_kept])[:k]
        for p in range(best.size):
            at = scratch[best[p]]
            cosines[i, p] = values[at] * query_scales[i]
            found[i, p] = rows[places[at]]
