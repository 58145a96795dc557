"""Clusters of one size, of vectors that point the same way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def balanced_clusters(
    vectors: np.ndarray, size: int, rng: np.random.Generator, n_iter: int = 2
) -> NDArray[np.int64]:
    """Order rows such that each `size` of them in turn are a cluster; the last may be smaller.

    Rows are bisected by spherical 2-means: those nearest to one centre go left, in a number that is
    a multiple of `size`, the others right, and each half again until it is one cluster.

    vectors : (n_rows, H) float32. Returns (n_rows,) int64.
    """
    from skxmc import _kernels

    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    scale = (1 / np.maximum(norms, 1e-12)).astype(np.float32)
    order = _kernels.bisect_rows(vectors, scale, size, rng.random(len(vectors)), n_iter)
    return order.astype(np.int64)
