"""
A grid search over samplers
===========================

The sampler is a hyper-parameter like any other: ``GridSearchCV`` takes names and objects in one
grid. Several metrics are measured in one run, one of them chooses, and
:class:`~skxmc.displays.SamplerComparisonDisplay` shows what the precision costs.
"""

import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.displays import SamplerComparisonDisplay
from skxmc.metrics import propensities, ranking_scorers
from skxmc.samplers import MIPSSampler, UniformSampler

X, Y = make_xmc(4_000, 6_000, 500, random_state=0)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, random_state=0)

# %%
# A name stands for a sampler with its default parameters, and ``+`` joins names as it does objects.
# ``top_k=5`` has the scorers ask for the five best labels of each row, not for a dense array.

grid = {
    "sampler": [
        "in-batch",
        "mips+uniform",
        UniformSampler(200),
        MIPSSampler(5) + UniformSampler(50),
    ]
}
clf = XMCClassifier(
    hidden_layer_sizes=(64,),
    n_estimators=1,
    max_iter=3,
    tail_bias=0.0,
    top_k=5,
    n_jobs=1,
    random_state=0,
)

# %%
# The propensities are those of all training labels, fixed once for all folds. ``refit`` names the
# metric that chooses. A first fit compiles, which should not count as time of the first sampler.

clone(clf).set_params(max_iter=1).fit(X_train, Y_train)
search = GridSearchCV(
    clf,
    grid,
    scoring=ranking_scorers(k=(1, 5), propensities=propensities(Y_train)),
    refit="P@1",
    cv=3,
).fit(X_train, Y_train)
print(f"Chosen: {search.best_params_['sampler']}")
print(f"P@1 on the folds {search.best_score_:.3f}, on the test rows", end=" ")
print(f"{search.best_estimator_.score(X_test, Y_test):.3f}")

# %%
# Up and left is better. The bars are standard deviations over the folds: what differs by less is
# no difference.

_, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for ax, metric in zip(axes, ["P@1", "PSP@5"], strict=True):
    SamplerComparisonDisplay.from_cv_results(search, metric=metric, ax=ax)
plt.show()
