"""A million labels on one machine: fit a pass, predict, save, load; seconds, memory and quality.

    python examples/scale/million.py

Two million rows of a synthetic problem (:func:`skxmc.datasets.make_xmc`), 500,000 features and the
estimator's defaults, but one epoch. "frequent" names the most frequent labels for every row. Needs
about 14 GB of memory and 6 GB of disk; `--rows`, `--labels` and `--features` make it smaller.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.metrics import precision_at_k, propensities, psp_at_k
from skxmc.persistence import load_model, save_model

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory_gb(name):
    """VmRSS or VmHWM of this process, on Linux."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 2**20


class Step:
    """Prints what a step took: wall and CPU seconds, and how far memory rose above its start."""

    def __init__(self, name, n_rows=None):
        self.name, self.n_rows = name, n_rows

    def __enter__(self):
        if CLEAR.exists():
            CLEAR.write_text("5")  # the peak counts from here
        self.memory = memory_gb("VmRSS") if STATUS.exists() else None
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        peak = f"{memory_gb('VmHWM') - self.memory:8.2f} GB" if STATUS.exists() else ""
        rate = f"{self.n_rows / wall:10,.0f} rows/s" if self.n_rows else ""
        print(f"{self.name:12} {wall:8.1f} s {cpu:8.1f} CPU s {peak} {rate}", flush=True)


def main():
    """See the top."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=500_000)
    parser.add_argument("--rows", type=int, default=2_000_000, help="for training")
    parser.add_argument("--test-rows", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--n-jobs", type=int, default=None)
    parser.add_argument("--model", type=Path, default=Path("million.safetensors"))
    args = parser.parse_args()

    n = args.rows
    with Step("make"):
        X, Y = make_xmc(n + args.test_rows, args.features, args.labels, random_state=0)
        X, X_test, Y, Y_test = X[:n], X[n:], Y[:n], Y[n:]
    counts = np.bincount(Y.indices, minlength=args.labels)
    print(f"{(counts > 0).sum():,} labels have a row; {X.nnz / n:.0f} features, {Y.nnz / n:.1f} "
          "labels a row")  # fmt: skip
    clf = XMCClassifier(max_iter=args.epochs, n_jobs=args.n_jobs, random_state=0, verbose=1)
    with Step("fit", n * args.epochs):
        clf.fit(X, Y)
    model = clf.feature_weights_.nbytes + clf.label_weights_.nbytes
    print(f"model: {model / 2**30:.2f} GB")
    with Step("predict", args.test_rows):
        labels, _ = clf.predict_topk(X_test, k=5)
    chances = propensities(Y)
    frequent = np.broadcast_to(np.argsort(-counts)[:5], labels.shape)
    for name, ranking in (("XMCClassifier", labels), ("frequent", frequent)):
        cells = [100 * precision_at_k(Y_test, ranking, k=k) for k in (1, 3, 5)]
        cells += [100 * psp_at_k(Y_test, ranking, k=k, propensities=chances) for k in (1, 3, 5)]
        print(f"{name:14} P@1/3/5 {' '.join(f'{c:5.2f}' for c in cells[:3])}   "
              f"PSP@1/3/5 {' '.join(f'{c:5.2f}' for c in cells[3:])}")  # fmt: skip
    with Step("save"):
        save_model(clf, args.model)
    with Step("load, mapped"):
        loaded = load_model(args.model)
    with Step("predict 100", 100):
        again, _ = loaded.predict_topk(X_test[:100], k=5)
    print("the same:", np.array_equal(again, labels[:100]))


if __name__ == "__main__":
    main()
