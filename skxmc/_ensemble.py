"""Members: networks of one shape trained side by side, which together are one wide network."""

from dataclasses import replace

import numpy as np

from skxmc._centroids import label_centroids, unit_rows
from skxmc._network import Network, Weights
from skxmc._predictor import Predictor
from skxmc._threads import blocks, for_each


class MemberTables:
    """The tables of all members in one piece of memory, which are one wide table in the end.

    Each member trains a table (n_rows, width) of its own; to put them side by side, their rows
    change places within the memory, so that no second table is needed. There is room for `n_final`
    rows at last.
    """

    def __init__(self, n_members, n_rows, width, n_final=None):
        self._memory = np.empty((n_members * (n_final or n_rows), width), np.float32)
        self.members = self._memory[: n_members * n_rows].reshape(n_members, n_rows, width)

    def merge(self, at=None):
        """The wide table, (n_final, n_members * width), rows at these places, ascending, or at all.

        The others are zeros. The members' tables are no more.
        """
        from skxmc._kernels import interleave

        n_members, n_rows, width = self.members.shape
        interleave(self.members.reshape(-1, width), n_members)
        out = self._memory.reshape(-1, n_members * width)
        if len(out) > n_rows:
            for block in reversed(blocks(n_rows, 4096)):  # no row before those after it
                out[at[block]] = out[block].copy()
            rest = np.ones(len(out), bool)
            rest[at] = False
            out[rest] = 0
        return out


class Ensemble:
    """Trainers of the members, an epoch at a time; at the end, their average, by `finish`.

    Members share the data and nothing else. With as many threads as members or fewer, each is
    trained by one thread, and the same seed gives the same bits.
    """

    def __init__(self, trainers, n_threads, device, features=None, labels=None):
        self.trainers, self.n_threads, self.device = trainers, n_threads, device
        self.features, self.labels = features, labels  # `MemberTables`, where they are to merge
        self.Y, self.n_rows = trainers[0].Y, len(trainers[0].visited)
        self.reports_active = trainers[0].loss.reports_active
        self.shortlist_size = trainers[0].sampler.shortlist_size

    def epoch(self, number):
        """Visit every row once; returns the members' mean of what `Trainer.epoch` returns."""
        if len(self.trainers) == 1:
            return self.trainers[0].epoch(number)
        results = {}

        def work(m):
            results[m] = self.trainers[m].epoch(number)

        members = range(len(self.trainers))
        for_each(work, members, min(self.n_threads, len(members)))
        losses, active = zip(*(results[m] for m in members), strict=True)
        return float(np.mean(losses)), float(np.mean(active)) if self.reports_active else None

    def finish(self, seen):
        """The members as one network, in the memory of their tables: training is over.

        `seen`: to which rows of the label table the labels trained belong.
        """
        members = []
        for m, trainer in enumerate(self.trainers):
            weights = trainer.network.weights()
            tables = self.features.members[m], self.labels.members[m]
            if not np.may_share_memory(weights.features, tables[0]):  # of a GPU, or a checkpoint
                tables[0][:], tables[1][:] = weights.features, weights.labels
            members.append(replace(weights, features=tables[0], labels=tables[1]))
            trainer.network = None
        return Weights.merge(members, self.features.merge(), self.labels.merge(seen))

    def network(self):
        """The members as one network; a copy where there are several."""
        weights = [trainer.network.weights() for trainer in self.trainers]
        return Network(Weights.merge(weights), self.device)

    def checkpoint(self):
        """A copy of the members' weights."""
        return [trainer.network.weights().copy() for trainer in self.trainers]

    def restore(self, checkpoint):
        """Take back such a copy."""
        for trainer, weights in zip(self.trainers, checkpoint, strict=True):
            trainer.network = Network(weights, self.device)

    def embeddings(self):
        """Unit label embeddings (L, H): each member's sampler places its own centroids."""
        parts = []
        for trainer in self.trainers:
            centroids = label_centroids(trainer, self.Y, self.Y.shape[1])
            parts.append(unit_rows(trainer.sampler.embed_labels(centroids)))
        return unit_rows(np.concatenate(parts, axis=1))

    def predictor(self, members=slice(None)):
        """What would predict if training stopped now, by some of the members or by all."""
        part = Ensemble(self.trainers[members], self.n_threads, self.device)
        embeddings = None if self.shortlist_size is None else part.embeddings()
        seen = np.ones(self.Y.shape[1], bool)
        return Predictor(part.network(), seen, self.n_threads, embeddings, self.shortlist_size)
