"""
From raw text to subject headings
=================================

A pipeline takes texts as they are and ranks subject headings by name:
:class:`~sklearn.feature_extraction.text.TfidfVectorizer` makes the rows,
:class:`~sklearn.preprocessing.MultiLabelBinarizer` turns lists of headings into a sparse Y and
keeps their names.
"""

# %%
# Texts of one to three subjects each. Yours come from a file; these are drawn from words that the
# subjects use, and from words that all of them use.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer

from skxmc import XMCClassifier

SUBJECTS = {
    "Astronomy": "star planet telescope orbit galaxy comet eclipse nebula",
    "Baking": "flour oven dough yeast crust bread butter knead",
    "Beekeeping": "hive queen honey swarm wax pollen comb nectar",
    "Bicycles": "wheel chain gear brake saddle pedal frame spoke",
    "Botany": "leaf root pollen seed stem flower nectar moss",
    "Chess": "rook bishop pawn gambit castle queen endgame knight",
    "Cooking": "simmer broth pan oven butter salt ladle recipe",
    "Geology": "rock strata fossil crust quartz basalt mineral fault",
    "Navigation": "compass star chart harbour course latitude sextant buoy",
    "Sailing": "mast jib anchor harbour keel rudder wind course",
    "Surveying": "chart level contour theodolite boundary chain angle parcel",
    "Weather": "wind cloud storm pressure frost rain front fog",
}
COMMON = ["history", "guide", "modern", "handbook", "first", "study", "new", "method", "work"]

rng = np.random.default_rng(0)
names = list(SUBJECTS)
texts, headings = [], []
for _ in range(1500):
    own = rng.choice(names, rng.integers(1, 4), replace=False).tolist()
    words = [w for name in own for w in rng.choice(SUBJECTS[name].split(), 3)]
    texts.append(" ".join(rng.permutation([*words, *rng.choice(COMMON, 6)])))
    headings.append(sorted(own))
print(texts[0], "->", headings[0])

# %%
# `sparse_output=True` is what counts: with thousands of headings a dense Y would not fit.

binarizer = MultiLabelBinarizer(sparse_output=True)
Y = binarizer.fit_transform(headings)
train_texts, test_texts, Y_train, Y_test = train_test_split(texts, Y, random_state=0)

model = make_pipeline(
    TfidfVectorizer(sublinear_tf=True),
    XMCClassifier(hidden_layer_sizes=(64,), top_k=3, random_state=0),
)
model.fit(train_texts, Y_train)
print(f"P@1 on {len(test_texts)} new texts: {100 * model.score(test_texts, Y_test):.1f} %")

# %%
# `predict` returns the headings that are more likely than not, for the binarizer to name.

sentence = "Steering by star and compass when the wind drops and fog hides the harbour"
print(sentence, "->", *binarizer.inverse_transform(model.predict([sentence]))[0])

# %%
# With ``top_k=3``, `predict_proba` is a sparse matrix of the three best headings a row.
# Of the whole pipeline, ``model[-1].predict_topk(model[:-1].transform(texts), k)`` is the same as
# two dense arrays, best first.

proba = model.predict_proba([sentence])
for at in np.argsort(-proba.data):
    print(f"{binarizer.classes_[proba.indices[at]]:<12} {proba.data[at]:.2f}")

# %%
# All twelve, to see how far ahead these are. The words of one subject bear on others: "harbour" is
# a word of sailors and of navigators.

model.set_params(xmcclassifier__top_k=None)  # dense from here on; no new fit
proba = model.predict_proba([sentence])[0]
order = np.argsort(proba)
figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
axes.barh(binarizer.classes_[order], proba[order], color="tab:blue")
axes.set(xlabel="probability", xlim=(0, 1))
plt.show()
