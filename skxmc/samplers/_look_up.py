"""Hard negatives that are looked up: what maximum inner products and label embeddings share."""

from __future__ import annotations

from typing import Any

import numpy as np

from skxmc._progress import telling
from skxmc._threads import blocks
from skxmc.samplers._base import Problem, Proposal, Sampler, check_integers


class LookUpSampler(Sampler):
    """Base of samplers that look up each row's candidates now and then, and draw from them.

    At each refresh, an index over label vectors is built and asked, for many rows in one call, for
    the nearest labels of each; every visit of a row then draws a few of them anew. A subclass says
    in `_sizes` how many are drawn and fetched, and in `_vectors` what the label vectors are.
    """

    # Parameters that a subclass may leave out.
    skip = 0
    keep = True
    refresh_steps: int | None = None
    _candidates: Any
    warmup_epochs = 0

    def begin(self, problem: Problem) -> Sampler:
        """See :meth:`Sampler.begin`."""
        from skxmc._index import check_index

        super().begin(problem)
        self._n, self._n_candidates = (problem.at_most(n) for n in self._sizes(problem.n_labels))
        if self._n_candidates < self._n:
            raise ValueError(
                f"n_candidates={self.n_candidates} of {self} is less than n_negatives={self._n}, "
                "which are drawn from the candidates. Raise it, or leave it None."
            )
        check_integers(self, 1, "refresh_epochs", "refresh_steps", optional=("refresh_steps",))
        check_integers(self, 0, "warmup_epochs", "skip")
        if self.skip >= (problem.n_columns or problem.n_labels):
            raise ValueError(f"skip={self.skip} of {self} leaves none of the labels. Lower it.")
        check_index(self.index)
        self._candidates = None  # (n_rows, n_candidates) int32 once looked up, -1: none
        return self

    def due(self, epoch: int, step: int) -> bool:
        """At the start of every `refresh_epochs`-th epoch, and every `refresh_steps` within one."""
        since = epoch - self.warmup_epochs
        if since < 0:
            return False
        if step == 0:
            return since % self.refresh_epochs == 0
        return self.refresh_steps is not None and step % self.refresh_steps == 0

    def refresh(self, epoch: int, step: int, network: Any, rows: np.ndarray) -> None:
        """Build the index and look up the rows ahead, thousands in one call."""
        from skxmc._index import drop, make_index

        problem = self.problem_
        if self.refresh_steps is not None:
            rows = rows[: self.refresh_steps * problem.batch_size]
        index = make_index(
            self.index, problem.n_labels, problem.random_state, problem.n_threads, problem.log
        )
        index.build(*self._vectors(network))
        if hasattr(network, "share_index"):  # of labels that several processes hold
            index = network.share_index(index)
        if self._candidates is None:
            self._candidates = np.full((problem.n_rows, self._n_candidates), -1, np.int32)
        parts = blocks(len(rows), -(-len(rows) // -(-len(rows) // 16384)))
        for part in telling(parts, "looked up", len(rows), problem.log):
            block = rows[part]
            exclude = problem.Y if self.keep else None
            fetch = problem.at_most(self.skip + self._n_candidates)
            found = index.search(network.hidden(block), fetch, exclude, block)
            if not self.keep:
                found = drop(found, problem.Y, block)
            found = found[:, self.skip :]
            self._candidates[block, : found.shape[1]] = found

    def propose(self, rows: np.ndarray, rng: np.random.Generator) -> Proposal | list[Proposal]:
        """A few of each row's candidates: one from each of `n_negatives` strata of their ranks."""
        if self._candidates is None:
            return []
        if self._n == self._n_candidates:
            return Proposal(self._candidates[rows])
        from skxmc import _shortlist_kernels

        labels = np.empty((len(rows), self._n), np.int32)
        uniform = rng.random(labels.shape)
        _shortlist_kernels.draw_from_strata(self._candidates, rows, uniform, labels)
        return Proposal(labels)
