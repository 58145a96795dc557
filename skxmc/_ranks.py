"""The processes that train one model together, and what they say to each other."""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skxmc._lazy import torch


class Span(NamedTuple):
    """Rows of a table: from `start` up to `stop`."""

    start: int
    stop: int

    @classmethod
    def of(cls, rank: int, size: int, n: int) -> Span:
        """The part of n rows that a process holds: about as many as each other's."""
        return cls(n * rank // size, n * (rank + 1) // size)

    def __len__(self):
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        """To index an array with."""
        return slice(self.start, self.stop)


class Ranks:
    """A process among those of one fit. Every method that exchanges is to be called by all.

    CPU tensors and objects travel by gloo, tensors of a GPU by the default backend. Alone, nothing
    is exchanged, and torch.distributed is not needed.
    """

    def __init__(self, rank=0, size=1, timeout=None, control=None, data=None):
        self.rank, self.size, self.timeout = rank, size, timeout
        self._control, self._data = control, data
        self.where, self.remedy = "", ""  # for messages: what is going on, and what helps
        self.n_bytes = self.n_calls = 0  # of tensors that were summed or gathered so far

    @classmethod
    def join(cls, timeout: float, device: str) -> Ranks:
        """Meet the others, where torchrun or the caller's process group says that there are any.

        RuntimeError where they do not come within `timeout` seconds.
        """
        distributed = importlib.import_module("torch.distributed")
        started = distributed.is_available() and distributed.is_initialized()
        wanted = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
        if not started and wanted == 1:
            return cls()
        limit = timedelta(seconds=timeout)
        try:
            if not started:
                # Else a lost process would end the others by a signal, with no message of ours.
                os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
                # Programs need some time to start, whatever the limit of an answer.
                _meet("gloo" if device == "cpu" else "nccl", max(limit, timedelta(minutes=5)))
                atexit.register(_leave)
            rank, size = distributed.get_rank(), distributed.get_world_size()
            if size == 1:
                return cls()
            key = timeout, device == "cpu", id(distributed.group.WORLD)
            if key not in _GROUPS:
                control = distributed.new_group(backend="gloo", timeout=limit)
                data = control
                if device != "cpu" and distributed.get_backend() != "gloo":
                    data = distributed.new_group(timeout=limit)
                _GROUPS[key] = control, data
            return cls(rank, size, timeout, *_GROUPS[key])
        except RuntimeError as error:
            raise RuntimeError(
                f"Process {os.environ.get('RANK', '?')} could not meet the others: some have not "
                f"started, or ended at once. (torch.distributed: {error})"
            ) from error

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def span(self, n: int) -> Span:
        """Which of n rows this process holds."""
        return Span.of(self.rank, self.size, n)

    # -- exchange ------------------------------------------------------------------------------

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all processes, in place: the same bits for each of them."""
        if not self.alone:
            self.n_bytes += tensor.nbytes
            self.n_calls += 1
            with self._watching() as distributed:
                distributed.all_reduce(tensor, group=self._data)
        return tensor

    def gather(self, array: np.ndarray) -> NDArray[Any]:
        """Arrays of one shape and dtype, (size, ...)."""
        if self.alone:
            return array[None]
        mine = torch.from_numpy(np.ascontiguousarray(array))
        out = [torch.empty_like(mine) for _ in range(self.size)]
        self.n_bytes += mine.nbytes
        self.n_calls += 1
        with self._watching() as distributed:
            distributed.all_gather(out, mine, group=self._control)
        return np.stack([one.numpy() for one in out])

    def tell(self, value: Any) -> list[Any]:
        """What each process has to say: numbers, texts, tuples."""
        if self.alone:
            return [value]
        out = [None] * self.size
        with self._watching() as distributed:
            distributed.all_gather_object(out, value, group=self._control)
        return out

    def pieces(self, array: np.ndarray, n_bytes: int = 2**26) -> Iterator[np.ndarray]:
        """All processes' rows of a table, in order and in pieces, for process 0 alone.

        The others send theirs; for them there is nothing to go through, but they must do it.
        """
        lengths = self.tell(len(array))
        step = max(1, n_bytes // max(1, array[:1].nbytes))
        for owner, length in enumerate(lengths):
            for start in range(0, length, step):
                n = min(step, length - start)
                if owner == 0:
                    if self.rank == 0:
                        yield array[start : start + n]
                    continue
                with self._watching() as distributed:
                    if self.rank == owner:
                        piece = np.ascontiguousarray(array[start : start + n])
                        distributed.send(torch.from_numpy(piece), 0, group=self._control)
                    elif self.rank == 0:
                        piece = np.empty((n, *array.shape[1:]), array.dtype)
                        distributed.recv(torch.from_numpy(piece), owner, group=self._control)
                if self.rank == 0:
                    yield piece

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """Work of each process alone, after which an error of one of them is an error of all."""
        error = None
        try:
            yield
        except Exception as caught:
            error = caught
        found = self.tell(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(found):
            if text is not None:
                raise RuntimeError(f"Process {rank} of {self.size} could not {what}. {text}")

    def agree(self, values: dict[str, Any], remedy: str) -> None:
        """ValueError where the processes have other values of something, by its name."""
        found = self.tell(values)
        for name in found[0]:
            for rank, other in enumerate(found):
                if other.get(name) != found[0][name]:
                    raise ValueError(
                        f"{name} differs between process 0 ({found[0][name]}) and process {rank} "
                        f"({other.get(name)}). {remedy}"
                    )

    @contextmanager
    def _watching(self):
        try:
            yield importlib.import_module("torch.distributed")
        except RuntimeError as error:
            where = f" {self.where}" if self.where else ""
            raise RuntimeError(
                f"Process {self.rank} of {self.size} has lost the others{where}: one has ended, or "
                f"not answered for {self.timeout:g} seconds. {self.remedy} "
                f"(torch.distributed: {error})"
            ) from error


def _meet(backend, limit):
    """Make the default process group.

    After a restart torchrun keeps the store in which processes find each other, with the addresses
    of those that have ended: each start has names of its own in it.
    """
    distributed = importlib.import_module("torch.distributed")
    rendezvous = importlib.import_module("torch.distributed.rendezvous").rendezvous
    store, rank, size = next(rendezvous("env://", timeout=limit))
    store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)


def _leave():
    distributed = importlib.import_module("torch.distributed")
    if distributed.is_initialized():
        with suppress(RuntimeError):
            distributed.destroy_process_group()


_GROUPS: dict[tuple, tuple] = {}  # by timeout, device and default group: making one takes time
