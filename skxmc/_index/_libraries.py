"""Indexes of faiss and pynndescent, which find most of the best labels.

They know no bias: it becomes one more column, against a query of one more 1.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import SparseEfficiencyWarning

from skxmc._ends import Rows, entries
from skxmc._lazy import torch

FEW = 100  # labels up to which an index is not worth building


class _Approximate:
    """What the libraries have in common: one more column for the bias, positives dropped after."""

    def __init__(self, random_state: int = 0, n_threads: int = 1):
        self.random_state = random_state
        self.n_threads = n_threads

    def build(self, weights, biases=None):
        """Build the index over a copy of the label weights, (L, H).

        The biases are centred, and brought to the spread of a weight, which the queries undo: else
        they would be most of every inner product between labels, from which an index learns who is
        near whom. No ranking changes.
        """
        columns, self._last = [weights], None
        if biases is not None:
            centred = biases - biases.mean()
            scale = centred.square().mean().sqrt() / weights.square().mean().sqrt().clamp(min=1e-12)
            self._last = max(float(scale), 1e-6)  # of a query, for the bias column
            columns.append(centred[:, None] / self._last)
        vectors = torch.cat(columns, 1).cpu().numpy()  # cat copies
        # Of few labels a graph or lists find no more than a fraction.
        self._few = vectors if len(vectors) <= FEW else None
        if self._few is None:
            self._build(vectors)
        return self

    def search(self, hidden, k, exclude=None, rows=None):
        """See `ExactIndex.search`. Rows of more than 4 k positives may find fewer than k labels."""
        queries = hidden.cpu().numpy()
        if self._last is not None:
            last = np.full(len(queries), self._last, np.float32)
            queries = np.column_stack([queries, last])
        if exclude is None:
            return self._find(queries, k, k)
        # Fetch as many more labels as there are positives to drop; rows of few and of many apart.
        counts = exclude.indptr[rows + 1] - exclude.indptr[rows]
        out = np.full((len(rows), k), -1, np.int32)
        for part in np.array_split(np.argsort(counts, kind="stable"), 4):
            if len(part):
                fetch = k + int(min(counts[part].max(), 4 * k))
                out[part] = drop(self._find(queries[part], fetch, k), exclude, rows[part])[:, :k]
        return out

    def _find(self, queries, fetch, at_least):
        """`fetch` labels for each query, as far as there are so many; -1 fills up to `at_least`."""
        if self._few is None:
            found = self._search(queries, fetch)
        else:
            found = np.argsort(-(queries @ self._few.T), axis=1, kind="stable")[:, :fetch]
        missing = max(0, at_least - found.shape[1])
        return np.pad(found.astype(np.int32), ((0, 0), (0, missing)), constant_values=-1)


class FaissIndex(_Approximate):
    """Inverted lists around k-means centres (IVF), an eighth of the lists probed, at least 32."""

    def _build(self, vectors):
        import faiss

        n_lists = max(1, int(np.sqrt(len(vectors))))
        with self._threads():
            quantizer = faiss.IndexFlatIP(vectors.shape[1])
            self._index = faiss.IndexIVFFlat(
                quantizer, vectors.shape[1], n_lists, faiss.METRIC_INNER_PRODUCT
            )
            self._index.cp.seed = self.random_state % 2**31
            self._index.cp.min_points_per_centroid = 1  # no warning for small label sets
            self._index.train(vectors)
            self._index.add(vectors)
        self._index.nprobe = min(n_lists, max(32, n_lists // 8))

    def _search(self, queries, k):
        with self._threads():
            return self._index.search(queries, min(k, self._index.ntotal))[1]

    def _threads(self):
        """Faiss counts its threads globally: set, and put back."""
        import contextlib

        import faiss

        @contextlib.contextmanager
        def limited():
            before = faiss.omp_get_max_threads()
            faiss.omp_set_num_threads(self.n_threads)
            try:
                yield
            finally:
                faiss.omp_set_num_threads(before)

        return limited()


class PyNNDescentIndex(_Approximate):
    """A nearest-neighbour graph. Compiles for about 45 s in each new process."""

    def _build(self, vectors):
        from pynndescent import NNDescent

        with warnings.catch_warnings():  # how 0.6 builds its graph, which no caller can change
            warnings.simplefilter("ignore", SparseEfficiencyWarning)
            self._index = NNDescent(
                vectors,
                metric="inner_product",
                n_neighbors=60,
                random_state=self.random_state % 2**31,
                n_jobs=self.n_threads,
            )
            self._index.prepare()
        self._n = len(vectors)

    def _search(self, queries, k):
        return self._index.query(queries, k=min(k, self._n), epsilon=0.5)[0]


def drop(found: NDArray[np.int32], exclude: Rows, rows: np.ndarray) -> NDArray[np.int32]:
    """Remove the rows' own labels from (n, k) rankings: the others move up, -1 fills the end."""
    n_labels = exclude.shape[1]
    row, stored = entries(exclude, rows)
    keys = row * n_labels + exclude.indices[stored]  # ascending
    wanted = np.arange(len(rows))[:, None] * n_labels + found
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    kept = (found >= 0) & ((keys[at] != wanted) if len(keys) else True)
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, found, -1), order, 1)
