"""Fit once, then buy rare labels with frequent ones at prediction: P@k and PSP@k over `tail_bias`.

python tail_bias.py                          a synthetic problem of 5,000 labels
python tail_bias.py --data train.txt.gz --test-data test.txt.gz
                                             files of the Extreme Classification Repository
"""

import argparse
from pathlib import Path

import numpy as np
from compare_samplers import get_data
from matplotlib.figure import Figure

from skxmc import XMCClassifier
from skxmc.metrics import precision_at_k, propensities, psp_at_k

NAMES = ["P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5"]


def score(clf, X, Y, p):
    """Percentages, as NAMES says."""
    labels, _ = clf.predict_topk(X, k=5)
    precision = [precision_at_k(Y, labels, k=k) for k in (1, 3, 5)]
    return [
        100 * s for s in precision + [psp_at_k(Y, labels, k=k, propensities=p) for k in (1, 3, 5)]
    ]


def draw(biases, scores, chosen, path):
    """P@1 over PSP@1: a point for each bias, a square around what "auto" chose."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    precision, psp = np.array(scores)[:, [0, 3]].T
    axes.plot(psp, precision, "-o", color="black", markersize=4)
    for bias, x, y, slope in zip(biases, psp, precision, np.gradient(precision), strict=True):
        place = {"xytext": (-4, 8), "ha": "right"} if slope > 0 else {"xytext": (4, 8)}
        axes.annotate(f"{bias:g}", (x, y), textcoords="offset points", **place)
    at = biases.index(chosen)
    axes.plot(psp[at], precision[at], "s", color="black", markersize=12, fillstyle="none")
    axes.set(xlabel="PSP@1 on the test rows (%)", ylabel="P@1 on the test rows (%)")
    axes.set_title('a point for each tail_bias, the square for "auto"', fontsize=10)
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Fit, print a row for each bias, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="training file, text, .gz too")
    parser.add_argument("--test-data", type=Path, help="test file; else a fifth is split off")
    parser.add_argument("--rows", type=int, default=30_000, help="of the synthetic problem")
    parser.add_argument("--labels", type=int, default=5_000, help="of the synthetic problem")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--jobs", type=int, help="threads; else all that pay")
    parser.add_argument("--output", type=Path, default=Path("skxmc-results"))
    args = parser.parse_args(argv)
    X, X_test, Y, Y_test = get_data(args)

    # tail_bias="auto", the default, chooses on rows that a member has not visited.
    clf = XMCClassifier(max_iter=args.epochs, n_jobs=args.jobs, random_state=0).fit(X, Y)
    biases = sorted({-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, clf.tail_bias_})
    print("tail_bias" + "".join(f"{name:>7}" for name in NAMES))
    p, scores = propensities(Y), []
    for bias in biases:
        clf.set_params(tail_bias=bias)  # no new fit
        scores.append(score(clf, X_test, Y_test, p))
        mark = "  auto" if bias == clf.tail_bias_ else ""
        print(f"{bias:9g}" + "".join(f"{s:7.2f}" for s in scores[-1]) + mark, flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    picture = args.output / "tail_bias.png"
    draw(biases, scores, clf.tail_bias_, picture)
    print(f"\nPicture: {picture}")


if __name__ == "__main__":
    main()
