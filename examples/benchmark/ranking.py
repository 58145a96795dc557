"""From scores of any form to the ranked columns that the runs hand back: (n, K), -1 for none."""

import numpy as np

K = 5  # labels ranked for each row


def best_of_dense(scores):
    """Columns of the K best scores of each row, best first."""
    best = np.argpartition(-scores, min(K, scores.shape[1] - 1), axis=1)[:, :K]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)


def best_of_sparse(scores):
    """The same of stored scores; -1 where a row has fewer than K."""
    ranked = np.full((scores.shape[0], K), -1)
    for row, (start, stop) in enumerate(zip(scores.indptr[:-1], scores.indptr[1:], strict=True)):
        order = np.argsort(-scores.data[start:stop], kind="stable")[:K]
        ranked[row, : len(order)] = scores.indices[start:stop][order]
    return ranked


def best_of_lists(rows):
    """The same of lists of ranked columns."""
    ranked = np.full((len(rows), K), -1)
    for row, columns in enumerate(rows):
        ranked[row, : len(columns)] = columns[:K]
    return ranked


def in_blocks(score, X, n_rows):
    """Rank by a function that returns dense scores, some rows at a time."""
    blocks = range(0, X.shape[0], n_rows)
    return np.vstack([best_of_dense(np.asarray(score(X[i : i + n_rows]))) for i in blocks])
