"""What can go wrong in a fit: Ctrl-C, errors halfway, numbers that explode, odd shapes."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.validation import check_is_fitted

from skxmc import XMCClassifier, _fitting
from skxmc._training import Trainer
from skxmc.datasets import make_xmc
from skxmc.losses import Loss
from skxmc.samplers import SAMPLERS, Sampler, UniformSampler

FAST = {"hidden_layer_sizes": (8,), "n_estimators": 1, "max_iter": 4, "batch_size": 16, "n_jobs": 1}


def xmc(sampler="uniform", **parameters):
    return XMCClassifier(sampler, **{"random_state": 0, **FAST, **parameters})


@pytest.fixture(scope="module")
def data():
    return make_xmc(300, 200, 30, random_state=0)


def fitted_names(clf):
    return {name for name in vars(clf) if name.endswith("_") or name.startswith("_")}


# -- Ctrl-C ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def ctrl_c():
    """SIGINT as an interactive Python has it: in a background job it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(monkeypatch, epoch, step=3, times=1):
    """Ctrl-C, for the whole process as a terminal sends it, before this step of this epoch.

    Other threads wait meanwhile: they could be at the end of the epoch.
    """
    real, pressed, gate = Trainer.step, [], threading.Lock()

    def pressing(self, worker, rows, number):
        with gate:
            if number == epoch * self.n_steps + step:
                while len(pressed) < times:
                    pressed.append(os.kill(os.getpid(), signal.SIGINT))
                    time.sleep(0.2)  # it is for the main thread to hear it, on a busy machine too
                    for _ in range(100):
                        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                            break
                        time.sleep(0.05)
        return real(self, worker, rows, number)

    monkeypatch.setattr(Trainer, "step", pressing)
    return pressed


def steps_taken(monkeypatch):
    real, numbers = Trainer.step, []

    def counting(self, worker, rows, number):
        numbers.append(number // self.n_steps)
        return real(self, worker, rows, number)

    monkeypatch.setattr(Trainer, "step", counting)
    return numbers


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n_estimators": 2, "sampler": "mips+uniform"},
        {"n_estimators": 2, "n_jobs": 2},  # a thread for each gives the same bits too
        {"early_stopping": True},
    ],
)
def test_ctrl_c_leaves_the_last_complete_epoch(data, monkeypatch, more):
    more = {**more, "learning_rate": "constant"}
    expected = xmc(**{**more, "max_iter": 2}).fit(*data)
    clf = xmc(**more)
    epochs = steps_taken(monkeypatch)
    press(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt, match=r"in epoch 3 of 4, and goes back to .*is fitted"):
        clf.fit(*data)
    assert epochs.count(2) < len(epochs) / 3 / 2  # it was not trained to its end
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.epoch_seconds_) == 2
    assert fitted_names(clf) == fitted_names(expected)
    for mine, theirs in zip(clf.predict_topk(data[0]), expected.predict_topk(data[0]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(clf.label_weights_, expected.label_weights_)
    assert clf.tail_bias_ == expected.tail_bias_
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("more", [{"n_jobs": 4}, {"n_jobs": 4, "early_stopping": True}])
def test_ctrl_c_with_threads_on_the_same_weights(data, monkeypatch, more):
    press(monkeypatch, 2)
    clf = xmc(n_estimators=2, **more)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt, match="in epoch 3 of 4"):
        clf.fit(*data)
    assert set(threading.enumerate()) <= before
    assert clf.n_iter_ == 2
    assert clf.score(*data) > 0.1


def test_ctrl_c_in_the_first_epoch_leaves_what_was_there(data, monkeypatch):
    clf = xmc()
    press(monkeypatch, 0, times=1)
    with pytest.raises(KeyboardInterrupt, match="in its first epoch"):
        clf.fit(*data)
    assert fitted_names(clf) == set()
    with pytest.raises(NotFittedError):
        check_is_fitted(clf)


def test_a_large_model_is_not_copied_and_keeps_what_it_has_learnt(data, monkeypatch):
    monkeypatch.setattr(_fitting, "_FEW_BYTES", 0)
    monkeypatch.setattr("skxmc._ensemble.Ensemble.checkpoint", None)
    press(monkeypatch, 2, step=10)
    clf = xmc()
    with pytest.raises(KeyboardInterrupt, match=r"in epoch 3 of 4, and keeps \d\d% of that epoch"):
        clf.fit(*data)
    assert clf.n_iter_ == 2
    clf.predict_topk(data[0])


def test_with_a_checkpoint_a_large_model_goes_back_and_a_new_fit_goes_on(
    data, monkeypatch, tmp_path
):
    monkeypatch.setattr(_fitting, "_FEW_BYTES", 0)
    more = {"learning_rate": "constant", "sampler": "label-embedding"}
    two, four = xmc(max_iter=2, **more).fit(*data), xmc(**more).fit(*data)
    clf = xmc(checkpoint=tmp_path, **more)
    press(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt, match=r"end of epoch 2.*fit again to go on from .*npz"):
        clf.fit(*data)
    np.testing.assert_array_equal(clf.predict_topk(data[0])[1], two.predict_topk(data[0])[1])
    clf.fit(*data)
    np.testing.assert_array_equal(clf.label_weights_, four.label_weights_)
    assert clf.n_iter_ == 4


def test_a_second_ctrl_c_is_not_held_back_and_nothing_is_half_stored(data, monkeypatch):
    clf = xmc().fit(*data)
    before = dict(vars(clf))
    press(monkeypatch, 2, times=2)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        clf.fit(data[0][:100], data[1][:100, :20])
    assert vars(clf) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_stops_a_search(data, monkeypatch):
    press(monkeypatch, 2)
    epochs = steps_taken(monkeypatch)
    search = GridSearchCV(xmc(), {"dropout": [0.1, 0.2, 0.3]}, cv=2, error_score=np.nan)
    with pytest.raises(KeyboardInterrupt, match="in epoch 3"):
        search.fit(*data)
    assert len(epochs) < 40


def test_the_handler_of_others_and_other_threads_are_left_alone(data):
    def others(*_):
        """Whoever else cares."""

    signal.signal(signal.SIGINT, others)
    try:
        xmc().fit(*data)
        assert signal.getsignal(signal.SIGINT) is others
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    results = []
    thread = threading.Thread(target=lambda: results.append(xmc().fit(*data).n_iter_))
    thread.start()
    thread.join()
    assert results == [4]


# -- errors halfway --------------------------------------------------------------------------------


class Failing(UniformSampler):
    def start_epoch(self, epoch, n_epochs):
        if epoch == 2:
            raise RuntimeError("halfway")


@pytest.mark.parametrize("warm_start", [False, True])
def test_an_error_leaves_the_fit_before_whole(data, warm_start):
    X, Y = data
    clf = xmc(warm_start=warm_start).fit(X, Y)
    before, scores = dict(vars(clf)), clf.decision_function(X)
    curve = list(clf.loss_curve_)
    clf.set_params(sampler=Failing())
    columns = slice(None) if warm_start else slice(20)
    with pytest.raises(RuntimeError, match="halfway"):
        clf.fit(X[:200], Y[:200, columns])
    assert {**vars(clf), "sampler": "uniform"} == before
    assert clf.loss_curve_ == curve
    np.testing.assert_array_equal(clf.decision_function(X), scores)


# -- numbers ---------------------------------------------------------------------------------------


def assert_finite(clf, X):
    for array in (clf.feature_weights_, clf.label_weights_, clf.label_biases_, *clf._memory):
        assert np.isfinite(array).all()
    labels, scores = clf.predict_topk(X, 3)
    assert np.isfinite(scores).all()
    assert all(len(set(row)) == len(row) for row in labels.tolist())
    return labels


@pytest.mark.parametrize("sampler", [*SAMPLERS, "mips+uniform", "clustered-in-batch+uniform"])
@pytest.mark.parametrize("loss", ["bce", "squared-hinge", "decoupled-softmax"])
def test_a_rate_100_times_too_large_stays_finite(data, sampler, loss):
    X, Y = data
    assert_finite(xmc(sampler, loss=loss, learning_rate_init=10.0, max_iter=2).fit(X, Y), X)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "mips+uniform"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("scale", [1e12, 1e30])
def test_huge_features_are_an_error_with_its_remedy(data, sampler, dense, scale):
    X, Y = data
    X = X * scale
    clf = xmc(sampler, max_iter=2, n_estimators=2, n_jobs=2)
    remedy = rf"diverged in epoch 1: .*length {scale:.3g}, and .*normalize".replace("+", r"\+")
    with pytest.raises(ValueError, match=remedy):
        clf.fit(X.toarray() if dense else X, Y)
    assert fitted_names(clf) == set()


def test_a_rate_far_too_large_is_an_error_that_says_nothing_of_the_rows(data):
    with pytest.raises(ValueError, match=r"Lower learning_rate_init=1000000.0\.$"):
        xmc(learning_rate_init=1e6).fit(*data)


class Spoiling(Loss):
    """A loss that is fine, and a gradient that at last is not."""

    def forward(self, scores, targets, weights):
        return (weights * (scores - targets) ** 2).sum()

    def value_and_gradient(self, scores, targets, weights):
        value, gradient = super().value_and_gradient(scores, targets, weights)
        gradient[0, 0] = self.poison
        return value, gradient

    poison = np.nan


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_a_weight_that_is_not_finite_is_found_at_the_end(data, residual, early_stopping):
    X, Y = data
    clf = xmc(loss=Spoiling(), max_iter=1, batch_size=300, dropout=0.0)
    clf.set_params(residual=residual, early_stopping=early_stopping)
    with pytest.raises(ValueError, match=r"diverged: a weight is not finite\. Lower learning_rate"):
        clf.fit(X, Y)
    assert fitted_names(clf) == set()


def test_no_sampler_ever_sees_a_loss_that_is_not_finite(data):
    """It ends the epoch at once: no index, no clusters and no file of NaN."""
    seen = []

    class Watching(Sampler):
        def due(self, epoch, step):
            return True

        def refresh(self, epoch, step, network, rows):
            seen.append(bool(np.isfinite(network.label_weights.numpy()).all()))

        def propose(self, rows, rng):
            return []

    X, Y = data
    with pytest.raises(ValueError, match="diverged in epoch 1: the mean loss of a row is nan"):
        xmc(Watching(), loss=Spoiling()).fit(X, Y)
    assert len(seen) < 5


def odd_data():
    rng = np.random.default_rng(0)
    X = rng.random((60, 12), dtype=np.float32)
    Y = (rng.random((60, 9)) < 0.2).astype(np.int64)
    Y[:, 0] = 1
    one = np.zeros_like(Y)
    one[:, 4] = 1
    return {
        "a label on every row": (X, Y),
        "a single label": (X, one),
        "one row": (X[:1], Y[:1]),
        "two rows": (X[:2], Y[:2]),
        "rows alike": (X[[0] * 60], Y[[0] * 60]),
        "rows alike, labels not": (X[[0] * 60], Y),
        "rows of zeros": (X * 0, Y),
        "all labels on all rows": (X, np.ones_like(Y)),
        "most rows without a label": (X, Y * (np.arange(60) < 2)[:, None]),
        "tiny features": (X * 1e-38, Y),
        "one feature": (X[:, :1], Y),
    }


@pytest.mark.parametrize("name", odd_data())
@pytest.mark.parametrize("sampler", [*SAMPLERS, "clustered-in-batch+uniform", "mips+uniform"])
def test_odd_data_trains(name, sampler):
    X, Y = odd_data()[name]
    clf = xmc(sampler, max_iter=3, hidden_layer_sizes=(8, 6), residual=True).fit(X, Y)
    labels = assert_finite(clf, X)
    seen = np.flatnonzero(Y.sum(0))
    assert np.isin(labels[:, 0], seen).all()
    if len(seen) == 1 or name == "one row":
        assert clf.score(X, Y) == 1


def test_100000_labels_on_one_row():
    n = 100_000
    Y = sp.csr_array((np.ones(n + 3), np.r_[:n, 0, 1, 2], [0, n, n + 1, n + 2, n + 3]))
    X = np.eye(4)
    clf = xmc("clustered-in-batch+uniform", n_estimators=2, max_iter=2).fit(X, Y)
    assert_finite(clf, X)


# -- shapes, dtypes, containers --------------------------------------------------------------------

CONTAINERS = {
    f"{form}_{kind}": getattr(sp, f"{form}_{kind}")
    for form in ("csr", "csc", "coo")
    for kind in ("array", "matrix")
} | {"C": np.ascontiguousarray, "F": np.asfortranarray, "list": np.ndarray.tolist}


@st.composite
def problems(draw):
    """X and Y as plain arrays, and how to hand them over."""
    n_rows, n_features = draw(st.integers(1, 25)), draw(st.integers(1, 8))
    n_labels = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    X = np.round(rng.random((n_rows, n_features)) * (rng.random((n_rows, n_features)) < 0.6), 2)
    Y = (rng.random((n_rows, n_labels)) < draw(st.sampled_from([0.1, 0.5, 1.0]))).astype(int)
    Y[0, rng.integers(n_labels)] = 1
    return X, Y


def hand_over(array, container, dtype, index):
    out = CONTAINERS[container](array.astype(dtype))
    for name in ("indices", "indptr", "row", "col"):
        if sp.issparse(out) and hasattr(out, name):
            setattr(out, name, getattr(out, name).astype(index))
    return out


@settings(max_examples=25)
@given(
    problems(),
    st.sampled_from(sorted(CONTAINERS)),
    st.sampled_from(sorted(CONTAINERS)),
    st.sampled_from([np.float32, np.float64, np.int8, np.int64, bool]),
    st.sampled_from([np.float32, np.int8, np.int64, bool]),
    st.sampled_from([np.int32, np.int64]),
    st.sampled_from(["clustered-in-batch+uniform", "mips+uniform", "label-embedding", "full"]),
)
def test_the_container_of_x_and_y_does_not_matter(problem, of_X, of_Y, dtype, kind, index, sampler):
    X, Y = problem
    X = X.astype(dtype)
    clf = xmc(sampler, max_iter=2)
    plain = clone(clf).fit(np.asarray(X, np.float32), Y)
    given_X, given_Y = hand_over(X, of_X, dtype, index), hand_over(Y, of_Y, kind, index)
    found = clf.fit(given_X, given_Y)
    labels, scores = found.predict_topk(given_X, 3)
    assert labels.shape == scores.shape == (len(X), min(3, Y.shape[1]))
    if not sp.issparse(given_X):  # sparse sums go in another order, and clusters may tip over
        np.testing.assert_array_equal(found.label_weights_, plain.label_weights_)
        np.testing.assert_array_equal(labels, plain.predict_topk(X, 3)[0])
    else:
        twin = clone(clf).fit(sp.csr_array(np.asarray(X, np.float32)), Y)
        np.testing.assert_array_equal(found.label_weights_, twin.label_weights_)
        np.testing.assert_array_equal(labels, twin.predict_topk(sp.csr_array(X), 3)[0])
    assert_finite(found, given_X)
