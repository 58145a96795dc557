"""SamplerComparisonDisplay: precision against fit time of the candidates of a search."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from ._plotting import describe_sampler, import_pyplot, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SamplerComparisonDisplay:
    """Score against fit time of several samplers, with the spread over folds.

    Make it with :meth:`from_cv_results` from a fitted search, or with :meth:`from_results` from
    the results of :func:`skxmc.model_selection.cross_validate`. All parameters are stored as
    attributes.

    Parameters
    ----------
    names : list of str
        What the legend calls the samplers.
    scores : array-like of shape (n_samplers,)
        Mean test score over the folds.
    score_stds : array-like of shape (n_samplers,)
        Its standard deviation over the folds.
    fit_seconds : array-like of shape (n_samplers,)
        Mean fit time over the folds.
    fit_stds : array-like of shape (n_samplers,)
        Its standard deviation over the folds.
    score_name : str, default="Test score"
        What the y-axis is called.

    Attributes
    ----------
    errorbars_ : list of matplotlib ErrorbarContainer
        A point with its bars for each sampler.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    TrainingDisplay : What happened in one fit, epoch by epoch.

    Notes
    -----
    The first fit of a process compiles, which may take longer than a small fit itself: fit once
    before a search whose times matter. Fits that run at the same time slow each other down.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.displays import SamplerComparisonDisplay
    >>> from skxmc.samplers import UniformSampler
    >>> X, Y = make_xmc(500, 1000, 50, random_state=0)
    >>> search = GridSearchCV(
    ...     XMCClassifier(hidden_layer_sizes=(16,), max_iter=2, n_jobs=1, random_state=0),
    ...     {"sampler": ["in-batch", UniformSampler(10)]},
    ...     cv=2,
    ... ).fit(X, Y)
    >>> display = SamplerComparisonDisplay.from_cv_results(search, score_name="P@1")
    >>> display.names
    ['in-batch', 'uniform(10)']
    """

    def __init__(
        self,
        names: Sequence[str],
        scores: Collection[float],
        score_stds: Collection[float],
        fit_seconds: Collection[float],
        fit_stds: Collection[float],
        *,
        score_name: str = "Test score",
    ):
        self.names = names
        self.scores = scores
        self.score_stds = score_stds
        self.fit_seconds = fit_seconds
        self.fit_stds = fit_stds
        self.score_name = score_name

    @classmethod
    def from_cv_results(
        cls,
        search: BaseEstimator | Mapping[str, Any],
        *,
        metric: str | None = None,
        names: Sequence[str] | None = None,
        score_name: str | None = None,
        ax: Axes | None = None,
        errorbar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the candidates of a fitted search.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or dict
            A fitted search, or its `cv_results_`. A candidate is called by its sampler, such as
            "mips(5)" for ``MIPSSampler(5)``, and by what else differs between the candidates.
        metric : str, default=None
            Which score of a multi-metric search to draw; None for the one of `refit`.
        names : list of str, default=None
            Names of the candidates, in the order of ``cv_results_["params"]``; None to make them
            of their parameters.
        score_name : str, default=None
            What the y-axis is called; None for the metric, or "Test score".
        ax : matplotlib Axes, default=None
            Axes to draw on; None for new ones.
        errorbar_kw : dict, default=None
            Options of matplotlib's `errorbar`.

        Returns
        -------
        SamplerComparisonDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        TypeError
            If `search` is no fitted search and no dict.
        ValueError
            If `metric` is needed or unknown, or `names` are not as many as candidates.
        """
        import_pyplot(cls.__name__)
        results = getattr(search, "cv_results_", search)
        try:
            params, seconds = list(results["params"]), results["mean_fit_time"]
        except (TypeError, KeyError, IndexError):
            raise TypeError(
                f"search is of type {type(search).__name__} and has no cv_results_ with 'params' "
                "and 'mean_fit_time': pass a fitted GridSearchCV, or its cv_results_."
            ) from None
        refit = getattr(search, "refit", None)
        if metric is None and isinstance(refit, str):
            metric = refit
        metric = _find_metric(metric, results, "mean_test_")
        names = _name_candidates(params) if names is None else list(names)
        if len(names) != len(params):
            raise ValueError(f"names has {len(names)} entries for {len(params)} candidates.")
        return cls(
            names,
            np.asarray(results[f"mean_test_{metric}"], dtype=float),
            np.asarray(results[f"std_test_{metric}"], dtype=float),
            np.asarray(seconds, dtype=float),
            np.asarray(results["std_fit_time"], dtype=float),
            score_name=_name_score(score_name, metric),
        ).plot(ax, errorbar_kw=errorbar_kw)

    @classmethod
    def from_results(
        cls,
        results: Mapping[str, Mapping[str, Any]],
        *,
        metric: str | None = None,
        score_name: str | None = None,
        ax: Axes | None = None,
        errorbar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw results of :func:`skxmc.model_selection.cross_validate`, or of scikit-learn's.

        Parameters
        ----------
        results : dict of str to dict
            By the name of each sampler what `cross_validate` returned: a dict of "fit_time" and
            "test_score" with an entry a fold.
        metric : str, default=None
            Which score to draw where there are several: "P@1" for "test_P@1".
        score_name : str, default=None
            What the y-axis is called; None for the metric, or "Test score".
        ax : matplotlib Axes, default=None
            Axes to draw on; None for new ones.
        errorbar_kw : dict, default=None
            Options of matplotlib's `errorbar`.

        Returns
        -------
        SamplerComparisonDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If `results` is no dict of such dicts or empty, or `metric` is needed or unknown.
        """
        import_pyplot(cls.__name__)
        if not isinstance(results, Mapping) or not results:
            raise ValueError(
                f"results={results!r} must be a dict of what cross_validate returns, by sampler."
            )
        for name, result in results.items():
            if not isinstance(result, Mapping) or "fit_time" not in result:
                raise ValueError(
                    f"results[{name!r}] has no 'fit_time': it must be what cross_validate returns."
                )
            metric = _find_metric(metric, result, "test_")
        scores = [np.asarray(result[f"test_{metric}"], float) for result in results.values()]
        seconds = [np.asarray(result["fit_time"], float) for result in results.values()]
        return cls(
            list(results),
            np.array([s.mean() for s in scores]),
            np.array([s.std() for s in scores]),
            np.array([s.mean() for s in seconds]),
            np.array([s.std() for s in seconds]),
            score_name=_name_score(score_name, metric),
        ).plot(ax, errorbar_kw=errorbar_kw)

    def plot(self, ax: Axes | None = None, *, errorbar_kw: dict[str, Any] | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None for new ones. The legend stands above them, for which a figure
            with ``layout="constrained"`` makes room.
        errorbar_kw : dict, default=None
            Options of matplotlib's `errorbar`, such as `{"capsize": 0}`.

        Returns
        -------
        SamplerComparisonDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        plt = import_pyplot("SamplerComparisonDisplay.plot")
        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.ax_, self.figure_, self.errorbars_ = ax, ax.figure, []
        points = zip(
            self.names, self.scores, self.score_stds, self.fit_seconds, self.fit_stds, strict=True
        )
        for name, score, score_std, seconds, fit_std in points:
            style = line_style(len(ax.containers), errorbar_kw)
            # A second round of the markers is hollow; no line between points.
            hollow = len(ax.containers) // 7 % 2 == 1
            style = {
                "label": name, "capsize": 3, "elinewidth": 1,
                "fillstyle": "none" if hollow else "full",
            } | style | {"linestyle": "none", "markersize": 7}  # fmt: skip
            self.errorbars_.append(ax.errorbar(seconds, score, score_std, fit_std, **style))
        ax.set(xlabel="Fit time (s)", ylabel=self.score_name)
        ax.grid(alpha=0.3)
        # Above: the names are long, and matplotlib's "best" place does not heed points.
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize="small")
        return self


def _find_metric(metric, results, prefix):
    """The metric asked for, or the only one there is."""
    known = [key.removeprefix(prefix) for key in results if key.startswith(prefix)]
    if metric is None and len(known) == 1:
        return known[0]
    if metric not in known:
        raise ValueError(
            f"metric={metric!r} must be one of those that were measured: "
            f"{', '.join(map(repr, known))}."
        )
    return metric


def _name_score(score_name, metric):
    if score_name is not None:
        return score_name
    return "Test score" if metric == "score" else metric


def _name_candidates(params):
    """A name for each: its sampler, and what else differs between the candidates."""
    texts = [{key: describe_sampler(value) for key, value in p.items()} for p in params]
    keys = dict.fromkeys(key for text in texts for key in text)
    differ = [key for key in keys if len({text.get(key) for text in texts}) > 1]
    # Where nothing differs, there is one candidate.
    keys = sorted(differ or keys, key=lambda key: not _is_sampler(key))
    return [
        ", ".join(
            text[key] if _is_sampler(key) else f"{key.rpartition('__')[2]}={text[key]}"
            for key in keys
            if key in text
        )
        for text in texts
    ]


def _is_sampler(key):
    return key.rpartition("__")[2] == "sampler"
