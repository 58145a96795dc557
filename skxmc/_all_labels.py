"""Training against all labels, a block of them at a time: the (B, L) scores never exist.

That takes a loss that says how it depends on its negatives (`Loss.over_negatives`): on each for
itself, or on the log of the sum of their exps, which a first pass over the blocks finds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxmc._device_memory import block_size
from skxmc._ends import Rows, entries, move
from skxmc._lazy import torch
from skxmc._network import Network
from skxmc._threads import blocks
from skxmc.losses import Loss


class Positives:
    """Where the labels of a batch lie in a block of all labels: they are no negatives."""

    def __init__(self, Y: Rows, rows: NDArray[np.int64], device: torch.device):
        row, at = entries(Y, rows)
        self.n_rows, self.n = len(rows), len(at)
        self._row = move(row, device)
        self._labels = move(Y.indices[at].astype(np.int64), device)

    def mask(self, block: slice) -> torch.Tensor:
        """1 at the negatives of each row and 0 at its positives, (B, size of the block)."""
        size = block.stop - block.start
        at = self._row * size + self._labels - block.start
        elsewhere = (self._labels < block.start) | (self._labels >= block.stop)
        out = torch.ones(self.n_rows * size + 1, dtype=torch.float32, device=at.device)
        out.index_fill_(0, at.masked_fill(elsewhere, self.n_rows * size), 0)
        return out[:-1].view(self.n_rows, size)


def train_on_all(
    net: Network,
    hidden: torch.Tensor,
    shortlist: Any,
    positives: Positives,
    loss: Loss,
    rate: float,
) -> tuple:
    """Move the label rows against the loss over all labels.

    `shortlist` holds the positives that count, and nothing else. Returns the loss, the sum of
    |d loss / d score| of the negatives, for how many of them it is not 0, and d loss / d hidden.
    """
    n = len(hidden)
    all_blocks = blocks(net.n_labels, block_size(n, hidden.shape[1], hidden.device))
    scores = net.scores(hidden, shortlist)  # (B, p)
    weights = move(shortlist.weights, net.device)  # (B, p)
    pull = None
    if loss.over_negatives == "logsumexp":
        low = torch.finfo(torch.float32).min
        total = hidden.new_full((n, 1), low)
        for block in all_blocks:
            found = net.block_scores(hidden, block).masked_fill_(positives.mask(block) == 0, low)
            total = torch.logaddexp(total, found.logsumexp(1, keepdim=True))
        # One negative of that score stands for them all.
        value, slopes = _of_places(
            loss, torch.cat([scores, total], 1), torch.cat([weights, weights.new_ones(n, 1)], 1), 1
        )
        slopes, pull = slopes[:, :-1], slopes[:, -1:]  # (B, p), (B, 1)
    else:
        value, slopes = _of_places(loss, scores, weights, 0)

    own, back = net.own_back(slopes, shortlist)
    hardness = active = 0
    for block in all_blocks:
        found, mask = net.block_scores(hidden, block), positives.mask(block)
        if pull is None:
            more, gradient = _of_places(loss, found, mask, found.shape[1])
            value = value + more
        else:
            gradient = found.masked_fill_(mask == 0, low).sub_(total).exp_().mul_(mask).mul_(pull)
        hardness = hardness + gradient.abs().sum()
        if loss.reports_active:
            active = active + gradient.count_nonzero()
        net.update_block(hidden, gradient, block, back, rate)
    net.update_own(hidden, own, rate)
    return value, hardness, active, back


def _of_places(loss, scores, weights, n_negatives):
    """Loss and gradient of places, of which the last are negatives."""
    targets = torch.ones(scores.shape[1], dtype=torch.float32, device=scores.device)
    targets[scores.shape[1] - n_negatives :] = 0
    more = {"log_expected": torch.zeros_like(targets)} if loss.uses_log_expected else {}
    return loss.value_and_gradient(scores, targets.expand_as(scores), weights, **more)
