"""How likely a relevant label is to have been assigned: the propensity model of Jain et al."""

from __future__ import annotations

import numbers

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skxmc._typing import MatrixLike

from ._inputs import _indicator


def propensities(
    Y_train: MatrixLike, A: float = 0.55, B: float = 1.5, *, labels: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Propensity of each label: the chance that a label which applies was assigned at all.

    p_l = 1 / (1 + C (N_l + B)^-A) with C = (ln N - 1) (B + 1)^A, where N is the number of training
    rows and N_l the number of those with label l. A label seen once has p_l = 1 / ln N, whatever
    A and B; frequent labels tend to 1. The weights of the propensity-scored metrics are 1 / p_l.

    Parameters
    ----------
    Y_train : {sparse array or matrix, array-like} of shape (n_samples, n_labels) or (n_samples,)
        The labels of the *training* rows, as a binary indicator or as 1-d classes.
    A, B : float, default=0.55 and 1.5
        The constants of the data. Customary are 0.5 and 0.4 for tagging Wikipedia
        (WikiLSHTC-325K, Wikipedia-500K), 0.6 and 2.6 for Amazon's recommendations (Amazon-670K,
        Amazon-3M), and the defaults, their mean, for everything else (AmazonCat-13K included).
    labels : array-like of shape (n_labels,), default=None
        With 1-d classes: the class of each column; by default the sorted classes of `Y_train`.

    Returns
    -------
    propensities : ndarray of shape (n_labels,), float64
        p_l in (0, 1], in the order of the columns.

    Raises
    ------
    ValueError
        If `Y_train` is no binary indicator, has fewer than 3 rows (ln N must exceed 1), or if
        A or B is not a positive number.

    References
    ----------
    H. Jain, Y. Prabhu, M. Varma. Extreme multi-label loss functions for recommendation, tagging,
    ranking & other missing label applications. KDD 2016.

    Examples
    --------
    >>> from skxmc.metrics import propensities
    >>> propensities([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]]).round(3)
    array([0.8  , 0.721, 0.662])
    """
    for name, value in (("A", A), ("B", B)):
        if not (isinstance(value, numbers.Real) and 0 < value < np.inf):
            raise ValueError(f"{name} must be a positive number, got {value!r}.")
    y = _indicator(Y_train, labels, name="Y_train")
    n, n_labels = y.shape
    if n < 3:
        raise ValueError(
            f"Y_train has {n} row(s): the propensity model needs at least 3, since ln N must "
            "exceed 1."
        )
    frequency = np.bincount(y.indices, minlength=n_labels)  # (L,)
    return _of_counts(frequency, n, A, B)


def _of_counts(frequency, n, A=0.55, B=1.5):
    """Propensities (L,) of labels that so many of n rows carry."""
    # (B + 1)^A (N_l + B)^-A in one power, so that a label seen once weighs exactly ln N.
    return 1 / (1 + (np.log(n) - 1) * ((B + 1) / (frequency + B)) ** A)
