"""Dropout by batch: which hidden units take part in a step, the same for all rows of the batch.

Units come and go in blocks, so that what is left of a table row lies in few pieces of memory, and
a step reads, multiplies and writes nothing of the units that it leaves out. The larger the blocks,
the less a step costs, and the less labels of few rows learn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIZE = 32  # units of a block, where a layer is wide enough for many


class Units(NamedTuple):
    """The units of a layer that take part."""

    spans: NDArray[np.uint64]  # (m, 2): first and last + 1, ascending and apart
    n: int  # how many
    scale: float = 1.0  # what makes up for the others

    @classmethod
    def all(cls, width: int) -> Units:
        """All units of a layer."""
        return cls.first(width)

    @classmethod
    def first(cls, n: int) -> Units:
        """So many units of a layer, its first: for a look at rows, not for training."""
        return cls(np.array([[0, n]], np.uint64), n)

    @classmethod
    def draw(cls, width: int, dropout: float, rng: np.random.Generator) -> Units:
        """Some of the blocks of a layer: each with probability 1 - dropout, and at least one."""
        size = min(SIZE, max(1, width // 16))
        n_blocks = -(-width // size)
        share = max(n_blocks * (1 - dropout), 1.0)
        n = int(share + rng.random())  # the next lower or higher, and share on average
        spans: list[list[int]] = []
        end = -1
        for block in sorted(rng.permutation(n_blocks)[:n].tolist()):
            if block == end:
                spans[-1][1] += size
            else:
                spans.append([block * size, block * size + size])
            end = block + 1
        beyond = max(0, spans[-1][1] - width)  # the last block may be a smaller one
        spans[-1][1] -= beyond
        return cls(np.array(spans, np.uint64), n * size - beyond, n_blocks / share)

    @property
    def columns(self) -> NDArray[np.int64]:
        """Their numbers, (n,)."""
        return np.concatenate([np.arange(*span, dtype=np.int64) for span in self.spans])
