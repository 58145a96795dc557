"""Ours and its peers behind the same few calls.

    model = Library(seed, threads, **settings)
    model.fit(X, Y, data)         sparse rows of unit length, their labels, the folder of the data
    model.predict_topk(X)         (n, 5) label columns, best first, -1 where there is none
    model.save(folder)            writes the model, whose size on disk the table shows

Every column of Y has a row: labels without one are left out before, for all methods alike.
This file is imported in the peers' environments: only numpy may be imported at its top.
"""

# ruff: noqa: D102  (the methods are described above, for all classes alike)

import os
import pickle
import tempfile
from functools import partial

import numpy as np
from ranking import K, best_of_lists, best_of_sparse, in_blocks


class Ours:
    """XMCClassifier."""

    def __init__(self, seed, threads, **settings):
        # Which skxmc imports when a fit needs them: no method's imports are on the clock.
        import numba  # noqa: F401
        import torch  # noqa: F401

        from skxmc import XMCClassifier

        self.model = XMCClassifier(**{"n_jobs": threads, "random_state": seed, **settings})

    def fit(self, X, Y, data):
        self.model.fit(X, Y)

    def predict_topk(self, X):
        return self.model.predict_topk(X, k=K)[0]

    def save(self, folder):
        (folder / "model.pkl").write_bytes(pickle.dumps(self.model, protocol=5))


class Popular:
    """The most frequent labels for every row: what costs nothing."""

    def __init__(self, seed, threads):
        pass

    def fit(self, X, Y, data):
        self.best = np.argsort(-np.bincount(Y.indices, minlength=Y.shape[1]), kind="stable")[:K]

    def predict_topk(self, X):
        return np.tile(self.best, (X.shape[0], 1))

    def save(self, folder):
        np.save(folder / "labels.npy", self.best)


class Omikuji:
    """Trees of linear models. Trains from a text file, predicts a row at a time, has no seed."""

    def __init__(self, seed, threads, **settings):
        import omikuji

        self.train, self.threads = omikuji.Model.train_on_data, threads
        self.settings = omikuji.Model.default_hyper_param()
        for name, value in settings.items():
            setattr(self.settings, name, value)

    def fit(self, X, Y, data):
        self.model = self.train(str(data / "train.txt"), self.settings, self.threads)

    def predict_topk(self, X):
        ranked = []
        for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
            columns, values = X.indices[start:stop].tolist(), X.data[start:stop].tolist()
            row = list(zip(columns, values, strict=True))
            ranked.append([label for label, _ in self.model.predict(row, K)])
        return best_of_lists(ranked)

    def save(self, folder):
        self.model.save(str(folder / "model"))


class Pecos:
    """XR-Linear: the mean of trees of linear models, or with `tree=False` one-vs-all."""

    def __init__(self, seed, threads, *, n_trees=1, splits=16, negatives="tfn", beam=10, tree=True):
        from pecos.xmc.xlinear.model import XLinearModel

        self.train, self.threads, self.tree, self.beam = XLinearModel.train, threads, tree, beam
        self.seeds = range(n_trees * seed, n_trees * (seed + 1))
        self.splits, self.negatives = splits, negatives

    def fit(self, X, Y, data):
        if not self.tree:
            self.models = [self.train(X, Y, threads=self.threads)]
            return
        from pecos.xmc import Indexer, LabelEmbeddingFactory

        embedding = LabelEmbeddingFactory.create(Y, X, method="pifa")
        index = partial(
            Indexer.gen, embedding, indexer_type="hierarchicalkmeans", nr_splits=self.splits,
            max_leaf_size=100, max_iter=20, threads=self.threads, spherical=True,
        )  # fmt: skip
        self.models = [
            self.train(
                X, Y, C=index(seed=seed), threads=self.threads, only_topk=20, beam_size=self.beam,
                negative_sampling_scheme=self.negatives, post_processor="l3-hinge",
            )
            for seed in self.seeds
        ]  # fmt: skip

    def predict_topk(self, X):
        settings = {"only_topk": K if len(self.models) == 1 else 20, "threads": self.threads}
        if self.tree:
            settings["beam_size"] = self.beam
        return best_of_sparse(sum(m.predict(X, **settings) for m in self.models).tocsr())

    def save(self, folder):
        for i, model in enumerate(self.models):
            model.save(str(folder / "model" / str(i)))


class NapkinXC:
    """Linear models by liblinear, in a probabilistic label tree or one for each label."""

    def __init__(self, seed, threads, *, model, **settings):
        import napkinxc.models

        make = getattr(napkinxc.models, model)
        self.folder = tempfile.mkdtemp(dir=os.getcwd())  # it writes the model while it trains
        self.model = make(self.folder, threads=threads, seed=seed, **settings)

    def fit(self, X, Y, data):
        self.model.fit(X, Y)

    def predict_topk(self, X):
        return best_of_lists(self.model.predict(X, top_k=K))

    def save(self, folder):
        os.rename(self.folder, folder / "model")


class LibMultiLabel:
    """Linear support vector machines, one for each label or in a label tree."""

    def __init__(self, seed, threads, *, train):
        import libmultilabel.linear

        np.random.seed(seed)  # noqa: NPY002  (its tree draws from the global state)
        self.train = getattr(libmultilabel.linear, train)

    def fit(self, X, Y, data):
        options = "-s 1 -B 1 -e 0.0001 -q"  # those of its example configurations
        self.model = self.train(Y.astype(float), X.astype(float), options=options, verbose=False)

    def predict_topk(self, X):
        return in_blocks(self.model.predict_values, X.astype(float), 256)

    def save(self, folder):
        (folder / "model.pkl").write_bytes(pickle.dumps(self.model, protocol=5))


class ScikitLearn:
    """What scikit-learn has: one-vs-rest of logistic regressions, or a dense network."""

    def __init__(self, seed, threads, *, network=False, **settings):
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.neural_network import MLPClassifier

        if network:
            self.model = MLPClassifier(random_state=seed, **settings)
        else:
            binary = LogisticRegression(solver="liblinear", random_state=seed, **settings)
            self.model = OneVsRestClassifier(binary, n_jobs=threads)

    def fit(self, X, Y, data):
        # int64: scikit-learn 1.9.1 permutes the columns of a y whose dtype is too small for them.
        self.model.fit(X, Y.astype(np.int64))
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)  # its processes' CPU seconds count from here

    def predict_topk(self, X):
        return in_blocks(self.model.predict_proba, X, 1024)

    save = Ours.save
