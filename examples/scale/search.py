"""Exact search beside ``search="approximate"``: rows a second, a single row, what is found.

    python examples/scale/search.py --data train.txt test.txt
    python examples/scale/search.py --labels 500000 --rows 1000000 --epochs 3

Files are of the Extreme Classification Repository; without them the problem is synthetic
(:func:`skxmc.datasets.make_xmc`). The two searches take turns on the same fitted model. "found" is
the share of the exact five best labels, without votes and with them, where neighbours vote.
"""

import argparse
import time

import numpy as np

from skxmc import XMCClassifier
from skxmc.datasets import load_xmc_file, make_xmc
from skxmc.metrics import precision_at_k

SEARCHES = ("exact", "approximate")


def load(args):
    """X, Y, X_test, Y_test."""
    if args.data:
        X, Y = load_xmc_file(args.data[0])
        X_test, Y_test = load_xmc_file(args.data[1])
    else:
        n = args.rows
        X, Y = make_xmc(
            n + 10_000, args.labels, args.labels, n_features_per_sample=args.words, random_state=0
        )
        X, X_test, Y, Y_test = X[:n], X[n:], Y[:n], Y[n:]
    rows = np.sort(np.random.default_rng(0).permutation(X_test.shape[0])[: args.test_rows])
    return X, Y, X_test[rows], Y_test[rows]


def seconds_a_row(clf, X):
    """Of one prediction of all rows; the first calls prepare."""
    clf.predict_topk(X[:600])
    clf.predict_topk(X[:600])
    start = time.perf_counter()
    labels, _ = clf.predict_topk(X)
    return labels, (time.perf_counter() - start) / X.shape[0]


def seconds_alone(clf, X):
    """Median of rows that come one by one."""
    seconds = []
    for i in range(200):
        row = X[i : i + 1]
        start = time.perf_counter()
        clf.predict_topk(row)
        seconds.append(time.perf_counter() - start)
    return np.median(seconds[20:])


def main():
    """See the top."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=300_000, help="for training")
    parser.add_argument("--words", type=int, default=50, help="of a row")
    parser.add_argument("--test-rows", type=int, default=8192)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--n-jobs", type=int, default=1, help="of predictions")
    args = parser.parse_args()

    X, Y, X_test, Y_test = load(args)
    start = time.perf_counter()
    clf = XMCClassifier(max_iter=args.epochs, n_jobs=2, random_state=0).fit(X, Y)
    print(f"{Y.shape[1]:,} labels, {X.shape[0]:,} rows, fit {time.perf_counter() - start:.0f} s, "
          f"neighbor_weight_ {clf.neighbor_weight_}", flush=True)  # fmt: skip
    clf.set_params(n_jobs=args.n_jobs)
    for weight in sorted({0.0, clf.neighbor_weight_}):
        clf.neighbor_weight_ = weight
        runs = {search: [] for search in SEARCHES}
        for _ in range(args.turns):
            for search in SEARCHES:
                clf.set_params(search=search)
                labels, rate = seconds_a_row(clf, X_test)
                runs[search].append((rate, seconds_alone(clf, X_test), labels))
        exact = runs["exact"][0][2]
        for search in SEARCHES:
            rate, alone = (np.median([run[i] for run in runs[search]]) for i in (0, 1))
            labels = runs[search][0][2]
            share = np.mean([np.isin(a, b).mean() for a, b in zip(exact, labels, strict=True)])
            cells = " ".join(f"{100 * precision_at_k(Y_test, labels, k=k):5.2f}" for k in (1, 3, 5))
            print(f"{search:11} weight {weight:4.2f}  {1 / rate:8,.0f} rows/s  one row "
                  f"{1e3 * alone:6.2f} ms  found {share:7.2%}  P@1/3/5 {cells}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
