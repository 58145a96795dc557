"""Classifiers put together as one: their scores, storing them, going on, what is refused."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.ensemble import average
from skxmc.metrics import precision_at_k
from skxmc.persistence import load_model, save_model

FAST = {"hidden_layer_sizes": (16,), "max_iter": 3, "batch_size": 16, "n_jobs": 1}
SHAPES = {
    "plain": {},
    "deep": {"hidden_layer_sizes": (16, 8)},
    "residual": {"residual": True},
    "two members each": {"n_estimators": 2},
    "late fusion": {"late_fusion": 0.5},
    "confined": {"sampler": "label-embedding", "late_fusion": "auto"},
}


def fitted(X, Y, seed, sampler="uniform", **parameters):
    parameters = {**FAST, "n_estimators": 1, "sampler": sampler, "random_state": seed, **parameters}
    return XMCClassifier(**parameters).fit(X, Y)


@pytest.fixture(scope="module")
def data():
    X, Y = make_xmc(400, 300, 40, random_state=0)
    Y = Y.tolil()
    Y[:, 7] = 0  # nobody has seen it
    return X, Y.tocsr()


@pytest.fixture(scope="module")
def trio(data):
    return [fitted(*data, seed) for seed in range(3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_the_mean_of_the_scores(data, shape):
    X, Y = data
    members = [fitted(X, Y, seed, **SHAPES[shape]) for seed in range(3)]
    clf = average(iter(members))
    expected = np.mean([m.decision_function(X) for m in members], axis=0, dtype=np.float64)
    seen = np.delete(np.arange(40), 7)
    if shape == "confined":  # to 100 labels: to none of these
        assert clf.shortlist_size_ == members[0].shortlist_size_
    np.testing.assert_allclose(clf.decision_function(X)[:, seen], expected[:, seen], atol=2e-5)
    assert (clf.decision_function(X)[:, 7] == np.float32(-1e30)).all()
    assert clf.n_estimators == 3 * members[0].n_estimators
    assert clf.get_params() == {**members[0].get_params(), "n_estimators": clf.n_estimators}


def test_every_member_counts_alike_and_averages_can_be_averaged(data, trio):
    X, _ = data
    step = average([average(trio[:2]), trio[2]])
    once = average(trio)
    assert step.n_estimators == 3
    np.testing.assert_allclose(step.decision_function(X), once.decision_function(X), rtol=1e-5)
    for name in ("loss_curve_", "hardness_curve_", "tail_bias_"):
        np.testing.assert_allclose(
            getattr(once, name), np.mean([getattr(clf, name) for clf in trio], axis=0)
        )
    assert once.n_iter_ == 3
    assert once.active_fraction_ is None


def test_it_has_the_fitted_attributes_that_fit_would_make_and_shares_no_memory(data, trio):
    wide = fitted(*data, 0, n_estimators=3)
    clf = average(trio)
    assert set(vars(clf)) == set(vars(wide))
    for name, value in vars(wide).items():
        if isinstance(value, np.ndarray):
            found = getattr(clf, name)
            assert (found.shape, found.dtype) == (value.shape, value.dtype), name
    assert [a.shape for a in clf._memory] == [a.shape for a in wide._memory]
    assert [a.dtype for a in clf._memory] == [a.dtype for a in wide._memory]
    before = trio[0].feature_weights_.copy()
    alone = average(trio[:1])
    alone.feature_weights_ += 1
    alone.label_weights_ += 1
    np.testing.assert_array_equal(trio[0].feature_weights_, before)
    np.testing.assert_array_equal(alone.label_weights_, trio[0].label_weights_ + 1)


def test_together_they_rank_better_than_alone():
    X, Y = make_xmc(3000, 1500, 200, random_state=0)
    members = [fitted(X[:2000], Y[:2000], seed) for seed in range(4)]
    alone = [precision_at_k(Y[2000:], m.predict_topk(X[2000:], 5)[0], k=5) for m in members]
    together = precision_at_k(Y[2000:], average(members).predict_topk(X[2000:], 5)[0], k=5)
    assert together > np.mean(alone) + 0.01


# -- rankings that hang on more than scores --------------------------------------------------------


def test_late_fusion_ranks_by_the_cosines_of_all_members(data):
    X, Y = data
    members = [fitted(X, Y, seed, late_fusion=0.0) for seed in range(3)]
    clf = average([members[0], average(members[1:])])
    hidden = [np.maximum(X @ m.feature_weights_ + m.hidden_biases_[0], 0) for m in members]
    vectors = np.hstack([m.label_embeddings_ for m in members])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(clf.label_embeddings_, vectors, atol=1e-6)
    cosines = np.hstack(hidden) @ vectors.T
    cosines[:, 7] = -np.inf
    best = cosines.argmax(axis=1)
    labels, _ = clf.predict_topk(X, 1)
    assert np.mean(labels[:, 0] == best) > 0.99


def test_a_label_that_some_have_not_seen_keeps_what_the_others_know(data):
    X, Y = data
    less = Y.tolil()
    less[:, 3] = 0
    knows, lacks = fitted(X, Y, 0), fitted(X, less.tocsr(), 1)
    clf = average([lacks, knows])
    bias = knows.label_biases_[3]
    expected = bias + (knows.decision_function(X)[:, 3] - bias) / 2
    np.testing.assert_allclose(clf.decision_function(X)[:, 3], expected, atol=1e-5)
    np.testing.assert_array_equal(clf.label_counts_, knows.label_counts_)
    np.testing.assert_array_equal(clf.tail_offsets_, knows.tail_offsets_)


def test_members_that_stopped_early_are_averaged(data):
    X, Y = data
    members = [
        fitted(X, Y, seed, early_stopping=True, n_iter_no_change=1, max_iter=6) for seed in range(3)
    ]
    clf = average(members)
    assert clf.n_iter_ == max(m.n_iter_ for m in members)
    assert len(clf.validation_scores_) == clf.n_iter_
    np.testing.assert_allclose(
        clf.validation_scores_[0], np.mean([m.validation_scores_[0] for m in members])
    )


# -- stored, and going on --------------------------------------------------------------------------


def test_it_is_stored_like_any_other(data, trio, tmp_path):
    X, _ = data
    clf = average(trio)
    expected = clf.decision_function(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).decision_function(X), expected)
    pytest.importorskip("safetensors")
    save_model(clf, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.decision_function(X), expected)
    np.testing.assert_array_equal(
        average([again, *trio]).decision_function(X),
        average([clf, *trio]).decision_function(X),
    )


@pytest.mark.parametrize("shape", ["plain", "deep", "residual"])
def test_partial_fit_goes_on_from_each_member(data, shape):
    """Of two equal members the first is trained with the seed that it would have on its own."""
    X, Y = data
    alone = fitted(X, Y, 0, **SHAPES[shape])
    clf = average([alone, alone])
    clf.partial_fit(X, Y)
    alone = copy.deepcopy(alone).partial_fit(X, Y)
    width = alone.feature_weights_.shape[1]
    np.testing.assert_array_equal(clf.feature_weights_[:, :width], alone.feature_weights_)
    width = alone.label_weights_.shape[1]
    np.testing.assert_array_equal(clf.label_weights_[:, :width] * 2, alone.label_weights_)
    np.testing.assert_array_equal(clf._memory[0][0], alone._memory[0][0])
    assert not np.array_equal(clf._memory[0][0], clf._memory[0][1])
    assert clf.n_iter_ == 4


def test_a_warm_start_goes_on(data, trio):
    X, Y = data
    clf = average(trio)
    before = precision_at_k(Y, clf.predict_topk(X, 3)[0], k=3)
    clf.set_params(warm_start=True).fit(X, Y)
    assert clf.n_iter_ == 6
    assert precision_at_k(Y, clf.predict_topk(X, 3)[0], k=3) > before


# -- what is refused -------------------------------------------------------------------------------


def test_what_is_no_fitted_classifier_is_refused(trio):
    with pytest.raises(ValueError, match="classifiers is empty"):
        average([])
    with pytest.raises(TypeError, match=r"classifiers\[1\] must be an XMCClassifier, got dict"):
        average([trio[0], {}])
    with pytest.raises(NotFittedError):
        average([trio[0], XMCClassifier()])


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"hidden_layer_sizes": (8,)}, r"hidden layers: \(8,\) and \(16,\)"),
        ({"hidden_layer_sizes": (16, 8)}, r"hidden layers: \(16, 8\) and \(16,\)"),
        ({"residual": True}, "residual block: True and False"),
        ({"late_fusion": 0.5}, "late fusion: True and False"),
        ({"sampler": "label-embedding"}, r"shortlist_size_: \d+ and None"),
    ],
)
def test_other_networks_are_refused(data, trio, parameters, what):
    with pytest.raises(ValueError, match=rf"classifiers\[3\] and classifiers\[0\] differ.*{what}"):
        average([*trio, fitted(*data, 0, **parameters)])


def test_other_data_is_refused(data, trio):
    X, Y = data
    with pytest.raises(ValueError, match="n_features_in_: 299 and 300"):
        average([*trio, fitted(X[:, :299], Y, 0)])
    with pytest.raises(ValueError, match="differ in their classes_"):
        average([*trio, fitted(X, Y[:, :39], 0)])
    with pytest.raises(ValueError, match="'dense' and 'sparse'"):
        average([*trio, fitted(X, Y.toarray(), 0)])
    named = fitted(X, Y, 0)
    named.feature_names_in_ = np.array([f"word{j}" for j in range(300)], dtype=object)
    with pytest.raises(ValueError, match=r"differ in their feature_names_in_\. Fit"):
        average([*trio, named])
    assert average([named, named]).feature_names_in_[299] == "word299"
    names = np.arange(40) + 1
    one, other = (fitted(X, names[np.arange(400) % 40 * step % 40], 0) for step in (1, 2))
    with pytest.raises(ValueError, match="differ in their classes_"):
        average([one, other])
