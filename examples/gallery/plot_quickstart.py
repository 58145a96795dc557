"""
Fit, rank, score
================

Train an :class:`~skxmc.XMCClassifier` on sparse X and sparse Y, rank labels for new rows, and
score the rankings by precision and by propensity-scored precision.
"""

# %%
# A problem that looks like tagged text: sparse rows, and labels few of which are frequent. Both X
# and Y are sparse matrices, and stay sparse all the way.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.metrics import precision_at_k, propensities, psp_at_k

X, Y = make_xmc(n_samples=4000, n_features=4000, n_labels=500, random_state=0)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, random_state=0)
print(f"{X_train.shape[0]:,} training rows, {Y.shape[1]} labels, {Y.nnz / Y.shape[0]:.1f} a row")

# %%
# `predict_topk` returns the k best labels of each row, best first, and their scores.

clf = XMCClassifier(hidden_layer_sizes=(128,), random_state=0).fit(X_train, Y_train)
labels, scores = clf.predict_topk(X_test, k=5)
print("labels of the first test row:", Y_test[[0]].indices)
print("ranked for it:               ", labels[0])
print("their scores:                ", scores[0].round(1))

# %%
# P@k is the share of the k best that are right. PSP@k counts a rare label for more; how much
# follows from the training labels. To see what the numbers are worth, predict the most frequent
# labels for every row.

p = propensities(Y_train)
frequent = np.argsort(-Y_train.sum(axis=0))[:5]
rankings = {"XMCClassifier": labels, "most frequent": np.tile(frequent, (X_test.shape[0], 1))}
for name, ranked in rankings.items():
    for k in (1, 3, 5):
        precision = precision_at_k(Y_test, ranked, k=k)
        psp = psp_at_k(Y_test, ranked, k=k, propensities=p)
        print(f"{name:<14} P@{k} {100 * precision:5.1f}   PSP@{k} {100 * psp:5.1f}")

# %%
# Rows have about three labels, so that P@k must fall with k, while PSP@k, which is divided by the
# best value that can be had, need not.

figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
ks = range(1, 6)
for (name, ranked), marker in zip(rankings.items(), "os", strict=True):
    precision = [100 * precision_at_k(Y_test, ranked, k=k) for k in ks]
    psp = [100 * psp_at_k(Y_test, ranked, k=k, propensities=p) for k in ks]
    axes.plot(ks, precision, f"-{marker}", color="black", label=f"P@k, {name}")
    axes.plot(ks, psp, f"--{marker}", color="tab:blue", label=f"PSP@k, {name}")
axes.set(xlabel="k", ylabel="test rows (%)", xticks=ks, ylim=(0, None))
axes.legend(fontsize=8)
plt.show()
