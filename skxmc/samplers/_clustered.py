"""In-batch negatives that are hard: rows that resemble each other share a batch (NGAME)."""

from __future__ import annotations

from typing import Any

import numpy as np

from skxmc._axes import leading_axes
from skxmc._clusters import balanced_clusters
from skxmc._lazy import torch
from skxmc._threads import alone, blocks
from skxmc.samplers._base import Problem, Sampler, check_integers, check_schedule, on_the_way
from skxmc.samplers._random import InBatchSampler

N_AXES = 32  # numbers for a hidden vector in clustering: a sixteenth of the time and memory


class ClusteredInBatchSampler(InBatchSampler):
    """The positives of the other rows of a batch of look-alikes: hard negatives without an index.

    Rows are clustered by their current hidden vectors into clusters of one size, and a batch is a
    random union of clusters. A row then meets the labels of rows that resemble it as negatives, all
    by one matrix product (Dahiya et al. [N]_).

    Parameters
    ----------
    cluster_size : int, default=8
        Rows in a cluster at the end of training. The larger, the harder the negatives.
    refresh_epochs : int, default=3
        Cluster anew before every so many epochs. In between, the clusters stay, and a batch is
        another union of them.
    schedule : {None, "linear", "geometric"}, default="geometric"
        Grow clusters from 1 row (plain shuffling) in the first epoch to `cluster_size` in the last,
        since early hidden vectors say little; None: `cluster_size` from the first epoch on.

    Notes
    -----
    It pays with many labels and enough epochs: P@k rises and PSP@k falls. With few labels, or in a
    few epochs, plain in-batch negatives are as good and cheaper (docs, "experiments").

    A batch is not a random draw of rows, so that no `log_expected` is known. Rows are compared by
    the 64 main axes of their hidden vectors: clustering 100,000 takes about a second beside the
    making of these vectors, and 300 bytes a row.

    References
    ----------
    .. [N] Dahiya et al., "NGAME: Negative mining-aware mini-batching for extreme classification",
       WSDM 2023.

    Examples
    --------
    >>> from skxmc.samplers import ClusteredInBatchSampler, UniformSampler
    >>> ClusteredInBatchSampler(16) + UniformSampler(100)
    UnionSampler(first=ClusteredInBatchSampler(cluster_size=16),
                 second=UniformSampler(n_negatives=100))
    """

    def __init__(
        self, cluster_size: int = 8, refresh_epochs: int = 3, schedule: str | None = "geometric"
    ):
        self.cluster_size = cluster_size
        self.refresh_epochs = refresh_epochs
        self.schedule = schedule

    _clusters: Any  # (n_rows,) int64: cluster after cluster, or None

    def begin(self, problem: Problem) -> Sampler:
        """See :meth:`Sampler.begin`."""
        super().begin(problem)
        check_integers(self, 1, "cluster_size", "refresh_epochs")
        check_schedule(self)
        self._size = self.cluster_size
        self._clusters = None
        return self

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Set how large clusters are from the next refresh on."""
        if self.schedule is None or n_epochs == 1:
            return
        self._size = round(on_the_way(self.schedule, 1, self.cluster_size, epoch, n_epochs))

    def order_rows(self, epoch: int, network: Any, rng: np.random.Generator) -> np.ndarray | None:
        """Clusters in random order, and the rows of each in random order."""
        n_rows = self.problem_.n_rows
        if self._clusters is None or epoch % self.refresh_epochs == 0:
            if self._size == 1:
                return None
            vectors = alone(lambda: main_axes(network, n_rows, rng))
            self._clusters = balanced_clusters(vectors, self._size, rng)
            self._built = self._size
        cluster = np.arange(n_rows) // self._built
        place = rng.permutation(cluster[-1] + 1)[cluster]  # of the cluster in this epoch
        return self._clusters[np.lexsort((rng.random(n_rows), place))]

    def _log_chances(self, batch_size):
        return np.full(self.problem_.n_labels, np.nan)  # not known: they depend on the clusters


def main_axes(network, n_rows, rng, n_axes=N_AXES, n_sample=4096):
    """Hidden vectors of all rows along the axes on which most of their length lies.

    Returns (n_rows, n_axes) float32, or the vectors (n_rows, H) as they are where H is no more.
    """
    sample = np.sort(rng.choice(n_rows, min(n_rows, n_sample), replace=False))
    units = torch.nn.functional.normalize(network.sketch(sample))  # (s, H)
    if units.shape[1] <= n_axes:
        return network.sketch(np.arange(n_rows)).cpu().numpy()
    axes = leading_axes(units, n_axes, rng)
    out = np.empty((n_rows, n_axes), np.float32)
    for block in blocks(n_rows, 16384):
        hidden = network.sketch(np.arange(block.start, block.stop))
        out[block] = (hidden @ axes).cpu().numpy()
    return out
