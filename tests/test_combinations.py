"""One contract for every sampler with every loss: what each pair must do, and that it learns."""

import numpy as np
import pytest
import scipy.sparse as sp

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.losses import LOSSES, OrderedWeightedLoss
from skxmc.metrics import precision_at_k
from skxmc.samplers import SAMPLERS, MIPSSampler, StochasticNegativeMining

SAMPLER_CASES = {
    **{name: name for name in SAMPLERS},
    "mips+uniform": "mips+uniform",
    "mips+in-batch+uniform": "mips+in-batch+uniform",
    "snm for each row": StochasticNegativeMining(shared=False),
}
LOSS_CASES = {
    **{name: name for name in LOSSES},
    "owl pairwise snm": OrderedWeightedLoss("pairwise", "logistic", "snm", pool_size=10),
    "owl array": OrderedWeightedLoss(margin="squared-hinge", theta=[1.0, 0.5, 0.25]),
    "owl pick-one": OrderedWeightedLoss(margin="logistic", reduction="pick-one"),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLER_CASES.values(), ids=SAMPLER_CASES)
every_loss = pytest.mark.parametrize("loss", LOSS_CASES.values(), ids=LOSS_CASES)


def make(sampler, loss, **parameters):
    parameters = {
        "hidden_layer_sizes": (16,),
        "n_estimators": 1,
        "positive_weight": None,
        "learning_rate_init": 0.2,
        "dropout": 0.0,
        "batch_size": 32,
        "max_iter": 2,
        "n_jobs": 1,
        "device": "cpu",
        "random_state": 0,
        **parameters,
    }
    return XMCClassifier(sampler, loss, **parameters)


def make_data(n_samples, n_labels):
    return make_xmc(
        n_samples, 400, n_labels, n_labels_per_sample=2.0, n_features_per_sample=30, noise=0.3,
        random_state=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small():
    """A few rows; one has all labels, one none, one no features."""
    X, Y = make_data(64, 12)
    X, Y = X.tolil(), Y.tolil()
    Y[3], Y[4], X[5] = 1, 0, 0
    return sp.csr_array(X), sp.csr_array(Y)


@pytest.fixture(scope="module")
def large():
    """Rows to train on and rows held out."""
    X, Y = make_data(600, 40)
    return X[:400], Y[:400], X[400:], Y[400:]


def weights_of(clf):
    return [
        clf.feature_weights_,
        *clf.hidden_weights_,
        *clf.hidden_biases_,
        clf.label_weights_,
        clf.label_biases_,
    ]


def assert_sound(clf, X, n_labels):
    for array in weights_of(clf):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert np.isfinite(clf.loss_curve_).all()
    labels, scores = clf.predict_topk(X, k=5)
    assert labels.shape == scores.shape == (X.shape[0], min(5, n_labels))
    assert np.isfinite(scores).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == len(row) for row in labels.tolist())
    assert labels.min() >= 0
    assert labels.max() < n_labels


@every_loss
@every_sampler
def test_fit_moves_finite_weights_and_the_same_seed_gives_the_same_bits(sampler, loss, small):
    X, Y = small
    clf, again = (make(sampler, loss).fit(X, Y) for _ in range(2))
    assert_sound(clf, X, 12)
    for one, other in zip(weights_of(clf), weights_of(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert clf.loss_curve_ == again.loss_curve_
    start = make(sampler, loss, learning_rate_init=1e-30).fit(X, Y)
    for one, other in zip(weights_of(clf), weights_of(start), strict=True):
        assert abs(one - other).max() > 1e-3


@every_loss
@every_sampler
def test_float64_and_dense_rows_train_the_same_model(sampler, loss, small):
    X, Y = small
    clf = make(sampler, loss, max_iter=1).fit(X, Y)
    wide = make(sampler, loss, max_iter=1).fit(X.astype(np.float64), Y)
    for one, other in zip(weights_of(clf), weights_of(wide), strict=True):
        np.testing.assert_array_equal(one, other)
    for dtype in (np.float32, np.float64):
        dense = make(sampler, loss, max_iter=1).fit(X.toarray().astype(dtype), Y.toarray())
        assert_sound(dense, X.toarray().astype(dtype), 12)


@every_loss
@every_sampler
@pytest.mark.parametrize("n_labels", [3, 1])
def test_fewer_labels_than_any_default_asks_for(sampler, loss, n_labels, small):
    """Among the rows of one label many have none, and whole batches of them."""
    X, Y = small
    Y = Y[:, :n_labels]
    clf = make(sampler, loss, batch_size=4).fit(X, Y)
    assert_sound(clf, X, n_labels)


@every_loss
@pytest.mark.parametrize(
    "sampler",
    ["in-batch", MIPSSampler(2, warmup_epochs=1)],
    ids=["in-batch", "mips that warms up"],
)
def test_batches_without_positives_and_proposals_are_passed_over(sampler, loss, small):
    X, Y = small
    Y = Y.tolil()
    Y[6:] = 0
    clf = make(sampler, loss, batch_size=2).fit(X, sp.csr_array(Y))
    assert_sound(clf, X, 12)


@every_loss
@every_sampler
def test_every_pair_learns(sampler, loss, large):
    """Held-out P@1 against the most frequent label for all."""
    X, Y, X_test, Y_test = large
    clf = make(sampler, loss, max_iter=6).fit(X, Y)
    frequent = np.full((X_test.shape[0], 1), Y.sum(0).argmax())
    baseline = precision_at_k(Y_test, frequent, k=1)
    labels, _ = clf.predict_topk(X_test, k=1)
    assert 0.1 < baseline < 0.3
    assert precision_at_k(Y_test, labels, k=1) > 2 * baseline + 0.05
