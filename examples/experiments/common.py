"""What the experiments share: options, data, fits side by side, tables and pictures."""

import argparse
import csv
import time
from pathlib import Path

from joblib import Parallel, delayed
from matplotlib.figure import Figure
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import load_xmc_file, make_xmc
from skxmc.metrics import precision_at_k, propensities, psp_at_k

SCORES = ["P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5"]
# What the experiments do not vary: one network, all positives alike, scores as they are. Written
# down, so that the printed figures stay what they are when the estimator's defaults move.
FIXED = {
    "n_estimators": 1,
    "batch_size": 64,
    "positive_weight": None,
    "tail_bias": 0.0,
    "dropout": 0.3,
    "random_state": 0,
    # One thread on the CPU: the same bits at each run, and CPU seconds that can be compared.
    "n_jobs": 1,
    "device": "cpu",
}
STYLES = ["-o", "--s", "-.^", ":D", "-v", "--x", "-.P", ":*"]  # told apart in black and white


def make_parser(doc):
    """The options of every experiment: which data, how wide, how many at a time, where to."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="training file; else a synthetic problem")
    parser.add_argument("--test-data", type=Path, help="test file; else a fifth is split off")
    parser.add_argument("--rows", type=int, default=30_000, help="of the synthetic problem")
    parser.add_argument("--labels", type=int, default=5_000, help="of the synthetic problem")
    parser.add_argument("--width", type=int, default=256, help="of the hidden layer")
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time, a thread each")
    parser.add_argument("--output", type=Path, default=Path("skxmc-results"))
    return parser


def get_data(args):
    """X, X_test, Y, Y_test; says how large they are."""
    if args.data is None:
        X, Y = make_xmc(args.rows, args.rows, args.labels, random_state=0)
    else:
        X, Y = load_xmc_file(args.data)
    if args.test_data is None:
        X, X_test, Y, Y_test = train_test_split(X, Y, test_size=0.2, random_state=0)
    else:
        X_test, Y_test = load_xmc_file(args.test_data, n_features=X.shape[1], n_labels=Y.shape[1])
    print(
        f"{X.shape[0]:,} training and {X_test.shape[0]:,} test rows, {X.shape[1]:,} features, "
        f"{Y.shape[1]:,} labels, {Y.nnz / Y.shape[0]:.1f} a row"
    )
    return X, X_test, Y, Y_test


def classifier(args, **params):
    """What is fixed, one hidden layer of the width asked for, and what an experiment varies."""
    return XMCClassifier(hidden_layer_sizes=(args.width,), **{**FIXED, **params})


def fit(clf, X, X_test, Y, Y_test):
    """Fit and score one classifier."""
    # A worker's first fit loads or compiles the kernels: that is not the setting's cost.
    clone(clf).set_params(hidden_layer_sizes=(8,), max_iter=1).fit(X[:500], Y[:500])
    start = time.process_time()
    clf.fit(X, Y)
    seconds = time.process_time() - start
    labels, _ = clf.predict_topk(X_test, k=5)
    p = propensities(Y)
    scores = [precision_at_k(Y_test, labels, k=k) for k in (1, 3, 5)]
    scores += [psp_at_k(Y_test, labels, k=k, propensities=p) for k in (1, 3, 5)]
    return {
        "scores": [100 * s for s in scores],  # as SCORES says
        "cpu": seconds,
        "epochs": clf.n_iter_,
        "held_out": [100 * s for s in clf.validation_scores_ or []],  # P@1 after each epoch
    }


def fit_all(classifiers, data, jobs, work=fit):
    """Results in order, each as soon as it is there; processes of their own for jobs > 1."""
    return Parallel(jobs, return_as="generator")(delayed(work)(clf, *data) for clf in classifiers)


class Table:
    """Prints rows as they come, and writes them to a CSV file as well; the first columns name.

    `names`: how wide those are.
    """

    def __init__(self, path, *columns, names=(24,)):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.formats = [f"<{width}" for width in names]
        self.formats += [f">{max(len(c) + 2, 8)}" for c in columns[len(names) :]]
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(columns)
        print("\n" + self._line(columns), flush=True)

    def add(self, *cells):
        """Text, whole numbers, and floats, of which two digits are kept."""
        cells = [f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells]
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(cells)
        print(self._line(cells), flush=True)

    def _line(self, cells):
        return "".join(f"{c:{f}}" for c, f in zip(cells, self.formats, strict=True))


def panels(n_rows, n_columns, width=3.4, height=3.2, **options):
    """A figure and a list of its panels, by rows."""
    figure = Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
    return figure, list(figure.subplots(n_rows, n_columns, squeeze=False, **options).flat)


def save(figure, path):
    """Write the picture and say where."""
    figure.savefig(path, dpi=150)
    print(f"\nPicture: {path}")
