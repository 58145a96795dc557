"""Stochastic negative mining (paper B): score a random pool, learn from its hardest labels."""

from __future__ import annotations

import numpy as np

from skxmc.samplers._base import (
    Problem,
    Proposal,
    Sampler,
    check_schedule,
    draw_size,
    draw_uniform,
    on_the_way,
)


class StochasticNegativeMining(Sampler):
    """Draw a pool uniformly, score it, and keep the highest-scoring labels of it for each row.

    Only the row's positives and the labels kept are back-propagated. In expectation this is the
    ordered weighted loss whose weights :func:`skxmc.losses.snm_weights` gives: nearly flat over the
    top ``n_negatives * n_labels / pool_size`` ranks, then falling. That ratio is the hardness.

    Parameters
    ----------
    pool_size : int or None, default=None
        Labels drawn without replacement and scored; None: 400, or half of the labels where there
        are fewer than 800.
    n_negatives : int or None, default=None
        How many of them are kept for each row; None: a twentieth of the pool, at least 1. As many
        as `pool_size` is plain negative sampling, 1 the paper's recommendation.
    shared : bool, default=True
        One pool for the batch, scored by one matrix product, or one for each row (with replacement,
        repeats masked).
    schedule : {None, "linear", "geometric"}, default=None
        Move from uniform (the whole pool is kept) in the first epoch to `n_negatives` in the last.

    References
    ----------
    .. [B] Reddi et al., "Stochastic negative mining for learning with large output spaces",
       AISTATS 2019.

    Examples
    --------
    >>> from skxmc.samplers import StochasticNegativeMining
    >>> StochasticNegativeMining(pool_size=512, n_negatives=8, schedule="geometric")
    StochasticNegativeMining(n_negatives=8, pool_size=512, schedule='geometric')
    """

    def __init__(
        self,
        pool_size: int | None = None,
        n_negatives: int | None = None,
        shared: bool = True,
        schedule: str | None = None,
    ):
        self.pool_size = pool_size
        self.n_negatives = n_negatives
        self.shared = shared
        self.schedule = schedule

    def begin(self, problem: Problem) -> Sampler:
        """See :meth:`Sampler.begin`."""
        super().begin(problem)
        check_schedule(self)
        self._pool = draw_size(problem, self.pool_size, default=400)
        self._last = problem.at_most(self.n_negatives or max(1, self._pool // 20))
        if self._last > self._pool:
            raise ValueError(
                f"n_negatives={self.n_negatives} of {self} is more than the pool of {self._pool} "
                "from which they are kept. Lower it, or raise pool_size."
            )
        self._keep = self._last
        return self

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Set how many of the pool are kept in this epoch."""
        if self.schedule is None or n_epochs == 1:
            return
        keep = on_the_way(self.schedule, self._pool, self._last, epoch, n_epochs)
        self._keep = max(1, round(keep))

    def propose(self, rows: np.ndarray, rng: np.random.Generator) -> Proposal | list[Proposal]:
        """Return the pool; the training loop scores it and keeps the hardest."""
        n_rows = None if self.shared else len(rows)
        pool = draw_uniform(rng, self.problem_.n_labels, self._pool, n_rows)
        return Proposal(pool, keep=self._keep)
