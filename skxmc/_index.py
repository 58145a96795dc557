"""Nearest labels by inner product: exact, or by an index of faiss or pynndescent.

`exact_topk` also ranks for prediction. All score labels as hidden . weights + bias; an index that
knows no bias gets it as one more column, against a query of one more 1.
"""

import importlib.util
import warnings

import numpy as np
import torch
from scipy.sparse import SparseEfficiencyWarning

from skxmc._ends import Rows
from skxmc._threads import blocks, for_each

FEW = 100  # labels up to which an index is not worth building
INDEXES = ("auto", "exact", "faiss", "pynndescent")


def check_index(name):
    """Raise where the name is unknown or its library is missing, before any work is done."""
    if name not in INDEXES:
        raise ValueError(f"index={name!r} is unknown. Known are {', '.join(map(repr, INDEXES))}.")
    if name == "faiss" and importlib.util.find_spec("faiss") is None:
        raise ImportError("index='faiss' needs faiss: pip install 'skxmc[faiss]'.")


def make_index(name, n_labels, random_state=0, n_threads=1, log=lambda text: None):
    """An index by name. "auto" is exact up to 100,000 labels, then faiss where it is installed.

    Exact look-ups cost more time than an index but end in better precision, since what an index
    misses are the hardest of negatives (docs, "choosing an index").
    """
    check_index(name)
    if name == "auto":
        name = "exact"
        if n_labels > 100_000:
            name = "faiss" if importlib.util.find_spec("faiss") else "pynndescent"
        log(f"index: {name}, chosen for {n_labels:,} labels")
    made = {"exact": ExactIndex, "faiss": FaissIndex, "pynndescent": PyNNDescentIndex}[name]
    return made(random_state, n_threads)


class ExactIndex:
    """Blocked matrix products, with a running top k."""

    def __init__(self, random_state=0, n_threads=1):
        self.random_state = random_state
        self.n_threads = n_threads

    def build(self, weights, biases=None):
        """Nothing to build: the weights are copied, as they will move while the index is used."""
        self._weights = weights.clone()
        self._biases = weights.new_zeros(len(weights)) if biases is None else biases.clone()
        return self

    def search(self, hidden, k, exclude=None, rows=None):
        """Labels of the k highest scores for each hidden vector, best first, -1 where none is left.

        Parameters
        ----------
        hidden : Tensor of shape (n, H)
        k : int
        exclude : Rows, optional
            Label lists of all rows: labels of the row itself are not returned.
        rows : ndarray of shape (n,), optional
            Which rows of `exclude` these are.

        Returns
        -------
        ndarray of shape (n, k), int32
        """
        _, labels = exact_topk(
            hidden, self._weights, self._biases, k, self.n_threads, exclude, rows
        )
        return labels


class _Approximate:
    """What the libraries have in common: one more column for the bias, positives dropped after."""

    def __init__(self, random_state=0, n_threads=1):
        self.random_state = random_state
        self.n_threads = n_threads

    def build(self, weights, biases=None):
        """Build the index over a copy of the label weights, (L, H).

        The biases are centred, which changes no ranking: log-odds of -10 would be most of every
        inner product between labels, from which an index learns who is near whom.
        """
        columns = [weights] if biases is None else [weights, (biases - biases.mean())[:, None]]
        self._has_bias = biases is not None
        vectors = torch.cat(columns, 1).cpu().numpy().copy()
        # Of few labels a graph or lists find no more than a fraction.
        self._few = vectors if len(vectors) <= FEW else None
        if self._few is None:
            self._build(vectors)
        return self

    def search(self, hidden, k, exclude=None, rows=None):
        """See `ExactIndex.search`. Rows of more than 4 k positives may find fewer than k labels."""
        queries = hidden.cpu().numpy()
        if self._has_bias:
            queries = np.column_stack([queries, np.ones(len(queries), np.float32)])
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


def drop(found, exclude, rows):
    """Remove the rows' own labels from (n, k) rankings: the others move up, -1 fills the end."""
    n_labels = exclude.shape[1]
    begin, end = exclude.indptr[rows], exclude.indptr[rows + 1]
    own = np.concatenate([exclude.indices[a:b] for a, b in zip(begin, end, strict=True)])
    keys = np.repeat(np.arange(len(rows)), end - begin) * n_labels + own  # ascending
    wanted = np.arange(len(rows))[:, None] * n_labels + found
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    kept = (found >= 0) & ((keys[at] != wanted) if len(keys) else True)
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, found, -1), order, 1)


def exact_topk(hidden, weights, biases, k, n_threads=1, exclude: Rows | None = None, rows=None):
    """The k best labels of each hidden vector and their scores, never an n x L matrix.

    Parameters
    ----------
    hidden : Tensor of shape (n, H)
    weights : Tensor of shape (L, H)
    biases : Tensor of shape (L,)
    k : int
    n_threads : int
    exclude, rows
        As in `ExactIndex.search`.

    Returns
    -------
    scores : ndarray of shape (n, k), float32
        Best first; minus infinity where no label is left.
    labels : ndarray of shape (n, k), int32
        Ties go to the lower index; -1 where no label is left.
    """
    if hidden.device.type != "cpu":
        return _topk_on_device(hidden, weights, biases, k, exclude, rows)
    from skxmc import _kernels

    best = np.full((len(hidden), k), -np.inf, np.float32)
    labels = np.full((len(hidden), k), -1, np.int32)
    n_labels = len(weights)
    step = 4096

    def rank(block):
        scores = torch.empty(block.stop - block.start, min(step, n_labels))
        for columns in blocks(n_labels, step):
            part = scores[:, : columns.stop - columns.start]
            torch.addmm(biases[columns], hidden[block], weights[columns].T, out=part)
            if exclude is not None:
                _kernels.exclude(
                    exclude.indptr, exclude.indices, rows[block], columns.start, part.numpy()
                )
            _kernels.merge_topk(part.numpy(), columns.start, best[block], labels[block])
        _kernels.sort_topk(best[block], labels[block])

    for_each(rank, blocks(len(hidden), 256), n_threads)
    return best, labels


def _topk_on_device(hidden, weights, biases, k, exclude, rows, step=2**28):
    """The same on a GPU, where one product over all labels is cheap."""
    n_labels = len(weights)
    fetch = min(n_labels, k + 1)  # one more, to see ties across the border
    best = np.full((len(hidden), k), -np.inf, np.float32)
    labels = np.full((len(hidden), k), -1, np.int32)
    for block in blocks(len(hidden), max(1, step // n_labels)):
        scores = torch.addmm(biases, hidden[block], weights.T)  # (B, L)
        if exclude is not None:
            begin, end = exclude.indptr[rows[block]], exclude.indptr[rows[block] + 1]
            own = [exclude.indices[a:b] for a, b in zip(begin, end, strict=True)]
            at = np.repeat(np.arange(len(own)), end - begin)
            scores[torch.from_numpy(at), torch.from_numpy(np.concatenate(own)).long()] = -np.inf
        top, at = scores.topk(fetch)
        if fetch > k:
            tied = (top[:, k - 1] == top[:, k]).nonzero()[:, 0]
            if len(tied):  # topk may keep any of them; a stable sort keeps the lower index
                values, order = scores[tied].sort(descending=True, stable=True)
                top[tied], at[tied] = values[:, :fetch], order[:, :fetch]
        n = min(k, fetch)
        top, at = top[:, :n].cpu().numpy(), at[:, :n].cpu().numpy()
        order = np.lexsort((at, -top))
        best[block, :n] = np.take_along_axis(top, order, 1)
        labels[block, :n] = np.take_along_axis(at, order, 1)
    labels[np.isneginf(best)] = -1
    return best, labels
