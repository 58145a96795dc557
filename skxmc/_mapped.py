"""Rows that lie on disk, mapped into memory: an order for training that the disk can follow."""

import mmap
from contextlib import contextmanager

import numpy as np

from skxmc._ends import Rows

RUN_BYTES = 2**19  # of consecutive rows, which are read as one
MIXED_BYTES = 2**26  # of runs whose rows are mixed: these, and the next ones, are in memory


def mapping(array):
    """The memory map that an array is a view of, and where in it the array begins; or None."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not len(array):
        return None
    first = np.frombuffer(base, np.uint8)
    return base, array.ctypes.data - first.ctypes.data


class MappedOrder:
    """The order in which training visits rows on disk.

    Rows at random would be a read from the disk each. Instead runs of consecutive rows are
    shuffled, and the rows of some hundred runs at a time are mixed, while the next ones are read.
    The order in which the rows lie is thereby forgotten, unless labels come in long stretches.
    """

    def __init__(self, X, maps):
        self.X, self._maps = X, maps
        row_bytes = max(1, 8 * len(X.indices) // X.shape[0])
        self.run = max(1, RUN_BYTES // row_bytes)
        self.mixed = max(1, MIXED_BYTES // row_bytes)

    @classmethod
    def of(cls, X):
        """For these rows; None where they are in memory, or so small that any order will do."""
        if not isinstance(X, Rows) or X.data is None or 8 * len(X.indices) <= 2 * MIXED_BYTES:
            return None
        maps = [mapping(X.indices), mapping(X.data)]
        return None if None in maps else cls(X, maps)

    def draw(self, rng):
        """All rows in the order of an epoch, (n_rows,) int64."""
        n_rows = self.X.shape[0]
        runs = rng.permutation(-(-n_rows // self.run))
        order = (runs[:, None] * self.run + np.arange(self.run)).ravel()
        order = order[order < n_rows]
        for start in range(0, n_rows, self.mixed):
            rng.shuffle(order[start : start + self.mixed])
        return order

    @contextmanager
    def reading(self, order, window=None):
        """While rows are visited in this order; gives `reach(i)`, to be called before order[i].

        The system would read much around each page, for rows that are not due: it is told not to,
        and which rows come after the next `window`, by default those that are mixed together.
        """
        window, asked = window or self.mixed, 0

        def reach(position):
            nonlocal asked
            while asked < len(order) and asked <= position + window:  # this window, and the next
                begin, asked = asked, asked + window  # by two threads at once: no harm
                rows = np.sort(order[begin : begin + window])
                gaps = np.flatnonzero(np.diff(rows) > 1)
                firsts, lasts = np.append(0, gaps + 1), np.append(gaps, len(rows) - 1)
                for first, last in zip(rows[firsts].tolist(), rows[lasts].tolist(), strict=True):
                    self._advise("MADV_WILLNEED", first, last + 1)

        self._advise("MADV_RANDOM")
        try:
            yield reach
        finally:
            self._advise("MADV_NORMAL")

    def _advise(self, advice, first=0, last=None):
        """Tell the system about these rows, or all."""
        advice = getattr(mmap, advice, None)  # not on Windows
        if advice is None:
            return
        n_rows, indptr = self.X.shape[0], self.X.indptr
        begin, end = indptr[first], indptr[n_rows if last is None else min(last, n_rows)]
        for (base, offset), array in zip(self._maps, (self.X.indices, self.X.data), strict=True):
            start, stop = (offset + int(at) * array.itemsize for at in (begin, end))
            page = start // mmap.PAGESIZE * mmap.PAGESIZE  # advice is for whole pages
            if stop > page:
                base.madvise(advice, page, stop - page)
