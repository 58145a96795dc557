"""The two ends of the network: a batch's rows of a huge table, read and updated in place.

`CompiledEnds` runs the loops of `_kernels.py` on the CPU, `TorchEnds` says the same in plain torch
for any device; the network cannot tell them apart. Training keeps one number per table row
(row-wise Adagrad), so that its memory is that of the model, and a row that no batch touches costs
nothing.

Both take *places*: which table rows (ids) belong to which row of the batch, with a coefficient
each. Their form is each end's own secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from skxmc._lazy import torch
from skxmc._units import Units

FIRST_SQUARES = 0.01  # what Adagrad remembers of a row that it has not met yet


def move(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array as a tensor on the device; the host does not wait until it has arrived there."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def canonical(matrix):
    """A scipy CSR matrix without stored zeros, column numbers sorted and distinct.

    Itself where it is so already, since it may lie on disk; else a copy. The order of a sum shows
    in its last bits, and so do stored zeros in it.
    """
    if matrix.has_canonical_format and matrix.data.all():
        return matrix
    matrix = matrix.copy()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


class Rows(NamedTuple):
    """A CSR matrix in the one form that the kernels are compiled for."""

    indptr: np.ndarray  # (n + 1,) int64
    indices: np.ndarray  # (nnz,) int32, ascending within a row
    data: np.ndarray | None  # (nnz,) float32; None: all ones
    shape: tuple

    @classmethod
    def of(cls, matrix: sp.csr_array, values: bool = True) -> Rows:
        """Take over a canonical scipy CSR matrix, copying only arrays of another dtype."""
        return cls(
            matrix.indptr.astype(np.int64, copy=False),
            matrix.indices.astype(np.int32, copy=False),
            matrix.data.astype(np.float32, copy=False) if values else None,
            matrix.shape,
        )


def entries(matrix: Rows, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the stored entries of these rows: which of the rows each is of, and where it is stored."""
    starts = matrix.indptr[rows]
    counts = matrix.indptr[rows + 1] - starts
    at = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
    return np.repeat(np.arange(len(rows)), counts), at


@dataclass
class Table:
    """Weights of which a batch touches a few rows, with what row-wise Adagrad remembers.

    Where `units` are given, their columns alone take part: what stands beside a row has no others.
    """

    weights: torch.Tensor  # (n, width) float32
    biases: torch.Tensor  # (n,) float32, or (0,) where there are none
    squares: torch.Tensor | None = None  # (n,): mean squared gradient of the row, summed
    bias_squares: torch.Tensor | None = None  # (n,) or (0,)
    units: Units | None = None

    def thinned(self, units: Units) -> Table:
        """The same table, of which these columns take part."""
        return Table(self.weights, self.biases, self.squares, self.bias_squares, units)

    @property
    def width(self) -> int:
        """How many columns take part."""
        return self.weights.shape[1] if self.units is None else self.units.n

    @property
    def spans(self) -> NDArray[np.uint64]:
        """Which, for compiled loops."""
        return (self.units or Units.all(self.weights.shape[1])).spans

    @property
    def columns(self) -> torch.Tensor | slice:
        """Which, for torch."""
        if self.units is None:
            return slice(None)
        return move(self.units.columns, self.weights.device)

    def part(self, rows: slice = slice(None)) -> torch.Tensor:
        """Of these rows, the columns that take part: a view where all do."""
        return self.weights[rows, self.columns]

    def prepare_training(self) -> None:
        """Start from a small sum of squares: else a first gradient of any size is a full step."""
        self.squares = torch.full_like(self.weights[:, 0], FIRST_SQUARES)
        self.bias_squares = torch.full_like(self.biases, FIRST_SQUARES)

    def numpy(self):
        """Views of everything that training changes, behind the weights the spans."""
        tensors = (self.squares, self.biases, self.bias_squares)
        return [self.weights.numpy(), self.spans, *(a.numpy() for a in tensors)]


class CompiledEnds:
    """Compiled loops over views of the tables. One object per thread: it owns scratch."""

    runs_ahead = False

    def __init__(self):
        from skxmc import _kernels  # numba takes half a second to import

        self.device = torch.device("cpu")
        self._kernels = _kernels
        self._slots = {}

    def slot(self, n: int) -> NDArray[np.int32]:
        """Scratch for grouping by table row: n times -1, and so again after each kernel."""
        if n not in self._slots:
            self._slots[n] = np.full(n, -1, np.int32)
        return self._slots[n]

    @staticmethod
    def places(matrix, rows):
        """The stored entries of these rows of a CSR matrix."""
        return matrix.indptr[rows], matrix.indptr[rows + 1], matrix.indices, matrix.data

    @staticmethod
    def padded_places(ids: NDArray[np.int32], coefficients: torch.Tensor | None = None) -> tuple:
        """The entries of a (B, r) array of ids, -1 where there is none."""
        starts = np.arange(len(ids), dtype=np.int64) * ids.shape[1]
        flat = None if coefficients is None else coefficients.reshape(-1).numpy()
        return starts, starts + ids.shape[1], ids.reshape(-1), flat

    def gather_sum(self, places: tuple, table: Table) -> torch.Tensor:
        """out[i] = sum of coefficient * weights[id] over the places of row i, (B, width)."""
        out = torch.empty(len(places[0]), table.width, dtype=torch.float32)
        self._kernels.gather_sum(*places, table.weights.numpy(), table.spans, out.numpy())
        return out

    def gather_dot(self, places: tuple, hidden: torch.Tensor, table: Table) -> torch.Tensor:
        """weights[id] . hidden[i] + biases[id] for each place, (n_places,); 0 where id is -1."""
        starts, ends, ids, _ = places
        out = torch.empty(len(ids), dtype=torch.float32)
        arrays = table.weights.numpy(), table.spans, table.biases.numpy()
        self._kernels.gather_dot(starts, ends, ids, hidden.numpy(), *arrays, out.numpy())
        return out

    def take(self, ids: NDArray[np.int32], table: Table, n_rows: int | None = None) -> torch.Tensor:
        """A copy of weights[ids], (len(ids), width); zeros behind it where n_rows are wanted."""
        n = len(ids)
        out = torch.empty(n_rows or n, table.width, dtype=torch.float32)
        if table.units is None:
            torch.index_select(table.weights, 0, torch.from_numpy(ids), out=out[:n])
        else:
            self._kernels.take_rows(ids, table.weights.numpy(), table.spans, out.numpy())
        out[n:] = 0
        return out

    def scatter(
        self, places: tuple, source: torch.Tensor, table: Table, rate: float, skip: float = 0.0
    ) -> None:
        """Update weights[id] by the sum of coefficient * source[i] over the places of the id.

        Places of a coefficient smaller than `skip` are passed over.
        """
        slot = self.slot(len(table.weights))
        self._kernels.scatter_adagrad(
            *places, source.numpy(), *table.numpy(), np.float32(rate), np.float32(skip), slot
        )

    def update_rows(self, ids, gradients, bias_gradients, table, rate):
        """Update weights[ids[u]] by gradients[u]; the ids are distinct, or a slice."""
        if isinstance(ids, slice):
            ids = np.arange(*ids.indices(len(table.weights)), dtype=np.int32)
        self._kernels.row_adagrad(
            ids, gradients.numpy(), bias_gradients.numpy(), *table.numpy(), np.float32(rate)
        )

    def adagrad(self, weights, squares, gradients, rate):
        """One step of Adagrad for each number of dense weights."""
        arrays = (a.detach().view(-1).numpy() for a in (weights, squares))
        gradients = gradients.contiguous().view(-1).numpy()
        self._kernels.adagrad(*arrays, gradients, np.float32(rate))

    def summarize(self, gradient, weights, first):
        """Sum of |gradient| from the column `first` on, how many are not 0, and weights not 0."""
        if isinstance(weights, torch.Tensor):
            weights = weights.numpy()
        return self._kernels.summarize(gradient.contiguous().numpy(), weights, first)

    def rectify(self, inputs, biases, units):
        """Units' scale * relu(inputs + biases), and what makes the gradients of both of its own."""
        units = units or Units.all(len(biases))
        scale, out = np.float32(units.scale), torch.empty_like(inputs)
        arrays = inputs.numpy(), biases.detach().numpy(), units.spans
        self._kernels.rectify(*arrays, scale, out.numpy())

        def back(gradient):
            inner, sums = torch.empty_like(out), torch.zeros(len(biases), dtype=torch.float32)
            arrays = out.numpy(), gradient.contiguous().numpy(), units.spans, scale
            self._kernels.rectify_back(*arrays, inner.numpy(), sums.numpy())
            return inner, sums

        return out, back


class TorchEnds:
    """The same in plain torch, on any device.

    Nothing here asks the device for a number, sizes included, so that the host runs ahead of it:
    what does not count is multiplied by 0 where it stands, and not left out.
    """

    runs_ahead = True  # the host, which should seldom wait for what a step has found

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)

    def _move(self, array, dtype):
        if isinstance(array, torch.Tensor):  # it is there already
            return array.long()
        return move(np.asarray(array, dtype), self.device)

    def places(self, matrix, rows):
        """The stored entries of these rows of a CSR matrix."""
        row, at = entries(matrix, rows)
        ids = self._move(matrix.indices[at], np.int64)
        return len(rows), self._move(row, np.int64), ids, self._move(matrix.data[at], np.float32)

    def padded_places(
        self, ids: NDArray[np.int32] | torch.Tensor, coefficients: torch.Tensor | None = None
    ) -> tuple:
        """The entries of a (B, r) array of ids, -1 where there is none."""
        n, r = ids.shape
        row = torch.arange(n, device=self.device).repeat_interleave(r)
        flat = None if coefficients is None else coefficients.reshape(-1)
        return n, row, self._move(ids.reshape(-1), np.int64), flat

    def gather_sum(self, places: tuple, table: Table) -> torch.Tensor:
        """out[i] = sum of coefficient * weights[id] over the places of row i, (B, width)."""
        n_rows, row, ids, coefficients = places
        out = torch.zeros(n_rows, table.width, dtype=torch.float32, device=self.device)
        coefficients = coefficients * (ids >= 0)
        return out.index_add_(0, row, self.take(ids.clamp(min=0), table) * coefficients[:, None])

    def gather_dot(self, places: tuple, hidden: torch.Tensor, table: Table) -> torch.Tensor:
        """weights[id] . hidden[i] + biases[id] for each place, (n_places,); 0 where id is -1."""
        _, row, ids, _ = places
        safe = ids.clamp(min=0)
        scores = (self.take(safe, table) * hidden[row]).sum(1) + table.biases[safe]
        return scores * (ids >= 0)

    def take(
        self, ids: NDArray[np.int32] | torch.Tensor, table: Table, n_rows: int | None = None
    ) -> torch.Tensor:
        """A copy of weights[ids], (len(ids), width); on a GPU nothing is put behind it."""
        ids = self._move(ids, np.int64)
        if table.units is None:
            return table.weights.index_select(0, ids)
        return table.weights[ids[:, None], table.columns]

    def scatter(
        self, places: tuple, source: torch.Tensor, table: Table, rate: float, skip: float = 0.0
    ) -> None:
        """Update weights[id] by the sum of coefficient * source[i] over the places of the id.

        The sum of an id lies at the first of its places in sorted order; the others add 0.
        """
        _, row, ids, coefficients = places
        if not len(ids):
            return
        assert table.squares is not None  # as in training
        assert table.bias_squares is not None
        counts = (ids >= 0) & (coefficients.abs() >= skip)
        ids, order = ids.clamp(min=0).sort()
        row, coefficients = row[order], (coefficients * counts)[order]
        at = torch.arange(len(ids), device=self.device)
        new = torch.ones_like(ids, dtype=torch.bool)
        torch.ne(ids[1:], ids[:-1], out=new[1:])
        first = (at * new).cummax(0).values  # (n_places,)
        gradients = torch.zeros(len(ids), source.shape[1], dtype=torch.float32, device=self.device)
        gradients.index_add_(0, first, source[row] * coefficients[:, None])
        table.squares.index_add_(0, ids, self._mean_squares(gradients, table))
        step = -rate * table.squares[ids].rsqrt()
        table.weights.index_add_(0, ids, self._widened(gradients.mul_(step[:, None]), table))
        if len(table.biases):
            gradients = torch.zeros_like(coefficients).index_add_(0, first, coefficients)
            table.bias_squares.index_add_(0, ids, gradients.square())
            step = -rate * table.bias_squares[ids].rsqrt()
            table.biases.index_add_(0, ids, gradients * step)

    def update_rows(self, ids, gradients, bias_gradients, table, rate):
        """Update weights[ids[u]] by gradients[u]; the ids are distinct, or a slice."""
        if isinstance(ids, slice):  # views, and no copies
            tensors = (table.weights, table.biases, table.squares, table.bias_squares)
            table = Table(*(a[ids] for a in tensors), table.units)
            squares = table.squares.add_(self._mean_squares(gradients, table))
            gradients = self._widened(gradients, table)
            table.weights.addcmul_(gradients, squares.rsqrt()[:, None], value=-rate)
            if len(table.biases):
                squares = table.bias_squares.addcmul_(bias_gradients, bias_gradients)
                table.biases.addcmul_(bias_gradients, squares.rsqrt(), value=-rate)
            return
        ids = self._move(ids, np.int64)
        table.squares[ids] += self._mean_squares(gradients, table)
        step = rate * table.squares[ids].rsqrt()
        table.weights[ids] -= self._widened(step[:, None] * gradients, table)
        if len(table.biases):
            table.bias_squares[ids] += bias_gradients.square()
            step = rate * table.bias_squares[ids].rsqrt()
            table.biases[ids] -= step * bias_gradients

    def adagrad(self, weights, squares, gradients, rate):
        """One step of Adagrad for each number of dense weights.

        As torch.optim does it, whose bookkeeping takes longer than the step.
        """
        with torch.no_grad():
            squares.addcmul_(gradients, gradients)
            weights.addcdiv_(gradients, squares.sqrt().add_(1e-10), value=-rate)

    def summarize(self, gradient, weights, first):
        """Sum of |gradient| from the column `first` on, how many are not 0, and weights not 0."""
        gradient, weights = gradient[:, first:], weights[:, first:]
        counts = gradient.count_nonzero(), (weights != 0).sum()
        return gradient.abs().sum(), *counts

    def rectify(self, inputs, biases, units):
        """Units' scale * relu(inputs + biases), and what makes the gradients of both of its own."""
        units = units or Units.all(len(biases))
        columns = move(units.columns, self.device)
        with torch.no_grad():
            out = torch.relu(inputs + biases[columns]) * units.scale

        def back(gradient):
            inner = torch.where(out > 0, gradient * units.scale, 0.0)
            sums = torch.zeros_like(biases, requires_grad=False)
            return inner, sums.index_copy_(0, columns, inner.sum(0))

        return out, back

    @staticmethod
    def _mean_squares(gradients, table):
        """Of each row over all columns: those that take no part have a gradient of 0."""
        return gradients.square().sum(1) / table.weights.shape[1]

    @staticmethod
    def _widened(gradients, table):
        """With zeros for the columns that take no part."""
        if table.units is None:
            return gradients
        out = gradients.new_zeros(len(gradients), table.weights.shape[1])
        return out.index_copy_(1, table.columns, gradients)
