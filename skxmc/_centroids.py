"""Label centroids, the mean hidden vector of each label's rows, and unit vectors for cosines."""

import numpy as np
import scipy.sparse as sp

from skxmc._threads import blocks


def label_centroids(network, Y, n_labels, block_size=16384):
    """Centroids (L, H) float32 of the rows that carry each label, zero where there is none.

    A sparse product for each block of rows and its labels: neither the hidden vectors of all rows
    nor those of all (row, label) pairs are ever in memory.

    Parameters
    ----------
    network : object
        Offers ``hidden(rows)``, (len(rows), H).
    Y : Rows
        Label lists of all rows.
    n_labels : int
    block_size : int
    """
    total = None
    for block in blocks(len(Y.indptr) - 1, block_size):
        hidden = network.hidden(np.arange(block.start, block.stop)).cpu().numpy()  # (b, H)
        if total is None:
            total = np.zeros((n_labels, hidden.shape[1]), np.float32)
        starts = Y.indptr[block.start : block.stop + 1]
        own = Y.indices[starts[0] : starts[-1]]
        ones = np.ones(len(own), np.float32)
        labels, columns = np.unique(own, return_inverse=True)
        part = sp.csr_array((ones, columns, starts - starts[0]), (len(hidden), len(labels)))
        total[labels] += part.T @ hidden
    counts = np.bincount(Y.indices, minlength=n_labels)
    total /= np.maximum(counts, 1).astype(np.float32)[:, None]
    return total


def unit_rows(vectors):
    """Rows (n, H) at unit length; zeros stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return vectors / np.maximum(norms, 1e-12)[:, None]
