"""A fitted model as prediction sees it: network, label embeddings and what they confine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxmc._device_memory import explaining_prediction
from skxmc._ends import Rows
from skxmc._index import ExactIndex
from skxmc._neighbors import Neighbors
from skxmc._network import Network
from skxmc._prediction import FUSED, dense_scores, rank, rank_among, rank_by_cosine
from skxmc._ranking import Ranking, fuse
from skxmc._threads import FEW_ROWS, alone

# Score of a label that cannot be ranked by one: behind every trained score whatever the scale of X,
# and far enough from the end of float32 to be summed.
UNSEEN = -1e30


@dataclass
class Predictor:
    """Ranks the labels of rows X: by score, by score and neighbours, or by score and cosine.

    `seen` (L,) says which labels training has met. `embeddings` (L, H) are unit vectors, or None.
    With `shortlist_size`, a row's scores count for that many labels of nearest embeddings only.
    `neighbors`, if any, vote where rankings are neither confined nor fused.
    """

    network: Network
    seen: np.ndarray
    n_threads: int
    embeddings: np.ndarray | None = None
    shortlist_size: int | None = None
    index: ExactIndex | None = None
    neighbors: Neighbors | None = None
    log: Callable[[str], object] | None = None  # hears how far a ranking of many rows is

    def topk(self, X: Rows | np.ndarray, n_rows: int, k: int, beta: float | None = None) -> Ranking:
        """The k best labels: labels (n, k) int64, scores (n, k) float32; beta: of late fusion."""
        if n_rows <= FEW_ROWS and self.network.device.type == "cpu":
            return alone(lambda: replace(self, n_threads=1)._topk(X, n_rows, k, beta))
        with self._explaining():
            return self._topk(X, n_rows, k, beta)

    def _explaining(self):
        tables = self.network.features.weights, self.network.labels.weights
        return explaining_prediction(self.network.device, sum(a.nbytes for a in tables))

    def _topk(self, X, n_rows, k, beta):
        if beta is None and not self._confined(k):
            rest = self.n_threads, self.index, self.log, self.neighbors
            return rank(self.network, X, n_rows, k, *rest)
        by_score, by_cosine = self.rankings(X, n_rows, k)
        if beta is None:
            return by_score[0][:, :k], by_score[1][:, :k]
        return fuse(by_score, by_cosine, beta, k)

    def rankings(self, X: Rows | np.ndarray, n_rows: int, k: int) -> tuple[Ranking, Ranking]:
        """What late fusion adds up: at least k labels by score and by cosine, a pair each."""
        n = self._confined(k) or min(max(k, FUSED), len(self.seen))
        near = rank_by_cosine(
            self.network, self.embeddings, self.seen, X, n_rows, n, self.n_threads
        )
        if self._confined(k):
            return rank_among(self.network, near[0], X, self.n_threads), near
        return rank(self.network, X, n_rows, n, self.n_threads, self.index, self.log), near

    def dense(self, X: Rows | np.ndarray) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Blocks of rows and their scores of all labels: yields (slice, (B, L) float32)."""
        with self._explaining():
            yield from self._dense(X)

    def _dense(self, X):
        confined = self._confined(1)
        if confined:
            near, _ = rank_by_cosine(
                self.network, self.embeddings, self.seen, X, X.shape[0], confined, self.n_threads
            )
        for block, scores in dense_scores(self.network, X, self.n_threads, self.log):
            if confined:
                kept = np.take_along_axis(scores, near[block], 1)
                scores[:] = UNSEEN
                np.put_along_axis(scores, near[block], kept, 1)
            yield block, scores

    def _confined(self, k):
        """To how many labels a row's ranking keeps; None: to none, as where they are few."""
        if self.shortlist_size is None:
            return None
        n = max(k, self.shortlist_size, FUSED)
        return n if n < self.seen.sum() else None


class Kept:
    """What calls made, by name, and the next may use, as long as it is made of the same parts.

    An estimator gets one in `fit` and keeps it in `predict`, whose calls on single rows would else
    spend their time on preparations. Copies and pickles are empty.
    """

    def __init__(self):
        self._last: dict[str, tuple] = {}

    def get(self, name: str, parts: tuple, make: Callable[[], Any]) -> Any:
        """The value kept if it was made of these very parts, else ``make()``."""
        last = self._last.get(name)  # another thread may keep something else meanwhile
        if last is None or not all(a is b for a, b in zip(last[0], parts, strict=True)):
            self._last[name] = last = parts, make()
        return last[1]

    def __reduce__(self):
        return Kept, ()
