"""Rankings, and how two of the same rows become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

Ranking: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]  # labels, scores: (n, k) each


def side_by_side(
    labels: Sequence[np.ndarray], scores: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Rankings of the same rows as one, by ascending label.

    Returns labels and scores (n, m), from the second column on whether the label stands before it,
    too (n, m - 1), and the places that they had (n, m). A label is at most once in a ranking.
    """
    both = np.concatenate(labels, axis=1)
    order = np.argsort(both, axis=1, kind="stable")
    both = np.take_along_axis(both, order, 1)
    sums = np.take_along_axis(np.concatenate(scores, axis=1), order, 1)
    return both, sums, both[:, 1:] == both[:, :-1], order


def merged(
    ranking: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
    join: Callable[[np.ndarray, np.ndarray], np.ndarray],
    k: int,
) -> Ranking:
    """The k best of two rankings; `join` makes one score of the two of a label that both have.

    A label of -1 is none. Ties go to the label that the first ranking prefers.
    """
    labels, scores, twice, order = side_by_side(*zip(ranking, other, strict=True))  # (n, a + b)
    scores[:, :-1] = np.where(twice, join(scores[:, :-1], scores[:, 1:]), scores[:, :-1])
    scores[:, 1:][twice] = -np.inf
    scores[labels < 0] = -np.inf
    best = np.lexsort((order, -scores))[:, :k]
    found = np.take_along_axis(labels, best, 1), np.take_along_axis(scores, best, 1)
    return found[0], found[1].astype(np.float32)


def fuse(ranking: Ranking, other: Ranking, beta: float, k: int) -> Ranking:
    """Late fusion of two rankings, (labels, scores) each; the k best labels and their sums.

    The sum of beta times the sigmoid of the first ranking's score and 1 - beta times that of the
    other's, each over the row's highest; a label that a ranking lacks counts 0 there (LightDXML).
    Ties, as between sigmoids of 1, go to the label that the first ranking prefers.
    """
    parts = []
    for weight, (_, scores) in ((beta, ranking), (1 - beta, other)):
        share = log_expit(scores.astype(np.float64))  # logs: a row's highest may be -1,000
        share -= np.maximum(share[:, :1], np.finfo(np.float64).min)
        parts.append(weight * np.exp(share))
    return merged((ranking[0], parts[0]), (other[0], parts[1]), np.add, k)
