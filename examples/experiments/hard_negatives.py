"""How many hard negatives, and how often to look them up?

Paper A claims that many hard negatives from the start make training unstable; that training on
them alone is sensitive to how often they are looked up; and that a few beside many uniform ones
cure both. Each fit scores the same number of negatives a row: so many from MIPS, the rest uniform.
The picture has a panel for each number of hard negatives, and in it a line for each interval.

    python hard_negatives.py                                  a synthetic problem
    python hard_negatives.py --data train.txt --test-data test.txt --jobs 2

An interval is in epochs; below 1 it is a share of one (0.25: four look-ups an epoch).
"""

from itertools import product

import numpy as np
from common import STYLES, Table, classifier, fit_all, get_data, make_parser, panels, save

from skxmc.samplers import MIPSSampler, UniformSampler


def make_sampler(hard, total, interval, steps_per_epoch):
    """`hard` negatives from MIPS, of at least 50 candidates, and uniform ones up to `total`."""
    mips = MIPSSampler(hard, n_candidates=min(total, max(hard, 50)))
    if interval < 1:
        mips.set_params(refresh_epochs=1, refresh_steps=max(1, round(interval * steps_per_epoch)))
    else:
        mips.set_params(refresh_epochs=round(interval))
    return mips + UniformSampler(total - hard) if hard < total else mips


def name_of(hard, total):
    """How a panel and its rows in the table are called."""
    return f"{hard} hard + {total - hard} uniform" if hard < total else f"{hard} hard"


def draw(curves, args, path):
    """Held-out precision after each epoch: what is sensitive to the interval fans out."""
    figure, axes = panels(1, len(args.hard), sharey=True)
    for hard, ax in zip(args.hard, axes, strict=True):
        for interval, style in zip(args.intervals, STYLES, strict=False):
            curve = curves[hard, interval]
            epochs = range(1, len(curve) + 1)
            ax.plot(epochs, curve, style, color="black", markersize=4, label=f"{interval:g}")
        ax.set(title=name_of(hard, args.total), xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("held-out precision@1 (%)")
    axes[-1].legend(title="look-up every … epochs", fontsize=8)
    save(figure, path)


def main(argv=None):
    """Fit every pair of number and interval, print two tables, draw."""
    parser = make_parser(__doc__)
    parser.add_argument("--total", type=int, default=405, help="negatives a row")
    parser.add_argument(
        "--hard", type=int, nargs="+", default=[405, 50, 5], help="how many of them are hard"
    )
    parser.add_argument("--intervals", type=float, nargs="+", default=[0.25, 1, 2, 4])
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args(argv)
    data = get_data(args)

    settings = list(product(args.hard, args.intervals))
    training_rows = 0.9 * data[0].shape[0]  # a tenth is held out for the curves
    classifiers = [
        classifier(
            args,
            sampler=make_sampler(hard, args.total, interval, training_rows / 64),
            batch_size=64,
            max_iter=args.epochs,
            early_stopping=True,
            n_iter_no_change=args.epochs,  # it never stops: the held-out rows draw the curve
        )
        for hard, interval in settings
    ]
    table = Table(
        args.output / "hard_negatives.csv",
        "negatives", "look-up", "epoch 1", "epoch 2", "final P@1", "best", "worst drop", "CPU s",
    )  # fmt: skip
    curves = {}
    for setting, result in zip(settings, fit_all(classifiers, data, args.jobs), strict=True):
        hard, interval = setting
        curve = curves[setting] = result["held_out"]
        drop = max(0.0, -np.diff(curve).min(initial=0.0))
        table.add(
            name_of(hard, args.total), f"{interval:g}", curve[0], curve[min(1, len(curve) - 1)],
            curve[-1], max(curve), float(drop), result["cpu"],
        )  # fmt: skip

    table = Table(
        args.output / "hard_negatives_spread.csv",
        "over the intervals", "lowest final", "highest final", "spread",
    )  # fmt: skip
    for hard in args.hard:
        final = [curves[hard, interval][-1] for interval in args.intervals]
        table.add(name_of(hard, args.total), min(final), max(final), max(final) - min(final))
    draw(curves, args, args.output / "hard_negatives.png")


if __name__ == "__main__":
    main()
