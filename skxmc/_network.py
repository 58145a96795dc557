"""The network: sparse or dense rows -> hidden vectors -> label scores. Knows samplers nor losses.

    rows x feature table + bias -> ReLU -> (linear -> ReLU) ... -> hidden (B, H)
    with a residual block: hidden + ReLU(R hidden + r) -> hidden, R of spectral norm 1
    hidden . label weights + label biases -> scores

Under dropout a step trains a network of some of the units, `thinned`, whose vectors have no others.

Rows meet the feature table, and hidden vectors the label table, in the ends of `_ends.py`; between
them lies plain torch with autograd.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from skxmc._ends import CompiledEnds, Rows, Table, TorchEnds, move
from skxmc._lazy import torch
from skxmc._products import add_product, affine, padded, product, shifted_product, widened
from skxmc._threads import over_rows
from skxmc._units import Units

FEW_UNITS = 128  # what a sketch has at least
NEGLIGIBLE = 1e-4  # d loss / d score below which a row's own label is left alone


@dataclass
class Weights:
    """What a fitted model is: float32 arrays, all it takes to predict, save and load."""

    features: np.ndarray  # (n_features, H0)
    hidden: list  # [(H0, H1), (H1, H2), ...]: one array less than there are hidden layers
    hidden_biases: list  # [(H0,), (H1,), ...]
    labels: np.ndarray  # (L, H)
    label_biases: np.ndarray  # (L,)
    residual: Sequence[np.ndarray] | None = None  # R (H, H), r (H,); R has spectral norm 1

    @classmethod
    def initial(
        cls,
        n_features: int,
        sizes: tuple[int, ...],
        label_log_odds: np.ndarray,
        rng: np.random.Generator,
        residual: bool = False,
        features: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> Weights:
        """Random weights; label biases at the labels' log-odds, or training starts by finding them.

        The feature table is uniform, of standard deviation 0.07: rows of unit length give hidden
        units of that scale, whatever their number of features; normal numbers take six times as
        long to draw, and their sums are alike. The label table is 0: what is random in it stays, in
        labels of few rows, as noise. `features` and `labels`: arrays for the two tables.
        """
        if labels is None:
            labels = np.empty((len(label_log_odds), sizes[-1]), np.float32)
        labels[:] = 0
        return cls(
            features=cls.draw_features((n_features, sizes[0]), rng, features),
            hidden=[
                _normal((fan_in, fan_out), np.sqrt(2 / fan_in), rng)
                for fan_in, fan_out in itertools.pairwise(sizes)
            ],
            hidden_biases=[np.zeros(size, np.float32) for size in sizes],
            labels=labels,
            label_biases=label_log_odds.astype(np.float32),
            residual=(np.eye(sizes[-1], dtype=np.float32), np.zeros(sizes[-1], np.float32))
            if residual
            else None,
        )

    @classmethod
    def going_on(
        cls,
        before: Weights,
        known: NDArray[np.bool_],
        label_log_odds: np.ndarray,
        features: np.ndarray,
        labels: np.ndarray,
    ) -> Weights:
        """A copy of the weights before; labels that they do not know begin as in `initial`.

        `known` (L,): of which labels the rows of their label table are, in order.
        """
        labels[:] = 0
        features[:], labels[known] = before.features, before.labels
        biases = label_log_odds.astype(np.float32)
        biases[known] = before.label_biases
        return cls(
            features=features,
            hidden=[a.copy() for a in before.hidden],
            hidden_biases=[a.copy() for a in before.hidden_biases],
            labels=labels,
            label_biases=biases,
            residual=None if before.residual is None else [a.copy() for a in before.residual],
        )

    @staticmethod
    def draw_features(shape: tuple, rng: np.random.Generator, out=None) -> np.ndarray:
        """Rows of a feature table, at their start."""
        out = rng.random(shape, dtype=np.float32, out=out)
        out -= np.float32(0.5)
        out *= np.float32(0.07 * np.sqrt(12))
        return out

    @classmethod
    def merge(cls, members, features=None, labels=None):
        """One network whose scores are the mean of the members': their units side by side.

        `features` and `labels`: the members' tables side by side, where they are so already.
        """
        if len(members) == 1 and features is None:
            return members[0]
        if features is None:
            features = np.concatenate([member.features for member in members], axis=1)
            labels = np.concatenate([member.labels for member in members], axis=1)
        labels /= np.float32(len(members))
        residual = None
        if members[0].residual is not None:
            matrices, biases = zip(*(member.residual for member in members), strict=True)
            residual = block_diag(*matrices), np.concatenate(biases)
        return cls(
            features=features,
            hidden=[block_diag(*layer) for layer in zip(*(m.hidden for m in members), strict=True)],
            hidden_biases=[
                np.concatenate(layer)
                for layer in zip(*(m.hidden_biases for m in members), strict=True)
            ],
            labels=labels,
            label_biases=np.mean([m.label_biases for m in members], axis=0, dtype=np.float32),
            residual=residual,
        )

    def split(self, n: int) -> Iterator[Weights]:
        """The n members that were merged to this network: views, and labels to be multiplied by n.

        Their label biases are the mean that is left of them.
        """

        def part(array, m):
            return array[tuple(slice(m * s // n, (m + 1) * s // n) for s in array.shape)]

        for m in range(n):
            yield Weights(
                features=np.array_split(self.features, n, axis=1)[m],
                hidden=[part(a, m) for a in self.hidden],
                hidden_biases=[part(a, m) for a in self.hidden_biases],
                labels=np.array_split(self.labels, n, axis=1)[m],
                label_biases=self.label_biases,
                residual=None if self.residual is None else [part(a, m) for a in self.residual],
            )

    def arrays(self) -> list[np.ndarray]:
        """All of them."""
        middle = [*self.hidden, *self.hidden_biases, *(self.residual or ())]
        return [self.features, self.labels, self.label_biases, *middle]

    def copy(self) -> Weights:
        """A copy that training does not touch."""
        return copy.deepcopy(self)


def _normal(shape, scale, rng):
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


class Network:
    """Weights on a device, with the ends that suit it; on the CPU it shares memory with them.

    `compute_dtype` is that of the numbers in the matrix products of training, "float32" or
    "bfloat16"; weights, sums, and all that predicts are float32.
    """

    def __init__(
        self,
        weights: Weights,
        device: str | torch.device = "cpu",
        compute_dtype: str = "float32",
    ):
        self.device = torch.device(device)
        self.compute_dtype = compute_dtype
        none = np.empty(0, np.float32)
        self.features = Table(self.tensor(weights.features), self.tensor(none))
        self.labels = Table(self.tensor(weights.labels), self.tensor(weights.label_biases))
        self.hidden_weights = [self.tensor(a) for a in weights.hidden]
        self.hidden_biases = [self.tensor(a) for a in weights.hidden_biases]
        self.residual = [self.tensor(a) for a in weights.residual or ()]
        self.top_direction = None  # (H,): in a run, left singular vector of R, which steps keep up
        self._kept: tuple | None = (
            None  # the shared labels of a step, and their rows as they were before it
        )
        self.units: list[Units] | None = None  # of each hidden layer, where some take part
        self.ends = CompiledEnds() if self.device.type == "cpu" else TorchEnds(self.device)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A tensor over the array's memory, read-only memory maps included: predicting only reads.

        torch warns of read-only memory, since a tensor could be written to.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.asarray(array, dtype=np.float32)).to(self.device)

    @property
    def n_labels(self) -> int:
        """Rows of the label table."""
        return len(self.labels.weights)

    def prepare_training(self, rng: np.random.Generator) -> None:
        """What optimiser and spectral norm remember, at their start."""
        self.features.prepare_training()
        self.labels.prepare_training()
        if self.residual:
            start = rng.standard_normal(len(self.residual[1]), dtype=np.float32)
            self.top_direction = self.tensor(start / np.linalg.norm(start))

    def weights(self) -> Weights:
        """The weights as arrays; they share memory where the network is on the CPU."""

        def array(tensor):
            return tensor.detach().cpu().numpy()

        return Weights(
            array(self.features.weights),
            [array(a) for a in self.hidden_weights],
            [array(a) for a in self.hidden_biases],
            array(self.labels.weights),
            array(self.labels.biases),
            (array(self._unit_matrix()), array(self.residual[1])) if self.residual else None,
        )

    def parameters(self) -> list[torch.Tensor]:
        """The dense weights between the ends."""
        return [*self.hidden_weights, *self.hidden_biases, *self.residual]

    def replica(self) -> Network:
        """The same weights in the same memory, for one thread to train with.

        Autograd refuses a backward pass through a weight that was updated in place since the
        forward pass, which other threads do all the time; `.data` has a version count of its own.
        """
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.hidden_weights = [a.data.requires_grad_() for a in self.hidden_weights]
        twin.hidden_biases = [a.data.requires_grad_() for a in self.hidden_biases]
        twin.residual = [a.data.requires_grad_() for a in self.residual]
        if isinstance(self.ends, CompiledEnds):
            twin.ends = CompiledEnds()
        return twin

    def thinned(self, dropout: float, rng: np.random.Generator) -> Network:
        """The network of some units of each hidden layer, in the same memory; itself for 0."""
        if not dropout:
            return self
        return self.of_units([Units.draw(len(bias), dropout, rng) for bias in self.hidden_biases])

    def sketch(self) -> Network:
        """That of the first units of each hidden layer: enough to see what rows are alike."""
        widths = (len(bias) for bias in self.hidden_biases)
        few = (min(width, max(FEW_UNITS, width // 4)) for width in widths)
        return self.of_units([Units.first(n) for n in few])

    def of_units(self, units: list[Units]) -> Network:
        """The network of these units of each hidden layer, in the same memory."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.units = units
        twin.features = self.features.thinned(twin.units[0])
        twin.labels = self.labels.thinned(twin.units[-1])
        return twin

    # -- of tables that several processes share, others say otherwise ----------------------------

    divided = False  # whether the label table here is a part of the whole

    def own_labels(self, array: np.ndarray) -> np.ndarray:
        """Of an array with an entry for each label, those of the label table here."""
        return array

    def share_index(self, index: Any) -> Any:
        """An index over the label table here as one over all labels."""
        return index

    # -- forward -------------------------------------------------------------------------------

    def embed(self, X: Rows | np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """Rows x feature table, (B, H0)."""
        if isinstance(X, Rows):
            return self.ends.gather_sum(self.ends.places(X, rows), self.features)
        return product(self._rounded(self._dense(X, rows)), self._rounded(self.features.part()))

    def _dense(self, X, rows):
        return move(X[rows], self.device)  # fancy indexing copies

    def _rounded(self, tensor):
        """As the matrix products take it; itself for float32."""
        if self.compute_dtype == "float32":
            return tensor
        return tensor.to(getattr(torch, self.compute_dtype))

    def middle(self, inputs: torch.Tensor) -> torch.Tensor:
        """Hidden vectors (B, H)."""
        places, scales = [slice(None)] * len(self.hidden_biases), [1.0] * len(self.hidden_biases)
        if self.units is not None:
            places = [move(units.columns, self.device) for units in self.units]
            scales = [units.scale for units in self.units]
        x = torch.relu(inputs + self.hidden_biases[0][places[0]]) * scales[0]
        for layer, weight in enumerate(self.hidden_weights, 1):
            weight = weight[places[layer - 1]][:, places[layer]]
            bias = self.hidden_biases[layer][places[layer]]
            x = torch.relu(affine(bias, x, weight, self.compute_dtype)) * scales[layer]
        if self.residual:
            last = places[-1]
            matrix = self._residual_matrix()[last][:, last]
            more = affine(self.residual[1][last], x, matrix.T, self.compute_dtype)
            x = x + torch.relu(more) * scales[-1]
        return x

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, Callable[..., Sequence]]:
        """Hidden vectors (B, H), and what makes the gradients of inputs and parameters of theirs.

        One layer alone, as is the default, needs no autograd, which takes longer than its work.
        """
        if len(self.parameters()) == 1:
            units = None if self.units is None else self.units[0]
            return self.ends.rectify(inputs, self.hidden_biases[0], units)
        hidden = self.middle(inputs.requires_grad_())

        def back(gradient):
            return torch.autograd.grad(hidden, [inputs, *self.parameters()], gradient)

        return hidden.detach(), back

    def _residual_matrix(self):
        """R over its spectral norm, which a few power iterations in each step keep up with.

        Only replicas, which train, move what the iteration remembers.
        """
        matrix = self.residual[0]
        if self.top_direction is None:
            return matrix
        with torch.no_grad():
            left = self.top_direction.clone()  # another thread may move it meanwhile
            for _ in range(8):  # a step moves a block of R, and farther than it would the whole
                right = torch.nn.functional.normalize(matrix.T @ left, dim=0)
                left = torch.nn.functional.normalize(matrix @ right, dim=0)
            if matrix.requires_grad:
                self.top_direction.copy_(left)
        return matrix / (left @ (matrix @ right))

    def _unit_matrix(self):
        """The same to the last digit, where there is time: threads may have moved R meanwhile."""
        matrix = self.residual[0].detach()
        if self.top_direction is None or not torch.isfinite(matrix).all():  # then no norm is known
            return matrix
        return matrix / torch.linalg.norm(matrix, 2)

    def hidden(self, X: Rows | np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """Hidden vectors for prediction, (B, H)."""
        with torch.no_grad():
            return self.middle(self.embed(X, rows))

    def scores(self, hidden: torch.Tensor, shortlist: Any) -> torch.Tensor:
        """Scores of the shortlist, (B, r + s): a row's own labels, then those that all rows share.

        The rows' own are dots with table rows in place; the shared ones are one matrix product.
        """
        n, r = shortlist.labels.shape
        out = torch.empty(n, r + len(shortlist.shared), dtype=torch.float32, device=self.device)
        places = self.ends.padded_places(shortlist.labels)
        out[:, :r] = self.ends.gather_dot(places, hidden, self.labels).view(n, r)
        for columns, table, biases in self._shared(shortlist.shared):
            self._score(hidden, table, biases, out[:, r:][:, columns])
        return out

    def block_scores(self, hidden: torch.Tensor, block: slice) -> torch.Tensor:
        """Scores of a block of all labels, (B, size of the block)."""
        out = hidden.new_empty(len(hidden), block.stop - block.start)
        table = self._rounded(self.labels.part(block))
        return self._score(hidden, table, self.labels.biases[block], out)

    def _score(self, hidden, table, biases, out):
        return shifted_product(biases, self._rounded(hidden), table.T, out)

    def _shared(self, labels, block=16384):
        """Blocks of the shared labels: (columns, weights as products take them, biases).

        There may be more weights than labels: zeros.
        One block is kept: the backward pass asks for what the forward pass had.
        """
        if self._kept is not None and self._kept[0] is labels:
            yield self._kept[1]
            return
        biases = self.labels.biases
        # All labels in order, as `FullSampler` proposes them, need no copy.
        everything = len(labels) == self.n_labels and (np.diff(labels) == 1).all()
        for start in range(0, len(labels), block):
            columns = slice(start, min(start + block, len(labels)))
            if everything:
                yield columns, self._rounded(self.labels.part(columns)), biases[columns]
            else:
                ids = labels[columns]
                n_rows = padded(len(ids), self.device, self.compute_dtype)
                table = self._rounded(self.ends.take(ids, self.labels, n_rows))
                part = columns, table, biases.index_select(0, move(ids, self.device))
                self._kept = (labels, part) if len(labels) <= block else None
                yield part

    # -- backward ------------------------------------------------------------------------------

    def update_labels(
        self, hidden: torch.Tensor, gradient: torch.Tensor, shortlist: Any, rate: float
    ) -> torch.Tensor:
        """Move the label rows against d loss / d scores (B, r + s); returns d loss / d hidden."""
        own, out = self.own_back(gradient, shortlist)
        r = shortlist.labels.shape[1]
        for columns, table, _ in self._shared(shortlist.shared):
            part = gradient[:, r:][:, columns]
            self._update_shared(hidden, part, table, shortlist.shared[columns], out, rate)
        self.update_own(hidden, own, rate)
        self._kept = None
        return out

    def own_back(self, gradient: torch.Tensor, shortlist: Any) -> tuple[tuple, torch.Tensor]:
        """Places of the rows' own labels, to be moved later, and their d loss / d hidden."""
        r = shortlist.labels.shape[1]
        own = self.ends.padded_places(shortlist.labels, gradient[:, :r].contiguous())
        return own, self.ends.gather_sum(own, self.labels)

    def update_own(self, hidden: torch.Tensor, own: tuple, rate: float) -> None:
        """Move the rows' own labels."""
        self.ends.scatter(own, hidden, self.labels, rate, NEGLIGIBLE)

    def update_block(
        self,
        hidden: torch.Tensor,
        gradient: torch.Tensor,
        block: slice,
        out: torch.Tensor,
        rate: float,
    ) -> None:
        """Move a block of all labels; adds its part of d loss / d hidden to `out`."""
        table = self._rounded(self.labels.part(block))
        self._update_shared(hidden, gradient, table, block, out, rate)

    def _update_shared(self, hidden, gradient, table, labels, out, rate):
        bias_gradients = gradient.sum(0)
        gradient, hidden = widened(self._rounded(gradient), len(table)), self._rounded(hidden)
        add_product(out, gradient, table)
        gradients = product(gradient.T, hidden)[: len(bias_gradients)]
        self.ends.update_rows(labels, gradients, bias_gradients, self.labels, rate)

    def update_features(
        self, X: Rows | np.ndarray, rows: np.ndarray, gradient: torch.Tensor, rate: float
    ) -> None:
        """Move the feature rows of these rows against d loss / d inputs (B, H0)."""
        if isinstance(X, Rows):
            self.ends.scatter(self.ends.places(X, rows), gradient, self.features, rate)
            return
        none = torch.empty(0, dtype=torch.float32, device=self.device)
        gradients = product(self._rounded(self._dense(X, rows)).T, self._rounded(gradient))
        self.ends.update_rows(slice(None), gradients, none, self.features, rate)


def hidden_vectors(
    network: Network, X: Rows | np.ndarray, rows: np.ndarray, n_threads: int, block: int = 512
) -> torch.Tensor:
    """Hidden vectors of many rows for prediction, (len(rows), H)."""
    out = torch.empty(len(rows), network.labels.width, dtype=torch.float32, device=network.device)

    def fill(part):
        out[part] = network.hidden(X, rows[part])

    over_rows(fill, len(rows), block, n_threads)
    return out
