"""Fit and predict again and again in one process, and see that its memory stays flat.

    python soak.py [--fits 200] [--rows 1000]      about two minutes on two cores; no data needed

Samplers take turns. Prints the resident memory after every 20 fits, and fails if the last is more
than a tenth above that of the first 40, by when all is compiled and every allocator is warm.
"""

import argparse
import gc
import sys
from pathlib import Path

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc

SAMPLERS = ("clustered-in-batch+uniform", "mips+uniform", "label-embedding", "snm", "full")


def resident_mb():
    """Memory of this process; Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS in /proc/self/status")


def main():
    """Fit, predict, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--rows", type=int, default=1000)
    options = parser.parse_args()
    X, Y = make_xmc(options.rows, 2000, 200, random_state=0)
    print("fits  resident MB")
    seen = []
    for i in range(1, options.fits + 1):
        clf = XMCClassifier(
            SAMPLERS[i % len(SAMPLERS)], hidden_layer_sizes=(64,), max_iter=2, n_jobs=2,
            early_stopping=i % 3 == 0, late_fusion=0.5 if i % 4 == 0 else None, random_state=i,
        )  # fmt: skip
        clf.fit(X, Y)
        clf.predict_topk(X)
        clf.decision_function(X)
        if i % 20 == 0:
            gc.collect()
            seen.append(resident_mb())
            print(f"{i:4}  {seen[-1]:11.1f}", flush=True)
    return seen[-1] > 1.1 * seen[min(1, len(seen) - 1)]


if __name__ == "__main__":
    sys.exit(main())
