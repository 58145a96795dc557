"""
Save a classifier, and load it
==============================

A fitted :class:`~skxmc.XMCClassifier` is mostly two large tables. This example saves one in a
single safetensors file, loads it in no time through a memory map, halves the file, and looks at
what the half costs. It needs ``pip install "skxmc[safetensors]"``.
"""

# %%
# A classifier to save. Its tables have a row for each feature and for each label, and as many
# columns as there are hidden units: twice 64 here, since there are two members.

import pickle
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.metrics import precision_at_k
from skxmc.persistence import load_model, save_model

X, Y = make_xmc(n_samples=4000, n_features=8000, n_labels=500, random_state=0)
X_train, X_test, Y_train, Y_test = train_test_split(X, Y, random_state=0)
clf = XMCClassifier(hidden_layer_sizes=(64,), random_state=0).fit(X_train, Y_train)
print("features:", clf.feature_weights_.shape, " labels:", clf.label_weights_.shape)

# %%
# Save it three times: pickled, as a safetensors file, and with half-precision tables. Neither of
# the latter two can hold code, so that a file from elsewhere is safe to load.

folder = tempfile.TemporaryDirectory()
pickled, whole, half = (Path(folder.name) / name for name in ("clf.pickle", "whole", "half"))
pickled.write_bytes(pickle.dumps(clf))
save_model(clf, whole)
save_model(clf, half, dtype="float16")

# %%
# `load_model` maps the file into memory: an array is read when it is used, and processes that load
# the same file share it. Half-precision tables are read, and made float32.

loads = {
    "pickle": lambda: pickle.loads(pickled.read_bytes()),
    "safetensors, mapped": lambda: load_model(whole),
    "safetensors, read": lambda: load_model(whole, mmap=False),
    "safetensors, half": lambda: load_model(half),
}
loaded, milliseconds = {}, {}
for name, load in loads.items():
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        loaded[name] = load()
        seconds.append(time.perf_counter() - start)
    milliseconds[name] = 1000 * np.median(seconds)

# %%
# What is not halved predicts the same bits; what is halved, hardly less well.

labels, scores = clf.predict_topk(X_test, k=5)
for name, again in loaded.items():
    found, new_scores = again.predict_topk(X_test, k=5)
    same = np.array_equal(found, labels) and np.array_equal(new_scores, scores)
    precision = precision_at_k(Y_test, found, k=1)
    print(f"{name:<20} P@1 {100 * precision:.2f}   the same bits: {same}")

# %%
# Sizes of the files, and the time to load them. The larger the model, the more a map saves: mapping
# a million labels takes less than a millisecond.

sizes = [path.stat().st_size / 1e6 for path in (pickled, whole, whole, half)]
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True, layout="constrained")
for ax, values, title in zip(
    axes, (sizes, list(milliseconds.values())), ("file (MB)", "loading (ms)"), strict=True
):
    bars = ax.barh(list(loads), values, color="tab:blue")
    ax.bar_label(bars, fmt="%.1f", padding=3)
    ax.set(title=title, xlim=(0, 1.2 * max(values)))
axes[0].invert_yaxis()
plt.show()

# %%
# A pipeline is saved in two parts, or as a whole by pickle or skops: see the guide.

del loaded, again  # a mapped file cannot be deleted on Windows
folder.cleanup()
