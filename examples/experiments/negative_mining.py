"""Score many labels, learn from the hardest few: does that beat learning from all of them?

Paper B claims that stochastic negative mining, at the same number of scored labels, is more
precise than plain negative sampling, is no dearer, and is best when it keeps one negative. Each
fit draws a pool of labels and keeps so many of them for each row; keeping all is plain sampling.
The picture has a panel for each loss and score, and a line for each pool.

    python negative_mining.py                                 a synthetic problem
    python negative_mining.py --data train.txt --test-data test.txt --jobs 2
"""

from itertools import product

from common import SCORES, STYLES, Table, classifier, fit_all, get_data, make_parser, panels, save

from skxmc.losses import BinaryCrossEntropy, OrderedWeightedLoss
from skxmc.samplers import StochasticNegativeMining, UniformSampler


def make_sampler(pool, kept):
    """The `kept` hardest of a pool; all of it is plain negative sampling."""
    if kept == pool:
        return UniformSampler(pool)
    return StochasticNegativeMining(pool, n_negatives=kept)


def make_loss(name, kept):
    """The loss of paper B counts every negative that was kept with weight 1, by the hinge."""
    return OrderedWeightedLoss(k=kept) if name == "hinge" else BinaryCrossEntropy()


def draw(results, args, path):
    """Precision over the number of negatives kept; the last mark of a line is plain sampling."""
    shown = ["P@1", "P@5"]
    figure, axes = panels(len(shown), len(args.losses), sharex=True, sharey="row")
    for (score, loss), ax in zip(product(shown, args.losses), axes, strict=True):
        for pool, style in zip(args.pools, STYLES, strict=False):
            points = [
                (kept, result["scores"][SCORES.index(score)])
                for (a_loss, a_pool, kept), result in results.items()
                if (a_loss, a_pool) == (loss, pool)
            ]
            ax.plot(*zip(*points, strict=True), style, color="black", label=f"{pool:,}")
            ax.plot(*points[-1], "o", color="black", markersize=12, fillstyle="none")
        ax.set(xscale="log", title=f"{score}, {loss}")
        kept = sorted({*args.kept, *args.pools})
        ax.set_xticks(kept, kept)
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    for ax in axes[-len(args.losses) :]:
        ax.set_xlabel("negatives kept (ring: all, no mining)")
    axes[0].legend(title="pool", fontsize=8)
    figure.supylabel("on the test rows (%)")
    save(figure, path)


def main(argv=None):
    """Fit every loss, pool and number kept, print the table, draw."""
    parser = make_parser(__doc__)
    parser.add_argument("--pools", type=int, nargs="+", default=[100, 400, 2000])
    parser.add_argument("--kept", type=int, nargs="+", default=[1, 5, 20, 100])
    parser.add_argument("--losses", nargs="+", choices=["bce", "hinge"], default=["bce", "hinge"])
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args(argv)
    data = get_data(args)

    settings = [
        (loss, pool, kept)
        for loss, pool in product(args.losses, args.pools)
        for kept in [*(k for k in args.kept if k < pool), pool]
    ]
    classifiers = [
        classifier(
            args,
            sampler=make_sampler(pool, kept),
            loss=make_loss(loss, kept),
            max_iter=args.epochs,
        )
        for loss, pool, kept in settings
    ]
    table = Table(args.output / "negative_mining.csv", "loss", "pool", "kept", *SCORES, "CPU s")
    results = {}
    for setting, result in zip(settings, fit_all(classifiers, data, args.jobs), strict=True):
        results[setting] = result
        table.add(*setting, *result["scores"], result["cpu"])
    draw(results, args, args.output / "negative_mining.png")


if __name__ == "__main__":
    main()
