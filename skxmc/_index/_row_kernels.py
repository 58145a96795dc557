"""The compiled loops of `RowIndex`: which clusters, then which of their rows, are nearest."""

import numba
import numpy as np

from skxmc._index._kernels import _REORDER, _jit, _jit_reorder, _reached

_inline = numba.njit(nogil=True, error_model="numpy", fastmath=_REORDER, inline="always")


@_inline
def _product(query, row):
    total = np.int32(0)
    for j in range(query.size):
        total = np.int32(total + np.int32(query[j]) * np.int32(row[j]))
    return np.float32(total)


@_jit_reorder
def multiply(queries, table):
    """Products of queries (n, D) and a table (m, D), int8, as (n, m) float32."""
    out = np.empty((len(queries), len(table)), np.float32)
    for i in range(len(queries)):
        for r in range(len(table)):
            out[i, r] = _product(queries[i], table[r])
    return out


@_jit
def nearest_clusters(products, scales, clusters):
    """The clusters (n, c) of highest product (n, m) with their scale (m,), by number."""
    n_clusters, wanted = products.shape[1], clusters.shape[1]
    values, keys = np.empty(n_clusters, np.float32), np.empty(n_clusters, np.int32)
    for i in range(len(products)):
        for c in range(n_clusters):
            values[c] = products[i, c] * scales[c]
        # Close below the highest values: those above it are fewer than wanted, or little more.
        least = _reached(values, keys, wanted)
        n = 0
        for c in range(n_clusters):
            if values[c] >= least and n < wanted:
                clusters[i, n] = c
                n += 1


@_jit_reorder
def _compare(query, codes, scales, start, cosines):
    """Cosines of a query, but for its scale, and the rows from `start` on."""
    for r in range(cosines.size):
        cosines[r] = _product(query, codes[start + r]) * scales[start + r]


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
        for cluster in clusters[i]:
            start = cluster * size
            m = min(size, len(codes) - start)
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
