"""Model selection with a sparse y: what scikit-learn refuses, and splits that mind rare labels.

GridSearchCV, RandomizedSearchCV and train_test_split take a sparse y as they are. The functions
here have the names of those that do not, and call them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn import model_selection
from sklearn.base import BaseEstimator
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import _safe_indexing, check_random_state, indexable

from skxmc._typing import MatrixLike

__all__ = [
    "MultilabelStratifiedKFold",
    "cross_validate",
    "learning_curve",
    "multilabel_train_test_split",
    "validation_curve",
]


def cross_validate(
    estimator: BaseEstimator, X: MatrixLike | Sequence[Any], y: MatrixLike, **options: Any
) -> dict[str, Any]:
    """:func:`sklearn.model_selection.cross_validate` that takes a sparse y.

    Parameters
    ----------
    estimator : estimator
        What to fit; a clone is fitted for each fold.
    X : {array-like, sparse matrix} of shape (n_samples, n_features), or list of str
        Rows, or what the first step of a pipeline takes.
    y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
        Labels, sparse in any format.
    **options
        All other arguments of scikit-learn's function, by name: `scoring`, `cv`, `n_jobs`,
        `return_train_score`, `return_estimator`, `return_indices`, `error_score` ...

    Returns
    -------
    scores : dict of str to ndarray of shape (n_splits,)
        "fit_time", "score_time", and "test_score", or "test_<name>" for each of several scorers.

    Raises
    ------
    TypeError, ValueError
        What scikit-learn raises, but for a sparse y.

    Notes
    -----
    scikit-learn refuses a sparse y in a check that precedes the function, which could use it; here
    the function is called without that check. To switch checks off by
    ``sklearn.config_context(skip_parameter_validation=True)`` would switch off the estimator's too,
    so that it would train with a dropout of -2.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.metrics import ranking_scorers
    >>> from skxmc.model_selection import cross_validate
    >>> X, Y = make_xmc(n_samples=300, n_features=300, n_labels=30, random_state=0)
    >>> clf = XMCClassifier(
    ...     "uniform", hidden_layer_sizes=(16,), max_iter=2, top_k=3, n_jobs=1, random_state=0
    ... )
    >>> scores = cross_validate(clf, X, Y, scoring=ranking_scorers(k=(1, 3)), cv=3)
    >>> sorted(scores)
    ['fit_time', 'score_time', 'test_P@1', 'test_P@3', 'test_nDCG@1', 'test_nDCG@3']
    >>> scores["test_P@1"].shape
    (3,)
    """
    return _for_sparse(model_selection.cross_validate, y)(estimator, X, y, **options)


def learning_curve(
    estimator: BaseEstimator, X: MatrixLike | Sequence[Any], y: MatrixLike, **options: Any
) -> tuple[NDArray[Any], ...]:
    """:func:`sklearn.model_selection.learning_curve` that takes a sparse y.

    Parameters
    ----------
    estimator : estimator
        What to fit; a clone is fitted for each size and fold.
    X : {array-like, sparse matrix} of shape (n_samples, n_features), or list of str
        Rows, or what the first step of a pipeline takes.
    y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
        Labels, sparse in any format.
    **options
        All other arguments of scikit-learn's function, by name: `train_sizes`, `scoring`, `cv` ...

    Returns
    -------
    train_sizes : ndarray of shape (n_sizes,)
        Training rows of each size.
    train_scores : ndarray of shape (n_sizes, n_splits)
        Scores on the training rows.
    test_scores : ndarray of shape (n_sizes, n_splits)
        Scores on the test rows. With ``return_times=True`` two more arrays of this shape follow.

    Raises
    ------
    TypeError, ValueError
        What scikit-learn raises, but for a sparse y.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.model_selection import learning_curve
    >>> X, Y = make_xmc(n_samples=300, n_features=300, n_labels=30, random_state=0)
    >>> clf = XMCClassifier(
    ...     "uniform", hidden_layer_sizes=(16,), max_iter=2, n_jobs=1, random_state=0
    ... )
    >>> sizes, train, test = learning_curve(clf, X, Y, train_sizes=[0.5, 1.0], cv=2)
    >>> sizes, test.shape
    (array([ 75, 150]), (2, 2))
    """
    return _for_sparse(model_selection.learning_curve, y)(estimator, X, y, **options)


def validation_curve(
    estimator: BaseEstimator, X: MatrixLike | Sequence[Any], y: MatrixLike, **options: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """:func:`sklearn.model_selection.validation_curve` that takes a sparse y.

    Parameters
    ----------
    estimator : estimator
        What to fit; a clone is fitted for each value and fold.
    X : {array-like, sparse matrix} of shape (n_samples, n_features), or list of str
        Rows, or what the first step of a pipeline takes.
    y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
        Labels, sparse in any format.
    **options
        All other arguments of scikit-learn's function, by name: `param_name` and `param_range`,
        which it needs, `scoring`, `cv` ...

    Returns
    -------
    train_scores : ndarray of shape (n_values, n_splits)
        Scores on the training rows.
    test_scores : ndarray of shape (n_values, n_splits)
        Scores on the test rows.

    Raises
    ------
    TypeError, ValueError
        What scikit-learn raises, but for a sparse y.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.model_selection import validation_curve
    >>> X, Y = make_xmc(n_samples=300, n_features=300, n_labels=30, random_state=0)
    >>> clf = XMCClassifier(
    ...     "uniform", hidden_layer_sizes=(16,), max_iter=2, n_jobs=1, random_state=0
    ... )
    >>> train, test = validation_curve(
    ...     clf, X, Y, param_name="learning_rate_init", param_range=[0.1, 0.2, 0.3], cv=2
    ... )
    >>> test.shape
    (3, 2)
    """
    return _for_sparse(model_selection.validation_curve, y)(estimator, X, y, **options)


def _for_sparse(function, y):
    """The function, for a sparse y without the check of parameters that refuses it."""
    return inspect.unwrap(function) if sp.issparse(y) else function


class MultilabelStratifiedKFold(BaseCrossValidator):
    """K folds that each have their share of every label, rare ones before all.

    Iterative stratification [1]_: the label with the fewest rows left is taken first, and each of
    its rows goes to the fold that lacks this label most. Beside that, folds differ by one row at
    most, and no fold gets all rows of a label while there is another choice. So each training part
    has a row of each label that has two or more, except where the rows of several rare labels
    overlap so that it cannot be, or that a row's choice came too late: hardly ever with three folds
    or more. A label's only row is tested without having been trained on, as in every K-fold.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    random_state : int, RandomState instance or None, default=None
        Seeds the order of rows and what is a draw. An int gives the same folds at each call.

    See Also
    --------
    multilabel_train_test_split : One training and one test part.
    sklearn.model_selection.KFold : Folds by chance.

    Notes
    -----
    Takes time in proportion to ``nnz(y) * log(nnz(y))`` and memory to
    ``nnz(y) + n_labels * n_splits``, and no dense y: 0.6 s for 1.5 million label entries of
    100,000 labels.

    References
    ----------
    .. [1] Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD
       2011.

    Examples
    --------
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.model_selection import MultilabelStratifiedKFold
    >>> X, Y = make_xmc(n_samples=300, n_features=300, n_labels=30, random_state=0)
    >>> cv = MultilabelStratifiedKFold(n_splits=3, random_state=0)
    >>> for train, test in cv.split(X, Y):
    ...     print(len(train), len(test), Y[test].sum(axis=0)[:5].astype(int))
    200 100 [ 5 17  4  6  6]
    200 100 [ 4 18  4  6  5]
    200 100 [ 4 17  3  5  5]

    It goes where a number of folds would: ``GridSearchCV(clf, grid, cv=cv)``.
    """

    def __init__(
        self, n_splits: int = 5, *, random_state: int | np.random.RandomState | None = None
    ):
        self.n_splits = n_splits
        self.random_state = random_state

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : object
            Ignored; for compatibility.

        Returns
        -------
        int
            `n_splits`.
        """
        return self.n_splits

    def split(
        self, X: MatrixLike | Sequence[Any], y: MatrixLike, groups: object = None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield the rows of each fold's training and test part.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only the number of rows counts.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels)
            A binary indicator.
        groups : object
            Ignored; for compatibility.

        Yields
        ------
        train : ndarray of int
            Rows to train on, in ascending order.
        test : ndarray of int
            Rows to test on, in ascending order.

        Raises
        ------
        ValueError
            If y is no binary indicator, X and y differ in rows, or `n_splits` is no integer from 2
            to the number of rows.
        """
        X, y = indexable(X, y)
        Y, n = _indicator(y), self.n_splits
        if not isinstance(n, Integral) or not 2 <= n <= Y.shape[0]:
            raise ValueError(
                f"n_splits={n!r} must be an integer from 2 to the number of rows, {Y.shape[0]}."
            )
        sizes = np.full(n, Y.shape[0] // n)
        sizes[: Y.shape[0] % n] += 1
        fold = _deal(Y, sizes, np.ones(n, np.int64), np.ones(n, bool), self.random_state)
        for j in range(n):
            yield np.flatnonzero(fold != j), np.flatnonzero(fold == j)


def multilabel_train_test_split(
    X: MatrixLike | Sequence[Any],
    y: MatrixLike,
    *arrays: MatrixLike | Sequence[Any],
    test_size: float = 0.25,
    random_state: int | np.random.RandomState | None = None,
) -> list[Any]:
    """Split rows so that both parts have their share of every label, and training keeps one.

    :func:`sklearn.model_selection.train_test_split` with iterative stratification [1]_, as in
    :class:`MultilabelStratifiedKFold`. No label of the test part is without a training row where
    that is possible. A test part by chance has such labels, and new data will: precision comes out
    higher here, by more the rarer the labels are. So compare models on it, and do not promise its
    numbers.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features), or list
        Rows: features, texts, or row numbers, ``range(n_samples)``.
    y : {array-like, sparse matrix} of shape (n_samples, n_labels)
        A binary indicator.
    *arrays : sequence of array-like, sparse matrix or list
        More to split alike.
    test_size : float in (0, 1) or int, default=0.25
        Share, rounded up, or number of test rows.
    random_state : int, RandomState instance or None, default=None
        Seeds the order of rows and what is a draw.

    Returns
    -------
    splits : list of length 2 * (2 + len(arrays))
        X_train, X_test, y_train, y_test, and so on. Rows keep their order.

    Raises
    ------
    ValueError
        If y is no binary indicator, lengths differ, or `test_size` leaves a part empty.

    References
    ----------
    .. [1] Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD
       2011.

    Examples
    --------
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.model_selection import multilabel_train_test_split
    >>> X, Y = make_xmc(n_samples=300, n_features=300, n_labels=100, random_state=0)
    >>> X_train, X_test, Y_train, Y_test = multilabel_train_test_split(X, Y, random_state=0)
    >>> X_train.shape, X_test.shape
    ((225, 300), (75, 300))
    >>> seen = Y_train.sum(axis=0) > 0
    >>> bool(seen[Y_test.sum(axis=0) > 0].all())
    True
    """
    arrays = indexable(X, y, *arrays)
    Y = _indicator(arrays[1])
    n_test = _test_rows(test_size, Y.shape[0])
    sizes = np.array([Y.shape[0] - n_test, n_test])
    part = _deal(Y, sizes, sizes, np.array([False, True]), random_state)
    rows = [np.flatnonzero(part == j) for j in (0, 1)]
    return [_safe_indexing(array, rows[j]) for array in arrays for j in (0, 1)]


def _test_rows(test_size, n_rows):
    n_test = None
    if isinstance(test_size, Integral) and not isinstance(test_size, bool):
        n_test = int(test_size)
    elif isinstance(test_size, Real) and 0 < test_size < 1:
        n_test = math.ceil(test_size * n_rows)
    if n_test is None or not 0 < n_test < n_rows:
        raise ValueError(
            f"test_size={test_size!r} must leave both parts a row of the {n_rows}: give a float "
            f"between 0 and 1 or an integer from 1 to {n_rows - 1}."
        )
    return n_test


def _indicator(y):
    """The binary indicator as a canonical CSR matrix of its own, or a ValueError."""
    if not sp.issparse(y):
        y = np.asarray(y)
        if y.ndim != 2:
            raise ValueError(
                f"y must be a binary indicator of shape (n_samples, n_labels), got {y.ndim} "
                "dimension(s). For 1-d classes use scikit-learn's stratified splits; for lists of "
                "labels MultiLabelBinarizer(sparse_output=True)."
            )
    if y.dtype.kind not in "buif":
        raise ValueError(f"y must be a binary indicator of 0 and 1, got dtype {y.dtype}.")
    Y = sp.csr_array(y, copy=True)
    Y.sum_duplicates()
    Y.eliminate_zeros()
    if not (Y.data == 1).all():
        found = Y.data[Y.data != 1][0]
        raise ValueError(
            f"y must be a binary indicator of 0 and 1, got {found!s}. Binarize it with y > 0."
        )
    return Y


def _deal(Y, sizes, shares, needed, random_state):
    """The part of each row, (n,) int32; see `stratify`."""
    from skxmc._stratify import stratify  # numba takes a second to import

    random_state = check_random_state(random_state)
    order = random_state.permutation(Y.shape[0])
    first = random_state.randint(len(sizes), size=Y.shape[0])
    Y = Y[order]  # so that ascending rows of a label are in random order
    columns = Y.tocsc()
    part = np.empty(Y.shape[0], np.int32)
    part[order] = stratify(
        *(Y.indptr.astype(np.int64), Y.indices.astype(np.int32)),
        *(columns.indptr.astype(np.int64), columns.indices.astype(np.int32)),
        sizes.astype(np.int64),
        shares.astype(np.int64),
        needed,
        first.astype(np.int64),
    )
    return part
