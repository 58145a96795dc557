"""What a fitted network says of new rows, block by block: no (n, L) matrix unless asked for."""

import numpy as np
import scipy.sparse as sp
import torch
from scipy.special import expit, softmax

from skxmc._index import exact_topk
from skxmc._network import hidden_vectors
from skxmc._threads import blocks

_ROWS = 8192  # rows whose hidden vectors exist at a time
_CELLS = 2**24  # scores that exist at a time where all labels are needed: 64 MB


def rank(network, X, n_rows, k, n_threads):
    """The k best labels of each row: labels (n, k) int64 and scores (n, k) float32, best first."""
    labels, scores = np.empty((n_rows, k), np.int64), np.empty((n_rows, k), np.float32)
    for block in blocks(n_rows, _ROWS):
        hidden = hidden_vectors(network, X, np.arange(block.start, block.stop), n_threads)
        table = network.labels
        scores[block], labels[block] = exact_topk(hidden, table.weights, table.biases, k, n_threads)
    return labels, scores


def dense_scores(network, X, n_threads):
    """Blocks of rows and their scores of all labels: yields (slice, (B, L) float32)."""
    table = network.labels
    for block in blocks(X.shape[0], max(1, min(_ROWS, _CELLS // network.n_labels))):
        hidden = hidden_vectors(network, X, np.arange(block.start, block.stop), n_threads)
        yield block, torch.addmm(table.biases, hidden, table.weights.T).cpu().numpy()


def as_csr(labels, values, n_labels):
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


def probabilities(scores, kind):
    """Independent sigmoids, strictly inside (0, 1); softmax of a row where y was 1-d classes."""
    if kind == "classes":
        return softmax(scores, axis=1)
    return np.clip(expit(scores), np.finfo(scores.dtype).tiny, 1 - np.finfo(scores.dtype).epsneg)
