"""
Why this label?
===============

Which words spoke for a label, and which labels the classifier takes for alike:
:func:`~skxmc.inspection.feature_contributions` and :func:`~skxmc.inspection.nearest_labels`, on
short questions of a made-up forum.
"""

# %%
# Eight tags of three topics, each with its words, some of which it shares. A question has one tag,
# or two of a topic, some of their words, and words that every question may have.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer

from skxmc import XMCClassifier
from skxmc.inspection import feature_contributions, nearest_labels

TOPICS = [
    {
        "pandas": "dataframe column merge groupby index table row",
        "numpy": "array shape broadcast dtype axis row column",
        "plots": "figure legend colour line bar scatter axis",
    },
    {
        "baking": "dough oven flour yeast bread rise milk",
        "coffee": "espresso grind beans filter crema milk kettle",
        "tea": "leaves steep pot green cup milk kettle",
    },
    {
        "cycling": "chain gear brake tyre saddle wheel climb",
        "running": "shoes knee marathon stretch heel pace climb",
    },
]
COMMON = "how do i get the best way to fix my problem with why does it when new old"

rng = np.random.default_rng(0)
tags, texts = [], []
for _ in range(3000):
    topic = TOPICS[rng.integers(3)]
    tags.append(rng.choice(list(topic), rng.integers(1, 3), replace=False))
    own = np.concatenate([rng.choice(topic[tag].split(), 3) for tag in tags[-1]])
    texts.append(" ".join(rng.permutation([*own, *rng.choice(COMMON.split(), 6)])))
print(texts[0], "->", *tags[0])

# %%
# Text to TF-IDF, tags to columns; with so few tags, each can be a negative of each question. The
# functions take the classifier itself, the last step of the pipeline, and rows that the step before
# has transformed.

binarizer = MultiLabelBinarizer(sparse_output=True)
model = make_pipeline(
    TfidfVectorizer(), XMCClassifier("full", hidden_layer_sizes=(32,), n_jobs=1, random_state=0)
).fit(texts, binarizer.fit_transform(tags))
names, words = binarizer.classes_, model[0].get_feature_names_out()

question = "how do i get the best crema with new beans and steep green leaves in one kettle"
rows = model[:-1].transform([question])
labels, scores = model[-1].predict_topk(rows, k=3)
for label, score in zip(labels[0], scores[0], strict=True):
    print(f"{names[label]:<8} {score:6.2f}")

# %%
# What each word adds to a tag's score. With the part of the biases, the shares add up to it. A word
# may speak for one tag and against another.

why = feature_contributions(model[-1], rows, labels, k=20)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained", sharex=True)
for j, (ax, label) in enumerate(zip(axes, labels[0], strict=True)):
    shown = why.features[0, j] >= 0  # a row has fewer words than 20
    parts = why.contributions[0, j, shown]
    total = parts.sum() + why.biases[0, j]
    print(f"{names[label]:<8} words {parts.sum():6.2f}  biases {why.biases[0, j]:6.2f}", end="")
    print(f"  sum {total:6.2f}  score {why.scores[0, j]:6.2f}")
    colours = np.where(parts > 0, "tab:blue", "tab:orange")
    ax.barh(words[why.features[0, j, shown]], parts, color=colours)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.invert_yaxis()
    ax.set(title=f"{names[label]}: {why.scores[0, j]:.1f}", xlabel="adds to the score")
plt.show()

# %%
# Tags whose weight vectors point the same way are scored alike: here, those of one topic, which
# occur together and share words.

neighbours, cosines = nearest_labels(model[-1], np.arange(len(names)), k=2)
for name, near, values in zip(names, neighbours, cosines, strict=True):
    print(f"{name:<8}", *(f"{names[i]} {c:+.2f}  " for i, c in zip(near, values, strict=True)))
