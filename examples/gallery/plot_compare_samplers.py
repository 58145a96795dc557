"""
Comparing negative samplers
===========================

A training step scores a row's positives and a few negatives; the sampler proposes these. Random
negatives are cheap, and soon too easy: the model learns little from a label that it ranks far below
already. Negatives that look like positives cost time to find. This example trains with three
samplers and draws what came of it, epoch by epoch.
"""

import matplotlib.pyplot as plt
from sklearn.base import clone

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.displays import TrainingDisplay

X, Y = make_xmc(8_000, 8_000, 1_000, random_state=0)

# %%
# ``early_stopping`` holds out a tenth of the rows and records precision@1 on them; with
# ``n_iter_no_change`` as large as ``max_iter`` it stops nothing. A first fit compiles, which should
# not count as time of the first sampler.

clf = XMCClassifier(
    hidden_layer_sizes=(64,),
    n_estimators=1,
    max_iter=8,
    early_stopping=True,
    n_iter_no_change=8,
    n_jobs=1,
    random_state=0,
)
clone(clf).set_params(max_iter=1).fit(X, Y)
samplers = ["uniform", "in-batch", "clustered-in-batch+uniform"]
fits = [clone(clf).set_params(sampler=sampler).fit(X, Y) for sampler in samplers]
for fit in fits:
    print(f"{fit.sampler:32} P@1 {max(fit.validation_scores_):.3f}")

# %%
# The axes of one display go into the next. Training losses do not compare between samplers, since
# each has negatives of another number and kind; held-out precision does. Hardness says how much
# there was to learn from a row's negatives: the sum of the probabilities that the model gave them.
# 0 means that it knew them all for what they are.

axes = None
for fit in fits:
    axes = TrainingDisplay.from_estimator(fit, ax=axes).axes_
plt.show()

# %%
# An epoch with hard negatives takes longer, since they have to be looked up. Is it worth it? The
# same over seconds tells.

_, ax = plt.subplots(layout="constrained")
for fit in fits:
    TrainingDisplay.from_estimator(fit, x="seconds", panels=["validation"], ax=ax)
plt.show()
