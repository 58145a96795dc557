"""
Tail labels and propensity-scored precision
===========================================

Most labels of an extreme problem are rare, and most of the precision comes from the others. This
example looks at a classifier bin by bin of label frequency, and turns ``tail_bias``, which buys
rare labels for frequent ones at prediction, without a new fit.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.displays import LabelFrequencyDisplay
from skxmc.metrics import precision_at_k, propensities, psp_at_k

# %%
# The data has a long tail: a few labels make half of the positives.

X, Y = make_xmc(8_000, 8_000, 1_000, random_state=0)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, random_state=0)
frequency = np.sort(Y_train.sum(axis=0))[::-1]  # (n_labels,) training rows of each label
half = np.searchsorted(np.cumsum(frequency), frequency.sum() / 2)
print(f"{half} of {len(frequency)} labels make half of the positives.")
print(f"{(frequency <= 5).sum()} labels have at most 5 training rows.")

# %%
# One fit, ranked in two ways. Precision counts each hit once. PSP@k counts a hit on label l 1 / p_l
# times, where the propensity p_l is small for rare labels: they are missing from the data more
# often, and worth more to who gets them proposed. What the bias costs shows in P@5.

clf = XMCClassifier(
    "in-batch+uniform", hidden_layer_sizes=(128,), n_estimators=1, n_jobs=1, random_state=0
).fit(X_train, Y_train)
p = propensities(Y_train)
print("tail_bias    P@1    P@5  PSP@1  PSP@5")
for tail_bias in (0.0, 1.0):
    labels, _ = clf.set_params(tail_bias=tail_bias).predict_topk(X_test, k=5)
    precision = [100 * precision_at_k(Y_test, labels, k=k) for k in (1, 5)]
    psp = [100 * psp_at_k(Y_test, labels, k=k, propensities=p) for k in (1, 5)]
    print(f"{tail_bias:9}" + "".join(f"{score:7.2f}" for score in precision + psp))

# %%
# Which labels are found? Each bin holds a tenth of the training positives: hundreds of rare labels
# at the left, a handful of frequent ones at the right. The bias finds more of the rare, and fewer
# of the frequent ones. Labels without a training row ("0") are out of reach.

_, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for tail_bias in (0.0, 1.0):
    clf.set_params(tail_bias=tail_bias)
    display = LabelFrequencyDisplay.from_estimator(
        clf, X_test, Y_test, Y_train=Y_train, name=f"tail_bias={tail_bias:g}", ax=axes[0]
    )
    display.plot(axes[1], metric="psp")
plt.show()

# %%
# The right picture divides PSP@5 among the bins; the bars are what a perfect ranking gets of each.
# What is left to gain is at the left.
