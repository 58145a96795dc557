"""What a fit chooses by rows that it has not trained on: tail bias, weights of votes and fusion."""

import numpy as np

from skxmc._lazy import torch
from skxmc._neighbors import mix, scores_of
from skxmc._network import hidden_vectors
from skxmc._ranking import fuse, side_by_side
from skxmc.metrics._ranking import _hits

CANDIDATES = 50  # labels of a row that may be its best under a tail bias
TAIL_BIASES = (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
NEIGHBOR_WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
FUSION_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)


def choose_tail_bias(held_out, offsets, seen):
    """The tail bias that ranks best, or one as good that is nearer to 0.

    As good is what differs from the best by at most one standard error, row by row. All labels are
    searched under the two outermost biases alone, and those in between rank what was found: who
    beats a label there beats it at one of the ends, since a score is linear in the bias.

    Parameters
    ----------
    held_out : iterable of (Predictor, X, Y)
        Rows, and who has not trained on them.
    offsets : ndarray of shape (L,), float32
        Of the labels trained.
    seen : ndarray of shape (L,)
        Which columns of Y these are.
    """
    precision = {bias: [] for bias in sorted(TAIL_BIASES, key=abs)}  # nearest to 0 first
    for predictor, X, Y in held_out:
        labels, scores = _candidates(predictor, X, Y.shape[0], offsets)
        for bias, rows in precision.items():
            order = np.argsort(-(scores + bias * offsets[labels]), axis=1, kind="stable")[:, :5]
            rows.append(_row_precision(Y, seen[np.take_along_axis(labels, order, 1)]))
    precision = {bias: np.concatenate(rows) for bias, rows in precision.items()}
    best = max(precision.values(), key=np.mean)
    for bias, rows in precision.items():
        loss = best - rows
        if loss.mean() <= loss.std() / np.sqrt(len(loss)):
            return bias


def _candidates(predictor, X, n_rows, offsets):
    """Labels (n, m), ascending, that are near a row's best, and their scores without tail bias.

    Minus infinity where a label stands for the second time.
    """
    table, n = predictor.network.labels, min(CANDIDATES, len(offsets))
    biases, own = table.biases, predictor.network.own_labels(offsets)
    step = torch.from_numpy(own).to(biases.device)
    found = []
    for bias in (min(TAIL_BIASES), max(TAIL_BIASES)):
        table.biases = biases + bias * step
        labels, scores = predictor.topk(X, n_rows, n)
        found.append((labels, scores - bias * offsets[labels]))
    table.biases = biases
    labels, scores, twice, _ = side_by_side(*zip(*found, strict=True))
    scores[:, 1:][twice] = -np.inf
    return labels, scores


def choose_neighbor_weight(held_out, seen):
    """The weight of the neighbours' votes that ranks best; of several alike the least.

    Parameters
    ----------
    held_out : iterable of (Predictor, Neighbors, X, Y)
        Rows, and who has not trained on them.
    seen : ndarray of shape (L,)
        Which columns of Y the predictor's labels are.
    """
    precision = {weight: [] for weight in (0.0, *NEIGHBOR_WEIGHTS)}
    for predictor, neighbors, X, Y in held_out:
        n = min(5, len(seen))
        ranking = predictor.topk(X, Y.shape[0], n)
        hidden = hidden_vectors(predictor.network, X, np.arange(Y.shape[0]), predictor.n_threads)
        votes = neighbors.votes(hidden, predictor.n_threads)
        scores = scores_of(predictor.network, hidden, votes)
        for weight, rows in precision.items():
            labels = mix(ranking, votes, scores, weight, n)[0]
            rows.append(_row_precision(Y, seen[labels]))
    return max(precision, key=lambda weight: np.concatenate(precision[weight]).mean())


def choose_fusion(held_out):
    """The weight of the classifier that ranks best; of several alike the largest.

    held_out : iterable of (rankings, Y), of some rows each.
    """
    precision = {beta: [] for beta in reversed(FUSION_WEIGHTS)}
    for rankings, Y in held_out:
        n = min(5, Y.shape[1])
        for beta, rows in precision.items():
            rows.append(_row_precision(Y, fuse(*rankings, beta, n)[0]))
    return max(precision, key=lambda beta: np.concatenate(precision[beta]).mean())


def _row_precision(Y, labels):
    """Mean of P@1, P@3 and P@5 of each row, (n,)."""
    hits = _hits(Y, labels)  # (n, 5)
    sizes = sorted({min(k, labels.shape[1]) for k in (1, 3, 5)})
    return np.mean([hits[:, :k].mean(1) for k in sizes], axis=0)
