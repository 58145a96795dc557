"""Nearest labels by inner product: exact, or by an index of faiss or pynndescent.

`exact_topk` also ranks for prediction. All score labels as hidden . weights + bias.
"""

import importlib.util

from skxmc._index._exact import ExactIndex, _topk_on_device, exact_topk, int8_is_fast
from skxmc._index._libraries import FaissIndex, PyNNDescentIndex, drop

__all__ = [
    "INDEXES",
    "ExactIndex",
    "FaissIndex",
    "PyNNDescentIndex",
    "_topk_on_device",
    "check_index",
    "drop",
    "exact_topk",
    "int8_is_fast",
    "make_index",
]

INDEXES = ("auto", "exact", "faiss", "pynndescent")


def check_index(name):
    """Raise where the name is unknown or its library is missing, before any work is done."""
    if name not in INDEXES:
        raise ValueError(f"index={name!r} is unknown. Known are {', '.join(map(repr, INDEXES))}.")
    if name == "faiss" and importlib.util.find_spec("faiss") is None:
        raise ImportError("index='faiss' needs faiss: pip install 'skxmc[faiss]'.")


def make_index(name, n_labels, random_state=0, n_threads=1, log=lambda text: None):
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
    made = {"exact": ExactIndex, "faiss": FaissIndex, "pynndescent": PyNNDescentIndex}[name]
    return made(random_state, n_threads)
