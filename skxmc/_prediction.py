"""What a fitted network says of new rows, block by block: no (n, L) matrix unless asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import expit, softmax

from skxmc._ends import Rows
from skxmc._index import ExactIndex
from skxmc._lazy import torch
from skxmc._neighbors import Neighbors
from skxmc._network import Network, hidden_vectors
from skxmc._progress import telling
from skxmc._ranking import Ranking
from skxmc._threads import FEW_ROWS, alone, blocks, for_each

FUSED = 100  # labels of either ranking that late fusion knows
_ROWS = 8192  # rows whose hidden vectors exist at a time
_CELLS = 2**24  # scores that exist at a time where all labels are needed: 64 MB


def rank(
    network: Network,
    X: Rows | np.ndarray,
    n_rows: int,
    k: int,
    n_threads: int,
    index: ExactIndex | None = None,
    log: Callable[[str], object] | None = None,
    neighbors: Neighbors | None = None,
) -> Ranking:
    """The k best labels of each row: labels (n, k) int64 and scores (n, k) float32, best first.

    `index`: built over the network's labels before, which spares single rows its making. `log`
    hears how far it is. `neighbors`, if any, vote.
    """
    labels, scores = np.empty((n_rows, k), np.int64), np.empty((n_rows, k), np.float32)
    table = network.labels
    if index is None:
        index = ExactIndex(n_threads=n_threads).build(table.weights, table.biases)
        index = network.share_index(index)
    for block in telling(blocks(n_rows, _ROWS), "ranked", n_rows, log):
        hidden = hidden_vectors(network, X, np.arange(block.start, block.stop), n_threads)
        scores[block], labels[block] = index.topk(hidden, k, n_threads=n_threads)
        if neighbors is not None:
            found = labels[block], scores[block]
            labels[block], scores[block] = neighbors.rerank(network, hidden, found, n_threads)
    return labels, scores


def rank_by_cosine(
    network: Network,
    embeddings,
    seen: NDArray[np.bool_],
    X: Rows | np.ndarray,
    n_rows: int,
    k: int,
    n_threads: int,
) -> Ranking:
    """The k labels whose unit embeddings (L, H) are nearest: labels (n, k) and cosines (n, k).

    `seen` (L,) says which labels have an embedding; the others are not ranked: where fewer than k
    are left, the label is -1 and the cosine minus infinity.
    """
    labels, cosines = np.empty((n_rows, k), np.int64), np.empty((n_rows, k), np.float32)
    embeddings = network.tensor(embeddings)
    biases = torch.from_numpy(np.where(seen, 0, -np.inf).astype(np.float32)).to(network.device)
    index = ExactIndex(n_threads=n_threads).build(embeddings, biases)
    for block in blocks(n_rows, _ROWS):
        hidden = hidden_vectors(network, X, np.arange(block.start, block.stop), n_threads)
        cosines[block], labels[block] = index.topk(torch.nn.functional.normalize(hidden), k)
    return labels, cosines


def rank_among(
    network: Network, labels: NDArray[np.int64], X: Rows | np.ndarray, n_threads: int
) -> Ranking:
    """Rank each row's own labels (n, m) by their scores: labels (n, m) and scores (n, m)."""
    scores = np.empty(labels.shape, np.float32)
    for block in blocks(len(labels), _ROWS):
        hidden = hidden_vectors(network, X, np.arange(block.start, block.stop), n_threads)
        places = network.ends.padded_places(labels[block].astype(np.int32))
        found = network.ends.gather_dot(places, hidden, network.labels)
        scores[block] = found.view(hidden.shape[0], -1).cpu().numpy()
    order = np.lexsort((labels, -scores))
    return np.take_along_axis(labels, order, 1), np.take_along_axis(scores, order, 1)


def dense_scores(
    network: Network,
    X: Rows | np.ndarray,
    n_threads: int,
    log: Callable[[str], object] | None = None,
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of rows and their scores of all labels: yields (slice, (B, L) float32)."""
    table = network.labels
    size = max(1, min(_ROWS, _CELLS // network.n_labels))
    for block in telling(blocks(X.shape[0], size), "scored", X.shape[0], log):
        hidden = hidden_vectors(network, X, np.arange(block.start, block.stop), n_threads)
        yield block, _scores_of_all(table, hidden, n_threads).cpu().numpy()


def _scores_of_all(table, hidden, n_threads):
    """Scores of all labels, (n, L), on a CPU by threads of ours: the caller's die in a fork."""
    if hidden.device.type != "cpu":
        return torch.addmm(table.biases, hidden, table.weights.T)
    scores = torch.empty(len(hidden), len(table.biases), dtype=torch.float32)

    def score(rows):
        own, out = hidden[rows], scores[rows]
        if len(own) == 1:  # a product with one row may end in bits that tell where the table lies
            out[:] = torch.addmm(table.biases, own.repeat(2, 1), table.weights.T)[:1]
        else:
            torch.addmm(table.biases, own, table.weights.T, out=out)

    if len(hidden) <= FEW_ROWS:
        alone(lambda: score(slice(None)))
    else:
        for_each(score, blocks(len(hidden), max(16, -(-len(hidden) // n_threads))), n_threads)
    return scores


def as_csr(labels: NDArray[np.int64], values: NDArray[np.float32], n_labels: int) -> sp.csr_array:
    """Rankings (n, k) as csr_array (n, n_labels) with ascending indices."""
    n, k = labels.shape
    order = np.argsort(labels, axis=1)
    out = sp.csr_array(
        (
            np.take_along_axis(values, order, 1).ravel(),
            np.take_along_axis(labels, order, 1).ravel(),
            np.arange(0, n * k + 1, k),
        ),
        shape=(n, n_labels),
    )
    out.has_sorted_indices = True
    return out


def probabilities(scores: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Independent sigmoids, strictly inside (0, 1); softmax of a row where y was 1-d classes."""
    if kind == "classes":
        return softmax(scores, axis=1)
    return np.clip(expit(scores), np.finfo(scores.dtype).tiny, 1 - np.finfo(scores.dtype).epsneg)
