"""
A sampler of your own
=====================

A sampler says which labels a batch of rows is trained against. A short class goes where a name
would: into sums and into searches. :doc:`/guide/extending` says what else it may do.
"""

# %%
# This one proposes labels that stand beside the row's own in another row: "cake" for a recipe of
# bread. `begin` prepares; `propose` is called for each batch and returns labels of shape
# (rows, negatives), -1 for none. Positives among them do no harm, they are masked.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.metrics import precision_at_k
from skxmc.samplers import InBatchSampler, Proposal, Sampler, UniformSampler


class CompanionSampler(Sampler):
    """For each negative: a label of the row, another row that has it, a label of that row."""

    def __init__(self, n_negatives=10):
        self.n_negatives = n_negatives

    def begin(self, problem):
        """List the rows of each label."""
        super().begin(problem)  # checks n_negatives, keeps self.problem_
        Y = problem.Y  # label lists: Y.indices[Y.indptr[i]:Y.indptr[i + 1]] of row i
        by_label = np.argsort(Y.indices, kind="stable")
        self._rows = np.repeat(np.arange(problem.n_rows), np.diff(Y.indptr))[by_label]
        self._starts = np.searchsorted(Y.indices[by_label], np.arange(problem.n_labels + 1))
        return self

    def propose(self, rows, rng):
        """Walk from row to label to row to label, with dice of `rng` alone."""
        Y, n = self.problem_.Y, self.n_negatives
        walks = np.repeat(rows[np.diff(Y.indptr)[rows] > 0], n)  # rows that have labels
        own = Y.indices[pick(Y.indptr, walks, rng)]
        other = self._rows[pick(self._starts, own, rng)]
        labels = np.full((len(rows), n), -1, np.int32)
        labels[np.diff(Y.indptr)[rows] > 0] = Y.indices[pick(Y.indptr, other, rng)].reshape(-1, n)
        return Proposal(labels)


def pick(starts, lists, rng):
    """A place in each of these lists, which are none of them empty."""
    begin, end = starts[lists], starts[lists + 1]
    return begin + (rng.random(len(lists)) * (end - begin)).astype(np.int64)


# %%
# `+` joins it with others. Alone, it would leave most labels without a negative.

X, Y = make_xmc(n_samples=4000, n_features=4000, n_labels=500, random_state=0)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, random_state=0)

precision = {}
for name, sampler in {
    "uniform": UniformSampler(),
    "companions": CompanionSampler(),
    "companions\n+ uniform": CompanionSampler() + UniformSampler(),
    "in-batch\n+ uniform": InBatchSampler() + UniformSampler(),
}.items():
    clf = XMCClassifier(
        sampler, hidden_layer_sizes=(64,), n_estimators=1, max_iter=5, n_jobs=1, random_state=0
    ).fit(X_train, Y_train)
    labels, _ = clf.predict_topk(X_test, k=5)
    precision[name] = [100 * precision_at_k(Y_test, labels, k=k) for k in (1, 5)]

# %%
# Alone it fails: labels that are never a negative are ranked too high. Beside random negatives it
# adds nothing on this data. What an idea is worth, only a comparison tells.

figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
for at, (k, color) in enumerate({1: "tab:blue", 5: "lightsteelblue"}.items()):
    places = np.arange(len(precision)) + 0.4 * at - 0.2
    bars = axes.bar(places, [p[at] for p in precision.values()], 0.4, label=f"P@{k}", color=color)
    axes.bar_label(bars, fmt="%.1f", fontsize=8)
axes.set_xticks(range(len(precision)), precision, fontsize=8)
axes.set(ylabel="test rows (%)", ylim=(0, 80))
axes.legend(ncols=2)
plt.show()
