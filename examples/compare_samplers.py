"""Train one model per negative sampler and compare them: precision, propensity-scored precision,
seconds, memory, and a picture of held-out precision over training time.

    python compare_samplers.py                          a synthetic problem of 5,000 labels
    python compare_samplers.py --data train.txt.gz      a file of the Extreme Classification
                                                        Repository (or svmlight, multilabel)

All else is as the estimator has it: two averaged networks, positives weighed by propensity, a tail
bias chosen on held-out rows; but the networks are 256 wide, not 512. Seconds are those of a fit
whose loops are compiled, which happens once on a machine.
The programs in experiments/ compare samplers by themselves, with one network and no weights.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import load_xmc_file, make_xmc
from skxmc.metrics import precision_at_k, propensities, psp_at_k


def get_data(args):
    """Training and test rows; a test part is split off where no test file is given."""
    if args.data is None:
        X, Y = make_xmc(args.rows, args.rows, args.labels, random_state=0)
    else:
        X, Y = load_xmc_file(args.data)
        if args.test_data is not None:
            X_test, Y_test = load_xmc_file(
                args.test_data, n_features=X.shape[1], n_labels=Y.shape[1]
            )
            return X, X_test, Y, Y_test
    return train_test_split(X, Y, test_size=0.2, random_state=0)


def run(sampler, args):
    """Fit and score one sampler, in a process of its own so that its peak memory is its own."""
    import resource

    X, X_test, Y, Y_test = get_data(args)
    clf = XMCClassifier(
        sampler=sampler,
        hidden_layer_sizes=(args.width,),
        max_iter=args.epochs,
        early_stopping=True,  # holds out a tenth of the training rows to draw the curve
        n_iter_no_change=args.epochs,
        random_state=0,
    )
    some = slice(1000)
    clone(clf).set_params(max_iter=4).fit(X[some], Y[some])  # compiles what this sampler needs
    start = time.perf_counter()
    clf.fit(X, Y)
    seconds = time.perf_counter() - start
    labels, _ = clf.predict_topk(X_test, k=5)
    p = propensities(Y)
    return {
        "sampler": sampler,
        "P": [100 * precision_at_k(Y_test, labels, k=k) for k in (1, 3, 5)],
        "PSP": [100 * psp_at_k(Y_test, labels, k=k, propensities=p) for k in (1, 3, 5)],
        "seconds": seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # MB on Linux
        "curve": (np.cumsum(clf.epoch_seconds_), 100 * np.array(clf.validation_scores_)),
    }


def draw(results, path):
    """Held-out precision@1 over training time, one line a sampler."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    styles = ["-o", "--s", "-.^", ":D", "-v", "--x"]  # told apart in black and white
    for result, style in zip(results, styles * 9, strict=False):
        axes.plot(*result["curve"], style, label=result["sampler"], markersize=4)
    axes.set(xlabel="training time (s)", ylabel="held-out precision@1 (%)")
    axes.grid(alpha=0.3)
    axes.legend(title="sampler")
    figure.savefig(path, dpi=150)


def main():
    """Parse, run each sampler, print the table, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="training file, text, .gz too")
    parser.add_argument("--test-data", type=Path, help="test file; else a fifth is split off")
    parser.add_argument(
        "--samplers",
        nargs="+",
        default=["uniform", "mips+uniform", "in-batch", "clustered-in-batch+uniform"],
    )
    parser.add_argument("--rows", type=int, default=30_000, help="of the synthetic problem")
    parser.add_argument("--labels", type=int, default=5_000, help="of the synthetic problem")
    parser.add_argument("--width", type=int, default=256, help="of the hidden layer")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("skxmc-results"))
    args = parser.parse_args()

    X, _, Y, Y_test = get_data(args)
    print(
        f"{X.shape[0]:,} training and {Y_test.shape[0]:,} test rows, {X.shape[1]:,} features, "
        f"{Y.shape[1]:,} labels, {Y.nnz / Y.shape[0]:.1f} a row\n"
    )
    names = ["P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5"]
    print(f"{'sampler':<34}" + "".join(f"{n:>7}" for n in names) + f"{'fit s':>8}{'peak MB':>9}")
    results = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for result in pool.map(run, args.samplers, [args] * len(args.samplers)):
            results.append(result)
            cells = "".join(f"{v:7.2f}" for v in result["P"] + result["PSP"])
            print(
                f"{result['sampler']:<34}{cells}{result['seconds']:8.1f}{result['memory']:9,.0f}",
                flush=True,
            )
    args.output.mkdir(parents=True, exist_ok=True)
    picture = args.output / "precision_over_time.png"
    draw(results, picture)
    print(f"\nPrecision over training time: {picture}")


if __name__ == "__main__":
    main()
