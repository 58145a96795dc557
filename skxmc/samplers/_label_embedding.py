"""Hard negatives near the row in a space of label embeddings (paper C, LightDXML)."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from skxmc._centroids import label_centroids, unit_rows
from skxmc._ends import entries
from skxmc._lazy import torch
from skxmc._threads import blocks, for_each
from skxmc.samplers._base import Problem, Sampler, check_integers
from skxmc.samplers._look_up import LookUpSampler


class LabelEmbeddingSampler(LookUpSampler):
    """Labels whose embeddings are near the row's hidden vector (paper C, LightDXML).

    A cycle begins at every `refresh_epochs`-th epoch: each label's centroid, the mean hidden vector
    of its rows, is mapped by an affine map, which is trained to bring it near its rows (mean of
    ``log(1 + |u - z|^2)`` over all pairs of a row z and one of its labels u, a robust regression);
    the labels of highest cosine with a row are then its candidates until the next cycle. The map is
    kept from cycle to cycle.

    Alone, this sampler trains a label's scores only on the rows around it, so that the classifier
    then ranks the `n_candidates` labels nearest to a row, as in the paper; with ``"+uniform"`` it
    ranks all labels.

    Parameters
    ----------
    n_negatives : int or None, default=None
        Candidates that a row is trained against at each visit; None: all of them, as in the paper.
    n_candidates : int or None, default=None
        Labels looked up for each row, its positives passed over; None: 100, or half of the labels
        where there are fewer than 200. The paper: 400 to 800.
    refresh_epochs : int, default=3
        Length of a cycle, in epochs. The paper: 4 to 20 of 21 or 26.
    n_hidden : int or None, default=None
        None: the map is one matrix that starts as the identity. As in the paper, width of the layer
        between two matrices that start at random (600 to 2400): the map is affine all the same.
    n_passes : int, default=2
        Passes over the pairs in each cycle. The paper: 2 to 12.
    learning_rate : float, default=0.003
        Of Adam, which trains the map.
    batch_size : int, default=512
        Pairs in a step.
    index : {"auto", "exact", "faiss", "pynndescent"}, default="auto"
        Which library looks up; see :ref:`choosing an index <index>`.

    References
    ----------
    .. [C] Mishra et al., "Light-weight deep extreme multilabel classification", IJCNN 2023.

    Examples
    --------
    >>> from skxmc.samplers import LabelEmbeddingSampler
    >>> LabelEmbeddingSampler(n_negatives=20, n_candidates=200)
    LabelEmbeddingSampler(n_candidates=200, n_negatives=20)
    """

    def __init__(
        self,
        n_negatives: int | None = None,
        n_candidates: int | None = None,
        refresh_epochs: int = 3,
        n_hidden: int | None = None,
        n_passes: int = 2,
        learning_rate: float = 0.003,
        batch_size: int = 512,
        index: str = "auto",
    ):
        self.n_negatives = n_negatives
        self.n_candidates = n_candidates
        self.refresh_epochs = refresh_epochs
        self.n_hidden = n_hidden
        self.n_passes = n_passes
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.index = index

    _map: Any  # LabelMap or None

    def begin(self, problem: Problem) -> Sampler:
        """See :meth:`Sampler.begin`."""
        check_integers(self, 1, "n_hidden", "batch_size", optional=("n_hidden",))
        check_integers(self, 0, "n_passes")
        if not isinstance(self.learning_rate, Real) or not 0 < self.learning_rate < np.inf:
            raise ValueError(f"learning_rate={self.learning_rate!r} of {self} must be positive.")
        super().begin(problem)
        self._map = None
        return self

    def _sizes(self, n_labels):
        n_candidates = self.n_candidates or max(self.n_negatives or 1, min(100, -(-n_labels // 2)))
        return self.n_negatives or n_candidates, n_candidates

    def _vectors(self, network):
        """Train the map anew on today's hidden vectors; returns unit embeddings (L, H)."""
        problem = self.problem_
        centroids = label_centroids(network, problem.Y, problem.n_labels)
        rng = np.random.default_rng([problem.random_state, 2])
        if self._map is None:
            self._map = LabelMap(centroids.shape[1], self.n_hidden, rng)
        loss = self._map.fit(
            network, problem.Y, centroids,
            self.n_passes, self.learning_rate, self.batch_size, rng,
        )  # fmt: skip
        problem.log(f"label embeddings: log(1 + distance^2) {loss:.3f}")
        embeddings = torch.from_numpy(unit_rows(self.embed_labels(centroids)))
        return embeddings.to(network.label_weights.device), None

    def get_state(self) -> dict[str, Any]:
        """The layers of the map as arrays."""
        state = super().get_state()
        if self._map is not None:
            state["_map"] = [[part.numpy() for part in layer] for layer in self._map.layers]
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """See :meth:`Sampler.set_state`."""
        super().set_state(state)
        if self._map is not None:
            self._map = LabelMap(layers=state["_map"])

    @property
    def shortlist_size(self) -> int | None:
        """The number of candidates."""
        return self._n_candidates

    def embed_labels(self, centroids: np.ndarray) -> np.ndarray:
        """Map centroids (L, H) as the last cycle has learnt to."""
        return centroids if self._map is None else self._map(torch.from_numpy(centroids)).numpy()


class LabelMap:
    """The affine map from centroids to embeddings, u = A c + a, and how it is trained."""

    def __init__(
        self,
        width=None,
        n_hidden: int | None = None,
        rng: np.random.Generator | None = None,
        layers=None,
    ):
        if layers is not None:  # as they were learnt
            self.layers = [tuple(map(torch.from_numpy, layer)) for layer in layers]
            return
        if n_hidden is None:
            self.layers = [
                (torch.eye(width, dtype=torch.float32), torch.zeros(width, dtype=torch.float32))
            ]
            return

        def layer(n_in, n_out):  # torch's default for linear layers, from numbers of our own
            bound = n_in**-0.5
            weight = rng.uniform(-bound, bound, (n_in, n_out)).astype(np.float32)
            bias = rng.uniform(-bound, bound, n_out).astype(np.float32)
            return torch.from_numpy(weight), torch.from_numpy(bias)

        self.layers = [layer(width, n_hidden), layer(n_hidden, width)]

    def __call__(self, centroids):
        """Embeddings (L, H) of centroids (L, H)."""
        for weight, bias in self.layers:
            centroids = torch.addmm(bias, centroids, weight)
        return centroids

    def fit(
        self,
        network: Any,
        Y: Any,
        centroids: np.ndarray,
        n_passes: int,
        learning_rate: float,
        batch_size: int,
        rng: np.random.Generator,
        n_rows_at_once=32768,
    ):
        """Minimise the mean of log(1 + |u - z|^2) over the pairs; returns that of the last pass.

        The pairs are shuffled within random blocks of rows, whose hidden vectors are made for the
        purpose: memory grows with neither rows nor pairs.
        """
        parameters = [p.requires_grad_() for layer in self.layers for p in layer]
        optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        centroids = torch.from_numpy(centroids)

        def step(pairs):
            """`pairs`: hidden vectors (p, H) of rows, and a label of each (p,)."""
            hidden, labels = pairs
            labels, where = np.unique(labels, return_inverse=True)
            embedded = self(centroids[torch.from_numpy(labels).long()])[torch.from_numpy(where)]
            loss = (embedded - hidden).square().sum(1).log1p().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))

        losses: list[float] = []
        for _ in range(n_passes):
            losses.clear()
            for pairs in self._pairs(network, Y, batch_size, rng, n_rows_at_once):
                for_each(step, pairs, 1)
        for p in parameters:
            p.requires_grad_(False)
        return np.mean(losses) if losses else np.nan

    @staticmethod
    def _pairs(network, Y, batch_size, rng, n_rows_at_once):
        """All pairs, shuffled: yields, for each block of rows, batches (hidden vectors, labels)."""
        n_rows = len(Y.indptr) - 1
        order = rng.permutation(n_rows)
        for block in blocks(n_rows, n_rows_at_once):
            rows = order[block]
            hidden = network.hidden(rows).cpu()  # (b, H)
            at, stored = entries(Y, rows)
            own = Y.indices[stored]
            shuffled = rng.permutation(len(own))
            parts = [shuffled[part] for part in blocks(len(own), batch_size)]
            yield ((hidden[torch.from_numpy(at[part])], own[part]) for part in parts)
