"""The shortlist, the currency between samplers, network and losses: positives + negatives."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skxmc._ends import Rows, move
from skxmc._lazy import torch

MAX_POSITIVES = 256  # of a row in one visit; rows of more have others drawn at the next


@dataclass
class Shortlist:
    """The labels that a batch is trained against: each row's own, then those that all rows share.

    Of the r own places the first `n_positives` hold positives, the rest proposals for the row; the
    s shared ones hold proposals for the whole batch. A place of weight 0 does not count: padding,
    a proposal that is a positive of the row, or a repeat.
    """

    labels: np.ndarray  # (B, r) int32, -1: none
    shared: np.ndarray  # (s,) int32, distinct
    n_positives: int
    weights: np.ndarray  # (B, r + s) float32
    log_expected: np.ndarray  # (r + s,) float32, NaN where it is unknown
    pools: list  # [(columns, k)]: of these columns, only the k highest-scoring count


def make_shortlist(
    Y: Rows,
    rows: np.ndarray,
    proposals: list,
    rng: np.random.Generator,
    slot: NDArray[np.int32],
    max_positives: int = MAX_POSITIVES,
    positive_weights: NDArray[np.float32] | None = None,
) -> Shortlist:
    """Positives + negatives -> shortlist, with accidental hits and repeats masked.

    A row of more than `max_positives` labels is trained on that many of them, drawn anew at each
    visit; the others are masked, never taken for negatives. `slot` is scratch: -1 for each label.
    `positive_weights` (L,): of labels among the positives; None: 1.
    """
    from skxmc import _shortlist_kernels

    counts = Y.indptr[rows + 1] - Y.indptr[rows]
    p = int(min(counts.max(), max_positives))
    proposals = [_as_int32(a, Y.shape[1]) for a in proposals]
    proposals.sort(key=_is_pool)  # a pool may drop what another wants: it yields
    own = [a for a in proposals if a.labels.ndim == 2]
    common = [a for a in proposals if a.labels.ndim == 1]
    sizes = [p, *(a.labels.shape[-1] for a in own + common)]
    starts = list(itertools.accumulate(sizes, initial=0))[1:]
    r = starts[len(own)]
    labels = np.empty((len(rows), r), np.int32)
    if p:  # where to start in the lists of rows that have too many
        labels[:, 0] = rng.integers(0, 2**31, len(rows))
    for a, start in zip(own, starts, strict=False):
        labels[:, start : start + a.labels.shape[1]] = a.labels
    shared = np.concatenate([labels[0, :0], *(a.labels for a in common)])
    if not _shortlist_kernels.are_labels(labels, p, shared, Y.shape[1]):
        raise _no_label(Y.shape[1])
    pool = labels[:, r - sum(a.labels.shape[1] for a in own if _is_pool(a)) :]
    if pool.size:
        wanted = np.concatenate([shared[:0], *(a.labels for a in common if not _is_pool(a))])
        slot[wanted] = 0
        pool[slot[pool] == 0] = -1
        slot[wanted] = -1

    weights = _spread([1.0, *(a.weight for a in own + common)], sizes)  # (r + s,)
    log_expected = _spread([0.0, *(a.log_expected for a in own + common)], sizes)
    kept = np.arange(len(weights))
    if len(common) > 1:  # what two samplers propose to all counts once, as the first says
        kept = np.concatenate([kept[:r], r + _shortlist_kernels.first_of_each(shared, slot)])
        shared, weights, log_expected = shared[kept[r:] - r], weights[kept], log_expected[kept]
    pools = [
        (np.flatnonzero((start <= kept) & (kept < start + size)), a.keep)
        for a, start, size in zip(own + common, starts, sizes[1:], strict=False)
        if _is_pool(a)
    ]
    out = np.empty((len(rows), len(weights)), np.float32)
    if positive_weights is None:
        positive_weights = weights[:0]
    _shortlist_kernels.fill_shortlist(
        Y.indptr, Y.indices, rows, p, labels, shared, weights, positive_weights, out, slot
    )
    return Shortlist(labels, shared, p, out, log_expected, pools)


def _as_int32(proposal, n_labels):
    """The proposal, its labels as int32 if they fit."""
    labels = proposal.labels
    if labels.dtype == np.int32:
        return proposal
    if labels.min(initial=0) < -(2**31) or labels.max(initial=-1) >= n_labels:
        raise _no_label(n_labels)
    return replace(proposal, labels=labels.astype(np.int32))


def _no_label(n_labels):
    return IndexError(
        f"The sampler proposed a label that is none of the {n_labels} that there are: 0 to "
        f"{n_labels - 1}, and -1 for none only among a row's own."
    )


def _is_pool(proposal):
    return proposal.keep is not None


def _spread(values, sizes):
    """One number for each column from one, or as many, for each proposal."""
    out, end = np.empty(sum(sizes), np.float32), 0
    for value, size in zip(values, sizes, strict=True):
        start, end = end, end + size
        out[start:end] = value
    return out


def keep_hardest(shortlist: Shortlist, scores: torch.Tensor) -> tuple[Shortlist, torch.Tensor]:
    """Reduce each pool to the k highest-scoring labels of each row (stochastic negative mining).

    They become the row's own, so that the backward pass touches k labels and not the pool. Which
    they are stays on the device: of a GPU, `labels` and `weights` are then tensors.
    """
    if not shortlist.pools:
        return shortlist, scores
    device, r = scores.device, shortlist.labels.shape[1]
    before = move(shortlist.weights, device)  # (B, r + s)
    own_labels, common_labels = move(shortlist.labels, device), move(shortlist.shared, device)
    every = torch.cat([own_labels, common_labels.expand(len(scores), -1)], 1)  # (B, r + s)
    rest = np.ones(scores.shape[1], bool)
    kept = []  # places of each pool, (B, k)
    for columns, k in shortlist.pools:
        rest[columns] = False
        at = move(columns, device)
        candidates = scores[:, at].masked_fill(before[:, at] == 0, -torch.inf)
        kept.append(at[candidates.topk(min(k, len(columns)), dim=1).indices])
    own, common = np.flatnonzero(rest[:r]), np.flatnonzero(rest[r:]) + r
    expected = shortlist.log_expected
    zeros = np.zeros(sum(at.shape[1] for at in kept), np.float32)
    log_expected = np.concatenate([expected[own], zeros, expected[common]])
    shared = shortlist.shared[common - r]
    own, common = move(own, device), move(common, device)

    def reorder(table, *last):
        return torch.cat([table[:, own], *(table.gather(1, at) for at in kept), *last], 1)

    labels = reorder(every)
    weights = reorder(before, before[:, common])
    scores = reorder(scores, scores[:, common])
    labels.masked_fill_(weights[:, : labels.shape[1]] == 0, -1)
    if device.type == "cpu":
        labels, weights = labels.numpy(), weights.numpy()
    return Shortlist(labels, shared, shortlist.n_positives, weights, log_expected, []), scores
