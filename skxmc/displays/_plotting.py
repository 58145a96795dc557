"""What the displays share: matplotlib when it is needed, styles, and what a wrapper holds."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from skxmc.samplers import SAMPLERS, Sampler, UnionSampler

_DASHES = ("-", "--", "-.", ":")
_MARKERS = "osD^vPX"  # seven and four have no common factor: 28 pairs before one returns


def import_pyplot(caller: str) -> ModuleType:
    """Return pyplot, or say what to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f'{caller} draws with matplotlib, which is missing: pip install "skxmc[plot]".'
        ) from error
    return plt


def line_style(i: int, line_kw: dict[str, Any] | None = None) -> dict[str, Any]:
    """How the i-th line of an axes looks; dash and marker tell it apart in black and white."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    style = {
        "color": f"C{i % 10}",
        "linestyle": _DASHES[i % len(_DASHES)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "markersize": 5,
    }
    # Aliases by their full names: matplotlib refuses "c" beside "color".
    return style | normalize_kwargs(line_kw or {}, Line2D)


def check_option(name: str, value: object, options: Iterable[str]) -> None:
    """Refuse a value that is not one of the options."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, options))}.")


def last_step(estimator: BaseEstimator, X: Any = None) -> tuple[BaseEstimator, Any]:
    """The classifier inside searches and pipelines, and X as it gets there."""
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, Pipeline):
            if X is not None and len(estimator) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        else:
            return estimator, X


def describe_sampler(sampler: str | Sampler) -> str:
    """A name as it is, and an object as short: "mips(5)+uniform(pool=9)"; others by their repr."""
    if isinstance(sampler, str):
        return sampler
    if isinstance(sampler, UnionSampler):
        return "+".join(describe_sampler(part) for part in (sampler.first, sampler.second))
    text = " ".join(repr(sampler).split())
    for name, kind in SAMPLERS.items():
        if type(sampler) is kind:
            text = name + text.removeprefix(kind.__name__).replace("(n_negatives=", "(")
            return text.removesuffix("()")
    return text
