"""The metrics as scikit-learn scorers: `make_scorer` with everything bound, and no class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import ArrayLike
from sklearn.metrics import make_scorer

from . import _at_k
from ._inputs import _check_k, _check_propensities

# decision_function first: scikit-learn cuts predict_proba to its column 1 where classes_ has two
# entries, even if these are the labels of an indicator.
_RESPONSE_METHOD = ("decision_function", "predict_proba")


def _scorer(metric, k, **bound):
    """Bind the arguments that differ from the metric's own defaults."""
    if "propensities" in bound:
        # Bound, and never routed as metadata: scikit-learn cuts an array into folds like a column
        # of X whenever it happens to be as long as X.
        bound["propensities"] = _check_propensities(bound["propensities"])
    bound = {name: value for name, value in bound.items() if value is not None}
    return make_scorer(metric, response_method=_RESPONSE_METHOD, k=_check_k(k), **bound)


def precision_at_k_scorer(
    k: int = 5, *, labels: ArrayLike | None = None, skip_unlabeled: bool = False
) -> Callable[..., float]:
    """Scorer of :func:`precision_at_k`, for `scoring=`.

    It calls `decision_function`, or `predict_proba` where there is none; either may return dense
    or sparse scores, and scorers that are used together share one call.

    Parameters
    ----------
    k : int, default=5
        How many labels of each row to look at.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns where y is 1-d; needed if a test fold may lack some of them.
    skip_unlabeled : bool, default=False
        Whether rows without true labels are left out of the mean.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y)` returns a float.

    Raises
    ------
    TypeError, ValueError
        If `k` is no integer of at least 1; the rest is checked by the metric.

    Examples
    --------
    >>> from sklearn.datasets import make_multilabel_classification
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from skxmc.metrics import precision_at_k_scorer
    >>> X, Y = make_multilabel_classification(random_state=0)
    >>> tree = DecisionTreeClassifier(random_state=0)
    >>> cross_val_score(tree, X, Y, scoring=precision_at_k_scorer(k=2), cv=4).shape
    (4,)
    """
    return _scorer(_at_k.precision_at_k, k, labels=labels, skip_unlabeled=skip_unlabeled)


def recall_at_k_scorer(
    k: int = 5, *, labels: ArrayLike | None = None, skip_unlabeled: bool = False
) -> Callable[..., float]:
    """Scorer of :func:`recall_at_k`; see :func:`precision_at_k_scorer`.

    Parameters
    ----------
    k : int, default=5
        How many labels of each row to look at.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns where y is 1-d.
    skip_unlabeled : bool, default=False
        Whether rows without true labels are left out of the mean.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y)` returns a float.

    Raises
    ------
    TypeError, ValueError
        If `k` is no integer of at least 1.

    Examples
    --------
    >>> from skxmc.metrics import recall_at_k_scorer
    >>> scorer = recall_at_k_scorer(k=10)
    """
    return _scorer(_at_k.recall_at_k, k, labels=labels, skip_unlabeled=skip_unlabeled)


def ndcg_at_k_scorer(
    k: int = 5, *, labels: ArrayLike | None = None, skip_unlabeled: bool = False
) -> Callable[..., float]:
    """Scorer of :func:`ndcg_at_k`; see :func:`precision_at_k_scorer`.

    Parameters
    ----------
    k : int, default=5
        How many labels of each row to look at.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns where y is 1-d.
    skip_unlabeled : bool, default=False
        Whether rows without true labels are left out of the mean.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y)` returns a float.

    Raises
    ------
    TypeError, ValueError
        If `k` is no integer of at least 1.

    Examples
    --------
    >>> from skxmc.metrics import ndcg_at_k_scorer
    >>> scorer = ndcg_at_k_scorer(k=3)
    """
    return _scorer(_at_k.ndcg_at_k, k, labels=labels, skip_unlabeled=skip_unlabeled)


def psp_at_k_scorer(
    k: int = 5, *, propensities: ArrayLike, labels: ArrayLike | None = None
) -> Callable[..., float]:
    """Scorer of :func:`psp_at_k`; see :func:`precision_at_k_scorer`.

    Parameters
    ----------
    k : int, default=5
        How many labels of each row to look at.
    propensities : array-like of shape (n_labels,)
        p_l in (0, 1] of each label column, fixed once for all folds.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns where y is 1-d.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y)` returns a float.

    Raises
    ------
    TypeError, ValueError
        If `k` is no integer of at least 1, or if `propensities` are not 1-d in (0, 1].

    Examples
    --------
    >>> from skxmc.metrics import propensities, psp_at_k_scorer
    >>> Y_train = [[1, 0], [1, 0], [1, 1]]
    >>> scorer = psp_at_k_scorer(k=1, propensities=propensities(Y_train))
    """
    return _scorer(_at_k.psp_at_k, k, propensities=propensities, labels=labels)


def psndcg_at_k_scorer(
    k: int = 5, *, propensities: ArrayLike, labels: ArrayLike | None = None
) -> Callable[..., float]:
    """Scorer of :func:`psndcg_at_k`; see :func:`precision_at_k_scorer`.

    Parameters
    ----------
    k : int, default=5
        How many labels of each row to look at.
    propensities : array-like of shape (n_labels,)
        p_l in (0, 1] of each label column, fixed once for all folds.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns where y is 1-d.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y)` returns a float.

    Raises
    ------
    TypeError, ValueError
        If `k` is no integer of at least 1, or if `propensities` are not 1-d in (0, 1].

    Examples
    --------
    >>> from skxmc.metrics import propensities, psndcg_at_k_scorer
    >>> Y_train = [[1, 0], [1, 0], [1, 1]]
    >>> scorer = psndcg_at_k_scorer(k=3, propensities=propensities(Y_train))
    """
    return _scorer(_at_k.psndcg_at_k, k, propensities=propensities, labels=labels)


def label_coverage_at_k_scorer(
    k: int = 5, *, labels: ArrayLike | None = None
) -> Callable[..., float]:
    """Scorer of :func:`label_coverage_at_k`; see :func:`precision_at_k_scorer`.

    Parameters
    ----------
    k : int, default=5
        How many labels of each row to look at.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns where y is 1-d.

    Returns
    -------
    scorer : callable
        `scorer(estimator, X, y)` returns a float.

    Raises
    ------
    TypeError, ValueError
        If `k` is no integer of at least 1.

    Examples
    --------
    >>> from skxmc.metrics import label_coverage_at_k_scorer
    >>> scorer = label_coverage_at_k_scorer(k=5)
    """
    return _scorer(_at_k.label_coverage_at_k, k, labels=labels)


def ranking_scorers(
    k: int | Iterable[int] = (1, 3, 5),
    propensities: ArrayLike | None = None,
    *,
    labels: ArrayLike | None = None,
    skip_unlabeled: bool = False,
) -> dict[str, Callable[..., float]]:
    """Scorers of the metrics that the literature reports, by name, for `scoring=`.

    scikit-learn asks the estimator for its scores once for all of them.

    Parameters
    ----------
    k : int or iterable of int, default=(1, 3, 5)
        How many labels of each row to look at.
    propensities : array-like of shape (n_labels,), default=None
        p_l of each label column; if given, the propensity-scored metrics are added.
    labels : array-like of shape (n_labels,), default=None
        The classes of the columns where y is 1-d.
    skip_unlabeled : bool, default=False
        Whether rows without true labels are left out of the means.

    Returns
    -------
    scorers : dict of str to callable
        "P@k" and "nDCG@k" for each k, and with `propensities` also "PSP@k" and "PSnDCG@k".

    Raises
    ------
    TypeError, ValueError
        If a `k` is no integer of at least 1, if there is none, or if `propensities` are not 1-d in
        (0, 1].

    Examples
    --------
    >>> from skxmc.metrics import ranking_scorers
    >>> list(ranking_scorers(k=(1, 5)))
    ['P@1', 'P@5', 'nDCG@1', 'nDCG@5']
    >>> list(ranking_scorers(k=3, propensities=[0.2, 0.9]))
    ['P@3', 'nDCG@3', 'PSP@3', 'PSnDCG@3']
    """
    ks = list(k) if isinstance(k, Iterable) else [k]
    if not ks:
        raise ValueError("k is empty: name at least one rank, such as k=(1, 3, 5).")
    rows: dict[str, Any] = {"labels": labels, "skip_unlabeled": skip_unlabeled}
    scorers = {f"P@{j}": precision_at_k_scorer(j, **rows) for j in ks}
    scorers |= {f"nDCG@{j}": ndcg_at_k_scorer(j, **rows) for j in ks}
    if propensities is not None:
        weights: dict[str, Any] = {"labels": labels, "propensities": propensities}
        scorers |= {f"PSP@{j}": psp_at_k_scorer(j, **weights) for j in ks}
        scorers |= {f"PSnDCG@{j}": psndcg_at_k_scorer(j, **weights) for j in ks}
    return scorers
