"""What `fit` is given, in the forms that training works on."""

from contextlib import nullcontext
from numbers import Integral

import numpy as np
import scipy.sparse as sp

from skxmc._ends import Rows, canonical, entries
from skxmc._lazy import torch
from skxmc._mapped import MappedOrder, is_mapped
from skxmc._threads import blocks


def sample_rows(n_rows, n_members, seed):
    """For each member a twentieth of the rows, 4,000 in all; none where that would say little."""
    n = min(4_000 // n_members, n_rows // 20)
    rows = np.random.default_rng([seed, 1]).permutation(n_rows)
    return [np.sort(rows[m * n : (m + 1) * n if n >= 50 else m * n]) for m in range(n_members)]


def take(X, rows):
    """Some of the rows, in memory."""
    if not isinstance(X, Rows):
        return X[rows]
    mapped = MappedOrder.of(X)
    indptr = np.append(0, np.cumsum(X.indptr[rows + 1] - X.indptr[rows]))
    _, at = entries(X, rows)
    with mapped.reading(rows, max(1, len(rows))) if mapped else nullcontext(int) as reach:
        reach(0)
        # Not by scipy, which makes all indices int64 where there are very many.
        return Rows(indptr, X.indices[at], X.data[at], (len(rows), X.shape[1]))


class HeldOut:
    """Rows that a fit does not train on, to judge it by.

    X : they, or with `rows` a larger one on disk, of which they are these. Y : theirs.
    """

    def __init__(self, X, Y, rows=None):
        self.X, self.Y, self.rows = X, Y, rows

    def parts(self):
        """Yields X and Y of all at once, or from the disk, of as many as are mixed together."""
        if self.rows is None:
            yield self.X, self.Y
            return
        for block in blocks(len(self.rows), MappedOrder.of(self.X).mixed):
            yield take(self.X, self.rows[block]), self.Y[block]


def as_rows(X):
    """Sparse X in the form of the kernels, dense X as float32; the user's X stays as it is."""
    if isinstance(X, Rows):
        return X
    if not sp.issparse(X):
        return np.asarray(X, dtype=np.float32)
    return Rows.of(canonical(X))


def rows_on_disk(X):
    """As `as_rows`, where X is mapped and so large that it is not to be copied; else None."""
    rows = as_rows(X) if sp.issparse(X) and is_mapped(X.data) else None
    return rows if MappedOrder.of(rows) else None


def check_k(k):
    """Of rankings, as int."""
    if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
        raise ValueError(f"k={k!r} must be an integer of at least 1.")
    return int(k)


def check_hidden_sizes(sizes):
    """As a tuple of int."""
    sizes = tuple(np.atleast_1d(sizes).tolist())
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(
            f"hidden_layer_sizes={sizes!r} must hold one or more positive integers, e.g. (512,)."
        )
    return sizes


def rate_factors(learning_rate, n_epochs):
    """A name, or the factors of the epochs."""
    if isinstance(learning_rate, str):
        return learning_rate
    try:
        factors = np.asarray(learning_rate, dtype=float)
    except (TypeError, ValueError):
        factors = np.empty(0)
    if factors.shape != (n_epochs,) or not (np.isfinite(factors) & (factors >= 0)).all():
        raise ValueError(
            f"learning_rate={learning_rate!r} must be 'cooldown', 'linear', 'constant', or hold a "
            f"factor of at least 0 for each of the max_iter={n_epochs} epochs."
        )
    return factors


_DEVICES = "'auto', 'cpu', 'cuda' or 'cuda:1'."


def find_device(name):
    """The torch device of a name; "auto" takes a GPU where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is unknown: {_DEVICES}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name!r} is not supported: {_DEVICES}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={name!r}: torch finds no GPU here. Use device='auto' or 'cpu'; for a fitted "
            "model, clf.set_params(device='auto')."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = ", ".join(f"'cuda:{i}'" for i in range(torch.cuda.device_count()))
        raise ValueError(f"device={name!r} does not exist. Of GPUs there are {there}.")
    return name
