"""Label embeddings and classifier in cycles: what do more cycles buy, and what late fusion?

Paper C begins each cycle by embedding the labels among the rows' hidden vectors and looking up
each row's shortlist, its only negatives; predictions keep to the shortlist as well. Here the epochs
are the same for all, and what varies is into how many cycles they are cut; with one, the
shortlists that are trained on are those of the untrained network.
"+others" adds in-batch+uniform to the shortlists. The second table is late fusion of the last
fit of each kind: beta is the classifier's weight, 1 the classifier alone, 0 the embeddings alone.

    python label_embeddings.py                                a synthetic problem
    python label_embeddings.py --data train.txt --test-data test.txt --jobs 2
"""

from functools import partial

import numpy as np
from common import (
    SCORES,
    STYLES,
    Table,
    classifier,
    fit,
    fit_all,
    get_data,
    make_parser,
    panels,
    save,
)

from skxmc.metrics import precision_at_k, propensities, psp_at_k
from skxmc.samplers import InBatchSampler, LabelEmbeddingSampler, UniformSampler

NAMES = ["mips+uniform", "mips+in-batch+uniform", "label-embedding", "label-embedding+others"]


def make_settings(args):
    """Name, cycles, sampler and whether there is a residual block."""

    def embedding(cycles):
        return LabelEmbeddingSampler(refresh_epochs=-(-args.epochs // cycles))

    others, last = InBatchSampler() + UniformSampler(), args.cycles[-1]
    return [
        *((name, None, name, False) for name in NAMES[:2]),
        *((NAMES[2], cycles, embedding(cycles), False) for cycles in args.cycles),
        *((NAMES[3], cycles, embedding(cycles) + others, False) for cycles in args.cycles),
        ("label-embedding+residual", last, embedding(last), True),
    ]


def fit_and_fuse(betas, clf, X, X_test, Y, Y_test):
    """Fit, score, score again at each weight of late fusion; and weigh the model, in MB."""
    result = fit(clf, X, X_test, Y, Y_test)  # with late_fusion=1.0: the classifier alone
    p, result["fused"] = propensities(Y), []
    for clf.late_fusion_ in betas:
        labels, _ = clf.predict_topk(X_test, k=5)
        scores = [precision_at_k(Y_test, labels, k=k) for k in (1, 3, 5)]
        scores += [psp_at_k(Y_test, labels, k=k, propensities=p) for k in (1, 3, 5)]
        result["fused"].append([100 * s for s in scores])
    arrays = [clf.feature_weights_, *clf.hidden_biases_, clf.label_weights_, clf.label_biases_]
    result["MB"] = sum(a.nbytes for a in [*arrays, *(clf.residual_ or ())]) / 1e6
    result["MB of embeddings"] = clf.label_embeddings_.nbytes / 1e6
    if clf.shortlist_size_ is not None:  # the classifier alone needs them as well
        result["MB"] += result.pop("MB of embeddings")
    return result


def draw(results, args, path):
    """Scores over the cycles, and what each weight of late fusion exchanges."""
    figure, axes = panels(1, 3)
    for score, ax in zip(["P@1", "PSP@5"], axes[:2], strict=True):
        at = SCORES.index(score)
        for name, style in zip(NAMES, STYLES, strict=False):
            curve = [results[name, c]["scores"][at] for n, c in results if n == name]
            if name in NAMES[:2]:
                ax.axhline(curve[0], color="0.5", ls=style[:-1], label=name)
            else:
                ax.plot(args.cycles, curve, style, color="black", markersize=5, label=name)
        ax.set(title=f"{score} on the test rows (%)", xlabel=f"cycles in {args.epochs} epochs")
        ax.set_xticks(args.cycles)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    for name, style in zip(NAMES[1:], STYLES[1:], strict=False):
        last = [results[name, c] for n, c in results if n == name][-1]
        precision, psp = np.array(last["fused"])[:, [2, 3]].T
        axes[2].plot(precision, psp, style, color="black", markersize=5, label=name)
        if name == NAMES[1]:
            for at in (0, -1):
                place = precision[at], psp[at]
                axes[2].annotate(
                    f"{args.betas[at]:g}", place, xytext=(5, 5), textcoords="offset points"
                )
    axes[2].set(title="late fusion, by beta", xlabel="P@5 (%)", ylabel="PSP@1 (%)")
    axes[2].legend(fontsize=7)
    axes[2].grid(alpha=0.3)
    save(figure, path)


def main(argv=None):
    """Fit each sampler and number of cycles, print two tables, draw."""
    parser = make_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--cycles", type=int, nargs="+", default=[1, 2, 3, 6])
    parser.add_argument("--betas", type=float, nargs="+", default=[1, 0.75, 0.5, 0.3, 0.1, 0])
    args = parser.parse_args(argv)
    data = get_data(args)

    settings = make_settings(args)
    classifiers = [
        classifier(args, sampler=sampler, residual=residual, max_iter=args.epochs, late_fusion=1.0)
        for _, _, sampler, residual in settings
    ]
    table = Table(
        args.output / "label_embeddings.csv", "negatives", "cycles", *SCORES, "CPU s", "MB"
    )
    results = {}
    work = partial(fit_and_fuse, args.betas)
    for setting, result in zip(settings, fit_all(classifiers, data, args.jobs, work), strict=True):
        name, cycles = setting[:2]
        results[name, cycles] = result
        table.add(name, cycles or "-", *result["scores"], result["cpu"], result["MB"])

    table = Table(args.output / "label_embeddings_fusion.csv", "late fusion", "beta", *SCORES, "MB")
    for name in NAMES[1:]:
        last = [results[key] for key in results if key[0] == name][-1]
        for beta, scores in zip(args.betas, last["fused"], strict=True):
            size = last["MB"] + (beta < 1) * last.get("MB of embeddings", 0)
            table.add(name, f"{beta:g}", *scores, size)
    draw(results, args, args.output / "label_embeddings.png")


if __name__ == "__main__":
    main()
