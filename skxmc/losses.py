"""Losses: what a shortlist of scores costs, and in which direction each score should move.

A loss is a scikit-learn parameter object, searched as ``loss__...``. It sees scores, targets and
weights of a batch and nothing else: not the samplers, not the network.
"""

from sklearn.base import BaseEstimator

__all__ = ["LOSSES", "BinaryCrossEntropy", "Loss", "make_loss"]


class Loss(BaseEstimator):
    """Base of all losses: override :meth:`forward`; autograd finds the gradient.

    Examples
    --------
    >>> from skxmc.losses import Loss
    >>> class SquaredError(Loss):
    ...     def forward(self, scores, targets, weights):
    ...         return (weights * (scores - targets) ** 2).sum()
    >>> import torch
    >>> scores, targets = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    >>> SquaredError().value_and_gradient(scores, targets, torch.ones(1, 2))
    (2.0, tensor([[2., 2.]]))
    """

    def forward(self, scores, targets, weights):
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

    def value_and_gradient(self, scores, targets, weights):
        """The loss of the batch and its gradient.

        Parameters
        ----------
        scores, targets, weights : Tensor of shape (B, m)
            As in :meth:`forward`.

        Returns
        -------
        value : float
        gradient : Tensor of shape (B, m)
            With respect to the scores.
        """
        import torch

        scores = scores.detach().requires_grad_()
        value = self.forward(scores, targets, weights)
        (gradient,) = torch.autograd.grad(value, scores)
        return float(value.detach()), gradient


class BinaryCrossEntropy(Loss):
    """Logistic loss of each label on its own, summed over the shortlist: the loss of paper A.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> clf = XMCClassifier(loss="bce")
    """

    def forward(self, scores, targets, weights):
        """Sum of ``weight * (log(1 + exp(score)) - target * score)``."""
        import torch

        return (weights * (torch.nn.functional.softplus(scores) - targets * scores)).sum()

    def value_and_gradient(self, scores, targets, weights):
        """The closed form, ``weight * (sigmoid(score) - target)``: half the passes of autograd."""
        gradient = scores.sigmoid().sub_(targets).mul_(weights)
        return float(self.forward(scores, targets, weights)), gradient


#: The names that a string may use.
LOSSES = {"bce": BinaryCrossEntropy}


def make_loss(loss):
    """The loss that a name stands for; an object is returned as it is.

    Parameters
    ----------
    loss : str or Loss

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> from skxmc.losses import make_loss
    >>> make_loss("bce")
    BinaryCrossEntropy()
    """
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r} is unknown. Known are {', '.join(map(repr, LOSSES))}.")
    return LOSSES[loss]()
