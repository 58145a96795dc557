"""Nearest labels by inner product: exact, or by an index of faiss or pynndescent.

`exact_topk` also ranks for prediction. All score labels as hidden . weights + bias.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TypeAlias

from skxmc._index._exact import ExactIndex, _topk_on_device, exact_topk, int8_is_fast
from skxmc._index._libraries import FaissIndex, PyNNDescentIndex, drop
from skxmc._index._rows import row_index
from skxmc._index._sketch import Sketch, SketchIndex

__all__ = [
    "INDEXES",
    "ExactIndex",
    "FaissIndex",
    "PyNNDescentIndex",
    "Sketch",
    "SketchIndex",
    "_topk_on_device",
    "check_index",
    "drop",
    "exact_topk",
    "int8_is_fast",
    "make_index",
    "row_index",
]

Index: TypeAlias = ExactIndex | FaissIndex | PyNNDescentIndex

_KINDS: dict[str, type[Index]] = {
    "exact": ExactIndex,
    "faiss": FaissIndex,
    "pynndescent": PyNNDescentIndex,
}
INDEXES = ("auto", *_KINDS)


def check_index(name: str) -> None:
    """Raise where the name is unknown or its library is missing, before any work is done."""
    if name not in INDEXES:
        raise ValueError(f"index={name!r} is unknown. Known are {', '.join(map(repr, INDEXES))}.")
    if name == "faiss" and importlib.util.find_spec("faiss") is None:
        raise ImportError("index='faiss' needs faiss: pip install 'skxmc[faiss]'.")


def make_index(
    name: str,
    n_labels: int,
    random_state: int = 0,
    n_threads: int = 1,
    log: Callable[[str], object] = lambda text: None,
) -> Index:
    """An index by name. "auto" is exact up to 100,000 labels, then faiss where it is installed.

    Exact look-ups cost more time than an index but end in better precision, since what an index
    misses are the hardest of negatives (docs, "choosing an index").
    """
    check_index(name)
    if name == "auto":
        name = "exact"
        if n_labels > 100_000:
            name = "faiss" if importlib.util.find_spec("faiss") else "pynndescent"
        log(f"index: {name}, chosen for {n_labels:,} labels")
    return _KINDS[name](random_state, n_threads)
