"""Rows that lie on disk, mapped into memory: an order for training that the disk can follow."""

import ctypes
import functools
import mmap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from skxmc._ends import Rows

RUN_BYTES = 2**19  # of consecutive rows, which are read as one
MIXED_BYTES = 2**26  # of runs whose rows are mixed: these, and the next ones, are in memory
CALL_BYTES = 2**17  # that one call asks for: Linux reads no more of it than a disk's read-ahead
GAP_BYTES = 2**15  # between two rows, up to which all that is between them is read, too


@functools.cache
def _libc():
    """For its `madvise`: that of the module `mmap` would stop all threads of Python meanwhile."""
    return ctypes.CDLL(None)


def is_mapped(array):
    """Whether an array is a view of a memory map."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


class MappedOrder:
    """The order in which training visits rows on disk.

    Rows at random would be a read from the disk each. Instead runs of consecutive rows are
    shuffled, and the rows of some hundred runs at a time are mixed, while the next ones are read.
    The order in which the rows lie is thereby forgotten, unless labels come in long stretches.
    """

    def __init__(self, X):
        self.X = X
        row_bytes = max(1, 8 * len(X.indices) // X.shape[0])
        self.run = max(1, RUN_BYTES // row_bytes)
        self.mixed = max(1, MIXED_BYTES // row_bytes)
        self.gap = max(1, GAP_BYTES // row_bytes)

    @classmethod
    def of(cls, X):
        """For these rows; None where they are in memory, or so small that any order will do."""
        if not isinstance(X, Rows) or X.data is None or 8 * len(X.indices) <= 2 * MIXED_BYTES:
            return None
        return cls(X) if is_mapped(X.indices) and is_mapped(X.data) else None

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
        and which rows come after the next `window`, by default those that are mixed together. A
        thread tells it, since that takes as long as the disk is behind.
        """
        window, asked, lock = window or self.mixed, [], threading.Lock()

        def ask(begin):
            rows = np.sort(order[begin : begin + window])
            gaps = np.flatnonzero(np.diff(rows) > self.gap)
            firsts, lasts = np.append(0, gaps + 1), np.append(gaps, len(rows) - 1)
            for first, last in zip(rows[firsts].tolist(), rows[lasts].tolist(), strict=True):
                self._advise("MADV_WILLNEED", first, last + 1)

        def reach(position):
            with lock:
                while (begin := len(asked) * window) < min(position + 2 * window, len(order)):
                    asked.append(reader.submit(ask, begin))  # this window, and the next
            if position < len(order):
                asked[position // window].result()

        self._advise("MADV_RANDOM")
        with ThreadPoolExecutor(1, "skxmc-reader") as reader:
            try:
                yield reach
            finally:
                reader.shutdown(cancel_futures=True)
                self._advise("MADV_NORMAL")

    def _advise(self, advice, first=0, last=None):
        """Tell the system about these rows, or all."""
        advice = getattr(mmap, advice, None)  # not on Windows
        if advice is None:
            return
        n_rows, indptr = self.X.shape[0], self.X.indptr
        begin, end = indptr[first], indptr[n_rows if last is None else min(last, n_rows)]
        for array in (self.X.indices, self.X.data):
            start, stop = (array.ctypes.data + int(at) * array.itemsize for at in (begin, end))
            page = start // mmap.PAGESIZE * mmap.PAGESIZE  # advice is for whole pages
            step = CALL_BYTES if advice == mmap.MADV_WILLNEED else max(1, stop - page)
            for at in range(page, stop, step):
                size = min(step, stop - at)
                _libc().madvise(ctypes.c_void_p(at), ctypes.c_size_t(size), advice)
