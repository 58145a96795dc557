"""Threads of our own, each with a single-threaded torch; the caller's settings stay as they are."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from skxmc._lazy import torch


def count_threads(n_jobs: int | None, n_rows: int, n_enough: int) -> int:
    """Resolve `n_jobs`: None is as many as the process may use, one where the data is small.

    torch's own count respects OMP_NUM_THREADS and so the limits that joblib sets in its workers.
    """
    if n_jobs is None:
        return torch.get_num_threads() if n_rows >= n_enough else 1
    if n_jobs < 0:
        return max(1, (os.cpu_count() or 1) + 1 + n_jobs)
    return n_jobs


_AWAKE = 0.1  # seconds after which who waits for threads wakes
FEW_ROWS = 16  # of which the work is done sooner than a thread is started


def for_each(work: Callable[[Any], object], items: Iterable[Any], n_threads: int) -> None:
    """Call work(item) for each item, drawn in order by the threads; the first error is raised.

    `items` may be any iterable; a thread takes the next item when it is free. An interrupt or an
    error stops the others after the item that they hold.
    """
    items = iter(items)
    if n_threads == 1 and hasattr(_OURS, "default"):  # one of our threads, at work for another call
        for item in items:
            work(item)
        return
    lock = threading.Lock()
    stop = threading.Event()

    def draw():
        with lock:
            return next(items, _END)

    def drain():
        _OURS.default = default
        torch.get_num_threads()  # a thread's first call takes over the default: let that be past
        torch.set_num_threads(1)  # of this thread, but also the default of threads to come
        ready.wait()
        try:
            while not stop.is_set() and (item := draw()) is not _END:
                work(item)
        except BaseException:
            stop.set()
            raise

    ready = threading.Barrier(n_threads + 1)
    with ThreadPoolExecutor(n_threads) as pool:
        with _STARTING:
            default = getattr(_OURS, "default", None) or torch.get_num_threads()
            futures = [pool.submit(drain) for _ in range(n_threads)]
            ready.wait()
            _restore(default)
        try:
            for future in futures:
                _result(future)
        finally:
            stop.set()


def _result(future):
    """The future's result. Waking now and then, a main thread hears Ctrl-C that another was told.

    So it may be on a busy machine; and on Windows who waits for a lock does not hear it at all.
    """
    while True:
        try:
            return future.result(_AWAKE)
        except TimeoutError:
            if future.done():  # its own, or it came just now
                return future.result()


def over_rows(work: Callable[[slice], object], n: int, size: int, n_threads: int) -> None:
    """Call work(block) for blocks of n rows, by the threads; for few rows once, in this one."""
    if n <= FEW_ROWS:
        work(slice(0, n))
    else:
        for_each(work, blocks(n, size), n_threads)


def apart(work: Callable[[], Any]) -> Any:
    """Return work(), called in a thread of ours, which ends with it."""
    done: list[Any] = []
    for_each(lambda _: done.append(work()), [None], 1)
    return done[0]


def alone(work: Callable[[], Any]) -> Any:
    """Return work(), called in a kept thread of ours: for what is done sooner than one is started.

    In the caller's thread torch would share out even a single row's work, and wait for a busy core.
    """
    if hasattr(_OURS, "default"):
        return work()
    pid = os.getpid()
    if pid not in _KEPT:  # threads do not survive a fork
        _KEPT.clear()
        _KEPT[pid] = ThreadPoolExecutor(os.cpu_count() or 1, "skxmc", initializer=_begin_alone)
    return _KEPT[pid].submit(work).result()


def _begin_alone():
    with _STARTING:
        default = torch.get_num_threads()
        torch.set_num_threads(1)
        _restore(default)
    _OURS.default = default


def _restore(default):
    """Put torch's default back, which one of our threads has changed for itself and new threads."""
    restore = threading.Thread(target=torch.set_num_threads, args=(default,))
    restore.start()  # a thread of its own, since it would be the caller's too
    restore.join()


_END = object()
_KEPT: dict[int, ThreadPoolExecutor] = {}  # by process
_OURS = threading.local()  # in our threads: the default that they found
_STARTING = threading.Lock()  # so that nobody takes another caller's momentary 1 for the default


def blocks(n: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover range(n)."""
    edges = itertools.chain(range(0, n, size), [n])
    return [slice(a, b) for a, b in itertools.pairwise(edges)] if n else []
