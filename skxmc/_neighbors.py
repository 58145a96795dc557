"""Votes of the training rows that are most like a row, beside the network's scores.

The probability of a label becomes (1 - weight) times the sigmoid of its score, plus weight times
the share of the neighbours that carry it, as a language model is mixed with the words that followed
similar texts (Khandelwal et al., "Generalization through memorization: nearest neighbor language
models", ICLR 2020). What labels go together on a row, the rows know best.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import log_expit

from skxmc._axes import evened_axes
from skxmc._ends import Rows, entries
from skxmc._index import COMPARED, MANY, ExactIndex, row_index
from skxmc._lazy import torch
from skxmc._network import Network
from skxmc._ranking import Ranking, merged
from skxmc._threads import for_each, over_rows

N_NEIGHBORS = 32
N_AXES = 192  # numbers for a row, of all members
TEMPERATURE = 0.05  # of cosines: a neighbour less near by this much counts 1/e of the nearest
MOST_VOTERS = 2**17  # rows that are kept: 100 MB
MOST_SEARCHED = 2**20  # rows that are kept for a search among their labels: 800 MB
N_SEARCHED = 512  # nearest rows whose labels are candidates
N_CANDIDATES = 512  # labels at most
_SAMPLE = 2048  # rows that the axes are found by


@dataclass
class Voters:
    """Training rows, and how each member of an ensemble sees them."""

    rows: NDArray[np.int64]  # (N,), ascending
    labels: sp.csr_array  # (N, L), ones
    axes: list[torch.Tensor]  # (H, d) of each member
    along: torch.Tensor  # (N, D): the hidden vectors along these axes, member after member
    _all: Neighbors | None = None

    @classmethod
    def of(
        cls,
        networks: list[Network],
        X: Rows | np.ndarray,
        Y: Rows,
        rng: np.random.Generator,
        n_threads: int,
        most: int,
    ) -> Voters:
        """The rows that have a label, or `most` of them."""
        rows = np.flatnonzero(np.diff(Y.indptr))
        if len(rows) > most:  # the same whatever the seed, so that models can be averaged
            rows = rows[np.arange(most) * len(rows) // most]
        sample = np.sort(rng.choice(rows, min(len(rows), _SAMPLE), replace=False))
        n_axes = max(1, N_AXES // len(networks))
        starts = rng.spawn(len(networks))
        axes: list[Any] = [None] * len(networks)

        def find(m):
            units = _units(networks[m].hidden(X, sample))
            axes[m] = evened_axes(units, n_axes, starts[m])

        for_each(find, range(len(networks)), min(n_threads, len(networks)))
        along = torch.empty(len(rows), sum(_widths(axes)), device=axes[0].device)
        for network, own, part in zip(networks, axes, along.split(_widths(axes), 1), strict=True):
            _project(partial(network.hidden, X), rows, own, n_threads, part)
        indptr = np.append(0, np.cumsum(np.diff(Y.indptr)[rows]))
        labels = _label_lists(indptr, Y.indices[entries(Y, rows)[1]], Y.shape[1])
        return cls(rows, labels, axes, along)

    def all(self) -> Neighbors:
        """As the members side by side see them; called last, since `along` becomes its vectors."""
        if self._all is None:
            self._all = Neighbors(torch.block_diag(*self.axes), _units(self.along), self.labels)
        return self._all

    def some(self, m: int, wanted: NDArray[np.bool_]) -> Neighbors:
        """As a member sees those of the rows (n,) that are wanted."""
        kept = np.flatnonzero(wanted[self.rows])
        own = self.along.split(_widths(self.axes), 1)[m]
        return Neighbors(self.axes[m], _units(own[kept]), self.labels[kept])


def _widths(axes):
    return [a.shape[1] for a in axes]


def _project(hidden_of, rows, axes, n_threads, out):
    """Hidden vectors of the rows along the axes, to `out` (n, d)."""

    def fill(block):
        out[block] = hidden_of(rows[block]) @ axes

    over_rows(fill, len(rows), 512, n_threads)


def _units(vectors):
    """Unit vectors, in the memory of the vectors, which may be large; zeros stay zero."""
    return vectors.div_(vectors.norm(dim=1, keepdim=True).clamp_min_(1e-12))


def _label_lists(indptr, indices, n_labels):
    lists = np.ones(len(indices)), indices, indptr
    return sp.csr_array(lists, shape=(len(indptr) - 1, n_labels))


@dataclass
class Neighbors:
    """Training rows, each a unit vector along a few axes, and their labels."""

    axes: torch.Tensor  # (H, D)
    vectors: torch.Tensor  # (N, D)
    labels: sp.csr_array  # (N, L), ones
    weight: float = 0.0  # of their votes
    searched: bool = False  # whether labels of near rows alone are ranked
    indexes: dict[int, Any] = field(default_factory=dict)  # made so far; copies share them

    @property
    def _index(self):
        # For hundreds of rows, which a search takes, an exact look-up takes long.
        many = COMPARED if self.searched else MANY
        if many not in self.indexes:
            self.indexes[many] = row_index(self.vectors, many=many)
        return self.indexes[many]

    @classmethod
    def load(cls, network, axes, vectors, indptr, indices, n_labels):
        """From arrays; indptr and indices are the rows' label lists."""
        labels = _label_lists(indptr, indices, n_labels)
        return cls(network.tensor(axes), network.tensor(vectors), labels)

    def rank(
        self,
        network: Network,
        index: ExactIndex,
        hidden: torch.Tensor,
        k: int,
        n_threads: int,
        vote: bool = True,
    ) -> Ranking:
        """The k best labels of all, or of those of near rows, after their votes or without."""
        vote = vote and self.weight > 0
        # A GPU scores all labels in less time than this takes.
        searched = self.searched and 4 * k <= N_CANDIDATES and hidden.device.type == "cpu"
        near = None
        if searched:
            near = self.nearest(hidden, N_SEARCHED, n_threads)
            scores, labels = self._search(index, hidden, near[1], k, n_threads)
        else:
            scores, labels = index.topk(hidden, k, n_threads=n_threads)
        ranking = labels.astype(np.int64), scores
        if not vote:
            return ranking
        if near is None:
            near = self.nearest(hidden, N_NEIGHBORS, n_threads)
        votes = self.shares(near[0][:, :N_NEIGHBORS], near[1][:, :N_NEIGHBORS])
        return self._rerank(network, hidden, ranking, votes, n_threads)

    def _search(self, index, hidden, rows, k, n_threads):
        """The k best labels of near rows (n, m), of all where these have fewer."""
        from skxmc._index import _row_kernels

        candidates = np.empty((len(rows), N_CANDIDATES), np.int32)
        counts = np.empty(len(rows), np.int64)
        lists = self.labels.indptr, self.labels.indices

        def gather(block):
            _row_kernels.labels_of(rows[block], *lists, candidates[block], counts[block])

        over_rows(gather, len(rows), 512, n_threads)
        scores, labels = index.topk_among(hidden, candidates, counts, k, n_threads)
        few = np.flatnonzero(counts < k)
        if len(few):
            scores[few], labels[few] = index.topk(hidden[few], k, n_threads=n_threads)
        return scores, labels

    def recall(
        self,
        index: ExactIndex,
        hidden: torch.Tensor,
        places: NDArray[np.int64],
        k: int,
        n_threads: int,
    ) -> float:
        """Share of the exact k best labels that the search finds for rows at these places.

        Each as if it were not there: a new row is not its own neighbour.
        """
        _, exact = index.topk(hidden, k, n_threads=n_threads)
        _, rows = self.nearest(hidden, N_SEARCHED + 1, n_threads)
        others = rows != places[:, None]
        others[others.all(axis=1), -1] = False
        rows = rows[others].reshape(len(rows), -1)
        _, found = self._search(index, hidden, rows, k, n_threads)
        return float((exact[:, :, None] == found[:, None]).any(2).mean())

    def _rerank(self, network, hidden, ranking, votes, n_threads):
        """The same number of labels, the most probable of those ranked and those voted for."""
        labels, scores = np.empty_like(ranking[0]), np.empty_like(ranking[1])

        def revise(block):
            found, part = (ranking[0][block], ranking[1][block]), votes[block]
            own = scores_of(network, hidden[block], part)
            labels[block], scores[block] = mix(found, part, own, self.weight, labels.shape[1])

        over_rows(revise, len(hidden), 512, n_threads)
        return labels, scores

    def votes(self, hidden: torch.Tensor, n_threads: int) -> sp.csr_array:
        """How much of the vote each label gets, (n, L): at most 1, and 0 where nothing is alike."""
        return self.shares(*self.nearest(hidden, N_NEIGHBORS, n_threads))

    def nearest(
        self, hidden: torch.Tensor, k: int, n_threads: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The k nearest rows, or all: cosines (n, k), best first, and rows (n, k).

        A row is -1 where there is none, or none that is alike: its cosine is not above 0.
        """
        queries = hidden.new_empty(len(hidden), self.axes.shape[1])
        _project(lambda part: part, hidden, self.axes, n_threads, queries)
        _units(queries)
        k = min(k, len(self.vectors))
        if not k:
            return np.empty((len(hidden), 0), np.float32), np.empty((len(hidden), 0), np.int32)
        cosines, rows = self._index.topk(queries, k, n_threads=n_threads)
        rows[~(cosines > 0)] = -1  # NaN too
        return cosines, rows

    def shares(self, cosines: NDArray[np.float32], found: NDArray[np.int32]) -> sp.csr_array:
        """The votes of the rows found, (n, L)."""
        n, k = found.shape
        if not k:
            return sp.csr_array((n, self.labels.shape[1]))
        cosines = np.where(found >= 0, cosines.astype(np.float64), -np.inf)
        weights = np.exp((cosines - np.maximum(cosines[:, :1], 0)) / TEMPERATURE)
        weights /= np.maximum(weights.sum(1, keepdims=True), 1e-30)
        found = np.maximum(found, 0)
        starts = np.arange(0, weights.size + 1, k, dtype=np.int32)
        near = sp.csr_array(
            (weights.ravel(), found.ravel(), starts), shape=(len(weights), len(self.vectors))
        )
        votes = near @ self.labels
        votes.sort_indices()
        return votes


def scores_of(network: Network, hidden: torch.Tensor, votes: sp.csr_array) -> NDArray[np.float32]:
    """The network's scores of the labels that got votes, (nnz,)."""
    places = network.ends.places(Rows.of(votes), np.arange(votes.shape[0]))
    return network.ends.gather_dot(places, hidden, network.labels).cpu().numpy()


def mix(
    ranking: Ranking, votes: sp.csr_array, scores: NDArray[np.float32], weight: float, k: int
) -> Ranking:
    """The k most probable labels, and the log odds of these probabilities.

    ranking : at least k labels by the network's scores. scores : of the labels that got votes.
    One without votes is ranked by its score alone: it is among the k best by score or by nothing.
    """
    labels, plain = ranking
    counts = np.diff(votes.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    column = np.arange(len(row)) - votes.indptr[row]
    voted = np.full((len(counts), counts.max(initial=0)), -1, np.int64)
    odds = np.full(voted.shape, -np.inf)
    voted[row, column] = votes.indices
    odds[row, column] = _log_odds(scores, votes.data, weight)
    return merged((labels, _log_odds(plain, 0.0, weight)), (voted, odds), np.maximum, k)


def _log_odds(scores, votes, weight):
    scores = scores.astype(np.float64)
    with np.errstate(divide="ignore"):  # log 0, of no votes
        share, rest = np.log(weight * votes), np.log(weight * np.maximum(1 - votes, 0))
    own = np.log1p(-weight)
    for_it = np.logaddexp(own + log_expit(scores), share)
    return for_it - np.logaddexp(own + log_expit(-scores), rest)
