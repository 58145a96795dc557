"""Exact search: blocked products of 8-bit integers where they are fast, rescored in float32."""

from __future__ import annotations

import functools
import time
import warnings
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skxmc._ends import Rows, entries
from skxmc._index._codes import products
from skxmc._lazy import torch
from skxmc._threads import blocks, for_each, over_rows

_ROWS, _LABELS = 256, 2048  # of a block of scores: 2 MB
_ENOUGH = 256  # rows of a first search from which 8-bit label vectors are worth their making


class ExactIndex:
    """Every label is scored, in 8 bits where the processor is fast at it; the best once more."""

    def __init__(self, random_state: int = 0, n_threads: int = 1):
        self.random_state = random_state
        self.n_threads = n_threads

    def build(self, weights: torch.Tensor, biases: torch.Tensor | None = None) -> Self:
        """Take over the label weights (L, H), which must not move while the index is used."""
        biases = weights.new_zeros(len(weights)) if biases is None else biases
        self._weights, self._biases = weights.contiguous(), biases.contiguous()
        self._searched, self._encoded = False, None
        return self

    def search(
        self,
        hidden: torch.Tensor,
        k: int,
        exclude: Rows | None = None,
        rows: np.ndarray | None = None,
    ) -> NDArray[np.int32]:
        """Labels of the k highest scores for each hidden vector, best first, -1 where none is left.

        Parameters
        ----------
        hidden : Tensor of shape (n, H)
        k : int
        exclude : Rows, optional
            Label lists of all rows: labels of the row itself are not returned.
        rows : ndarray of shape (n,), optional
            Which rows of `exclude` these are.

        Returns
        -------
        ndarray of shape (n, k), int32
        """
        return self.topk(hidden, k, exclude, rows)[1]

    def topk(
        self,
        hidden: torch.Tensor,
        k: int,
        exclude: Rows | None = None,
        rows: np.ndarray | None = None,
        n_threads: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """As `search`, with the scores: (n, k) float32 and (n, k) int32; see `exact_topk`."""
        if hidden.device.type != "cpu":
            return _topk_on_device(hidden, self._weights, self._biases, k, exclude, rows)
        from skxmc._index import _kernels

        table, label_terms = self._encode(len(hidden))
        hidden = hidden.contiguous()
        best = np.full((len(hidden), k), -np.inf, np.float32)
        labels = np.full((len(hidden), k), -1, np.int32)
        none = np.empty(0, np.int64)
        # indptr, indices, rows
        own = (none, none.astype(np.int32), none)
        if exclude is not None:
            own = (exclude.indptr, exclude.indices, np.ascontiguousarray(rows, np.int64))
        weights, biases = self._weights.numpy(), self._biases.numpy()

        def rank(block):
            queries, codes, terms = _encode_queries(hidden[block], table is not None)
            n = len(queries)
            state = _state(n, 4 * k + 32)
            found = best[block], labels[block]
            mine = own if exclude is None else (*own[:2], own[2][block])
            pair = (queries, self._weights) if codes is None else (codes, table)
            for columns, part in products(*pair, _LABELS):
                _kernels.select(
                    part, columns.start, terms, label_terms, mine,
                    queries.numpy(), weights, biases, state, found,
                )  # fmt: skip
            _kernels.finish(queries.numpy(), weights, biases, state, found)

        over_rows(rank, len(hidden), _ROWS, n_threads or self.n_threads)
        return best, labels

    def topk_among(
        self,
        hidden: torch.Tensor,
        candidates: NDArray[np.int32],
        counts: NDArray[np.int64],
        k: int,
        n_threads: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """As `topk`, of each row's own candidates (n, m) only, of which counts (n,) are given."""
        from skxmc._index import _kernels, _sketch_kernels

        table, label_terms = self._encode(len(hidden))
        hidden = hidden.contiguous()
        best = np.full((len(hidden), k), -np.inf, np.float32)
        labels = np.full((len(hidden), k), -1, np.int32)
        weights, biases = self._weights.numpy(), self._biases.numpy()
        none = np.empty((0, weights.shape[1]), np.int8)
        label_codes = none if table is None else table.numpy()

        def rank(block):
            queries, codes, terms = _encode_queries(hidden[block], table is not None)
            state = _state(len(queries), candidates.shape[1])
            own = none if codes is None else codes.numpy()
            part = candidates[block], counts[block]
            _sketch_kernels.note(*part, own, terms, label_codes, label_terms, state, k)
            found = best[block], labels[block]
            _kernels.finish(queries.numpy(), weights, biases, state, found)

        over_rows(rank, len(hidden), _ROWS, n_threads or self.n_threads)
        return best, labels

    def _encode(self, n):
        """The 8-bit label vectors, or None, and the terms of the labels.

        The codes are made once they will pay: a fifth more memory than the weights. That is in a
        search of many rows, or in a second search. What is found does not depend on it. Both are
        kept as one, since others may search at the same time.
        """
        wanted = (n >= _ENOUGH or self._searched) and int8_is_fast()
        self._searched = True
        if (kept := self._encoded) is not None and (kept[0] is not None or not wanted):
            return kept
        from skxmc._index import _kernels

        weights, biases = self._weights.numpy(), self._biases.numpy()
        codes = np.empty((len(weights) if wanted else 0, weights.shape[1]), np.int8)
        terms = np.empty((6, len(weights)), np.float32)

        def encode(block):
            part = np.empty((6, block.stop - block.start), np.float32)
            _kernels.encode_labels(weights[block], biases[block], codes[block], part)
            terms[:, block] = part

        for_each(encode, blocks(len(weights), 16384), self.n_threads)
        self._encoded = kept = torch.from_numpy(codes) if wanted else None, terms
        return kept


def _encode_queries(hidden, coded):
    """The hidden vectors, their codes (None for a float32 product) and their terms."""
    from skxmc._index import _kernels

    codes = np.empty((len(hidden) if coded else 0, hidden.shape[1]), np.int8)
    terms = np.empty((len(hidden), 4), np.float32)
    _kernels.encode_queries(hidden.numpy(), codes, terms)
    return hidden, torch.from_numpy(codes) if coded else None, terms


def _state(n, room):
    """Of n rows thresholds, counts, and room for labels noted until they are rescored."""
    return (
        np.full(n, -np.inf, np.float32), np.zeros(n, np.int64),
        np.empty((n, room), np.int32), np.empty((n, room), np.float32),
        np.empty((n, room), np.float32),
    )  # fmt: skip


@functools.cache
def int8_is_fast() -> bool:
    """Whether torch multiplies 8-bit integers here, without error and faster than float32.

    Its function is not a public one, and only processors with instructions for it gain.
    """
    codes = torch.full((_ROWS, 256), 127, dtype=torch.int8)
    table = torch.full((2048, 256), -127, dtype=torch.int8)
    floats, float_table = codes.float(), table.float()
    out, float_out = torch.empty(_ROWS, 2048, dtype=torch.int32), torch.empty(_ROWS, 2048)
    seconds = []

    def compare(_):
        start = time.perf_counter()
        torch._int_mm(codes, table.T, out=out)
        middle = time.perf_counter()
        torch.mm(floats, float_table.T, out=float_out)
        seconds.append((middle - start, time.perf_counter() - middle))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a slow way, if it is all that torch has
            for_each(compare, range(6), 1)
    except (AttributeError, RuntimeError):
        return False
    exact = (out == -(127**2) * 256).all()  # processors without such instructions may overflow
    eight, thirty_two = (min(column) for column in zip(*seconds, strict=True))
    return bool(exact) and eight < thirty_two


def exact_topk(
    hidden: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    k: int,
    n_threads: int = 1,
    exclude: Rows | None = None,
    rows: np.ndarray | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The k best labels of each hidden vector and their scores, never an n x L matrix.

    Parameters
    ----------
    hidden : Tensor of shape (n, H)
    weights : Tensor of shape (L, H)
    biases : Tensor of shape (L,)
    k : int
    n_threads : int
    exclude, rows
        As in `ExactIndex.search`.

    Returns
    -------
    scores : ndarray of shape (n, k), float32
        Best first; minus infinity where no label is left.
    labels : ndarray of shape (n, k), int32
        Ties go to the lower index; -1 where no label is left.
    """
    index = ExactIndex(n_threads=n_threads).build(weights, biases)
    return index.topk(hidden, k, exclude, rows)


def _topk_on_device(hidden, weights, biases, k, exclude, rows, step=2**26):
    """The same on a GPU, where one product over all labels is cheap."""
    n_labels = len(weights)
    fetch = min(n_labels, k + 1)  # one more, to see ties across the border
    best = np.full((len(hidden), k), -np.inf, np.float32)
    labels = np.full((len(hidden), k), -1, np.int32)
    for block in blocks(len(hidden), max(1, step // n_labels)):
        scores = torch.addmm(biases, hidden[block], weights.T)  # (B, L)
        if exclude is not None:
            row, at = entries(exclude, rows[block])
            own = torch.from_numpy(exclude.indices[at]).long()
            scores[torch.from_numpy(row), own] = -np.inf
        top, at = scores.topk(fetch)
        if fetch > k:
            tied = (top[:, k - 1] == top[:, k]).nonzero()[:, 0]
            if len(tied):  # topk may keep any of them; a stable sort keeps the lower index
                values, order = scores[tied].sort(descending=True, stable=True)
                top[tied], at[tied] = values[:, :fetch], order[:, :fetch]
        n = min(k, fetch)
        top, at = top[:, :n].cpu().numpy(), at[:, :n].cpu().numpy()
        order = np.lexsort((at, -top))
        best[block, :n] = np.take_along_axis(top, order, 1)
        labels[block, :n] = np.take_along_axis(at, order, 1)
    labels[np.isneginf(best)] = -1
    return best, labels
