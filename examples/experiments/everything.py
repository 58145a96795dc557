"""All samplers and all losses on one page, with the same CPU seconds for each fit.

A sampler that costs more a step gets fewer epochs. How many is found by two epochs over a quarter
of the rows; each fit has at least two, whatever they cost, so that the budget should leave room for
them. The picture has a map for P@1, which frequent labels decide, and one for PSP@5, which rare
labels do. Samplers and losses are compared by themselves: one network, positives that weigh alike,
no tail bias (`FIXED` in common.py), though the estimator's defaults are other ones.

    python everything.py                                      a synthetic problem
    python everything.py --data train.txt --test-data test.txt --budget 20 --jobs 2
    python everything.py --samplers mips+uniform snm --losses bce owl
"""

import time
from functools import partial
from itertools import product

import numpy as np
from common import SCORES, Table, classifier, fit, fit_all, get_data, make_parser, panels, save
from matplotlib.patches import Rectangle
from sklearn.base import clone

from skxmc.losses import LOSSES
from skxmc.samplers import SAMPLERS, FrequencySampler, UniformSampler, make_sampler

SUMS = [
    "in-batch+uniform",
    "snm+in-batch",
    "mips+uniform",
    "mips+in-batch+uniform",
    "mips+clustered-in-batch+uniform",
    "label-embedding+in-batch+uniform",
]


def with_draws(name, n):
    """The sampler of a name, its random draws of n labels."""
    sampler = make_sampler(name)
    for part in (sampler, *sampler.get_params().values()):
        if isinstance(part, (UniformSampler, FrequencySampler)):
            part.set_params(n_negatives=n)
    return sampler


def fit_in_budget(budget, clf, X, X_test, Y, Y_test):
    """As many epochs as fit into so many CPU seconds."""
    trial = clone(clf).set_params(max_iter=2)
    n_rows = len(range(0, X.shape[0], 4))
    trial.fit(X[:500], Y[:500])  # a worker's first fit loads or compiles the kernels
    wall, cpu = time.perf_counter(), time.process_time()
    trial.fit(X[::4], Y[::4])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    training = cpu * sum(trial.epoch_seconds_) / wall  # the rest is preparation, once a fit
    an_epoch = training / 2 * X.shape[0] / n_rows
    epochs = max(2, round((budget - (cpu - training)) / an_epoch))
    return fit(clf.set_params(max_iter=epochs), X, X_test, Y, Y_test)


def draw(scores, samplers, losses, path):
    """The better, the darker; the frame is around the best of a map."""
    shown = ["P@1", "PSP@5"]
    figure, axes = panels(1, 2, width=1.8 + 1.1 * len(losses), height=1.4 + 0.35 * len(samplers))
    for score, ax in zip(shown, axes, strict=True):
        values = scores[:, :, SCORES.index(score)]
        low, high = np.quantile(values, 0.1), values.max()  # one that fails shall not set the scale
        ax.imshow(values, cmap="Greys", vmin=low, vmax=high, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            dark = value > (low + high) / 2
            ax.text(j, i, f"{value:.1f}", ha="center", va="center", color="w" if dark else "k")
        i, j = np.unravel_index(values.argmax(), values.shape)
        ax.add_patch(Rectangle((j - 0.46, i - 0.44), 0.92, 0.88, fill=False, ec="w", lw=1.5))
        ax.set_xticks(range(len(losses)), losses, rotation=30, ha="right")
        ax.set_yticks(range(len(samplers)), samplers if ax is axes[0] else [""] * len(samplers))
        ax.set_title(f"{score} (%)")
    figure.suptitle("on the test rows")
    save(figure, path)


def main(argv=None):
    """Fit every pair, print the table, draw the maps."""
    parser = make_parser(__doc__)
    parser.add_argument("--budget", type=float, default=20, help="CPU seconds of each fit")
    parser.add_argument("--samplers", nargs="+", default=[*SAMPLERS, *SUMS])
    parser.add_argument("--draws", type=int, default=400, help="labels in a random draw")
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    args = parser.parse_args(argv)
    data = get_data(args)

    pairs = list(product(args.samplers, args.losses))
    classifiers = [
        classifier(args, sampler=with_draws(name, args.draws), loss=loss, batch_size=128)
        for name, loss in pairs
    ]
    work = partial(fit_in_budget, args.budget)
    table = Table(
        args.output / "everything.csv",
        "sampler", "loss", *SCORES, "epochs", "CPU s", names=(34, 20),
    )  # fmt: skip
    scores = []
    for pair, result in zip(pairs, fit_all(classifiers, data, args.jobs, work), strict=True):
        table.add(*pair, *result["scores"], result["epochs"], result["cpu"])
        scores.append(result["scores"])
    scores = np.reshape(scores, (len(args.samplers), len(args.losses), -1))
    draw(scores, args.samplers, args.losses, args.output / "everything.png")


if __name__ == "__main__":
    main()
