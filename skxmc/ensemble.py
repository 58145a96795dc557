"""Members trained apart, on as many machines as there are, put together as one classifier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.linalg import block_diag
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skxmc._centroids import unit_rows
from skxmc._classifier import XMCClassifier
from skxmc._fitted import NO_NEIGHBORS
from skxmc._fitting import CURVES
from skxmc._network import Weights
from skxmc._predictor import UNSEEN, Kept
from skxmc._targets import tail_offsets

__all__ = ["average"]


def average(classifiers: Iterable[XMCClassifier]) -> XMCClassifier:
    """Put fitted classifiers together as one, whose scores are the mean of theirs.

    The members of `n_estimators` share the data and nothing else, so they can as well be fitted in
    other processes or on other machines, each with a `random_state` of its own. The result is one
    network, their units side by side, and predicts, is stored and goes on to train as if `fit` had
    trained all its members.

    Parameters
    ----------
    classifiers : iterable of XMCClassifier
        Fitted on the same features and labels, with hidden layers of the same widths. Each may have
        several members; every member counts alike.

    Returns
    -------
    XMCClassifier
        A new estimator with the parameters of the first and all members: its `n_estimators` is the
        sum of theirs. `tail_bias_`, `late_fusion_`, `neighbor_weight_` and the entries of the
        curves are means, and `n_iter_` is the largest.

    Raises
    ------
    TypeError
        If one is no XMCClassifier.
    ValueError
        If there is none, or they differ in features, classes, the shape of the network or in what
        they rank by.
    sklearn.exceptions.NotFittedError
        If one is not fitted.

    Notes
    -----
    Meant for fits on the same rows: `label_counts_` and `n_samples_seen_` are the largest of
    theirs. A member that has not seen a label, for instance since `early_stopping` held out all its
    rows, adds nothing to its score but the mean bias of the members that have. Neighbours are kept
    if all that have some kept the same rows, in which each member then counts alike, while in a row
    to be ranked it counts by the length of its hidden vector; else ``neighbor_weight_`` is 0. They
    are compared along the axes of all: the search takes as many times as long as there are
    classifiers.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.ensemble import average
    >>> X, Y = make_xmc(300, 300, 20, random_state=0)
    >>> members = [
    ...     XMCClassifier(
    ...         hidden_layer_sizes=(8,), n_estimators=1, max_iter=1, n_jobs=1, random_state=seed
    ...     ).fit(X, Y)
    ...     for seed in range(3)
    ... ]
    >>> clf = average(members)
    >>> clf.n_estimators, clf.label_weights_.shape
    (3, (20, 24))
    """
    classifiers = list(classifiers)
    _check(classifiers)
    # An entry for each member from here on, so that means count every member alike.
    owners = [clf for clf in classifiers for _ in range(_n_members(clf))]
    members = [
        replace(part, labels=part.labels * np.float32(_n_members(clf)))
        for clf in classifiers
        for part in clf._weights(clf.label_biases_).split(_n_members(clf))
    ]
    wide = Weights.merge(
        members,
        np.concatenate([part.features for part in members], axis=1),
        np.concatenate([part.labels for part in members], axis=1),
    )
    biases = np.stack([clf.label_biases_ for clf in owners])  # (n_members, L)
    known = biases > UNSEEN
    wide.label_biases[:] = UNSEEN
    np.divide(
        np.where(known, biases, 0).sum(0), known.sum(0), out=wide.label_biases, where=known.any(0)
    )

    first = classifiers[0]
    out = clone(first).set_params(n_estimators=len(members))
    for name in ("classes_", "n_features_in_", "feature_names_in_", "shortlist_size_", "_kind"):
        if hasattr(first, name):
            setattr(out, name, getattr(first, name))
    out.feature_weights_, out.label_weights_ = wide.features, wide.labels
    out.hidden_weights_, out.hidden_biases_ = wide.hidden, wide.hidden_biases
    out.label_biases_, out.residual_ = wide.label_biases, wide.residual
    out.label_embeddings_ = None
    if first.label_embeddings_ is not None:  # each member's part a unit vector, as after `fit`
        parts = [clf.label_embeddings_ * np.float32(_n_members(clf) ** 0.5) for clf in classifiers]
        out.label_embeddings_ = unit_rows(np.concatenate(parts, axis=1))
    out.label_counts_ = np.max([clf.label_counts_ for clf in classifiers], axis=0)
    out.n_samples_seen_ = max(clf.n_samples_seen_ for clf in classifiers)
    out.tail_offsets_ = tail_offsets(out.label_counts_, out.n_samples_seen_)
    out.tail_bias_ = float(np.mean([clf.tail_bias_ for clf in owners]))
    out.late_fusion_ = None
    if first.late_fusion_ is not None:
        out.late_fusion_ = float(np.mean([clf.late_fusion_ for clf in owners]))
    vars(out).update(NO_NEIGHBORS | _joined_neighbors(classifiers))
    for name in CURVES:
        setattr(out, name, _mean_curve([getattr(clf, name) for clf in owners]))
    out.n_iter_ = len(out.loss_curve_)
    memories = zip(*(clf._memory for clf in classifiers), strict=True)
    out._memory = [np.concatenate(arrays) for arrays in memories]  # (n_members, ...) each
    out._kept = Kept()
    return out


def _joined_neighbors(classifiers):
    """The rows that all keep, as those that keep any see them, if these are the same rows."""
    keeps = [bool(clf.neighbor_weight_) and clf.neighbor_labels_ is not None for clf in classifiers]
    keeping = [clf for clf, keep in zip(classifiers, keeps, strict=True) if keep]
    lists = [clf.neighbor_labels_ for clf in keeping]
    same = all(np.array_equal(a, b) for own in lists for a, b in zip(own, lists[0], strict=True))
    if not (keeping and same):
        return {}
    none = [np.empty((clf.label_weights_.shape[1], 0), np.float32) for clf in classifiers]
    axes = [
        clf.neighbor_axes_ if keep else empty
        for clf, keep, empty in zip(classifiers, keeps, none, strict=True)
    ]
    parts = [clf.neighbor_vectors_ * np.float32(_n_members(clf) ** 0.5) for clf in keeping]
    weights = [clf.neighbor_weight_ for clf in classifiers for _ in range(_n_members(clf))]
    return {
        "neighbor_weight_": float(np.mean(weights)),
        "neighbor_axes_": block_diag(*axes),
        "neighbor_vectors_": unit_rows(np.concatenate(parts, axis=1)),
        "neighbor_labels_": lists[0],
    }


def _n_members(clf):
    """How many there are, whatever `n_estimators` was set to since."""
    return len(clf._memory[0])


def _check(classifiers):
    """Refuse what cannot be averaged."""
    if not classifiers:
        raise ValueError("classifiers is empty: pass at least one fitted XMCClassifier.")
    for i, clf in enumerate(classifiers):
        if not isinstance(clf, XMCClassifier):
            raise TypeError(
                f"classifiers[{i}] must be an XMCClassifier, got {type(clf).__name__}. "
                "Of a pipeline pass the last step, pipe[-1]."
            )
        check_is_fitted(clf)
        for name, value in _shape(clf).items():
            expected = _shape(classifiers[0])[name]
            if not np.array_equal(value, expected):
                arrays = isinstance(value, np.ndarray) or isinstance(expected, np.ndarray)
                shown = "" if arrays else f": {value!r} and {expected!r}"
                raise ValueError(
                    f"classifiers[{i}] and classifiers[0] differ in their {name}{shown}. Fit them "
                    "with the same parameters, on the same features and labels."
                )


def _shape(clf) -> dict[str, Any]:
    """What must be the same."""
    n = _n_members(clf)
    return {
        "n_features_in_": clf.n_features_in_,
        "feature_names_in_": getattr(clf, "feature_names_in_", None),
        "classes_": clf.classes_,
        "kind of y": clf._kind,
        "hidden layers": tuple(len(bias) // n for bias in clf.hidden_biases_),
        "residual block": clf.residual_ is not None,
        "late fusion": clf.late_fusion_ is not None,
        "shortlist_size_": clf.shortlist_size_,
    }


def _mean_curve(curves):
    """Of each epoch the mean over those that trained so long; None where one has no curve."""
    if any(curve is None for curve in curves):
        return None
    epochs = range(max(len(curve) for curve in curves))
    return [float(np.mean([c[epoch] for c in curves if epoch < len(c)])) for epoch in epochs]
