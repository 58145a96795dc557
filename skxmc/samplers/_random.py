"""Samplers that look at nothing but the label frequencies and the batch."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from skxmc.samplers._base import Problem, Proposal, Sampler, draw_size, draw_uniform


class FullSampler(Sampler):
    """Every label is a negative of every row: exact, and the yardstick of all samplers.

    A step costs batch_size x n_labels scores: right for thousands of labels, or on a GPU. With the
    losses "bce", "squared-hinge", "softmax" and "decoupled-softmax" they are computed, and the
    labels moved, a block of labels at a time; "owl" sorts a row's scores, and needs all of them.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> clf = XMCClassifier(sampler="full")
    """

    def propose(self, rows: np.ndarray, rng: np.random.Generator) -> Proposal | list[Proposal]:
        """All labels, for all rows."""
        return Proposal(np.arange(self.problem_.n_labels, dtype=np.int32), log_expected=0.0)


class _Weighted(Sampler):
    """A sampler that knows its probabilities, and so can weigh its labels by their inverse."""

    importance: float
    _n: int
    _log_expected: Any
    _cumulative: np.ndarray

    def begin(self, problem: Problem) -> Sampler:
        super().begin(problem)
        if not 0 <= self.importance <= 1:
            raise ValueError(f"importance={self.importance!r} of {self} must lie in [0, 1].")
        return self

    def _proposal(self, labels, log_expected):
        weight = np.exp(-self.importance * log_expected) if self.importance else 1.0
        return Proposal(labels, weight, log_expected)


class UniformSampler(_Weighted):
    """Labels drawn uniformly, without replacement.

    Parameters
    ----------
    n_negatives : int or None, default=None
        Labels for each row; None: 200, or half of the labels where there are fewer than 400.
    shared : bool, default=True
        True: one draw for the whole batch, which turns a gather into a matrix product and is much
        the faster; False: a draw for each row, with replacement (repeats are masked).
    importance : float in [0, 1], default=0.0
        Each drawn label weighs ``(n_labels / n_negatives) ** importance`` in the loss: 0 is plain
        negative sampling (paper A), 1 is unbiased for the loss over all labels. In a sum of
        samplers, a label that several propose to the whole batch weighs as the first says.

    Examples
    --------
    >>> from skxmc.samplers import UniformSampler
    >>> UniformSampler(100, importance=0.5)
    UniformSampler(importance=0.5, n_negatives=100)
    """

    def __init__(
        self, n_negatives: int | None = None, shared: bool = True, importance: float = 0.0
    ):
        self.n_negatives = n_negatives
        self.shared = shared
        self.importance = importance

    def begin(self, problem: Problem) -> Sampler:
        """See :meth:`Sampler.begin`."""
        super().begin(problem)
        self._n = draw_size(problem, self.n_negatives)
        chance = self._n / problem.n_labels
        if not self.shared:  # to be among n draws with replacement
            chance = 1 - (1 - 1 / problem.n_labels) ** self._n
        self._log_expected = np.log(chance)
        return self

    def propose(self, rows: np.ndarray, rng: np.random.Generator) -> Proposal | list[Proposal]:
        """One draw for the batch, or one for each row."""
        n_rows = None if self.shared else len(rows)
        labels = draw_uniform(rng, self.problem_.n_labels, self._n, n_rows)
        return self._proposal(labels, self._log_expected)


class FrequencySampler(_Weighted):
    """Labels drawn with probability proportional to a power of their training frequency.

    Parameters
    ----------
    n_negatives : int or None, default=None
        Draws for the batch, with replacement, repeats dropped; None: as in `UniformSampler`.
    power : float, default=0.75
        0 is uniform over the labels with training rows, 1 follows the frequencies.
    importance : float in [0, 1], default=0.0
        Each label weighs ``expected count ** -importance``; 1 is unbiased.

    Examples
    --------
    >>> from skxmc.samplers import FrequencySampler
    >>> FrequencySampler(power=0.5)
    FrequencySampler(power=0.5)
    """

    def __init__(
        self, n_negatives: int | None = None, power: float = 0.75, importance: float = 0.0
    ):
        self.n_negatives = n_negatives
        self.power = power
        self.importance = importance

    def begin(self, problem: Problem) -> Sampler:
        """See :meth:`Sampler.begin`."""
        super().begin(problem)
        if not (isinstance(self.power, Real) and np.isfinite(self.power)):
            raise ValueError(f"power={self.power!r} of {self} must be a finite number.")
        self._n = draw_size(problem, self.n_negatives)
        counts = problem.label_counts.astype(np.float64)
        p = np.where(counts > 0, np.maximum(counts, 1) ** self.power, 0.0)
        p /= p.sum()
        self._cumulative = np.cumsum(p)
        # Chance that a label is among the distinct ones of n draws.
        with np.errstate(divide="ignore"):
            self._log_expected = np.log(-np.expm1(self._n * np.log1p(-np.minimum(p, 1 - 1e-9))))
        return self

    def propose(self, rows: np.ndarray, rng: np.random.Generator) -> Proposal | list[Proposal]:
        """The distinct labels of one draw for the batch."""
        at = np.searchsorted(self._cumulative, rng.random(self._n) * self._cumulative[-1], "right")
        labels = np.unique(at)
        return self._proposal(labels.astype(np.int32), self._log_expected[labels])


class InBatchSampler(Sampler):
    """The positives of the other rows of the batch: frequent labels often, rare ones seldom.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> clf = XMCClassifier(sampler="in-batch+uniform")
    """

    def begin(self, problem: Problem) -> Sampler:
        """See :meth:`Sampler.begin`."""
        super().begin(problem)
        self._log_expected = self._log_chances(min(problem.batch_size, problem.n_rows))
        return self

    def _log_chances(self, batch_size):
        """Log of the chance that another row of the batch carries each label, (n_labels,).

        For a row that lacks the label: none of the c rows that carry it is among the other
        `batch_size` - 1 of its batch, which are drawn from n - 1 without replacement.
        """
        n, counts = self.problem_.n_rows, self.problem_.label_counts
        places = n - 1 - np.arange(min(counts.max(initial=1), n - 1))  # left for each of the c
        with np.errstate(divide="ignore"):
            steps = np.log1p(-np.minimum(max(batch_size - 1, 1) / places, 1))
        log_none = np.concatenate([[0.0], np.cumsum(steps)])
        at = np.clip(counts, min(1, n - 1), n - 1)
        return np.log(-np.expm1(log_none[at])) if n > 1 else np.zeros(len(counts))

    def propose(self, rows: np.ndarray, rng: np.random.Generator) -> Proposal | list[Proposal]:
        """All labels that the batch carries, for all its rows."""
        from skxmc import _shortlist_kernels

        Y = self.problem_.Y
        labels = _shortlist_kernels.labels_of(Y.indptr, Y.indices, rows, Y.shape[1])
        chances = self._log_expected
        if len(rows) < self.problem_.batch_size:  # the last batch of an epoch
            chances = self._log_chances(len(rows))
        return Proposal(labels, log_expected=chances[labels])
