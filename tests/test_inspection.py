"""Contributions against a float64 network by hand, neighbours against scikit-learn's cosines."""

import re

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.pipeline import make_pipeline

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.inspection import feature_contributions, nearest_labels

X, Y = make_xmc(300, 400, 40, random_state=0)


def xmc(**parameters):
    parameters = {"hidden_layer_sizes": (12,), "max_iter": 3, **parameters}
    return XMCClassifier("uniform", n_jobs=1, random_state=0, **parameters)


SHAPES = {
    "one layer": {},
    "one member": {"n_estimators": 1},
    "two layers": {"hidden_layer_sizes": (16, 9)},
    "three layers": {"hidden_layer_sizes": (12, 7, 5), "n_estimators": 1},
    "residual": {"residual": True},
}
FITTED = {}


def fitted(shape):
    """Fit each shape once."""
    if shape not in FITTED:
        FITTED[shape] = xmc(**SHAPES[shape]).fit(X, Y)
    return FITTED[shape]


def by_hand(clf, x, column):
    """Contribution of every feature to a label's score, and the score, in float64."""
    x = x.astype(np.float64)  # (n_features,)
    layers = [clf.feature_weights_, *clf.hidden_weights_]
    jacobian, values = np.eye(len(x)), x  # d values / d x, transposed: (n_features, width)
    for weights, biases in zip(layers, clf.hidden_biases_, strict=True):
        values = values @ weights + biases
        jacobian = jacobian @ weights * (values > 0)
        values = np.maximum(values, 0)
    if clf.residual_ is not None:
        matrix, biases = clf.residual_
        more = matrix @ values + biases
        jacobian = jacobian + jacobian @ matrix.T * (more > 0)
        values = values + np.maximum(more, 0)
    vector = clf.label_weights_[column].astype(np.float64)
    return x * (jacobian @ vector), values @ vector + clf.label_biases_[column]


@pytest.mark.parametrize("shape", SHAPES)
def test_contributions_are_those_of_the_network_by_hand(shape):
    clf = fitted(shape)
    rows = X[:6]
    labels, _ = clf.predict_topk(rows, k=3)
    why = feature_contributions(clf, rows, labels, k=7)
    assert why.features.shape == why.contributions.shape == (6, 3, 7)
    assert why.features.dtype == np.int64
    assert why.contributions.dtype == why.biases.dtype == why.scores.dtype == np.float32
    for i, row in enumerate(rows.toarray()):
        for j, label in enumerate(labels[i]):
            parts, score = by_hand(clf, row, label)
            own = np.flatnonzero(row)
            best = own[np.argsort(-parts[own], kind="stable")][:7]
            np.testing.assert_allclose(why.contributions[i, j], parts[best], atol=2e-5)
            np.testing.assert_allclose(parts[why.features[i, j]], parts[best], atol=2e-5)
            assert len(set(why.features[i, j])) == 7
            np.testing.assert_allclose(why.scores[i, j], score, atol=2e-5)
            np.testing.assert_allclose(why.biases[i, j], score - parts.sum(), atol=2e-5)


@given(
    shape=st.sampled_from(sorted(SHAPES)),
    rows=st.lists(st.integers(0, 299), min_size=1, max_size=4),
    label=st.integers(0, 39),
    scale=st.floats(-3, 3, width=32),
)
@settings(max_examples=30)
def test_all_contributions_and_biases_add_up_to_the_score(shape, rows, label, scale):
    clf = fitted(shape)
    some = sp.csr_array(X[rows] * scale)
    why = feature_contributions(clf, some, np.full(len(rows), label), k=400)
    np.testing.assert_allclose(why.contributions.sum(-1) + why.biases, why.scores, atol=1e-4)
    np.testing.assert_allclose(why.scores, clf.decision_function(some)[:, label], atol=1e-4)
    assert (np.diff(why.contributions, axis=-1)[why.features[:, 1:] >= 0] <= 0).all()


def test_the_biases_part_does_not_hide_what_features_do():
    """For one layer it is what the biases of active units and the label add, by themselves."""
    clf = fitted("one layer")
    inputs = X[:20].toarray() @ clf.feature_weights_ + clf.hidden_biases_[0]
    labels = clf.predict_topk(X[:20], k=1)[0][:, 0]
    want = ((inputs > 0) * clf.hidden_biases_[0] * clf.label_weights_[labels]).sum(1)
    why = feature_contributions(clf, X[:20], labels)
    np.testing.assert_allclose(why.biases, want + clf.label_biases_[labels], atol=1e-4)


def test_sparse_rows_show_only_their_own_features_and_pad():
    clf = fitted("one layer")
    few = sp.csr_array(([0.6, 0.0, 0.8], [5, 9, 3], [0, 3, 3]), shape=(2, 400))
    why = feature_contributions(clf, few, [[0, 1], [2, 3]], k=4)
    assert set(why.features[0, 0]) == {5, 3, -1}
    assert (why.features[0, :, 2:] == -1).all()
    assert (why.features[1] == -1).all()
    assert (why.contributions[why.features == -1] == 0).all()
    assert (why.contributions[why.features != -1] != 0).all()
    assert few.nnz == 3  # the caller's rows stay as they are
    np.testing.assert_allclose(why.biases[1], why.scores[1], atol=1e-6)


def test_dense_and_sparse_rows_in_many_blocks_agree_with_single_rows(monkeypatch):
    clf = fitted("one layer")
    labels = clf.predict_topk(X[:40], k=2)[0]
    whole = feature_contributions(clf, X[:40], labels)
    dense = feature_contributions(clf, X[:40].toarray(), labels)
    np.testing.assert_allclose(dense.contributions, whole.contributions, atol=1e-5)
    monkeypatch.setattr("skxmc.inspection._ROWS", 7)
    parts = feature_contributions(clf, X[:40], labels)
    np.testing.assert_allclose(parts.contributions, whole.contributions, atol=1e-5)
    one = feature_contributions(clf, X[39:40], labels[39:], k=10)
    np.testing.assert_allclose(one.contributions[0], whole.contributions[39], atol=1e-5)


def test_more_features_than_there_are_and_no_label():
    clf = fitted("one layer")
    assert feature_contributions(clf, X[:2], [1, 2], k=5000).features.shape == (2, 400)
    none = feature_contributions(clf, X[:2], np.empty((2, 0), int), k=3)
    assert none.features.shape == (2, 0, 3)
    assert none.scores.shape == (2, 0)


def test_the_words_of_a_text_explain_its_class():
    texts = [
        "goal match team",
        "team goal",
        "vote law party",
        "law vote",
        "match goal",
        "party law",
    ]
    y = np.array(["sport", "sport", "politics", "politics", "sport", "politics"])
    pipe = make_pipeline(TfidfVectorizer(), xmc(max_iter=40, dropout=0.0)).fit(texts, y)
    rows = pipe[:-1].transform(["goal law"])
    words = pipe[0].get_feature_names_out()
    for label, word in (("sport", "goal"), ("politics", "law")):
        why = feature_contributions(pipe[-1], rows, [label], k=2)
        assert words[why.features[0, 0]] == word
        assert why.contributions[0, 0] > 0 > why.contributions[0, 1]
    with pytest.raises(TypeError, match=r"pass the last step, pipe\[-1\]"):
        feature_contributions(pipe, rows, ["sport"])
    with pytest.raises(TypeError, match=r"pass the last step, pipe\[-1\]"):
        nearest_labels(pipe, ["sport"])


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 100])
def test_nearest_labels_are_those_of_scikit_learns_cosines(k):
    clf = fitted("two layers")
    seen = np.flatnonzero(Y.sum(axis=0))
    asked = seen[::-3]
    labels, cosines = nearest_labels(clf, asked, k=k)
    k = min(k, len(seen) - 1)
    assert labels.shape == cosines.shape == (len(asked), k)
    assert cosines.dtype == np.float32
    want = cosine_similarity(clf.label_weights_.astype(np.float64))
    for label, found, values in zip(asked, labels, cosines, strict=True):
        others = seen[seen != label]
        best = np.sort(want[label, others])[::-1][:k]
        np.testing.assert_allclose(values, best, atol=1e-5)
        np.testing.assert_allclose(want[label, found], best, atol=1e-5)
        assert label not in found
        assert len(set(found)) == k


def test_labels_without_a_row_are_neither_neighbours_nor_asked_for():
    holed = Y.toarray()
    holed[:, [4, 17]] = 0
    clf = xmc().fit(X, holed)
    labels, _ = nearest_labels(clf, [3, 5], k=1000)
    seen = np.flatnonzero(holed.any(axis=0))
    assert {4, 17}.isdisjoint(seen)
    assert {3, 5} < set(seen.tolist())
    assert set(labels[0]) == set(seen) - {3}
    with pytest.raises(ValueError, match="holds 17, which had no row in training"):
        nearest_labels(clf, [3, 17])
    why = feature_contributions(clf, X[:1], [17])
    assert not why.contributions.any()
    assert why.scores[0] == why.biases[0] < -1e29


@pytest.mark.parametrize("kind", ["str", "object", "float", "bool", "one"])
def test_labels_are_entries_of_classes(kind):
    names = {
        "str": np.array(["ant", "bee", "cat"]),
        "object": np.array(["ant", "bee", "cat"], object),
        "float": np.array([-1.0, 0.0, 2.0]),
        "bool": np.array([False, True]),
        "one": np.array(["only"]),
    }[kind]
    y = names[np.arange(300) % len(names)]
    clf = xmc(max_iter=1).fit(X, y)
    labels, cosines = nearest_labels(clf, names[:1])
    assert labels.shape == cosines.shape == (1, len(names) - 1)
    assert labels.dtype == clf.classes_.dtype
    assert set(labels[0].tolist()) == set(names[1:].tolist())
    assert nearest_labels(clf, [])[0].shape == (0, len(names) - 1)
    predicted = clf.predict(X[:5])
    assert feature_contributions(clf, X[:5], predicted).scores.shape == (5,)
    unknown = "dog" if kind in ("str", "object", "one") else 7
    with pytest.raises(ValueError, match=f"labels holds {unknown!r}, which is not in classes_"):
        nearest_labels(clf, [unknown])
    with pytest.raises(ValueError, match="which is not in classes_"):
        nearest_labels(clf, [3 if unknown == "dog" else "3"])


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3", None])
def test_k_is_a_positive_integer(k):
    clf = fitted("one layer")
    for call in (
        lambda: feature_contributions(clf, X[:1], [0], k),
        lambda: nearest_labels(clf, [0], k),
    ):
        with pytest.raises(ValueError, match=re.escape(f"k={k!r} must be an integer")):
            call()


def test_other_bad_input_is_named():
    clf = fitted("one layer")
    with pytest.raises(NotFittedError):
        feature_contributions(xmc(), X[:1], [0])
    with pytest.raises(NotFittedError):
        nearest_labels(xmc(), [0])
    with pytest.raises(ValueError, match=r"labels holds 40, .* such as 0"):
        feature_contributions(clf, X[:1], [40])
    with pytest.raises(ValueError, match=r"labels holds -1,"):
        nearest_labels(clf, [0, -1])
    with pytest.raises(ValueError, match=r"labels has shape \(3,\) and X 2 rows"):
        feature_contributions(clf, X[:2], [0, 1, 2])
    with pytest.raises(ValueError, match=r"labels has shape \(\) and X 1 rows"):
        feature_contributions(clf, X[:1], 0)
    with pytest.raises(ValueError, match=r"pass a list of labels"):
        nearest_labels(clf, [[0, 1]])
    with pytest.raises(ValueError, match="features"):
        feature_contributions(clf, X[:1, :10], [0])
