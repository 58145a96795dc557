"""Losses: what a shortlist of scores costs, and in which direction each score should move.

A loss is a scikit-learn parameter object, searched as ``loss__...``. It sees scores, targets and
weights of a batch and nothing else: not the samplers, not the network.
"""

from __future__ import annotations

from skxmc.losses._base import Loss
from skxmc.losses._binary import BinaryCrossEntropy, SquaredHinge
from skxmc.losses._ordered import OrderedWeightedLoss, snm_weights
from skxmc.losses._softmax import DecoupledSoftmax, SampledSoftmax

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "DecoupledSoftmax",
    "Loss",
    "OrderedWeightedLoss",
    "SampledSoftmax",
    "SquaredHinge",
    "make_loss",
    "snm_weights",
]

#: The names that a string may use.
LOSSES: dict[str, type[Loss]] = {
    "bce": BinaryCrossEntropy,
    "squared-hinge": SquaredHinge,
    "softmax": SampledSoftmax,
    "decoupled-softmax": DecoupledSoftmax,
    "owl": OrderedWeightedLoss,
}


def make_loss(loss: str | Loss) -> Loss:
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
