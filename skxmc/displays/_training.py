"""TrainingDisplay: what happened in a fit, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ._plotting import check_option, describe_sampler, import_pyplot, last_step, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Panel -> the attribute of a display that it shows, and what its y-axis is called.
_PANELS = {
    "loss": ("loss_curve", "Training loss of a row"),
    "validation": ("validation_scores", "Held-out precision@1"),
    "hardness": ("hardness_curve", "Hardness of the negatives"),
    "active": ("active_fraction", "Share of negatives in the margin"),
}
_XLABELS = {"epoch": "Epoch", "seconds": "Training time (s)"}


class TrainingDisplay:
    """Loss, held-out precision and the sampler's hardness over epochs or seconds.

    Make it with :meth:`from_estimator`; call that again with `ax=display.axes_` to compare fits.
    All parameters are stored as attributes. What is None has no panel.

    Parameters
    ----------
    loss_curve : list of float
        Mean training loss of a row, an entry an epoch. Different losses, and different numbers of
        negatives, do not compare.
    validation_scores : list of float, default=None
        Precision@1 on held-out rows.
    hardness_curve : list of float, default=None
        Sum of ``abs(d loss / d score)`` over a row's negatives, mean over the rows: 0 where the
        model knows all of them for what they are, and learns nothing.
    active_fraction : list of float, default=None
        For losses with a margin, the share of the negatives inside it.
    epoch_seconds : list of float, default=None
        Seconds of each epoch.
    name : str, default=None
        What the legend calls the fit; None for no entry.

    Attributes
    ----------
    axes_ : dict of str to matplotlib Axes
        By the name of the panel: "loss", "validation", "hardness", "active".
    lines_ : dict of str to matplotlib Line2D
        This fit's line in each panel that it has one in.
    figure_ : matplotlib Figure

    See Also
    --------
    SamplerComparisonDisplay : Precision against fit time, over folds.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.displays import TrainingDisplay
    >>> X, Y = make_xmc(500, 1000, 50, random_state=0)
    >>> clf = XMCClassifier(
    ...     "uniform", hidden_layer_sizes=(16,), max_iter=3, early_stopping=True, n_jobs=1,
    ...     random_state=0,
    ... ).fit(X, Y)
    >>> display = TrainingDisplay.from_estimator(clf, panels=["loss", "validation"])
    >>> list(display.axes_)
    ['loss', 'validation']
    >>> clf = clf.set_params(sampler="in-batch").fit(X, Y)
    >>> display = TrainingDisplay.from_estimator(clf, ax=display.axes_)
    >>> [text.get_text() for text in display.axes_["loss"].get_legend().get_texts()]
    ['uniform', 'in-batch']
    """

    def __init__(
        self,
        loss_curve: Sequence[float],
        *,
        validation_scores: Sequence[float] | None = None,
        hardness_curve: Sequence[float] | None = None,
        active_fraction: Sequence[float] | None = None,
        epoch_seconds: Sequence[float] | None = None,
        name: str | None = None,
    ):
        self.loss_curve = loss_curve
        self.validation_scores = validation_scores
        self.hardness_curve = hardness_curve
        self.active_fraction = active_fraction
        self.epoch_seconds = epoch_seconds
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        *,
        x: Literal["epoch", "seconds"] = "epoch",
        panels: Sequence[str] | None = None,
        name: str | None = None,
        ax: Axes | Sequence[Axes] | np.ndarray | dict[str, Axes] | None = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw what a fitted classifier has recorded.

        Parameters
        ----------
        estimator : object
            A fitted :class:`skxmc.XMCClassifier`, or a Pipeline or search that holds one.
        x : {"epoch", "seconds"}, default="epoch"
            What the panels are drawn over. Seconds are those of training, index look-ups included,
            scoring of held-out rows not; the first fit of a process also compiles.
        panels : list of str, default=None
            Which to draw, of "loss", "validation", "hardness" and "active"; see :meth:`plot`.
        name : str, default=None
            Name in the legend; None for the sampler.
        ax : matplotlib Axes, sequence or dict of them, default=None
            See :meth:`plot`.
        line_kw : dict, default=None
            Options of matplotlib's `plot`.

        Returns
        -------
        TrainingDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        sklearn.exceptions.NotFittedError
            If the classifier is not fitted.
        TypeError
            If the classifier records no loss and seconds of its epochs.
        ValueError
            As :meth:`plot`.
        """
        import_pyplot(cls.__name__)
        clf, _ = last_step(estimator)
        if hasattr(clf, "fit"):
            check_is_fitted(clf)
        if not (hasattr(clf, "loss_curve_") and hasattr(clf, "epoch_seconds_")):
            raise TypeError(
                f"estimator holds {type(clf).__name__}, which has no loss_curve_ and "
                "epoch_seconds_: pass a fitted XMCClassifier, or a Pipeline or a search with "
                "refit that holds one."
            )
        return cls(
            clf.loss_curve_,
            validation_scores=getattr(clf, "validation_scores_", None),
            hardness_curve=getattr(clf, "hardness_curve_", None),
            active_fraction=getattr(clf, "active_fraction_", None),
            epoch_seconds=clf.epoch_seconds_,
            name=describe_sampler(clf.sampler) if name is None else name,
        ).plot(ax, x=x, panels=panels, line_kw=line_kw)

    def plot(
        self,
        ax: Axes | Sequence[Axes] | np.ndarray | dict[str, Axes] | None = None,
        *,
        x: Literal["epoch", "seconds"] = "epoch",
        panels: Sequence[str] | None = None,
        name: str | None = None,
        line_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, sequence or dict of them, default=None
            None for a new figure with the panels side by side; axes for the loss, or for the one
            panel named; a sequence of axes, one for each panel; or a dict by panel, such as the
            `axes_` of another display or of :meth:`matplotlib.figure.Figure.subplot_mosaic`, of
            which those are drawn on that this fit has a curve for.
        x : {"epoch", "seconds"}, default="epoch"
            What the panels are drawn over.
        panels : list of str, default=None
            Which to draw, of "loss", "validation", "hardness" and "active"; None for those that
            there is a curve for.
        name : str, default=None
            Name in the legend; None for `self.name`.
        line_kw : dict, default=None
            Options of matplotlib's `plot`, such as `{"color": "black"}`.

        Returns
        -------
        TrainingDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If `x` or a panel is unknown or was not recorded, `ax` are not as many axes as panels,
            or they are drawn over something else.
        """
        plt = import_pyplot("TrainingDisplay.plot")
        from matplotlib.ticker import MaxNLocator

        check_option("x", x, _XLABELS)
        over: np.ndarray = np.arange(1, len(self.loss_curve) + 1)
        if x == "seconds":
            if self.epoch_seconds is None:
                raise ValueError("x='seconds', but there are no epoch_seconds: use x='epoch'.")
            over = np.cumsum(self.epoch_seconds)
        axes = self._find_axes(ax, panels, plt)
        for panel_ax in axes.values():
            if panel_ax.get_xlabel() in set(_XLABELS.values()) - {_XLABELS[x]}:
                raise ValueError(
                    f"x={x!r}, but ax shows {panel_ax.get_xlabel()!r} already: give the same x, or "
                    "other axes."
                )
        drawn = [panel for panel in axes if getattr(self, _PANELS[panel][0]) is not None]
        # The same style in each panel, though an earlier fit may have had no line in some of them.
        style = line_style(max(len(axes[panel].lines) for panel in axes), line_kw)
        style = {"label": self.name if name is None else name} | style
        self.axes_, self.lines_ = axes, {}
        self.figure_ = next(iter(axes.values())).figure
        for panel in drawn:
            attribute, ylabel = _PANELS[panel]
            y = getattr(self, attribute)
            # A warm start may go on without some of the curves.
            (self.lines_[panel],) = axes[panel].plot(over[: len(y)], y, **style)
            axes[panel].set(xlabel=_XLABELS[x], ylabel=ylabel)
            axes[panel].grid(alpha=0.3)
            if x == "epoch":
                axes[panel].xaxis.set_major_locator(MaxNLocator(integer=True))
        fullest = max(axes.values(), key=lambda ax: len(ax.lines))
        if fullest.get_legend_handles_labels()[1]:
            fullest.legend(fontsize="small")
        return self

    def _find_axes(self, ax, panels, plt):
        """The axes of each panel."""
        recorded = [p for p, (name, _) in _PANELS.items() if getattr(self, name) is not None]
        for panel in panels or []:
            if panel not in recorded:
                raise ValueError(
                    f"panels names {panel!r}, which is none of those that this fit has a curve "
                    f"for: {', '.join(map(repr, recorded))}."
                )
        if isinstance(ax, dict):
            shown = panels or [panel for panel in recorded if panel in ax]
            if not shown or any(panel not in ax for panel in shown):
                raise ValueError(
                    f"ax has axes for {', '.join(map(repr, ax))}, but these are to be drawn: "
                    f"{', '.join(map(repr, panels or recorded))}. Give axes by these names."
                )
            return {panel: ax[panel] for panel in (panels or [p for p in _PANELS if p in ax])}
        if ax is None:
            panels = list(panels or recorded)
            _, ax = plt.subplots(
                1, len(panels), figsize=(max(4 * len(panels), 5), 3.6), layout="constrained"
            )
        elif panels is None:
            panels = ["loss"] if np.size(ax) == 1 else recorded
        ax = np.ravel(ax)
        if len(ax) != len(panels):
            raise ValueError(
                f"ax holds {len(ax)} axes for {len(panels)} panels, "
                f"{', '.join(map(repr, panels))}: give one for each, or name the panels."
            )
        return dict(zip(panels, ax, strict=True))
