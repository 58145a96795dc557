"""The few axes along which most of what hidden vectors say lies."""

from __future__ import annotations

import numpy as np

from skxmc._lazy import torch


def leading_axes(
    units: torch.Tensor, n_axes: int, rng: np.random.Generator, n_iter: int = 6
) -> torch.Tensor:
    """Orthonormal columns (H, n_axes) that span the leading eigenvectors of the second moments.

    Of unit vectors (s, H), by subspace iteration: eigensolvers do not converge where most units are
    dead.
    """
    start = rng.standard_normal((units.shape[1], n_axes), dtype=np.float32)
    axes = torch.from_numpy(start).to(units.device)
    for _ in range(n_iter):
        axes, _ = torch.linalg.qr(units.T @ (units @ axes))
    return axes


def evened_axes(
    units: torch.Tensor, n_axes: int, rng: np.random.Generator, n_iter: int = 3
) -> torch.Tensor:
    """Leading axes (H, n_axes), scaled to be more alike in how much of the length lies on them.

    Each is divided by the square root of its root mean square: with the first few as long as they
    are, all rows would look alike; with all of one length, the last would count for more than they
    tell. Axes of which the sample tells nothing are zeros. At most as many as the sample has rows.
    """
    axes = leading_axes(units, min(n_axes, *units.shape), rng, n_iter)
    along = (units @ axes).cpu().numpy().astype(np.float64)  # (s, n_axes)
    squares, turn = np.linalg.eigh(along.T @ along / len(units))
    known = squares > 1e-6 * squares[-1]
    factors = np.zeros_like(squares)
    factors[known] = squares[known] ** -0.25
    scaled = torch.from_numpy((turn * factors).astype(np.float32)).to(axes.device)
    return axes @ scaled
