"""Members: networks of one shape trained side by side, which together are one wide network."""

import numpy as np

from skxmc._centroids import label_centroids, unit_rows
from skxmc._network import Network, Weights
from skxmc._predictor import Predictor
from skxmc._threads import for_each


class Ensemble:
    """Trainers of the members, an epoch at a time; at the end, their average.

    Members share the data and nothing else. With as many threads as members or fewer, each is
    trained by one thread, and the same seed gives the same bits.
    """

    def __init__(self, trainers, n_threads, device):
        self.trainers, self.n_threads, self.device = trainers, n_threads, device
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

    def weights(self):
        """The members as one network; of a single one without a copy."""
        return Weights.merge([trainer.network.weights() for trainer in self.trainers])

    def network(self):
        """That network."""
        return Network(self.weights(), self.device)

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

    def predictor(self, n_members=None):
        """What would predict if training stopped now, by the first members or by all."""
        part = Ensemble(self.trainers[:n_members], self.n_threads, self.device)
        embeddings = None if self.shortlist_size is None else part.embeddings()
        seen = np.ones(self.Y.shape[1], bool)
        return Predictor(part.network(), seen, self.n_threads, embeddings, self.shortlist_size)
