"""What a fit chooses by rows that it has not trained on: tail bias, weights of votes and fusion."""

import numpy as np

from skxmc._lazy import torch
from skxmc._neighbors import mix, scores_of
from skxmc._network import hidden_vectors
from skxmc._ranking import fuse, side_by_side
from skxmc._threads import blocks, for_each
from skxmc.metrics._ranking import _hits

CANDIDATES = 50  # labels of a row that may be its best under a tail bias
TAIL_BIASES = (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
NEIGHBOR_WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
FUSION_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)


def choose_tail_bias(held_out, offsets, seen, n_threads=1):
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
    n_threads : int
        So many of them are looked at side by side.
    """

    def judge(predictor, X, Y):
        labels, scores = _candidates(predictor, X, Y.shape[0], offsets)
        precision = {}
        for bias in sorted(TAIL_BIASES, key=abs):  # nearest to 0 first
            order = np.argsort(-(scores + bias * offsets[labels]), axis=1, kind="stable")[:, :5]
            best = np.take_along_axis(labels, order, 1)
            precision[bias] = _row_precision(Y, seen[best])
        return precision

    precision = _judged(judge, held_out, n_threads)
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


def choose_neighbor_weight(held_out, seen, n_threads=1):
    """The weight of the neighbours' votes that ranks best; of several alike the least.

    Parameters
    ----------
    held_out : iterable of (Predictor, Neighbors, X, Y)
        Rows, and who has not trained on them.
    seen : ndarray of shape (L,)
        Which columns of Y the predictor's labels are.
    n_threads : int
        As above.
    """

    def judge(predictor, neighbors, X, Y):
        n = min(5, len(seen))
        labels, plain = predictor.topk(X, Y.shape[0], n)
        precision = {weight: [] for weight in (0.0, *NEIGHBOR_WEIGHTS)}
        for block in blocks(Y.shape[0], 1024):
            rows = np.arange(block.start, block.stop)
            hidden = hidden_vectors(predictor.network, X, rows, predictor.n_threads)
            votes = neighbors.votes(hidden, predictor.n_threads)
            scores = scores_of(predictor.network, hidden, votes)
            for weight, parts in precision.items():
                best, _ = mix((labels[block], plain[block]), votes, scores, weight, n)
                parts.append(_row_precision(Y[rows], seen[best]))
        return {weight: np.concatenate(parts) for weight, parts in precision.items()}

    return _best(_judged(judge, held_out, n_threads))


def choose_fusion(held_out):
    """The weight of the classifier that ranks best; of several alike the largest.

    held_out : iterable of (rankings, Y), of some rows each.
    """

    def judge(rankings, Y):
        n = min(5, Y.shape[1])
        return {
            beta: _row_precision(Y, fuse(*rankings, beta, n)[0])
            for beta in reversed(FUSION_WEIGHTS)
        }

    return _best(_judged(judge, held_out, 1))


def _judged(judge, held_out, n_threads):
    """The precision of each row under each choice, {choice: (n,)}, of all rows held out.

    `judge` is called with each item of `held_out` and returns that of its rows.
    """
    found = {}

    def keep(numbered):
        number, item = numbered
        found[number] = judge(*item)

    if n_threads == 1:  # here, where torch has the caller's threads
        for numbered in enumerate(held_out):
            keep(numbered)
    else:
        for_each(keep, enumerate(held_out), n_threads)
    parts = [found[number] for number in sorted(found)]
    return {choice: np.concatenate([part[choice] for part in parts]) for choice in parts[0]}


def _best(precision):
    """The choice of the highest mean, of several alike the first."""
    return max(precision, key=lambda choice: precision[choice].mean())


def _row_precision(Y, labels):
    """Mean of P@1, P@3 and P@5 of each row, (n,)."""
    hits = _hits(Y, labels)  # (n, 5)
    sizes = sorted({min(k, labels.shape[1]) for k in (1, 3, 5)})
    return np.mean([hits[:, :k].mean(1) for k in sizes], axis=0)
