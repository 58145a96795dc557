"""XMCClassifier on bibtex: 4,880 documents, 1,836 words, 159 tags."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import normalize

from skxmc import XMCClassifier
from skxmc.metrics import precision_at_k, propensities, psp_at_k, ranking_scorers
from skxmc.samplers import MIPSSampler, UniformSampler


@pytest.fixture(scope="module")
def bibtex(data_folder):
    def load(name):
        return sp.csr_array(sp.load_npz(data_folder / "bibtex" / f"{name}.npz"), dtype=np.float32)

    X, X_test = (normalize(load(name)) for name in ("X_train", "X_test"))
    return X, X_test, load("Y_train"), load("Y_test")


@pytest.fixture(scope="module")
def default(bibtex):
    X, _, Y, _ = bibtex
    return XMCClassifier(random_state=0, n_jobs=1).fit(X, Y)


def popular(Y, n_rows, k):
    """The k most frequent labels for every row."""
    return np.tile(np.argsort(-Y.sum(axis=0), kind="stable")[:k], (n_rows, 1))


def test_default_settings_reach_the_precision_that_they_are_known_for(bibtex, default):
    """65 when this was written; the best linear peer is at 64.2."""
    _, X_test, _, Y_test = bibtex
    assert default.score(X_test, Y_test) > 0.63


@pytest.mark.parametrize("k", [1, 3, 5])
def test_default_settings_are_far_ahead_of_popularity(bibtex, default, k):
    _, X_test, Y, Y_test = bibtex
    labels, _ = default.predict_topk(X_test, k=k)
    easy = popular(Y, X_test.shape[0], k)
    assert precision_at_k(Y_test, labels, k=k) > 2 * precision_at_k(Y_test, easy, k=k)
    p = propensities(Y)
    of_rare = psp_at_k(Y_test, labels, k=k, propensities=p)
    assert of_rare > 4 * psp_at_k(Y_test, easy, k=k, propensities=p)


def test_grid_search_over_samplers(bibtex):
    X, X_test, Y, Y_test = bibtex
    clf = XMCClassifier(hidden_layer_sizes=(64,), max_iter=5, top_k=5, random_state=0, n_jobs=1)
    grid = {"sampler": ["uniform", "mips+uniform", MIPSSampler(3) + UniformSampler(20)]}
    search = GridSearchCV(
        clf, grid, scoring=ranking_scorers(k=(1, 5), propensities=propensities(Y)), refit="P@1",
        cv=2, error_score="raise",
    ).fit(X, Y)  # fmt: skip
    results = search.cv_results_
    easy = precision_at_k(Y, popular(Y, X.shape[0], 1), k=1)
    assert (results["mean_test_P@1"] > 2 * easy).all()
    for name in ("P@5", "nDCG@5", "PSP@1", "PSP@5"):
        assert (results[f"mean_test_{name}"] > 0).all()
    assert search.best_index_ == np.argmax(results["mean_test_P@1"])
    assert search.best_estimator_.score(X_test, Y_test) > 0.5
