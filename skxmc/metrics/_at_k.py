"""The metrics. Each prepares a ranking, marks its hits, and averages a gain per row."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from skxmc._typing import MatrixLike

from ._inputs import _check_propensities
from ._ranking import _hits, _prepare, _rank_sparse


def precision_at_k(
    y_true: MatrixLike,
    y_score: MatrixLike,
    k: int = 5,
    *,
    labels: ArrayLike | None = None,
    skip_unlabeled: bool = False,
) -> float:
    """Precision at k: the share of the k best ranked labels that are true.

    The number of hits is divided by k in each row, also where the row has fewer than k true labels
    or where fewer than k labels were ranked; then the mean over the rows is taken. A row without
    any true label counts as 0, unless `skip_unlabeled` leaves such rows out.

    Parameters
    ----------
    y_true : {sparse array or matrix, array-like} of shape (n_samples, n_labels) or (n_samples,)
        The true labels: a binary indicator, sparse in any format or dense, of any numeric dtype;
        or 1-d class labels, one a row.
    y_score : {sparse array or matrix, array-like} of shape (n_samples, n_labels)
        What to rank by, in one of three forms.

        - Dense floats: the scores. Of equal scores the lower column ranks first.
        - Sparse, any format and dtype: the stored entries are the scores, stored zeros and
          negative ones too. An absent entry ranks behind every stored one and is never a hit.
        - Dense *integers* of shape (n_samples, m): no scores but ranked label columns, best first,
          with -1 for no label; m may differ from k, and missing places are misses.

        With 1-d `y_true` of two classes also 1-d floats: the score of the second class against
        the first, from a threshold at 0.5 if all lie in [0, 1], and at 0 otherwise, which is how
        :func:`sklearn.metrics.top_k_accuracy_score` reads them.
    k : int, default=5
        How many labels of each row to look at, at least 1. It may exceed n_labels.
    labels : array-like of shape (n_labels,), default=None
        With 1-d `y_true` only: the classes that the columns stand for, such as `classes_`. By
        default the sorted classes that occur in `y_true`.
    skip_unlabeled : bool, default=False
        Whether rows without true labels are left out of the mean (`remove_invalid` in the
        repository's scripts). They count 0 otherwise.

    Returns
    -------
    precision : float
        Between 0 and 1; 0.0 if no row has a label.

    Raises
    ------
    TypeError
        If `k` is no integer.
    ValueError
        If `k` < 1; if `y_true` is empty or holds other values than 0 and 1; if the shapes do not
        match; if `y_score` contains NaN; if an integer `y_score` names a label twice in a row or
        a label that does not exist, so that it looks like scores; if `labels` lacks a class.

    References
    ----------
    The Extreme Classification Repository and its scripts
    (https://github.com/kunaldahiya/pyxclib, `xc_metrics.precision`).

    Examples
    --------
    >>> from skxmc.metrics import precision_at_k
    >>> y_true = [[1, 0, 0, 1], [0, 1, 0, 0]]
    >>> y_score = [[0.9, 0.1, 0.2, 0.8], [0.7, 0.6, 0.1, 0.0]]
    >>> precision_at_k(y_true, y_score, k=2)
    0.75
    >>> precision_at_k(y_true, [[0, 3], [0, -1]], k=2)  # integers are a ranking
    0.5
    """
    y, ranked = _prepare(y_true, y_score, k, labels)
    return _mean(_hits(y, ranked).sum(axis=1) / k, y, skip_unlabeled)


def recall_at_k(
    y_true: MatrixLike,
    y_score: MatrixLike,
    k: int = 5,
    *,
    labels: ArrayLike | None = None,
    skip_unlabeled: bool = False,
) -> float:
    """Recall at k: the share of a row's true labels that are among its k best ranked.

    The number of hits is divided by the number of true labels, also where that exceeds k; then the
    mean over the rows is taken, rows without labels counting 0.

    Parameters
    ----------
    y_true : {sparse array or matrix, array-like} of shape (n_samples, n_labels) or (n_samples,)
        Binary indicator or 1-d class labels, as in :func:`precision_at_k`.
    y_score : {sparse array or matrix, array-like} of shape (n_samples, n_labels)
        Dense or sparse scores, or an integer ranking (n_samples, m), as in :func:`precision_at_k`.
    k : int, default=5
        How many labels of each row to look at, at least 1.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns, where `y_true` is 1-d.
    skip_unlabeled : bool, default=False
        Whether rows without true labels are left out of the mean.

    Returns
    -------
    recall : float
        Between 0 and 1; 0.0 if no row has a label.

    Raises
    ------
    TypeError, ValueError
        As :func:`precision_at_k`.

    References
    ----------
    https://github.com/kunaldahiya/pyxclib, `xc_metrics.recall`.

    Examples
    --------
    >>> from skxmc.metrics import recall_at_k
    >>> y_true = [[1, 0, 0, 1], [0, 1, 0, 0]]
    >>> recall_at_k(y_true, [[0.9, 0.1, 0.2, 0.8], [0.7, 0.6, 0.1, 0.0]], k=1)
    0.25
    """
    y, ranked = _prepare(y_true, y_score, k, labels)
    n_true = np.maximum(np.diff(y.indptr), 1)  # (n,)
    return _mean(_hits(y, ranked).sum(axis=1) / n_true, y, skip_unlabeled)


def ndcg_at_k(
    y_true: MatrixLike,
    y_score: MatrixLike,
    k: int = 5,
    *,
    labels: ArrayLike | None = None,
    skip_unlabeled: bool = False,
) -> float:
    """Normalised discounted cumulative gain at k.

    A hit at place j = 1, 2, ... gains 1 / log2(j + 1). The sum over the k first places is divided
    by that of an ideal ranking, which has min(k, number of true labels) hits in front; then the
    mean over the rows is taken, rows without labels counting 0.

    Parameters
    ----------
    y_true : {sparse array or matrix, array-like} of shape (n_samples, n_labels) or (n_samples,)
        Binary indicator or 1-d class labels, as in :func:`precision_at_k`.
    y_score : {sparse array or matrix, array-like} of shape (n_samples, n_labels)
        Dense or sparse scores, or an integer ranking (n_samples, m), as in :func:`precision_at_k`.
        Ties go to the lower column; :func:`sklearn.metrics.ndcg_score` averages over them.
    k : int, default=5
        How many labels of each row to look at, at least 1.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns, where `y_true` is 1-d.
    skip_unlabeled : bool, default=False
        Whether rows without true labels are left out of the mean.

    Returns
    -------
    ndcg : float
        Between 0 and 1; 0.0 if no row has a label.

    Raises
    ------
    TypeError, ValueError
        As :func:`precision_at_k`.

    References
    ----------
    https://github.com/kunaldahiya/pyxclib, `xc_metrics.ndcg`.

    Examples
    --------
    >>> from skxmc.metrics import ndcg_at_k
    >>> y_true = [[1, 0, 0, 1], [0, 1, 0, 0]]
    >>> ndcg_at_k(y_true, [[0.9, 0.1, 0.2, 0.8], [0.7, 0.6, 0.1, 0.0]], k=2)
    0.815...
    """
    y, ranked = _prepare(y_true, y_score, k, labels)
    return _mean(_dcg(_hits(y, ranked)) / _ideal_dcg(y, k), y, skip_unlabeled)


def psp_at_k(
    y_true: MatrixLike,
    y_score: MatrixLike,
    k: int = 5,
    *,
    propensities: ArrayLike,
    labels: ArrayLike | None = None,
    skip_unlabeled: bool = False,
) -> float:
    """Propensity-scored precision at k: precision that counts a hit on label l 1 / p_l times.

    It is a **ratio of two dataset means**, for each k anew, and not a mean of ratios: the mean
    weighted precision of the ranking, divided by the mean weighted precision of the ideal ranking,
    which has the k heaviest true labels of each row in front. This is how the scripts behind the
    published tables compute it, although some papers print it without the divisor.

    Parameters
    ----------
    y_true : {sparse array or matrix, array-like} of shape (n_samples, n_labels) or (n_samples,)
        Binary indicator or 1-d class labels, as in :func:`precision_at_k`.
    y_score : {sparse array or matrix, array-like} of shape (n_samples, n_labels)
        Dense or sparse scores, or an integer ranking (n_samples, m), as in :func:`precision_at_k`.
    k : int, default=5
        How many labels of each row to look at, at least 1.
    propensities : array-like of shape (n_labels,)
        p_l in (0, 1] of each column, as :func:`propensities` has them from the *training* labels.
        Not the inverse weights 1 / p_l.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns, where `y_true` is 1-d.
    skip_unlabeled : bool, default=False
        For symmetry with the other metrics. It changes nothing here: rows without labels add 0 to
        both means, and the number of rows cancels.

    Returns
    -------
    psp : float
        Between 0 and 1; 0.0 if no row has a label.

    Raises
    ------
    TypeError, ValueError
        As :func:`precision_at_k`; also if `propensities` are not one number in (0, 1] a label.

    References
    ----------
    H. Jain, Y. Prabhu, M. Varma. Extreme multi-label loss functions for recommendation, tagging,
    ranking & other missing label applications. KDD 2016.
    https://github.com/kunaldahiya/pyxclib, `xc_metrics.psprecision`.

    Examples
    --------
    >>> from skxmc.metrics import propensities, psp_at_k
    >>> p = propensities([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]])
    >>> psp_at_k([[1, 1, 0], [1, 0, 0]], [[0.9, 0.8, 0.1], [0.2, 0.1, 0.9]], k=1, propensities=p)
    0.474...
    """
    y, ranked = _prepare(y_true, y_score, k, labels)
    gains, ideal = _weighted_gains(y, ranked, k, propensities)
    # The 1 / k and 1 / n of the two means cancel.
    return _ratio(gains.sum(), ideal.sum())


def psndcg_at_k(
    y_true: MatrixLike,
    y_score: MatrixLike,
    k: int = 5,
    *,
    propensities: ArrayLike,
    labels: ArrayLike | None = None,
    skip_unlabeled: bool = False,
) -> float:
    """Propensity-scored nDCG at k: nDCG in which a hit on label l gains 1 / p_l times as much.

    Like :func:`psp_at_k` a **ratio of two dataset means**, for each k anew. Both means are of the
    weighted DCG divided by the unweighted ideal DCG of the row; above for the ranking, below for
    the one that has the k heaviest true labels in front, heaviest first.

    Parameters
    ----------
    y_true : {sparse array or matrix, array-like} of shape (n_samples, n_labels) or (n_samples,)
        Binary indicator or 1-d class labels, as in :func:`precision_at_k`.
    y_score : {sparse array or matrix, array-like} of shape (n_samples, n_labels)
        Dense or sparse scores, or an integer ranking (n_samples, m), as in :func:`precision_at_k`.
    k : int, default=5
        How many labels of each row to look at, at least 1.
    propensities : array-like of shape (n_labels,)
        p_l in (0, 1] of each column, as :func:`propensities` has them from the *training* labels.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns, where `y_true` is 1-d.
    skip_unlabeled : bool, default=False
        Changes nothing, as in :func:`psp_at_k`.

    Returns
    -------
    psndcg : float
        Between 0 and 1; 0.0 if no row has a label.

    Raises
    ------
    TypeError, ValueError
        As :func:`psp_at_k`.

    References
    ----------
    https://github.com/kunaldahiya/pyxclib, `xc_metrics.psndcg`.

    Examples
    --------
    >>> from skxmc.metrics import propensities, psndcg_at_k
    >>> p = propensities([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]])
    >>> psndcg_at_k([[1, 1, 0], [1, 0, 0]], [[0.9, 0.8, 0.1], [0.2, 0.1, 0.9]], k=2, propensities=p)
    0.809...
    """
    y, ranked = _prepare(y_true, y_score, k, labels)
    gains, ideal = _weighted_gains(y, ranked, k, propensities)
    norm = _ideal_dcg(y, k)  # (n,)
    return _ratio((_dcg(gains) / norm).sum(), (_dcg(ideal) / norm).sum())


def label_coverage_at_k(
    y_true: MatrixLike,
    y_score: MatrixLike,
    k: int = 5,
    *,
    labels: ArrayLike | None = None,
    skip_unlabeled: bool = False,
) -> float:
    """Label coverage at k: the share of the labels that are found at least once.

    A label is found if it is true and among the k best ranked in one row or more. The share is of
    the labels that occur in `y_true`, since the others cannot be found. Ranking the same few
    frequent labels everywhere scores well on precision and badly here.

    Parameters
    ----------
    y_true : {sparse array or matrix, array-like} of shape (n_samples, n_labels) or (n_samples,)
        Binary indicator or 1-d class labels, as in :func:`precision_at_k`.
    y_score : {sparse array or matrix, array-like} of shape (n_samples, n_labels)
        Dense or sparse scores, or an integer ranking (n_samples, m), as in :func:`precision_at_k`.
    k : int, default=5
        How many labels of each row to look at, at least 1.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns, where `y_true` is 1-d.
    skip_unlabeled : bool, default=False
        For symmetry with the other metrics; rows without labels have no part in this one.

    Returns
    -------
    coverage : float
        Between 0 and 1; 0.0 if no row has a label.

    Raises
    ------
    TypeError, ValueError
        As :func:`precision_at_k`.

    References
    ----------
    Compare the coverage of E. Schultheis et al., Generalized test utilities for long-tail
    performance in extreme multi-label classification, NeurIPS 2023.

    Examples
    --------
    >>> from skxmc.metrics import label_coverage_at_k
    >>> y_true = [[1, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0]]
    >>> label_coverage_at_k(y_true, [[0, 3], [0, 2], [0, 3]], k=2)
    0.666...
    """
    y, ranked = _prepare(y_true, y_score, k, labels)
    found = ranked[_hits(y, ranked)]
    return _ratio(len(np.unique(found)), len(np.unique(y.indices)))


def _mean(per_row, y, skip_unlabeled):
    """Average a value that is 0 in rows without labels."""
    n = np.count_nonzero(np.diff(y.indptr)) if skip_unlabeled else y.shape[0]
    return _ratio(per_row.sum(), n)


def _ratio(part, whole):
    return float(part / whole) if whole else 0.0


def _weighted_gains(y, ranked, k, propensities):
    """Return the weights of the hits and those of an ideal ranking, both (n, <= k)."""
    weight = 1 / _check_propensities(propensities, y.shape[1])  # (L,)
    gains = np.where(_hits(y, ranked), weight[ranked], 0.0)
    weights = sp.csr_array((weight[y.indices], y.indices, y.indptr), shape=y.shape)
    heaviest = _rank_sparse(weights, k)
    return gains, np.where(heaviest >= 0, weight[heaviest], 0.0)


def _dcg(gains):
    discounts = 1 / np.log2(np.arange(2, gains.shape[1] + 2))  # (m,)
    # Summed in order, as the ideal is, so that a perfect ranking comes to exactly 1.
    return np.cumsum(gains * discounts, axis=1)[:, -1] if len(discounts) else np.zeros(len(gains))


def _ideal_dcg(y, k):
    """DCG of min(k, number of true labels) leading hits, (n,); that of one where there is none."""
    n_hits = np.clip(np.diff(y.indptr), 1, k)
    return np.cumsum(1 / np.log2(np.arange(2, n_hits.max() + 2)))[n_hits - 1]
