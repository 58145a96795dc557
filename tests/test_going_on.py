"""Training that goes on: partial_fit, warm_start, and the callbacks of scikit-learn."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.fixes import parse_version

from skxmc import XMCClassifier
from skxmc._network import Weights
from skxmc.datasets import load_xmc_file, make_xmc, save_xmc_file
from skxmc.metrics import precision_at_k, precision_at_k_scorer, propensities

FAST = {"hidden_layer_sizes": (16,), "max_iter": 2, "batch_size": 32, "n_jobs": 1}
needs_callbacks = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9"),
    reason="scikit-learn has callbacks from 1.9 on",
)


def xmc(sampler="mips+uniform", *, random_state=0, **parameters):
    return XMCClassifier(sampler, random_state=random_state, **{**FAST, **parameters})


@pytest.fixture(scope="module")
def data():
    """600 rows, 400 features, 60 labels, the last three without a row."""
    X, Y = make_xmc(600, 400, 60, random_state=0)
    Y = sp.csr_array(Y).tolil()
    Y[:, 57:] = 0
    return X, sp.csr_array(Y)


def p1(clf, X, Y):
    return precision_at_k(Y, clf.predict_topk(X, 1)[0], k=1)


# -- members of a fitted network -------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(8,), (8, 6)])
@pytest.mark.parametrize("residual", [False, True])
def test_split_takes_apart_what_merge_put_together(sizes, residual):
    rng = np.random.default_rng(0)
    members = [Weights.initial(20, sizes, np.zeros(7), rng, residual) for _ in range(3)]
    for member in members:
        for array in (*member.hidden_biases, *(member.residual or ())):
            array += rng.random(array.shape, dtype=np.float32)
    merged = Weights.merge(members)
    for member, part in zip(members, merged.split(3), strict=True):
        np.testing.assert_array_equal(part.features, member.features)
        np.testing.assert_allclose(part.labels * 3, member.labels, rtol=1e-6)
        pairs = [*zip(part.hidden, member.hidden, strict=True)]
        pairs += zip(part.hidden_biases, member.hidden_biases, strict=True)
        pairs += zip(part.residual or (), member.residual or (), strict=True)
        for found, expected in pairs:
            np.testing.assert_array_equal(found, expected)


# -- partial_fit -----------------------------------------------------------------------------------


def test_partial_fit_learns_from_a_stream_and_remembers(data):
    X, Y = data
    clf = xmc("uniform", n_estimators=2)
    for _ in range(8):
        for part in np.array_split(np.arange(600), 3):
            assert clf.partial_fit(X[part], Y[part]) is clf
    assert clf.n_iter_ == 24 == len(clf.loss_curve_) == len(clf.hardness_curve_)
    assert p1(clf, X, Y) > p1(xmc("uniform").fit(X, Y), X, Y)
    once = xmc("uniform", n_estimators=2).partial_fit(X[:200], Y[:200])
    assert p1(clf, X[:200], Y[:200]) > p1(once, X[:200], Y[:200]) + 0.2


def test_partial_fit_counts_the_rows_of_the_whole_stream(data):
    X, Y = data
    clf = xmc().partial_fit(X[:250], Y[:250]).partial_fit(X[250:], Y[250:])
    np.testing.assert_array_equal(clf.label_counts_, np.asarray(Y.sum(0)).ravel())
    assert clf.n_samples_seen_ == 600
    np.testing.assert_allclose(clf.tail_offsets_, np.log(2 / propensities(Y) - 1), rtol=1e-5)


def test_a_label_scores_from_its_first_row_on(data):
    X, Y = data
    first = sp.csr_array(Y.toarray() * (np.arange(60) < 30))
    clf = xmc().partial_fit(X, first)
    unseen = np.asarray(first.sum(0)).ravel() == 0
    assert (clf.label_biases_[unseen] == -1e30).all()
    clf.partial_fit(X, Y)
    assert (clf.label_biases_[:57] > -100).all()
    assert (clf.label_biases_[57:] == -1e30).all()
    assert np.abs(clf.label_weights_[:57]).sum(1).min() > 0


def test_rows_without_a_label_may_come_later_but_not_first(data):
    X, Y = data
    none = sp.csr_array(Y.shape)
    with pytest.raises(ValueError, match="no label at all"):
        xmc().partial_fit(X, none)
    clf = xmc("uniform").partial_fit(X, Y)
    before = clf.decision_function(X)[:, :57].mean()
    assert clf.partial_fit(X, none).decision_function(X)[:, :57].mean() < before


def test_partial_fit_repeats_bit_for_bit_and_after_a_pickle(data):
    import pickle

    X, Y = data
    one = xmc(n_estimators=2).partial_fit(X, Y).partial_fit(X[:300], Y[:300])
    other = pickle.loads(pickle.dumps(xmc(n_estimators=2).partial_fit(X, Y)))
    other.partial_fit(X[:300], Y[:300])
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))


def test_calls_draw_other_numbers(data):
    """With one seed, the order of rows and dropout must not be those of the call before."""
    X, Y = data
    seeds = []
    sampler = _Spy(seeds)
    clf = xmc(sampler).partial_fit(X, Y).partial_fit(X, Y)
    clf.partial_fit(X, Y)
    assert len(set(seeds)) == 3 * clf.n_estimators


def test_partial_fit_of_classes(data):
    X, Y = data
    y = np.array(["a", "c", "b", "a"] * 150)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        xmc().partial_fit(X, y)
    clf = xmc().partial_fit(X[:2], y[:2], classes=["c", "b", "a"])
    np.testing.assert_array_equal(clf.classes_, ["a", "b", "c"])
    clf.partial_fit(X, y).partial_fit(X, y, classes=["a", "b", "c"])
    assert clf.predict(X).shape == (600,)
    with pytest.raises(ValueError, match="not those of the first call"):
        clf.partial_fit(X, y, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"has the class .*'z'"):
        clf.partial_fit(X[:1], np.array(["z"]))
    with pytest.raises(ValueError, match="60 columns, but there are 3 labels"):
        clf.partial_fit(X, Y)


@pytest.mark.parametrize("parameters", [{"early_stopping": True}, {"late_fusion": "auto"}])
def test_partial_fit_refuses_to_hold_rows_out(data, parameters):
    clf = xmc(**parameters)
    assert not hasattr(clf, "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit") as caught:
        clf.partial_fit(*data)
    assert "holds no rows out" in str(caught.value.__cause__)


def test_partial_fit_refuses_another_network_and_leaves_the_old(data):
    X, Y = data
    clf = xmc().partial_fit(X, Y)
    before = clf.decision_function(X)
    for other in ({"hidden_layer_sizes": (8,)}, {"n_estimators": 3}, {"residual": True}):
        with pytest.raises(ValueError, match="ask for another"):
            clone(clf).set_params().partial_fit(X, Y).set_params(**other).partial_fit(X, Y)
    np.testing.assert_array_equal(clf.decision_function(X), before)
    with pytest.raises(ValueError, match="features"):
        clf.partial_fit(X[:, :10], Y)
    with pytest.raises(ValueError, match="59 columns"):
        clf.partial_fit(X, Y[:, :59])


def test_a_member_of_its_own_goes_on_from_the_weights_it_had(data):
    """With a learning rate next to nothing, a call changes next to nothing."""
    X, Y = data
    for parameters in ({}, {"residual": True}, {"hidden_layer_sizes": (16, 12)}):
        clf = xmc(n_estimators=3, **parameters).fit(X, Y)
        before = clf.decision_function(X)[:, :57]
        clf.set_params(learning_rate_init=1e-9).partial_fit(X, Y)
        # The spectral norm of R is found step by step, and so is 1 to some digits.
        atol = 0.02 if parameters.get("residual") else 1e-4
        np.testing.assert_allclose(clf.decision_function(X)[:, :57], before, atol=atol)


# -- warm_start ------------------------------------------------------------------------------------


def test_a_warm_start_goes_on_where_the_fit_ended(data):
    X, Y = data
    clf = xmc("uniform", warm_start=True).fit(X, Y)
    first, loss = p1(clf, X, Y), clf.loss_curve_[-1]
    clf.set_params(max_iter=6).fit(X, Y)
    assert clf.n_iter_ == 8 == len(clf.loss_curve_) == len(clf.epoch_seconds_)
    assert clf.loss_curve_[2] < loss
    assert p1(clf, X, Y) > first
    cold = clf.set_params(warm_start=False).fit(X, Y)
    assert cold.n_iter_ == 6


def test_a_warm_start_takes_rows_with_labels_that_were_unseen(data):
    X, Y = data
    some = sp.csr_array(Y.toarray() * (np.arange(60) < 30))
    clf = xmc(warm_start=True, early_stopping=True, max_iter=3).fit(X, some).fit(X, Y)
    assert (clf.label_biases_[:57] > -100).mean() > 0.9
    with pytest.raises(ValueError, match="59 columns"):
        clf.fit(X, Y[:, :59])


def test_curves_that_begin_with_a_warm_start(data):
    X, Y = data
    clf = xmc(warm_start=True).fit(X, Y).set_params(early_stopping=True, loss="squared-hinge")
    clf.fit(X, Y)
    assert len(clf.validation_scores_) == len(clf.active_fraction_) == 2
    assert len(clf.loss_curve_) == 4


@pytest.mark.parametrize("sampler", ["full", "in-batch"])
def test_hardness_is_what_the_network_believes_of_its_negatives(data, sampler):
    X, Y = data
    still = {"learning_rate_init": 1e-12, "dropout": 0, "positive_weight": None}
    clf = xmc(sampler, n_estimators=1, batch_size=600, max_iter=1, **still).fit(X, Y)
    wrong = (Y.toarray() == 0) & (np.asarray(Y.sum(0)) > 0)  # one batch: both propose all labels
    belief = (clf.predict_proba(X) * wrong).sum(1).mean()
    np.testing.assert_allclose(clf.hardness_curve_, [belief], rtol=1e-4)


# -- callbacks -------------------------------------------------------------------------------------


class _Spy:
    """A uniform sampler that writes down the seeds of its runs."""

    def __init__(self, seeds):
        from skxmc.samplers import UniformSampler

        self.seeds, self.inner = seeds, UniformSampler(10)

    def __new__(cls, seeds):
        from skxmc.samplers import UniformSampler

        class Spy(UniformSampler):
            def __init__(self, n_negatives=10):
                super().__init__(n_negatives)

            def begin(self, problem):
                seeds.append(problem.random_state)
                return super().begin(problem)

        return Spy()


class Recorder:
    """A callback that writes down what it is told, and stops a fit when `stop(context)` says so."""

    def __init__(self, stop=lambda context: False, look=False):
        self.told, self.stop, self.look, self.scores = [], stop, look, []
        self.max_propagation_depth = None

    def setup(self, estimator, context):
        self.told.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.told.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.told.append(("begin", context.task_name, context.task_id, context.max_subtasks))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.told.append(("end", context.task_name, context.task_id, context.max_subtasks))
        if self.look and fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(X, y))
        return self.stop(context)


@needs_callbacks
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_callbacks_hear_of_epochs_and_steps(data, n_jobs):
    recorder = Recorder()
    xmc(n_estimators=2, n_jobs=n_jobs).set_callbacks(recorder).fit(*data)
    told = recorder.told
    assert told[:2] == [("setup", "fit"), ("begin", "fit", 0, 2)]
    assert told[-2:] == [("end", "fit", 0, 2), ("teardown", "fit")]
    n_steps = 2 * -(-600 // 32)  # of two members
    ends = [t for t in told if t[:2] == ("end", "epoch")]
    assert ends == [("end", "epoch", 0, n_steps), ("end", "epoch", 1, n_steps)]
    assert [t for t in told if t[:2] == ("end", "steps")] == [
        ("end", "steps", i, 0) for _ in range(2) for i in range(n_steps)
    ]


@needs_callbacks
def test_of_many_steps_callbacks_hear_now_and_then(data):
    recorder = Recorder()
    xmc(n_estimators=1, batch_size=1, max_iter=1).set_callbacks(recorder).fit(*data)
    steps = [t for t in recorder.told if t[:2] == ("end", "steps")]
    assert len(steps) == 100  # of 600


@needs_callbacks
@pytest.mark.parametrize("sampler", ["uniform", "label-embedding"])
def test_what_a_callback_sees_predicts_as_the_fit_would_if_it_ended(data, sampler):
    X, Y = data
    recorder = Recorder(look=True)
    parameters = {"tail_bias": 0.0, "learning_rate": "constant", "n_estimators": 2}
    clf = xmc(sampler, max_iter=3, **parameters).set_callbacks(recorder).fit(X, Y)
    expected = [xmc(sampler, max_iter=n, **parameters).fit(X, Y).score(X, Y) for n in (1, 2)]
    assert recorder.scores[2:] == [clf.score(X, Y)] * 2  # the last epoch, and the end
    if sampler == "uniform":  # label-embedding's cycles know how many epochs there are
        assert recorder.scores[:2] == expected


@needs_callbacks
def test_looking_changes_nothing(data):
    X, Y = data
    plain = xmc(n_estimators=2).fit(X, Y)
    seen = xmc(n_estimators=2).set_callbacks(Recorder(look=True)).fit(X, Y)
    np.testing.assert_array_equal(plain.decision_function(X), seen.decision_function(X))


@needs_callbacks
def test_a_callback_stops_an_epoch_or_the_fit(data):
    X, Y = data
    after_one = Recorder(stop=lambda context: context.task_name == "epoch")
    clf = xmc(max_iter=5).set_callbacks(after_one).fit(X, Y)
    assert clf.n_iter_ == 1
    assert clf.predict_topk(X)[0].shape == (600, 5)
    in_epochs = Recorder(stop=lambda context: context.task_name == "steps" and context.task_id == 3)
    clf = xmc(max_iter=3, n_estimators=1).set_callbacks(in_epochs).fit(X, Y)
    assert clf.n_iter_ == 3
    assert sum(t[:2] == ("end", "steps") for t in in_epochs.told) == 3 * 4


@needs_callbacks
def test_scoring_monitor_scores_each_epoch_without_a_dense_matrix(data, monkeypatch):
    from sklearn.callback import ScoringMonitor

    from skxmc._predictor import Predictor

    def refuse(self, X):
        raise AssertionError("dense scores were made")

    monkeypatch.setattr(Predictor, "dense", refuse)
    X, Y = data
    monitor = ScoringMonitor(scoring=precision_at_k_scorer(3))
    xmc("uniform", top_k=3, max_iter=4).set_callbacks(monitor).fit(X, Y)
    scores = [row["score"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 4
    assert scores[-1] > scores[0]


@needs_callbacks
@pytest.mark.filterwarnings("ignore:The estimator MaxAbsScaler does not support callbacks")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_bars_nest_in_a_search_over_a_pipeline(data, capsys, n_jobs):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    pipeline = Pipeline([("scale", MaxAbsScaler()), ("xmc", xmc(top_k=3))])
    search = GridSearchCV(
        pipeline,
        {"xmc__sampler": ["uniform", "in-batch"]},
        scoring=precision_at_k_scorer(3),
        cv=2,
        n_jobs=n_jobs,
    )
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*data)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("GridSearchCV", "XMCClassifier", "epoch"))


@needs_callbacks
def test_partial_fit_has_callbacks_too(data):
    recorder = Recorder()
    xmc().set_callbacks(recorder).partial_fit(*data)
    assert recorder.told[1] == ("begin", "fit", 0, 1)


@needs_callbacks
def test_an_error_in_a_callback_ends_the_fit_and_nothing_is_left(data):
    def fail(context):
        if context.task_name == "steps":
            raise RuntimeError("no more")

    recorder = Recorder(stop=fail)
    clf = xmc(n_jobs=2).set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="no more"):
        clf.fit(*data)
    assert recorder.told[-1] == ("teardown", "fit")
    assert not hasattr(clf, "_callback_fit_ctx")


# -- long work outside the epochs ------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    """Lines of progress at once, and small blocks."""
    monkeypatch.setattr("skxmc._progress.SECONDS", -1)
    monkeypatch.setattr("skxmc.datasets._files._SECONDS", -1)
    monkeypatch.setattr("skxmc._prediction._ROWS", 200)


def test_rankings_say_how_far_they_are(data, capsys, impatient):
    X, Y = data
    clf = xmc("uniform", verbose=1).fit(X, Y)
    capsys.readouterr()
    clf.predict_topk(X)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in lines] == [
        "[XMCClassifier] ranked: 200 of 600 rows",
        "[XMCClassifier] ranked: 400 of 600 rows",
    ]
    clf.decision_function(X)
    assert "scored: 400 of 600 rows" in capsys.readouterr().out
    clf.set_params(verbose=0).predict_topk(X)
    assert capsys.readouterr().out == ""


def test_look_ups_say_how_far_they_are(capsys, impatient):
    X, Y = make_xmc(33_000, 400, 60, random_state=0)
    clf = xmc("mips", verbose=1, max_iter=1, batch_size=1024, n_estimators=1, tail_bias=0.0)
    clf.set_params(neighbor_weight=0.0).fit(X, Y)  # else it passes over some
    assert "looked up: 11,000 of 33,000 rows" in capsys.readouterr().out


def test_files_say_how_far_they_are(data, capsys, impatient, tmp_path):
    save_xmc_file(tmp_path / "data.txt", *data)
    load_xmc_file(tmp_path / "data.txt")
    assert capsys.readouterr().out == ""
    load_xmc_file(tmp_path / "data.txt", verbose=1)
    assert "[load_xmc_file] 600 rows  100%" in capsys.readouterr().out


def test_the_first_fit_on_a_machine_says_that_it_compiles(tmp_path):
    code = """if True:
        from skxmc import XMCClassifier
        from skxmc.datasets import make_xmc
        XMCClassifier(verbose=1, max_iter=1, n_jobs=1, hidden_layer_sizes=(2,), n_estimators=1,
                      sampler="uniform", tail_bias=0.0).fit(*make_xmc(50, 50, 5, random_state=0))"""
    told = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        told.append("compiles the kernels" in run.stdout)
    assert told == [True, False]
