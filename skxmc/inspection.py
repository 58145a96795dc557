"""Why a label was predicted, and which labels the classifier takes for alike."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted, validate_data

from skxmc._centroids import unit_rows
from skxmc._classifier import XMCClassifier
from skxmc._ends import Rows, canonical
from skxmc._index import ExactIndex
from skxmc._inputs import check_k
from skxmc._lazy import torch
from skxmc._predictor import UNSEEN
from skxmc._threads import blocks, count_threads
from skxmc._typing import MatrixLike

__all__ = ["feature_contributions", "nearest_labels"]

_ROWS = 512  # rows whose hidden layers exist at a time


def feature_contributions(
    clf: XMCClassifier, X: MatrixLike, labels: ArrayLike, k: int = 10
) -> Bunch:
    """The features that spoke most for labels of each row.

    A label's score is a sum over the row's features and a part of the biases. A feature's share is
    its value times the gradient of the score by it. The network is linear as long as the same
    hidden units are active, so that these shares add up to the score exactly, whatever the number
    of hidden layers; which units are active depends on all features together.

    Parameters
    ----------
    clf : XMCClassifier
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows in the form that `fit` saw.
    labels : array-like of shape (n_samples,) or (n_samples, m)
        Entries of `classes_`: for each row the label, or the labels, that are to be explained, as
        `predict` of a 1-d y or `predict_topk` returns them.
    k : int, default=10
        How many features to return of each row, at most those that there are.

    Returns
    -------
    Bunch
        features : ndarray of shape (n_samples, k) or (n_samples, m, k), int64
            Columns of X, by falling contribution; -1 where the row has fewer that are not 0.
        contributions : ndarray of the same shape, float32
            What they add to the score, negative where they spoke against it; 0 beside -1.
        biases : ndarray of the shape of `labels`, float32
            The part of the score that is no feature's: of the biases of hidden units and label.
        scores : ndarray of the shape of `labels`, float32
            The labels' logits, as in a dense `decision_function`, before what only ranks: tail
            bias, late fusion and shortlist. With all features of a row, ``biases`` and the sum of
            ``contributions`` give this number, up to rounding.

    Raises
    ------
    TypeError
        If `clf` is no XMCClassifier.
    ValueError
        If a label is not in `classes_`, the rows of X and `labels` differ, or k is not a positive
        integer.
    sklearn.exceptions.NotFittedError
        If `clf` is not fitted.

    See Also
    --------
    nearest_labels : The labels that a label is alike to.

    References
    ----------
    .. [1] Ancona et al., "Towards better understanding of gradient-based attribution methods for
       deep neural networks", ICLR 2018: gradient times input, and where it is exact.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.inspection import feature_contributions
    >>> X, Y = make_xmc(200, 300, 20, random_state=0)
    >>> clf = XMCClassifier(hidden_layer_sizes=(16,), n_jobs=1, random_state=0).fit(X, Y)
    >>> labels, _ = clf.predict_topk(X[:4], k=2)
    >>> why = feature_contributions(clf, X[:4], labels, k=3)
    >>> why.features.shape, why.scores.shape
    ((4, 2, 3), (4, 2))
    >>> bool((why.contributions[:, 0] > 0).all())  # what spoke for the best label
    True
    """
    _check_classifier(clf)
    k = min(check_k(k), clf.n_features_in_)
    X = validate_data(clf, X, accept_sparse="csr", dtype=[np.float32, np.float64], reset=False)
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or len(labels) != X.shape[0]:
        raise ValueError(
            f"labels has shape {labels.shape} and X {X.shape[0]} rows: pass the labels of each "
            "row, as predict_topk returns them, of shape (n_samples,) or (n_samples, m)."
        )
    columns = _columns_of(clf, labels).reshape(X.shape[0], -1)  # (n, m)
    X = canonical(sp.csr_array(X, dtype=np.float32))
    network = clf._predictor(X).network

    features = np.full((*columns.shape, k), -1, np.int64)
    contributions = np.zeros(features.shape, np.float32)
    scores, biases = np.empty(columns.shape, np.float32), np.empty(columns.shape, np.float32)
    for block in blocks(X.shape[0], _ROWS):
        scores[block], gradients = _gradients(network, X[block], columns[block])
        for i, row in enumerate(range(block.start, block.stop)):
            own = slice(X.indptr[row], X.indptr[row + 1])
            ids, values = X.indices[own], X.data[own]  # (nnz,)
            parts = values[:, None] * (clf.feature_weights_[ids] @ gradients[i])  # (nnz, m)
            biases[row] = scores[row] - parts.sum(0, dtype=np.float64)
            best = np.argsort(-parts, axis=0, kind="stable")[:k].T  # (m, up to k)
            features[row, :, : best.shape[1]] = ids[best]
            contributions[row, :, : best.shape[1]] = np.take_along_axis(parts.T, best, 1)
    shape = labels.shape
    return Bunch(
        features=features.reshape(*shape, k),
        contributions=contributions.reshape(*shape, k),
        biases=biases.reshape(shape),
        scores=scores.reshape(shape),
    )


def _gradients(network, X, columns):
    """Scores of labels (B, m) and their gradients by the first layer's inputs, (B, H0, m)."""
    inputs = network.embed(Rows.of(X), np.arange(X.shape[0])).requires_grad_()  # (B, H0)
    hidden = network.middle(inputs)  # (B, H)
    columns = torch.from_numpy(columns).to(network.device)
    scores, gradients = [], []
    for label in columns.T:
        weights, biases = network.labels.weights[label], network.labels.biases[label]
        scores.append((hidden * weights).sum(1) + biases)
        gradients += torch.autograd.grad(scores[-1].sum(), inputs, retain_graph=True)
    if not scores:  # m = 0
        return np.empty(columns.shape, np.float32), np.empty((*inputs.shape, 0), np.float32)
    scores, gradients = torch.stack(scores, 1), torch.stack(gradients, 2)
    return scores.detach().cpu().numpy(), gradients.cpu().numpy()


def nearest_labels(
    clf: XMCClassifier, labels: ArrayLike, k: int = 10
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """The labels whose weight vectors point most nearly the way of those of `labels`.

    Labels of high cosine score alike on all rows: synonyms, and labels of one topic. The search is
    exact. It makes unit vectors of all labels, as much memory again as `label_weights_`: ask for
    many labels in one call.

    Parameters
    ----------
    clf : XMCClassifier
        Fitted.
    labels : array-like of shape (n,)
        Entries of `classes_` that had a training row.
    k : int, default=10
        How many to return of each, at most the other labels that had a training row.

    Returns
    -------
    neighbours : ndarray of shape (n, k)
        Entries of `classes_`, nearest first, without the label itself and without labels that had
        no training row. Ties go to the one that stands first in `classes_`.
    cosines : ndarray of shape (n, k), float32

    Raises
    ------
    TypeError
        If `clf` is no XMCClassifier.
    ValueError
        If a label is not in `classes_` or had no training row, or k is not a positive integer.
    sklearn.exceptions.NotFittedError
        If `clf` is not fitted.

    See Also
    --------
    feature_contributions : The features that spoke for a label.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.inspection import nearest_labels
    >>> X, Y = make_xmc(200, 300, 20, random_state=0)
    >>> clf = XMCClassifier(hidden_layer_sizes=(16,), n_jobs=1, random_state=0).fit(X, Y)
    >>> neighbours, cosines = nearest_labels(clf, [3, 14], k=5)
    >>> neighbours.shape, cosines.dtype
    ((2, 5), dtype('float32'))
    """
    _check_classifier(clf)
    k = check_k(k)
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels has shape {labels.shape}; pass a list of labels, (n,).")
    columns = _columns_of(clf, labels)
    seen = clf.label_biases_ > UNSEEN  # (L,)
    if not seen[columns].all():
        without = labels[~seen[columns]].tolist()[0]
        raise ValueError(
            f"labels holds {without!r}, which had no row in training and so has no weight vector. "
            "Leave it out."
        )
    k = min(k, int(seen.sum()) - 1)
    if not (k and len(labels)):
        none = np.empty((len(labels), k), np.float32)
        return clf.classes_[none.astype(np.int64)], none
    vectors = torch.from_numpy(unit_rows(clf.label_weights_))  # (L, H)
    biases = torch.from_numpy(np.where(seen, 0, -np.inf).astype(np.float32))
    index = ExactIndex(n_threads=count_threads(clf.n_jobs, len(labels), 1_000))
    itself = Rows(np.arange(len(labels) + 1), columns.astype(np.int32), None, (len(labels), None))
    cosines, found = index.build(vectors, biases).topk(
        vectors[columns], k, exclude=itself, rows=np.arange(len(labels))
    )
    return clf.classes_[found], cosines


def _check_classifier(clf):
    if not isinstance(clf, XMCClassifier):
        raise TypeError(
            f"clf must be an XMCClassifier, got {type(clf).__name__}. Of a pipeline pass the last "
            "step, pipe[-1], and rows that the others have transformed, pipe[:-1].transform(X)."
        )
    check_is_fitted(clf)


def _columns_of(clf, labels):
    """Where labels stand in `classes_`, in the shape of `labels`."""
    classes = clf.classes_  # ascending
    at, found = np.zeros(labels.shape, np.int64), np.zeros(labels.shape, bool)
    if classes.dtype == object:
        labels = labels.astype(object)
    # numpy would compare 3 and "3" as strings.
    if (classes.dtype.kind in "biuf") == (labels.dtype.kind in "biuf"):
        with suppress(TypeError):  # objects that do not compare
            at = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
            found = classes[at] == labels
    if not found.all():
        raise ValueError(
            f"labels holds {labels[~found].tolist()[0]!r}, which is not in classes_; labels are "
            f"entries of it, such as {classes[:1].tolist()[0]!r}."
        )
    return at
