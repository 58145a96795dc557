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
from skxmc._index import row_index
from skxmc._lazy import torch
from skxmc._network import Network
from skxmc._ranking import Ranking, merged
from skxmc._threads import apart, for_each, over_rows

N_NEIGHBORS = 32
N_AXES = 192  # numbers for a row, of all members
TEMPERATURE = 0.05  # of cosines: a neighbour less near by this much counts 1/e of the nearest
MOST_ROWS = 2**17  # rows that are kept: 100 MB
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
    ) -> Voters:
        """The rows that have a label, or as many of them as are kept at most."""
        rows = np.flatnonzero(np.diff(Y.indptr))
        if len(rows) > MOST_ROWS:  # the same whatever the seed, so that models can be averaged
            rows = rows[np.arange(MOST_ROWS) * len(rows) // MOST_ROWS]
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
            vectors = apart(lambda: _units(self.along))
            self._all = Neighbors(torch.block_diag(*self.axes), vectors, self.labels)
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
    made: list[Any] = field(default_factory=list)  # an index, once it is used; copies share it

    @property
    def _index(self):
        if not self.made:
            self.made.append(row_index(self.vectors))
        return self.made[0]

    @classmethod
    def load(cls, network, axes, vectors, indptr, indices, n_labels):
        """From arrays; indptr and indices are the rows' label lists."""
        labels = _label_lists(indptr, indices, n_labels)
        return cls(network.tensor(axes), network.tensor(vectors), labels)

    def rerank(
        self, network: Network, hidden: torch.Tensor, ranking: Ranking, n_threads: int
    ) -> Ranking:
        """The same number of labels, the most probable of those ranked and those voted for."""
        votes = self.votes(hidden, n_threads)
        labels, scores = np.empty_like(ranking[0]), np.empty_like(ranking[1])

        def revise(block):
            found, part = (ranking[0][block], ranking[1][block]), votes[block]
            own = scores_of(network, hidden[block], part)
            labels[block], scores[block] = mix(found, part, own, self.weight, labels.shape[1])

        over_rows(revise, len(hidden), 512, n_threads)
        return labels, scores

    def votes(self, hidden: torch.Tensor, n_threads: int) -> sp.csr_array:
        """How much of the vote each label gets, (n, L): at most 1, and 0 where nothing is alike."""
        queries = hidden.new_empty(len(hidden), self.axes.shape[1])

        def see(block):
            queries[block] = _units(hidden[block] @ self.axes)

        over_rows(see, len(hidden), 512, n_threads)
        k = min(N_NEIGHBORS, len(self.vectors))
        if not k:
            return sp.csr_array((len(hidden), self.labels.shape[1]))
        cosines, found = self._index.topk(queries, k, n_threads=n_threads)  # (n, k) each
        # -1 is found where nothing compares, as with NaN.
        cosines = np.where((found >= 0) & (cosines > 0), cosines.astype(np.float64), -np.inf)
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
