"""Tables of which each process holds a block of rows: the network, its look-ups and its trainers.

All processes draw the same batch and the same shortlist, from the same random numbers. Each sums
what its own rows add to the inputs of the hidden layer, fills in the scores of its own labels, and
sums what these pass back; the sums over all processes are everybody's. Between the tables, each
does the same with the same dense weights. A step of Adagrad then moves a process's own rows.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np

from skxmc._ends import Rows, entries
from skxmc._ensemble import Ensemble
from skxmc._lazy import torch
from skxmc._network import Network, Weights
from skxmc._products import product
from skxmc._ranks import Ranks, Span
from skxmc._shortlist import Shortlist
from skxmc._threads import blocks


def localize(matrix: Rows, rows: np.ndarray, span: Span) -> Rows:
    """These rows of a matrix in the columns of the span, which are numbered from 0."""
    row, at = entries(matrix, rows)
    columns = matrix.indices[at]
    own = (columns >= span.start) & (columns < span.stop)
    data = None if matrix.data is None else matrix.data[at[own]]
    indptr = np.append(0, np.cumsum(np.bincount(row[own], minlength=len(rows))))
    return Rows(indptr, columns[own] - np.int32(span.start), data, (len(rows), len(span)))


class ShardedNetwork(Network):
    """A network whose tables are a process's rows of the whole ones.

    `features`, `labels`: which rows. A feature table for dense X is small: all hold it whole, and
    do the same to it.
    """

    def __init__(
        self, weights, device, ranks: Ranks, features: Span, labels: Span, split: bool,
        compute_dtype="float32",
    ):  # fmt: skip
        super().__init__(weights, device, compute_dtype)
        self.ranks, self.feature_span, self.label_span = ranks, features, labels
        self.split = split and not ranks.alone  # whether the feature table is divided
        # What the forward pass made of a shortlist, and of rows: the backward pass needs it too.
        self._found: tuple | None = None
        self._rows: tuple | None = None
        self._trains = False

    @property
    def divided(self):
        """Whether the label table here is a part of the whole."""
        return not self.ranks.alone

    def replica(self):
        """See `Network.replica`."""
        twin = super().replica()
        twin._trains = True
        return twin

    def embed(self, X, rows):
        """Rows x feature table, (B, H0)."""
        if not self.split:
            return super().embed(X, rows)
        if isinstance(X, Rows):
            own = self._here(X, rows)
            return self.ranks.add(super().embed(own, np.arange(len(rows))))
        own = self._dense(X[:, self.feature_span.slice], rows)
        return self.ranks.add(product(self._rounded(own), self._rounded(self.features.part())))

    def scores(self, hidden, shortlist):
        """Scores of the shortlist, (B, r + s)."""
        if self.ranks.alone:
            return super().scores(hidden, shortlist)
        own, columns = self._own(shortlist)
        n, r = shortlist.labels.shape
        out = torch.zeros(n, r + len(shortlist.shared), dtype=torch.float32, device=self.device)
        out[:, columns] = super().scores(hidden, own)
        return self.ranks.add(out)

    def update_labels(self, hidden, gradient, shortlist, rate):
        """Move the label rows held here; returns d loss / d hidden (B, H) of all labels."""
        if self.ranks.alone:
            return super().update_labels(hidden, gradient, shortlist, rate)
        own, columns = self._own(shortlist)
        self._found = None
        return self.ranks.add(super().update_labels(hidden, gradient[:, columns], own, rate))

    def update_features(self, X, rows, gradient, rate):
        """Move the feature rows held here."""
        if self.split:
            X, rows = self._here(X, rows), np.arange(len(rows))
            self._rows = None
        super().update_features(X, rows, gradient, rate)

    def _here(self, X, rows):
        """These rows of X in the rows of the feature table here."""
        if self._rows is not None and self._rows[0] is rows:
            return self._rows[1]
        own = localize(X, rows, self.feature_span)
        if self._trains:  # on one X, and each batch twice
            self._rows = rows, own
        return own

    def _own(self, shortlist):
        """The shortlist in the rows of the label table here, and which of its columns are left.

        Foreign labels leave their places among a row's own, which are few, as if there were none.
        """
        if self._found is None or self._found[0] is not shortlist:
            start, n = self.label_span.start, len(self.label_span)
            labels, shared = shortlist.labels - start, shortlist.shared - start
            labels[(labels < 0) | (labels >= n)] = -1
            held = np.flatnonzero((shared >= 0) & (shared < n))
            r = labels.shape[1]
            columns = torch.from_numpy(np.concatenate([np.arange(r), r + held])).to(self.device)
            none = np.empty(0, np.float32)
            own = Shortlist(labels, shared[held], shortlist.n_positives, none, none, [])
            self._found = shortlist, (own, columns)
        return self._found[1]

    def own_labels(self, array):
        """Of an array with an entry for each label, those of the label table here."""
        return array[self.label_span.slice]

    def share_index(self, index):
        """An index over the label table here as one over all labels."""
        return index if self.ranks.alone else ShardedIndex(index, self.ranks, self.label_span)


class ShardedIndex:
    """Exact search over all labels: each process searches its own, the best are merged."""

    def __init__(self, index, ranks: Ranks, span: Span):
        self._index, self._ranks, self._span = index, ranks, span

    def search(self, hidden, k, exclude=None, rows=None):
        """See `ExactIndex.search`."""
        return self.topk(hidden, k, exclude, rows)[1]

    def topk(self, hidden, k, exclude=None, rows=None, n_threads=None):
        """See `ExactIndex.topk`; the threads are those that the index was made with.

        `n_threads` of a call is for what exchanges, which must do so in one order.
        """
        if exclude is not None:
            exclude, rows = localize(exclude, rows, self._span), np.arange(len(rows))
        n = min(k, len(self._span))
        scores = np.full((len(hidden), k), -np.inf, np.float32)
        labels = np.full((len(hidden), k), -1, np.int32)
        scores[:, :n], found = self._index.topk(hidden, n, exclude, rows)
        labels[:, :n] = np.where(found < 0, -1, found + self._span.start)
        both = np.concatenate([scores, labels.view(np.float32)], axis=1)  # (n, 2 k)
        every = np.concatenate(self._ranks.gather(both), axis=1).reshape(len(hidden), -1, 2, k)
        scores = every[:, :, 0].reshape(len(hidden), -1)  # (n, size * k)
        labels = every[:, :, 1].reshape(len(hidden), -1).view(np.int32)
        # Equal scores go to the lower label, and minus infinity, which is no label, last.
        best = np.lexsort((labels, -scores))[:, :k]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(labels, best, 1)


class Shards:
    """Where the tables of a run lie: a block of their rows in each process. See `Whole`.

    seen : which labels are trained, of n_columns; these are divided, and of the fitted table each
    process holds the rows around its own.
    """

    def __init__(self, ranks: Ranks, n_features, seen, n_columns, split):
        for what, n in (("features of X", n_features), ("labels with a row", len(seen))):
            if n < ranks.size:
                raise ValueError(f"{n} {what} are too few for {ranks.size} processes: start fewer.")
        self.ranks, self.n_columns, self.split = ranks, n_columns, split
        self.divided = not ranks.alone
        self.feature_span = ranks.span(n_features) if split else Span(0, n_features)
        self.label_span = ranks.span(len(seen))
        first, after = self.label_span
        start = 0 if ranks.rank == 0 else int(seen[first])
        stop = n_columns if ranks.rank == ranks.size - 1 else int(seen[after])
        self.final_span = Span(start, stop)
        self.own = seen[first:after] - start  # the rows of the fitted table here that were trained
        self.n_features, self.n_labels = len(self.feature_span), len(self.label_span)
        self.n_final = len(self.final_span)

    def initial(self, n_features, sizes, log_odds, rng, residual, features, labels):
        """The weights of a member at its start, of the very numbers that one process would draw."""
        labels[:] = 0
        _draw_features(n_features, self.feature_span, features, rng)
        middle = Weights.initial(0, sizes, log_odds[:0], rng, residual)
        biases = log_odds[self.label_span.slice].astype(np.float32)
        return replace(middle, features=features, labels=labels, label_biases=biases)

    def network(self, weights, device, compute_dtype="float32"):
        """The network in training of a process's part of the weights."""
        spans = self.feature_span, self.label_span
        return ShardedNetwork(weights, device, self.ranks, *spans, self.split, compute_dtype)

    def fitted_network(self, weights, device):
        """The network of its part of the fitted weights, with labels that were not trained."""
        spans = self.feature_span, self.final_span
        return ShardedNetwork(weights, device, self.ranks, *spans, self.split)

    def ensemble(self, trainers, *args):
        """Who runs the trainers."""
        return ShardedEnsemble(trainers, self, *args)


def _draw_features(n, span, out, rng):
    """Draw n rows a block at a time, and keep those of the span: nobody holds them all."""
    for block in blocks(n, 4096):
        rows = Weights.draw_features((block.stop - block.start, out.shape[1]), rng)
        first, last = max(block.start, span.start), min(block.stop, span.stop)
        if first < last:
            part = rows[first - block.start : last - block.start]
            out[first - span.start : last - span.start] = part


class ShardedEnsemble(Ensemble):
    """Trainers that each need all processes: one after the other, in the same order everywhere."""

    def epoch(self, number, tick=None, stop=None):
        """See `Ensemble.epoch`. ValueError where the processes have drifted apart."""
        ranks, steps = self.place.ranks, 0
        ranks.where = f"at the start of epoch {number + 1}"

        def count():
            nonlocal steps
            steps += 1
            ranks.where = f"in epoch {number + 1} after step {steps} of {self.n_steps}"
            return False

        out = super().epoch(number, count)
        ranks.where = f"at the end of epoch {number + 1}"
        self._compare()
        return out

    def _for_each(self, work, members):
        for m in members:
            work(m)

    def _compare(self):
        """The dense weights and random numbers are each process's own, and must be the same."""
        digest = hashlib.blake2b(digest_size=16)
        for trainer in self.trainers:
            for tensor in trainer.network.parameters():
                digest.update(tensor.detach().cpu().numpy().tobytes())
            for worker in trainer.workers:
                digest.update(repr(worker.rng.bit_generator.state).encode())
        self.place.ranks.agree(
            {"What should be equal everywhere": digest.hexdigest()},
            "Processors or libraries differ: train on machines of one kind with one environment.",
        )

    def check_weights(self):
        """ValueError where a weight is not finite, here; RuntimeError where that is elsewhere."""
        with self.place.ranks.together("finish training"):
            super().check_weights()


def own_device(name: str) -> str:
    """The GPU of a process, where "cuda" leaves it open: one each, by torchrun's LOCAL_RANK."""
    if name != "cuda":
        return name
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
