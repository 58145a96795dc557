"""Ready-made classifiers: the settings of two papers, and one for little time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skxmc._classifier import XMCClassifier
from skxmc.samplers import LabelEmbeddingSampler, MIPSSampler, UniformSampler

__all__ = ["few_mips", "lightdxml", "quick"]

# One network, no weights for positives, rankings by its scores alone.
_PLAIN = {"n_estimators": 1, "positive_weight": None, "tail_bias": 0.0, "neighbor_weight": 0.0}

# Settings of LightDXML's published configurations: labels, epochs, first halving of the rate,
# batch_size, and of the sampler refresh_epochs, n_candidates, n_hidden, learning_rate, n_passes,
# batch_size.
_LIGHTDXML = {
    "EURLex-4K": (3_993, 26, 14, 255, 8, 400, 1000, 0.003, 8, 256),
    "AmazonCat-13K": (13_330, 26, 14, 255, 4, 500, 600, 0.0002, 4, 256),
    "Wiki10-31K": (30_938, 26, 14, 255, 6, 600, 600, 0.003, 8, 512),
    "LF-AmazonTitles-131K": (131_073, 21, 14, 255, 7, 500, 1200, 0.001, 6, 512),
    "Delicious-200K": (205_443, 21, 14, 255, 18, 500, 1400, 0.001, 2, 512),
    "WikiLSHTC-325K": (325_056, 21, 14, 255, 18, 500, 1400, 0.001, 4, 512),
    "WikiSeeAlsoTitles-350K": (352_072, 26, 14, 255, 20, 500, 1200, 0.001, 6, 512),
    "WikiTitles-500K": (501_070, 21, 8, 256, 7, 400, 1200, 0.003, 4, 512),
    "Amazon-670K": (670_091, 21, 14, 128, 8, 500, 900, 0.001, 4, 512),
    "AmazonTitles-3M": (2_812_281, 21, 8, 255, 7, 400, 1200, 0.001, 4, 512),
}


def lightdxml(size: int | str, **parameters: Any) -> XMCClassifier:
    """LightDXML (paper C): label embeddings, shortlist and classifier in cycles.

    300 hidden units with a residual block, dropout 0.5, and the whole shortlist of each row as its
    negatives; the other settings are those of the paper's published configuration for the data set
    nearest in size. What differs from its code: the optimiser is row-wise Adagrad, at 0.1, instead
    of Adam; a visit trains on up to 256 of a row's positives instead of 20, and never takes one for
    a negative; and the weight of late fusion is chosen on held-out training rows, not on the test
    rows.

    Parameters
    ----------
    size : int or str
        The number of labels, or the name of one of the paper's data sets: "EURLex-4K",
        "AmazonCat-13K", "Wiki10-31K", "LF-AmazonTitles-131K", "Delicious-200K", "WikiLSHTC-325K",
        "WikiSeeAlsoTitles-350K", "WikiTitles-500K", "Amazon-670K" or "AmazonTitles-3M".
    **parameters
        Of `XMCClassifier`, in place of the paper's.

    Returns
    -------
    XMCClassifier
        Not fitted.

    Raises
    ------
    ValueError
        If `size` is neither a positive number nor one of the names.

    References
    ----------
    .. [C] Mishra et al., "Light-weight deep extreme multilabel classification", IJCNN 2023.

    Examples
    --------
    >>> from skxmc.presets import lightdxml
    >>> clf = lightdxml(4_000, random_state=0)
    >>> clf.max_iter, clf.sampler.n_candidates, clf.sampler.refresh_epochs
    (26, 400, 8)
    """
    if isinstance(size, str):
        if size not in _LIGHTDXML:
            raise ValueError(f"size={size!r} is unknown. Known are {', '.join(_LIGHTDXML)}.")
        row = _LIGHTDXML[size]
    elif isinstance(size, (int, np.integer)) and size > 0:
        row = min(_LIGHTDXML.values(), key=lambda row: abs(math.log(row[0] / size)))
    else:
        raise ValueError(f"size={size!r} must be a number of labels or the name of a data set.")
    _, n_epochs, first, batch_size, cycle, n_candidates, n_hidden, rate, n_passes, n_pairs = row
    # A shortlist is not longer than half of the labels.
    if not isinstance(size, str):
        n_candidates = min(n_candidates, -(-size // 2))
    sampler = LabelEmbeddingSampler(
        n_candidates=n_candidates,
        refresh_epochs=cycle,
        n_hidden=n_hidden,
        n_passes=n_passes,
        learning_rate=rate,
        batch_size=n_pairs,
    )
    n_epochs = parameters.pop("max_iter", None) or n_epochs
    settings = {
        **_PLAIN,
        "sampler": sampler,
        "hidden_layer_sizes": (300,),
        "residual": True,
        "max_iter": n_epochs,
        "batch_size": batch_size,
        "learning_rate": _halved(n_epochs, first),
        "dropout": 0.5,
        "late_fusion": "auto",
    }
    return XMCClassifier(**{**settings, **parameters})


def _halved(n_epochs, step):
    """Factors of the learning rate: halved at multiples of `step`, which itself is halved then.

    14 gives halvings at 14, 21, 25, 30 ...; 8 gives them at 8, 10, 15, 20 ...
    """
    factors = np.ones(n_epochs)
    for epoch in range(1, n_epochs):
        if epoch % step == 0:
            factors[epoch:] /= 2
            step = max(5, step // 2)
    return factors.tolist()


def few_mips(**parameters: Any) -> XMCClassifier:
    """Few MIPS negatives beside many uniform ones (paper A), as the paper's code has it.

    Five labels from the index, positives dropped after fetching, the label bias left out of the
    inner product, a rebuild at each epoch and each 1,000 steps, and 3,000 uniform labels for each
    row. The encoder is this package's, not BERT, and so are optimiser, epochs and width.

    Parameters
    ----------
    **parameters
        Of `XMCClassifier`, in place of the paper's.

    Returns
    -------
    XMCClassifier
        Not fitted.

    References
    ----------
    .. [A] Qaraei and Babbar, "Meta-classifier free negative sampling for extreme multilabel
       classification", Machine Learning, 2023.

    Examples
    --------
    >>> from skxmc.presets import few_mips
    >>> few_mips(random_state=0).sampler.second
    UniformSampler(n_negatives=3000, shared=False)
    """
    hard = MIPSSampler(
        5, n_candidates=5, keep=False, use_bias=False, refresh_epochs=1, refresh_steps=1000
    )
    sampler = hard + UniformSampler(3000, shared=False)
    return XMCClassifier(**{**_PLAIN, "sampler": sampler, **parameters})


def quick(**parameters: Any) -> XMCClassifier:
    """For little time: one network, four epochs.

    A third to three quarters of the default's time, and a half to one and a half points of P@1
    less, with very many labels of few rows three and a half; the tables of the benchmark (docs)
    have both.

    Parameters
    ----------
    **parameters
        Of `XMCClassifier`, in place of the preset's.

    Returns
    -------
    XMCClassifier
        Not fitted.

    Examples
    --------
    >>> from skxmc.presets import quick
    >>> quick(random_state=0)
    XMCClassifier(max_iter=4, n_estimators=1, random_state=0)
    """
    return XMCClassifier(**{"n_estimators": 1, "max_iter": 4, **parameters})
