"""Losses that take each label on its own."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from skxmc._lazy import torch
from skxmc.losses._base import Loss, margin_loss


class BinaryCrossEntropy(Loss):
    """Logistic loss of each label on its own, summed over the shortlist: the loss of paper A.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default=0.0
        A positive's target is ``1 - label_smoothing``: annotators err, and scores need not run off.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> clf = XMCClassifier(loss="bce")
    """

    over_negatives = "sum"

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing

    def begin(self, problem: Any) -> Self:
        """See :meth:`Loss.begin`."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing!r} must lie in [0, 1).")
        return self

    def _targets(self, targets):
        return targets * (1 - self.label_smoothing) if self.label_smoothing else targets

    def forward(
        self, scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Sum of ``weight * (log(1 + exp(score)) - target * score)``."""
        softplus = torch.nn.functional.softplus(scores)
        return (weights * (softplus - self._targets(targets) * scores)).sum()

    def value_and_gradient(  # type: ignore[override]  # it has no use for log_expected
        self, scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[float | torch.Tensor, torch.Tensor]:
        """See :meth:`Loss.value_and_gradient`; here in closed form."""
        if scores.device.type != "cpu" or scores.dtype != torch.float32:
            gradient = scores.sigmoid().sub_(self._targets(targets)).mul_(weights)
            return self.forward(scores, targets, weights), gradient
        from skxmc import _kernels

        if not targets.stride(0):  # one row of them, expanded
            targets = targets[:1]
        gradient = torch.empty_like(scores, memory_format=torch.contiguous_format)
        arrays = (a.detach().contiguous().numpy() for a in (scores, targets, weights))
        value = _kernels.binary_cross_entropy(
            *arrays, np.float32(self.label_smoothing), gradient.numpy()
        )
        return value, gradient


class SquaredHinge(Loss):
    """Squared hinge loss of each label on its own, the loss of the linear one-vs-rest models.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> clf = XMCClassifier(loss="squared-hinge")
    """

    reports_active = True
    over_negatives = "sum"

    def forward(
        self, scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Sum of ``weight * max(0, 1 - sign * score) ** 2``."""
        return (weights * margin_loss("squared-hinge", (2 * targets - 1) * scores)).sum()
