"""Checkpoints of a fit by several processes: a file of each one's rows, and a header beside them.

The header is a checkpoint as `_checkpoint.py` writes it, with the place of an array in the files
instead of an array that is divided. It is written last and by process 0, under the name of the one
before, so that there is a whole checkpoint at any time. Any number of processes goes on from it:
each reads the rows that are now its own, from whichever files hold them.
"""

from __future__ import annotations

import math
import os
import secrets
import warnings
from contextlib import suppress

import numpy as np

from skxmc._checkpoint import CheckpointFile, _read_json, decode
from skxmc._ranks import Ranks, Span
from skxmc.datasets._replace import replacing, sync_folder

_MAGIC = b"skxmc rows of one process\n"


class ShardedCheckpointFile(CheckpointFile):
    """As `CheckpointFile`, of all processes together: each calls each method.

    `spans`, which rows of the tables of "features" and "labels" are this process's, and `totals`,
    how many there are, are to be set before `load` and `save`.
    """

    spans: dict[str, Span]
    totals: dict[str, int]

    def __init__(self, checkpoint, ranks: Ranks):
        self._ranks, self._shards = ranks, None
        what = "open the checkpoint"
        with ranks.together(what):
            if ranks.rank == 0:
                super().__init__(checkpoint)
        with ranks.together(what):
            if ranks.rank:
                super().__init__(checkpoint)
        self._find_each_other()
        with ranks.together(what), self.naming():
            if self.epoch is not None:
                self._check_files()

    def _prepare_folder(self):
        if self._ranks.rank == 0:
            super()._prepare_folder()  # makes it, and removes what others might be writing

    def _find_each_other(self):
        """Raise where the folder is not the same for all."""
        folder = self.path.parent
        name = self._ranks.tell(f"probe.{secrets.token_hex(8)}.tmp")[0]
        with self._ranks.together("write to the folder of the checkpoint"):
            if self._ranks.rank == 0:
                (folder / name).write_bytes(b"?")
        found = self._ranks.tell((folder / name).exists())
        if self._ranks.rank == 0:
            (folder / name).unlink()
        if not all(found):
            raise ValueError(
                f"checkpoint: the folder {folder} is another one on process {found.index(False)} "
                "than on process 0. All must write to one folder, on a file system that they share."
            )

    # -- the files of rows -----------------------------------------------------------------------

    def _file(self, rank, token):
        return self.path.parent / f"rows-{token}-{rank}.bin"

    def _check_files(self):
        """Raise where a file of rows is missing, cut short or of another checkpoint."""
        with self._open() as arrays:
            state = _read_json(arrays)["state"]["dict"]
            self._shards = decode(state["shards"], arrays) if "shards" in state else None
        if self._shards is None:
            return  # of a fit by one process alone, which `check` refuses
        if not self._shards["token"].isalnum():
            raise ValueError(f"it names its parts {self._shards['token']!r}")
        start = _start(self._shards["token"])
        for rank in range(self._shards["size"]):
            path = self._file(rank, self._shards["token"])
            if not path.is_file():
                raise ValueError(f"its part {path.name} is missing")
            size = self._offsets(rank)[-1]
            with open(path, "rb") as file:
                if file.read(len(start)) != start:
                    raise ValueError(f"{path.name} is no part of it")
                if os.fstat(file.fileno()).st_size != size:
                    raise ValueError(f"{path.name} does not have the {size} bytes of its rows")

    def _offsets(self, rank):
        """Where each divided array begins in the file of a process, and where the file ends."""
        shards, at = self._shards, len(_start(self._shards["token"]))
        offsets = []
        for kind, tail in zip(shards["kinds"], shards["tails"], strict=True):
            offsets.append(at)
            at += 4 * len(Span.of(rank, shards["size"], shards["totals"][kind])) * math.prod(tail)
        return [*offsets, at]

    def _read(self, at):
        """The rows that are now this process's, of the divided array of this number."""
        shards = self._shards
        kind, tail = shards["kinds"][at], tuple(shards["tails"][at])
        if shards["totals"][kind] != self.totals[kind]:
            raise ValueError(f"it has {shards['totals'][kind]} {kind}, not {self.totals[kind]}")
        mine = self.spans[kind]
        out = np.empty((len(mine), *tail), np.float32)
        for rank in range(shards["size"]):
            span = Span.of(rank, shards["size"], shards["totals"][kind])
            first, last = max(mine.start, span.start), min(mine.stop, span.stop)
            if first < last:
                skipped = 4 * (first - span.start) * math.prod(tail)
                part = out[first - mine.start : last - mine.start]
                with open(self._file(rank, shards["token"]), "rb") as file:
                    file.seek(self._offsets(rank)[at] + skipped)
                    if file.readinto(memoryview(part).cast("B")) != part.nbytes:
                        raise ValueError(f"the part of process {rank} is cut short")
        return out

    # -- the whole -------------------------------------------------------------------------------

    def check(self, parameters, *args):
        """See `CheckpointFile.check`; a fit by one process alone is another."""
        with self._ranks.together("use the checkpoint"):
            return super().check({**parameters, "sharded": True}, *args)

    def load(self):
        """See `CheckpointFile.load`."""
        state = super().load()

        def read(value):
            return self._read(value["rows"]) if type(value) is dict else value

        members = ({**m, "tensors": [read(a) for a in m["tensors"]]} for m in state["members"])
        weights = state["weights"] and [
            [{name: read(a) for name, a in part.items()}, [read(a) for a in memory]]
            for part, memory in state["weights"]
        ]
        return {**state, "members": members, "weights": weights}

    def due(self, epoch):
        """Whether to write after so many epochs: as process 0 says, each has a clock of its own."""
        return self._ranks.tell(super().due(epoch))[0]

    def save(self, epoch, state):
        """See `CheckpointFile.save`: what fails in one process is a warning in all."""
        ranks, old = self._ranks, self._shards
        token = ranks.tell(secrets.token_hex(8))[0]
        state, arrays, kinds = self._divide(state)
        self._shards = {
            "token": token, "size": ranks.size, "kinds": kinds, "totals": self.totals,
            "tails": [list(array.shape[1:]) for array in arrays],
        }  # fmt: skip
        path = self._file(ranks.rank, token)
        error = None
        try:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                file.write(_start(token))
                for array in arrays:
                    file.write(memoryview(np.ascontiguousarray(array)).cast("B"))
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)
        except OSError as caught:
            error = str(caught)
        errors = [text for text in ranks.tell(error) if text]
        if not errors:
            if ranks.rank == 0:
                super().save(epoch, {**state, "shards": self._shards})  # warns if it fails
            saved = ranks.tell(self.epoch)[0]
        if errors or saved != epoch:
            path.unlink(missing_ok=True)
            self._shards = old
            if errors or ranks.rank:
                kept = f"that of epoch {self.epoch} stays" if self.epoch else "there is none yet"
                warnings.warn(
                    f"The checkpoint of epoch {epoch} could not be written to {path.parent}: "
                    f"{errors[0] if errors else 'see process 0'}. The fit goes on; {kept}.",
                    UserWarning,
                    stacklevel=6,
                )
            return
        self.epoch = epoch
        if ranks.rank == 0:
            self._clean(token)

    def _divide(self, state):
        """The state without the arrays that are divided; these, and of which table they are."""
        arrays: list[np.ndarray] = []
        kinds: list[str] = []

        def put(array, kind):
            undivided = self._ranks.size > 1 and len(self.spans[kind]) == self.totals[kind]
            if undivided or not len(array):
                return array  # a feature table that each process holds whole; or no biases
            arrays.append(array)
            kinds.append(kind)
            return {"rows": len(arrays) - 1}

        def put_tensors(tensors):
            tables = ["features"] * 4 + ["labels"] * 4  # as in `Trainer._tensors`
            rest = tensors[len(tables) :]
            return [*(put(a, k) for a, k in zip(tensors, tables, strict=False)), *rest]

        members = [{**m, "tensors": put_tensors(m["tensors"])} for m in state["members"]]
        weights = state["weights"] and [
            [
                {
                    **part,
                    "features": put(part["features"], "features"),
                    "labels": put(part["labels"], "labels"),
                    "label_biases": put(part["label_biases"], "labels"),
                },
                [put(a, k) for a, k in zip(memory, ("features", "labels", "labels"), strict=False)]
                + memory[3:],  # as in `Trainer.memory`
            ]
            for part, memory in state["weights"]
        ]
        return {**state, "members": members, "weights": weights}, arrays, kinds

    def remove(self):
        """The fit is over, and its folder left empty."""
        self._ranks.tell(None)  # the others may still read
        if self._ranks.rank == 0:
            super().remove()
            self._clean()
        self.epoch = None

    def _clean(self, token=None):
        """Remove files of rows that are of no checkpoint, or not of this."""
        for path in self.path.parent.glob("rows-*.bin*"):
            if token is None or not path.name.startswith(f"rows-{token}-"):
                with suppress(OSError):
                    path.unlink()


def _start(token):
    """How a file of rows begins."""
    return _MAGIC + token.encode()
