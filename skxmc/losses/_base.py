"""What a loss is, and the margin functions that several share."""

from __future__ import annotations

from typing import Any, Literal, Self

from sklearn.base import BaseEstimator

from skxmc._lazy import torch


class Loss(BaseEstimator):
    """Base of all losses: override :meth:`forward`; autograd finds the gradient.

    Attributes
    ----------
    uses_log_expected : bool
        Class attribute: whether `forward` takes `log_expected` too, the log of the expected number
        of times that each place was proposed; 0 for positives and where it is unknown.
    reports_active : bool
        Class attribute: whether training records the share of negatives with a gradient.
    over_negatives : {"sum", "logsumexp"} or None
        Class attribute: what negatives of one weight and count do to the loss. "sum": each costs on
        its own, and so does each positive. "logsumexp": they enter by the log of the sum of the
        exps of their scores, and nothing else. With ``sampler="full"`` training then goes over
        blocks of the labels. None, the default: what `forward` is given is not cut to pieces; set
        it in a subclass of another loss whose `forward` looks at more.

    Examples
    --------
    >>> from skxmc.losses import Loss
    >>> class SquaredError(Loss):
    ...     def forward(self, scores, targets, weights):
    ...         return (weights * (scores - targets) ** 2).sum()
    >>> import torch
    >>> scores, targets = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    >>> SquaredError().value_and_gradient(scores, targets, torch.ones(1, 2))
    (tensor(2.), tensor([[2., 2.]]))
    """

    uses_log_expected: bool = False
    reports_active: bool = False
    over_negatives: Literal["sum", "logsumexp"] | None = None
    max_positives: int | None = None  # how many positives of a row a visit trains on; None: all

    def begin(self, problem: Any) -> Self:
        """Check the parameters before any work is done; called on a clone.

        Parameters
        ----------
        problem : skxmc.samplers.Problem

        Returns
        -------
        Loss
            Itself.
        """
        return self

    def forward(
        self, scores: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Loss of a batch, summed over its rows.

        Parameters
        ----------
        scores : Tensor of shape (B, m)
        targets : Tensor of shape (B, m)
            1 at positives, 0 at negatives.
        weights : Tensor of shape (B, m)
            Importance of each place; 0 where there is no label or one that must not count.

        Returns
        -------
        Tensor of shape ()
        """
        raise NotImplementedError

    def value_and_gradient(
        self,
        scores: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        **more: torch.Tensor,
    ) -> tuple[float | torch.Tensor, torch.Tensor]:
        """The loss of the batch and its gradient.

        Parameters
        ----------
        scores, targets, weights : Tensor of shape (B, m)
            As in :meth:`forward`.
        **more : Tensor
            `log_expected` of shape (m,), where the loss uses it.

        Returns
        -------
        value : Tensor of shape () or float
            A tensor stays on the device, so that nobody waits for it.
        gradient : Tensor of shape (B, m)
            With respect to the scores.
        """
        scores = scores.detach().requires_grad_()
        value = self.forward(scores, targets, weights, **more)
        (gradient,) = torch.autograd.grad(value, scores)
        return value.detach(), gradient


MARGINS = ("hinge", "squared-hinge", "logistic")


def margin_loss(name: str, u: torch.Tensor) -> torch.Tensor:
    """phi(u) of a margin u: convex and non-increasing."""
    if name == "logistic":
        return torch.nn.functional.softplus(-u)
    hinge = (1 - u).clamp(min=0)
    return hinge if name == "hinge" else hinge.square()
