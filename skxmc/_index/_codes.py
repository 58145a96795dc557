"""Vectors as whole numbers of 8 bits, whose products are exact whatever computes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from skxmc._lazy import torch
from skxmc._threads import blocks

_EXACT = 2**24 - 1  # up to here float32 holds every whole number


def encode(vectors: torch.Tensor, most: int = 127) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers (n, D) of at most `most`, and what makes them vectors again, (n,)."""
    highest = vectors.abs().amax(1).clamp_min_(1e-30)
    codes = (vectors * (most / highest)[:, None]).nan_to_num_(0, 0, 0).round_()
    return codes.to(torch.int8).numpy(), (highest / most).nan_to_num_(0, 0, 0).numpy()


def encode_queries(vectors: torch.Tensor) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """As `encode`, such that sums of products with other codes stay whole in float32."""
    return encode(vectors, max(1, min(127, _EXACT // (127 * vectors.shape[1]))))


def products(
    queries: torch.Tensor, table: torch.Tensor, size: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Products of queries (n, D) and a table (m, D), by blocks of its rows, both int8 or float32.

    Yields the rows and (n, c) int32 or float32, each in the same memory: new memory costs time.
    """
    coded = table.dtype == torch.int8
    product, dtype = (torch._int_mm, torch.int32) if coded else (torch.mm, torch.float32)
    buffer = torch.empty(len(queries) * min(size, len(table)), dtype=dtype)
    for rows in blocks(len(table), size):
        part = table[rows]
        out = buffer[: len(queries) * len(part)].view(len(queries), len(part))
        yield rows, product(queries, part.T, out=out).numpy()
