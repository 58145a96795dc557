"""Ordered weighted losses (paper B): negatives weigh by their rank among the row's negatives."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skxmc._lazy import torch
from skxmc.losses._base import MARGINS, Loss, margin_loss


class OrderedWeightedLoss(Loss):
    r"""Ordered weighted loss: the negative of rank j among a row's negatives weighs theta_j.

    With scores f, positives P and negatives in decreasing order f_(1) >= f_(2) >= ...:

    * binary form (BOWL): phi(f_y) + sum_j theta_j phi(-f_(j)) for each positive y;
    * pairwise form (POWL): sum_j theta_j phi(f_y - f_(j)).

    It is convex where theta does not increase and phi is convex and non-increasing.

    Parameters
    ----------
    form : {"binary", "pairwise"}, default="binary"
    margin : {"hinge", "squared-hinge", "logistic"}, default="hinge"
        phi(u): max(0, 1 - u), its square, or log(1 + exp(-u)).
    theta : {"top-k", "snm"} or array-like, default="top-k"
        Weights by rank, non-increasing and non-negative. "top-k": 1 for the first `k`, then 0.
        "snm": the weights that stochastic negative mining with a pool of `pool_size` and `k` kept
        induces in expectation (:func:`snm_weights`), over the negatives of the batch's shortlist:
        exact with ``sampler="full"`` and rows of few positives beside the labels. An array:
        beyond its end the weights are 0.
    k : int, default=5
    pool_size : int or None, default=None
        For "snm".
    reduction : {"pick-all", "pick-one"}, default="pick-all"
        How a row of several positives becomes single-label: the mean over its positives, or one of
        them drawn at random at each visit. Other positives are never negatives.

    Raises
    ------
    ValueError
        In `begin`, where theta increases or is negative, or a name is unknown.

    References
    ----------
    .. [B] Reddi et al., "Stochastic negative mining for learning with large output spaces",
       AISTATS 2019.

    Examples
    --------
    >>> from skxmc.losses import OrderedWeightedLoss
    >>> OrderedWeightedLoss(theta=[1.0, 0.5, 0.25], margin="logistic")
    OrderedWeightedLoss(margin='logistic', theta=[1.0, 0.5, 0.25])
    """

    reports_active = True

    @property
    def max_positives(self) -> int | None:  # type: ignore[override]  # follows a parameter
        """One where the reduction picks one positive, else None: all of them."""
        return 1 if self.reduction == "pick-one" else None

    def __init__(
        self,
        form: Literal["binary", "pairwise"] = "binary",
        margin: Literal["hinge", "squared-hinge", "logistic"] = "hinge",
        theta: Literal["top-k", "snm"] | ArrayLike = "top-k",
        k: int = 5,
        pool_size: int | None = None,
        reduction: Literal["pick-all", "pick-one"] = "pick-all",
    ):
        self.form = form
        self.margin = margin
        self.theta = theta
        self.k = k
        self.pool_size = pool_size
        self.reduction = reduction

    def begin(self, problem: Any) -> Self:
        """See :meth:`Loss.begin`."""
        for name, known in (
            ("form", ("binary", "pairwise")),
            ("margin", MARGINS),
            ("reduction", ("pick-all", "pick-one")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} of {self} must be in {known}.")
        self._rank_weights(2)
        return self

    def _rank_weights(self, n_negatives):
        """theta_1 .. theta_n for n negatives; raises where they are no ordered weights."""
        if isinstance(self.theta, str):
            return _named_weights(self.theta, self.k, self.pool_size, n_negatives)
        theta = np.asarray(self.theta, dtype=np.float64)
        if theta.ndim != 1 or not theta.size or not np.isfinite(theta).all() or (theta < 0).any():
            raise ValueError(f"theta={self.theta!r} must be a list of non-negative numbers.")
        rises = np.flatnonzero(np.diff(theta) > 0)
        if rises.size:
            raise ValueError(
                f"theta increases at rank {rises[0] + 2} ({theta[rises[0]]} to "
                f"{theta[rises[0] + 1]}): the loss would not be convex. Sort theta."
            )
        return np.pad(theta[:n_negatives], (0, max(0, n_negatives - theta.size)))

    def forward(
        self, scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Mean over a row's positives of its ordered weighted loss, summed over the rows."""
        if not scores.shape[1]:  # a batch without a label, and nothing proposed
            return scores.sum()
        positive = (weights > 0) & (targets > 0)  # (B, m)
        negative = (weights > 0) & (targets == 0)
        share = positive * weights  # (B, m), mean 1 over a row's positives
        share = share / positive.sum(1, keepdim=True).clamp(min=1)
        low = torch.finfo(scores.dtype).min
        depth = max(1, int(negative.sum(1).max()))
        theta = torch.as_tensor(self._rank_weights(depth), dtype=scores.dtype).to(scores.device)
        theta = theta[: max(1, int((theta > 0).sum()))]
        top, at = scores.masked_fill(~negative, low).topk(len(theta), dim=1)  # (B, t)
        theta = theta * weights.gather(1, at) * negative.gather(1, at)  # (B, t)
        top = top.masked_fill(theta == 0, 0.0)
        if self.form == "binary":
            costs = theta * margin_loss(self.margin, -top)
            return (share * margin_loss(self.margin, scores)).sum() + costs.sum()
        rows, columns = positive.nonzero(as_tuple=True)
        margins = scores[rows, columns][:, None] - top[rows]  # (n positives, t)
        costs = (theta[rows] * margin_loss(self.margin, margins)).sum(1)
        return (share[rows, columns] * costs).sum()


def snm_weights(n_negatives: int, pool_size: int, k: int) -> NDArray[np.float64]:
    r"""Weights by rank that stochastic negative mining induces in expectation.

    The class of rank j counts when it is among the `pool_size` drawn uniformly without replacement
    from the `n_negatives` classes that are not positive, and fewer than `k` better-ranked ones are:
    theta_j = sum_{s<min(k, B)} C(j-1, s) C(n-j, B-1-s) / C(n, B), with n = K - 1.

    Parameters
    ----------
    n_negatives : int
        n, the number of classes that are not positive.
    pool_size : int
        B.
    k : int
        How many of the pool are kept.

    Returns
    -------
    ndarray of shape (n_negatives,), float64
        Non-increasing; the first is B / n, the sum min(k, B).

    References
    ----------
    .. [B] Reddi et al., "Stochastic negative mining for learning with large output spaces",
       AISTATS 2019. The closed form is derived from the procedure.

    Examples
    --------
    >>> from skxmc.losses import snm_weights
    >>> snm_weights(30, pool_size=8, k=1)[:4].round(4)
    array([0.2667, 0.2023, 0.1517, 0.1124])
    """
    from scipy.stats import hypergeom

    if not 1 <= pool_size <= n_negatives:
        raise ValueError(f"pool_size={pool_size!r} must lie in 1 .. n_negatives={n_negatives}.")
    if k < 1:
        raise ValueError(f"k={k!r} must be at least 1.")
    if n_negatives == 1:  # a population of none for the hypergeometric
        return np.ones(1)
    ranks = np.arange(1, n_negatives + 1)
    # Given that rank j is drawn, its better-ranked companions are hypergeometric.
    few_better = hypergeom.cdf(k - 1, n_negatives - 1, ranks - 1, pool_size - 1)
    return pool_size / n_negatives * few_better


@lru_cache(maxsize=1024)
def _named_weights(name, k, pool_size, n_negatives):
    if not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k={k!r} must be a positive integer.")
    if name == "top-k":
        return (np.arange(n_negatives) < k).astype(np.float64)
    if name == "snm":
        if not isinstance(pool_size, (int, np.integer)) or pool_size < 1:
            raise ValueError(f"theta='snm' needs pool_size, a positive integer; got {pool_size!r}.")
        return snm_weights(n_negatives, int(min(pool_size, n_negatives)), int(k))
    raise ValueError(f"theta={name!r} is unknown: 'top-k', 'snm' or an array.")
