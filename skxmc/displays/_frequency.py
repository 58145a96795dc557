"""LabelFrequencyDisplay: how well frequent and rare labels are found."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from skxmc._typing import MatrixLike
from skxmc.metrics import propensities as propensities_of
from skxmc.metrics._inputs import _check_k, _check_propensities, _indicator
from skxmc.metrics._ranking import _hits, _rank_sparse, _ranking

from ._plotting import check_option, import_pyplot, last_step, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_XLABEL = "Training rows of the label"
_YLABELS = {
    "recall": "Recall@{k} of the bin's labels",
    "precision": "Precision of the bin's labels in the top {k}",
    "psp": "Contribution to PSP@{k}",
}


class LabelFrequencyDisplay:
    """Recall, precision and PSP over bins of label frequency: who finds rare labels.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`; call these again with
    `ax=display.ax_` to compare models. All parameters are stored as attributes.

    Parameters
    ----------
    frequency_range : ndarray of shape (n_bins, 2), int64
        The least and the greatest number of training rows of the labels in each bin, ascending.
    recall : ndarray of shape (n_bins,), float64
        Of the test rows' true labels that lie in the bin, the share among the k best ranked; NaN
        where there is none.
    precision : ndarray of shape (n_bins,), float64
        Of the labels among the k best ranked that lie in the bin, the share that is true; NaN where
        none is ranked.
    psp : ndarray of shape (n_bins,), float64
        What the bin's hits contribute to PSP@k; their sum is PSP@k.
    psp_ideal : ndarray of shape (n_bins,), float64
        What they contribute in an ideal ranking, which has the k heaviest true labels of each row
        in front; the sum is 1.
    k : int
        How many labels of each row are looked at.
    name : str, default=None
        What the legend calls the model; None for no entry.

    Attributes
    ----------
    line_ : matplotlib Line2D
        The curve of the model.
    ideal_ : matplotlib BarContainer or None
        The bars of the ideal ranking, with `metric="psp"` on axes that had none.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skxmc.metrics.psp_at_k : Propensity-scored precision, the sum over the bins.

    Notes
    -----
    An integer `bins` makes bins of equally many training *positives* (pairs of a row and one of its
    labels), not of equally many labels. The rarer half of the labels makes a few percent of what
    there is to find, and the most frequent tenth nearly all; of equally many labels, nearly all
    bins would be noise, and what matters would lie in the last. Labels of the same frequency at a
    border are divided by the order of their columns. Labels without a training row have a bin of
    their own, "0". Bins without labels are left out.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.displays import LabelFrequencyDisplay
    >>> X, Y = make_xmc(500, 1000, 50, random_state=0)
    >>> clf = XMCClassifier("uniform", hidden_layer_sizes=(16,), n_jobs=1, random_state=0)
    >>> clf = clf.fit(X[:400], Y[:400])
    >>> display = LabelFrequencyDisplay.from_estimator(
    ...     clf, X[400:], Y[400:], Y_train=Y[:400], k=3, bins=[10, 50], name="uniform"
    ... )
    >>> display.frequency_range
    array([[  0,   0],
           [  4,   9],
           [ 10,  48],
           [ 60, 121]])
    >>> display.plot(metric="psp").ax_.get_ylabel()
    'Contribution to PSP@3'
    """

    def __init__(
        self,
        frequency_range: NDArray[np.int64],
        recall: NDArray[np.float64],
        precision: NDArray[np.float64],
        psp: NDArray[np.float64],
        psp_ideal: NDArray[np.float64],
        k: int,
        *,
        name: str | None = None,
    ):
        self.frequency_range = frequency_range
        self.recall = recall
        self.precision = precision
        self.psp = psp
        self.psp_ideal = psp_ideal
        self.k = k
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: MatrixLike | Sequence[Any],
        y: MatrixLike,
        *,
        Y_train: MatrixLike,
        k: int = 5,
        bins: int | ArrayLike = 10,
        propensities: ArrayLike | None = None,
        metric: Literal["recall", "precision", "psp"] = "recall",
        name: str | None = None,
        ax: Axes | None = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Rank the labels of test rows by a fitted classifier, and draw.

        Parameters
        ----------
        estimator : object
            A fitted classifier, or a Pipeline or search that holds one. It ranks by
            ``predict_topk(X, k)`` where it has that, as :class:`skxmc.XMCClassifier` does, else by
            `decision_function`, else by `predict_proba`, dense or sparse.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The test rows.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            Their labels: a binary indicator, or 1-d classes.
        Y_train : {array-like, sparse matrix} of shape (n_rows, n_labels) or (n_rows,)
            The labels of the training rows, whose frequencies make the bins.
        k : int, default=5
            How many labels of each row to look at.
        bins : int or array-like, default=10
            Number of bins, of equally many training positives; or, ascending, the frequencies at
            which the next bin starts: ``[2, 10]`` makes the bins 1, 2 to 9, and from 10 on.
        propensities : array-like of shape (n_labels,), default=None
            p_l of each label; None for ``skxmc.metrics.propensities(Y_train)``.
        metric : {"recall", "precision", "psp"}, default="recall"
            What to draw.
        name : str, default=None
            Name in the legend; None for the name of the class.
        ax : matplotlib Axes, default=None
            Axes to draw on; None for new ones.
        line_kw : dict, default=None
            Options of matplotlib's `plot`.

        Returns
        -------
        LabelFrequencyDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        TypeError, ValueError
            If an argument is none of the above, or the columns of `y`, `Y_train` and the estimator
            differ.
        """
        if name is None:
            name = type(last_step(estimator)[0]).__name__
        labels = getattr(estimator, "classes_", None) if np.ndim(y) == 1 else None
        return cls._make(
            y, lambda n_labels: _scores(estimator, X, k, n_labels), Y_train, k, bins, propensities,
            labels, metric, name, ax, line_kw,
        )  # fmt: skip

    @classmethod
    def from_predictions(
        cls,
        y_true: MatrixLike,
        y_score: MatrixLike,
        *,
        Y_train: MatrixLike,
        k: int = 5,
        bins: int | ArrayLike = 10,
        propensities: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        metric: Literal["recall", "precision", "psp"] = "recall",
        name: str | None = None,
        ax: Axes | None = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw from scores, or from labels that are ranked already.

        Parameters
        ----------
        y_true : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            True labels of the test rows: a binary indicator, or 1-d classes.
        y_score : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples, m)
            Dense or sparse scores, or ranked label columns as integers, best first, -1 for none,
            as in :func:`skxmc.metrics.precision_at_k`.
        Y_train : {array-like, sparse matrix} of shape (n_rows, n_labels) or (n_rows,)
            The labels of the training rows, whose frequencies make the bins.
        k : int, default=5
            How many labels of each row to look at.
        bins : int or array-like, default=10
            Number of bins, of equally many training positives; or, ascending, the frequencies at
            which the next bin starts: ``[2, 10]`` makes the bins 1, 2 to 9, and from 10 on.
        propensities : array-like of shape (n_labels,), default=None
            p_l of each label; None for ``skxmc.metrics.propensities(Y_train)``.
        labels : array-like of shape (n_labels,), default=None
            The classes of the columns where `y_true` is 1-d; None for those of `Y_train`, sorted.
        metric : {"recall", "precision", "psp"}, default="recall"
            What to draw.
        name : str, default=None
            Name in the legend; None for "Classifier".
        ax : matplotlib Axes, default=None
            Axes to draw on; None for new ones.
        line_kw : dict, default=None
            Options of matplotlib's `plot`.

        Returns
        -------
        LabelFrequencyDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        TypeError, ValueError
            As :meth:`from_estimator`.
        """
        return cls._make(
            y_true, lambda _: y_score, Y_train, k, bins, propensities, labels, metric,
            "Classifier" if name is None else name, ax, line_kw,
        )  # fmt: skip

    @classmethod
    def _make(
        cls, y_true, score, Y_train, k, bins, propensities, labels, metric, name, ax, line_kw
    ):
        """Check all else before `score(n_labels)` is asked for the scores."""
        import_pyplot(cls.__name__)
        check_option("metric", metric, _YLABELS)
        k = _check_k(k)
        of_classes = np.ndim(y_true) == 1
        if of_classes and labels is None:
            labels = np.unique(np.asarray(Y_train))
        y = _indicator(y_true, labels)
        train = _indicator(Y_train, labels, name="Y_train")
        if train.shape[1] != y.shape[1]:
            raise ValueError(
                f"Y_train has {train.shape[1]} label columns, but y has {y.shape[1]}. Both need "
                "the same columns in the same order; labels unseen in training keep theirs."
            )
        frequency = np.bincount(train.indices, minlength=y.shape[1])  # (L,)
        bin_of = _bin_labels(frequency, bins)  # (L,)
        p = propensities_of(train) if propensities is None else propensities
        weight = 1 / _check_propensities(p, y.shape[1])  # (L,)
        y_score = score(y.shape[1])
        ranked = _ranking(y_score, y.shape, k, of_classes=of_classes)  # (n, <= k), -1 for none
        ranges = [frequency[bin_of == b] for b in range(bin_of.max() + 1)]
        return cls(
            np.array([[f.min(), f.max()] for f in ranges]),
            *_measure(y, ranked, k, bin_of, weight),
            k,
            name=name,
        ).plot(ax, metric=metric, line_kw=line_kw)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        metric: Literal["recall", "precision", "psp"] = "recall",
        name: str | None = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None for new ones. Where they show another model already, it must be by
            the same metric, over the same bins.
        metric : {"recall", "precision", "psp"}, default="recall"
            What to draw. "psp" has bars behind the line for an ideal ranking, and the sum over the
            bins, PSP@k, in the legend.
        name : str, default=None
            Name in the legend; None for `self.name`.
        line_kw : dict, default=None
            Options of matplotlib's `plot`, such as `{"color": "black"}`.

        Returns
        -------
        LabelFrequencyDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If `metric` is unknown, or `ax` shows another metric or other bins.
        """
        plt = import_pyplot("LabelFrequencyDisplay.plot")
        check_option("metric", metric, _YLABELS)
        name = self.name if name is None else name
        ylabel = _YLABELS[metric].format(k=self.k)
        ticks = [f"{a:,}" if a == b else f"{a:,}–{b:,}" for a, b in self.frequency_range]
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        elif ax.get_xlabel() == _XLABEL:
            _check_same(ax, ticks, ylabel)
        self.ax_, self.figure_ = ax, ax.figure

        x, n_lines = np.arange(len(ticks)), len(ax.lines)
        self.ideal_ = None
        if metric == "psp":
            if name is not None:
                name = f"{name} (PSP@{self.k} = {self.psp.sum():.3f})"
            if not any(bars.get_label() == "ideal ranking" for bars in ax.containers):
                self.ideal_ = ax.bar(
                    x, self.psp_ideal, color="0.9", edgecolor="0.6", label="ideal ranking", zorder=0
                )
        style = {"label": name} | line_style(n_lines, line_kw)
        (self.line_,) = ax.plot(x, getattr(self, metric), **style)
        ax.set_xticks(x, ticks, rotation=45, ha="right", rotation_mode="anchor")
        ax.set(xlabel=_XLABEL, ylabel=ylabel)
        ax.autoscale(axis="y")  # anew for each model: a limit that is set stays otherwise
        ax.set_ylim(bottom=0)
        if ax.get_legend_handles_labels()[1]:
            ax.legend(fontsize="small")
        return self


def _check_same(ax, ticks, ylabel):
    """Refuse axes whose line would stand for something else."""
    if ax.get_ylabel() != ylabel:
        raise ValueError(
            f"ax shows {ax.get_ylabel()!r} already, and this would be {ylabel!r}: give the same "
            "metric and k, or other axes."
        )
    if [tick.get_text() for tick in ax.get_xticklabels()] != ticks:
        raise ValueError(
            "ax shows other bins of label frequency already: give the same Y_train and bins, or "
            "other axes."
        )


def _bin_labels(frequency, bins):
    """The bin of each label, (L,); without gaps, those of labels without a row in front."""
    seen = frequency > 0
    if isinstance(bins, Integral) and not isinstance(bins, bool) and bins >= 1:
        order = np.argsort(frequency, kind="stable")
        middle = np.cumsum(frequency[order]) - frequency[order] / 2
        bin_of = np.empty(len(frequency), dtype=np.int64)
        bin_of[order] = np.minimum(bins * middle // max(frequency.sum(), 1), bins - 1)
    else:
        bin_of = np.digitize(frequency, _check_starts(bins))
    return np.unique(np.where(seen, bin_of, -1), return_inverse=True)[1].ravel()


def _check_starts(bins):
    try:
        starts = np.asarray(bins, dtype=np.float64)
    except (TypeError, ValueError):
        starts = np.empty(0)
    if starts.ndim != 1 or not len(starts) or not (np.diff(starts) > 0).all():
        raise ValueError(
            f"bins={bins!r} must be a number of bins of at least 1, or, ascending, the label "
            "frequencies at which the next bin starts, such as [2, 10, 100]."
        )
    return starts


def _measure(y, ranked, k, bin_of, weight):
    """Recall, precision, PSP and ideal PSP of each bin, each (n_bins,)."""
    n_bins = bin_of.max() + 1

    def count(labels, weights=None):
        return np.bincount(bin_of[labels], None if weights is None else weights[labels], n_bins)

    found = ranked[_hits(y, ranked)]  # (number of hits,)
    weights = sp.csr_array((weight[y.indices], y.indices, y.indptr), shape=y.shape)
    heaviest = _rank_sparse(weights, k)  # (n, <= k)
    ideal = count(heaviest[heaviest >= 0], weight)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a bin without anything to count
        recall = count(found) / count(y.indices)
        precision = count(found) / count(ranked[ranked >= 0])
    total = ideal.sum() or 1.0
    return recall, precision, count(found, weight) / total, ideal / total


def _scores(estimator, X, k, n_labels):
    """What ranks: columns by `predict_topk`, else scores."""
    last, X = last_step(estimator, X)
    if hasattr(last, "predict_topk"):
        if len(last.classes_) != n_labels:
            raise ValueError(
                f"estimator ranks {len(last.classes_)} labels, but y has {n_labels} columns: pass "
                "y with the columns that it was fitted on."
            )
        return np.searchsorted(last.classes_, last.predict_topk(X, k=k)[0])  # classes_ are sorted
    if hasattr(last, "decision_function"):
        return last.decision_function(X)
    if not hasattr(last, "predict_proba"):
        raise TypeError(
            f"estimator ranks with {type(last).__name__}, which has none of predict_topk, "
            "decision_function and predict_proba: pass a classifier that has one, fitted, or its "
            "scores to from_predictions."
        )
    scores = last.predict_proba(X)
    if isinstance(scores, list):  # forests and others: an array (n, classes) for each label
        scores = np.column_stack([
            proba[:, list(classes).index(1)] if 1 in classes else np.zeros(len(proba))
            for proba, classes in zip(scores, last.classes_, strict=True)
        ])  # fmt: skip
    return scores
