"""Approximate search: all labels by a sketch of their vectors, the best of them exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skxmc._axes import leading_axes
from skxmc._ends import Rows
from skxmc._index._codes import encode, encode_queries, products
from skxmc._index._exact import ExactIndex, int8_is_fast
from skxmc._lazy import torch
from skxmc._threads import apart, blocks, for_each, over_rows

MANY_LABELS = 2**14  # fewer are scored exactly in no more time
_WIDE = 256  # numbers of a label vector: shorter ones likewise
_FEWEST = 64  # labels of a shortlist
_PER_WANTED = 16  # of them at least for each label wanted
_SHARE = 64  # of a 64th of the labels, or more, all are scored
_PART = 4  # a sketch has a quarter of the numbers
_LEAST = 64  # numbers of a sketch
_SAMPLE = 2**15  # labels that the axes are found by
_ROWS, _PRODUCTS = 256, 2**19  # of a block: 2 MB


class Sketch:
    """Label vectors (L, H) along the leading axes of their table, 8 bits a number.

    Scores of labels are products with hidden vectors, most of which lies where label vectors are
    long: by a quarter of the numbers 98 to 99.9 % of the five best are in a shortlist.
    """

    def __init__(self, weights: torch.Tensor, n_threads: int = 1):
        n_labels, width = weights.shape
        n_axes = max(_LEAST, width // _PART)

        def find():
            some = torch.nn.functional.normalize(weights[:: -(-n_labels // _SAMPLE)])
            some.nan_to_num_(0, 0, 0)
            # The axes of the second moments are those of the vectors.
            return leading_axes(some.T @ some, n_axes, np.random.default_rng(0), 8)

        self.axes = apart(find)
        codes, self.scales = np.empty((n_labels, n_axes), np.int8), np.empty(n_labels, np.float32)

        def draw(block):
            codes[block], self.scales[block] = encode(weights[block] @ self.axes)

        for_each(draw, blocks(n_labels, 16384), n_threads)
        self.codes = torch.from_numpy(codes)
        if not int8_is_fast():
            self.codes = apart(self.codes.float)

    @staticmethod
    def pays(n_labels: int, width: int) -> bool:
        """Whether all labels are scored in more time than by a sketch."""
        return n_labels >= MANY_LABELS and width >= _WIDE


class SketchIndex(ExactIndex):
    """Exact search among the labels that are best by their sketches.

    It is exact search where labels are few or many are wanted, and on a GPU.
    """

    def __init__(self, sketch: Sketch | None, random_state: int = 0, n_threads: int = 1):
        super().__init__(random_state, n_threads)
        self._sketch = sketch

    @property
    def approximates(self) -> bool:
        """Whether it ever does."""
        return self._sketch is not None

    def topk(
        self,
        hidden: torch.Tensor,
        k: int,
        exclude: Rows | None = None,
        rows: np.ndarray | None = None,
        n_threads: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """As `ExactIndex.topk`."""
        n_labels = len(self._weights)
        wanted = max(_FEWEST, round(0.6 * n_labels**0.5), _PER_WANTED * k)
        whole = self._sketch is None or exclude is not None or hidden.device.type != "cpu"
        if whole or _SHARE * wanted > n_labels:
            return super().topk(hidden, k, exclude, rows, n_threads)
        scores = np.empty((len(hidden), k), np.float32)
        labels = np.empty((len(hidden), k), np.int32)

        def find(block):
            part = hidden[block]
            shortlist = self._shortlist(part, wanted)
            scores[block], labels[block] = self.topk_among(part, *shortlist, k, 1)

        over_rows(find, len(hidden), _ROWS, n_threads or self.n_threads)
        return scores, labels

    def _shortlist(self, hidden, wanted):
        """The labels that are best by sketch: (n, m), and how many they are, (n,)."""
        from skxmc._index import _sketch_kernels

        sketch, n = self._sketch, len(hidden)
        codes, query_scales = encode_queries(hidden @ sketch.axes)
        queries = torch.from_numpy(codes).to(sketch.codes.dtype)
        room = 4 * wanted
        thresholds = np.full(n, -np.inf, np.float32)
        state = thresholds, np.empty((n, room), np.int32), np.empty((n, room), np.float32)
        counts = np.zeros(n, np.int64)
        for labels, part in products(queries, sketch.codes, _PRODUCTS // max(1, n)):
            _sketch_kernels.note_best(
                part, labels.start, query_scales, sketch.scales[labels],
                self._biases[labels].numpy(), wanted, counts, *state,
            )  # fmt: skip
        candidates = np.empty((n, wanted + wanted // 8), np.int32)
        _sketch_kernels.keep_best(counts, *state[1:], wanted, candidates)
        return candidates, counts
