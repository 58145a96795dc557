"""
Dense embeddings, and both at once
==================================

X may be a dense array of embeddings, and a :class:`~sklearn.pipeline.FeatureUnion` puts them
beside the sparse TF-IDF rows.
"""

# %%
# Sparse rows of a synthetic problem stand for TF-IDF here. Their embeddings are 64 numbers a row,
# by :class:`~sklearn.decomposition.TruncatedSVD`; those of a language model go the same way.

import matplotlib.pyplot as plt
from sklearn.decomposition import TruncatedSVD
from sklearn.model_selection import train_test_split
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.metrics import precision_at_k

X, Y = make_xmc(n_samples=4000, n_features=4000, n_labels=500, random_state=0)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, random_state=0)

embed = make_pipeline(TruncatedSVD(64, random_state=0), Normalizer(copy=False))
E_train, E_test = embed.fit_transform(X_train), embed.transform(X_test)
print(f"sparse: {X_train.nnz / X_train.shape[0]:.0f} of {X_train.shape[1]:,} features a row")
print(f"dense:  {E_train.shape[1]} numbers a row, {E_train.dtype}")

# %%
# The classifier takes either. `Normalizer` makes rows of unit length, which the default learning
# rate suits.

clf = XMCClassifier(hidden_layer_sizes=(128,), random_state=0)
precision = {}


def measure(name, model, rows, test_rows):
    """Fit, and keep P@1 and P@5."""
    model.fit(rows, Y_train)
    scores = model.decision_function(test_rows)
    precision[name] = [100 * precision_at_k(Y_test, scores, k=k) for k in (1, 5)]
    print(f"{name:<10} P@1 {precision[name][0]:.1f}   P@5 {precision[name][1]:.1f}")


measure("sparse", clf, X_train, X_test)
measure("dense", clf, E_train, E_test)

# %%
# Both side by side are one sparse matrix of 4,064 columns, which a pipeline makes by itself, for
# new rows too. `transformer_weights` say how much each side counts; a search may look for the best,
# as ``featureunion__transformer_weights``. With raw text, put
# :class:`~sklearn.feature_extraction.text.TfidfVectorizer` in place of the first transformer and in
# front of the second.

union = FeatureUnion(
    [("words", FunctionTransformer(accept_sparse=True)), ("embeddings", embed)],
    transformer_weights={"words": 1.0, "embeddings": 0.5},
)
measure("both", make_pipeline(union, clf), X_train, X_test)

# %%
# Single words tell rare labels apart, embeddings know which words are alike. Here the embeddings
# were made of the same words and can add little; those of a language model have seen other texts.

figure, axes = plt.subplots(figsize=(4.5, 3), layout="constrained")
for at, (k, color) in enumerate({1: "tab:blue", 5: "lightsteelblue"}.items()):
    places = [i + 0.4 * at - 0.2 for i in range(3)]
    bars = axes.bar(places, [p[at] for p in precision.values()], 0.4, label=f"P@{k}", color=color)
    axes.bar_label(bars, fmt="%.1f", fontsize=8)
axes.set_xticks(range(3), precision)
axes.set(ylabel="test rows (%)", ylim=(0, 85))
axes.legend(ncols=2)
plt.show()
