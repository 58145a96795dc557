"""Extreme multi-label classification as a scikit-learn estimator.

``XMCClassifier`` chooses among thousands to millions of labels; ``skxmc.samplers`` holds its
negative samplers, ``skxmc.losses`` its losses, ``skxmc.metrics`` precision@k and its
propensity-scored form with scorers, ``skxmc.model_selection`` cross-validation and splits for a
sparse y, ``skxmc.displays`` pictures of a fit, ``skxmc.datasets`` readers, writers and a generator
of data.
"""

from skxmc import datasets, displays, losses, metrics, model_selection, samplers
from skxmc._checkpoint import Checkpoint
from skxmc._classifier import XMCClassifier

__all__ = [
    "Checkpoint",
    "XMCClassifier",
    "datasets",
    "displays",
    "losses",
    "metrics",
    "model_selection",
    "samplers",
]
__version__ = "0.1.0.dev0"
