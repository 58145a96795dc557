"""The classifier as one of several processes has it, and how they write it as one file."""

from __future__ import annotations

import json
import math
import os
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from skxmc._checkpoint import _hash
from skxmc._classifier import XMCClassifier
from skxmc._ends import Rows
from skxmc._ensemble import spread
from skxmc._fitted import NO_NEIGHBORS
from skxmc._index import ExactIndex
from skxmc._inputs import find_device
from skxmc._predictor import UNSEEN, Kept, Predictor
from skxmc._ranks import Ranks
from skxmc._sharded_checkpoint import ShardedCheckpointFile
from skxmc._shards import Shards
from skxmc._threads import count_threads
from skxmc.datasets._replace import replacing
from skxmc.persistence import Elsewhere, contents


class Part(XMCClassifier):
    """The classifier as one process has it. Its tables are a block of their rows."""

    _holds_interrupts = False  # processes would stop at different steps
    ranks: Ranks
    shards: Shards
    index_threads: int | None  # of rankings
    _saved = None

    def _open_checkpoint(self):
        self._saved = ShardedCheckpointFile(self.checkpoint, self.ranks)
        return self._saved

    def _place(self, X, Y, seen):
        arrays = (X.indptr, X.indices, X.data) if isinstance(X, Rows) else (X,)
        self.ranks.agree(
            {
                "X": f"shape {X.shape}, hash {' '.join(map(_hash, arrays))}",
                "y": f"shape {Y.shape}, hash {_hash(Y)}",
            },
            "Pass the same data in each process.",
        )
        split = isinstance(X, Rows)
        self.shards = Shards(self.ranks, X.shape[1], seen, Y.shape[1], split)
        if self._saved is not None:
            shards = self.shards
            self._saved.spans = {"features": shards.feature_span, "labels": shards.label_span}
            self._saved.totals = {"features": X.shape[1], "labels": len(seen)}
        return self.shards

    def _store(self, ensemble, seen):
        shards = self.shards
        self._memory = ensemble.memory(shards.own, shards.n_final)
        weights = ensemble.finish(shards.own)
        self.feature_weights_, self.label_weights_ = weights.features, weights.labels
        self.label_biases_ = spread(weights.label_biases, shards.own, shards.n_final, UNSEEN)
        self.hidden_weights_, self.hidden_biases_ = weights.hidden, weights.hidden_biases
        self.residual_, self.label_embeddings_, self.shortlist_size_ = weights.residual, None, None
        vars(self).update(NO_NEIGHBORS)
        self._kept = Kept()

    def _predictor(self, X, tail_bias=0.0):
        return replace(super()._predictor(X, tail_bias), n_threads=1)

    def _make_predictor(self, tail_bias):
        biases = self.label_biases_
        if tail_bias:
            own = self.tail_offsets_[self.shards.final_span.slice]
            biases = biases + np.float32(tail_bias) * own
        network = self.shards.fitted_network(self._weights(biases), find_device(self.device))
        table = network.labels
        n_threads = count_threads(self.index_threads, 1_000, 1_000)
        index = ExactIndex(n_threads=n_threads).build(table.weights, table.biases)
        seen = self.label_biases_ > UNSEEN
        return Predictor(network, seen, 1, None, None, network.share_index(index))

    # -- one file ----------------------------------------------------------------------------------

    def save(self, path, estimator):
        ranks = self.ranks
        ranks.where = "while it saved the model"
        tables = [self.feature_weights_, self.label_weights_]
        if not self.shards.split and ranks.rank:
            tables[0] = tables[0][:0]  # process 0 has it all
        whole = self._whole(estimator)  # or None
        errors: list[OSError] = []
        with ExitStack() as stack:
            file: Any = None
            with ranks.together("write the model"):
                if whole is not None:
                    temporary = stack.enter_context(replacing(path))
                    file = stack.enter_context(open(temporary, "wb"))
                    rest = _begin_file(file, whole)
            for table in tables:
                for piece in ranks.pieces(table):
                    try:  # the others send, and know of no error
                        if not errors:
                            file.write(memoryview(np.ascontiguousarray(piece)).cast("B"))
                    except OSError as error:
                        errors.append(error)
            with ranks.together("write the model"):
                if errors:
                    raise errors[0]
                if file is not None:
                    for array in rest:
                        file.write(array.tobytes())
                    file.flush()
                    os.fsync(file.fileno())
        ranks.tell(None)  # it has its name now

    def _whole(self, estimator):
        """For process 0: the classifier without its tables, which are written piece by piece."""
        ranks, shards = self.ranks, self.shards

        def collect(array):
            pieces = list(ranks.pieces(array))
            return np.concatenate(pieces) if pieces else None

        biases = collect(self.label_biases_)
        memory = []
        for i, array in enumerate(self._memory):
            if i > 2 or (i == 0 and not shards.split):
                memory.append(array)  # the same everywhere
            else:  # (n_members, rows)
                memory.append(collect(np.ascontiguousarray(array.T)))
        if ranks.rank:
            return None
        whole = XMCClassifier(**estimator.get_params(deep=False))
        for name, value in vars(self).items():
            if name.endswith("_") or name == "_kind":
                setattr(whole, name, value)
        width, out = self.feature_weights_.shape[1], self.label_weights_.shape[1]
        whole.feature_weights_ = Elsewhere((self.n_features_in_, width))
        whole.label_weights_ = Elsewhere((len(self.classes_), out))
        whole.label_biases_ = biases
        whole._memory = [
            a if i > 2 or a.shape == self._memory[i].shape else np.ascontiguousarray(a.T)
            for i, a in enumerate(memory)
        ]
        return whole


def _begin_file(file, clf):
    """Write a safetensors file as far as its two tables; returns the arrays that come after."""
    tensors: dict[str, Any] = {}
    stored = contents(clf, tensors)
    # The widest numbers first, or some would not be aligned; of float32 the tables.
    names = sorted(
        tensors, key=lambda n: (-tensors[n].dtype.itemsize, not isinstance(tensors[n], Elsewhere))
    )
    header: dict[str, Any] = {"__metadata__": {"skxmc": json.dumps(stored)}}
    at = 0
    for name in names:
        shape, dtype = tensors[name].shape, tensors[name].dtype
        kind = "BOOL" if dtype.kind == "b" else f"{dtype.kind.upper()}{8 * dtype.itemsize}"
        begin, at = at, at + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, at]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    arrays = [tensors[name] for name in names]
    first = next(i for i, array in enumerate(arrays) if isinstance(array, Elsewhere))
    for array in arrays[:first]:
        file.write(array.tobytes())
    return [array for array in arrays[first:] if not isinstance(array, Elsewhere)]
