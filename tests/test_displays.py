"""The displays: what they draw against slow oracles, how it looks, and what they refuse."""

import importlib.util
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.displays import (
    LabelFrequencyDisplay,
    SamplerComparisonDisplay,
    TrainingDisplay,
    _frequency,
    _plotting,
)
from skxmc.metrics import precision_at_k_scorer, propensities, psp_at_k, ranking_scorers
from skxmc.samplers import InBatchSampler, MIPSSampler, UniformSampler

mpl.use("Agg")
import matplotlib.pyplot as plt

BENCHMARK = Path(__file__).resolve().parents[1] / "examples" / "benchmark"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def data():
    X, Y = make_xmc(400, 600, 40, random_state=0)
    return X[:300], X[300:], Y[:300], Y[300:]


def fit(data, sampler="uniform", **params):
    clf = XMCClassifier(
        sampler, hidden_layer_sizes=(16,), n_estimators=1, max_iter=3, n_jobs=1, random_state=0
    )
    return clf.set_params(**params).fit(data[0], data[2])


@pytest.fixture(scope="module")
def clf(data):
    return fit(data, early_stopping=True, neighbor_weight=0.0)


@pytest.fixture(scope="module")
def search(data):
    grid = {"sampler": ["in-batch", UniformSampler(7), MIPSSampler(5) + UniformSampler(20)]}
    clf = XMCClassifier(
        hidden_layer_sizes=(8,), n_estimators=1, max_iter=2, n_jobs=1, random_state=0
    )
    search = GridSearchCV(clf, grid, scoring=ranking_scorers(k=(1, 3)), refit="P@1", cv=2)
    return search.fit(data[0], data[2])


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# -- LabelFrequencyDisplay -------------------------------------------------------------------------


def slow_bins(Y_train, bins):
    """The bin of each label by a walk over the labels, rarest first; 0 for those without a row."""
    frequency = [sum(row[j] for row in Y_train) for j in range(len(Y_train[0]))]
    bin_of, passed = {}, 0
    for label in sorted(range(len(frequency)), key=lambda j: (frequency[j], j)):
        n = frequency[label]
        if isinstance(bins, list):
            bin_of[label] = 1 + sum(start <= n for start in bins)
        else:  # by the place of its middle positive among all of them
            bin_of[label] = 1 + int(bins * (2 * passed + n) / (2 * max(sum(frequency), 1)))
        passed += n
        if n == 0:
            bin_of[label] = 0
    return frequency, bin_of


def slow_measures(Y_train, Y_true, ranked, k, bins, p):
    frequency, bin_of = slow_bins(Y_train, bins)
    bins = sorted(set(bin_of.values()))
    true, top, hits, psp, ideal = (dict.fromkeys(bins, 0) for _ in range(5))
    for row, labels in zip(Y_true, ranked, strict=True):
        relevant = [j for j, value in enumerate(row) if value]
        for j in relevant:
            true[bin_of[j]] += 1
        for j in labels[:k]:
            if j >= 0:
                top[bin_of[j]] += 1
                hits[bin_of[j]] += j in relevant
                psp[bin_of[j]] += (j in relevant) / p[j]
        for j in sorted(relevant, key=lambda j: p[j])[:k]:
            ideal[bin_of[j]] += 1 / p[j]
    total = sum(ideal.values()) or 1
    return {
        "frequency_range": [
            [pick(frequency[j] for j in bin_of if bin_of[j] == b) for pick in (min, max)]
            for b in bins
        ],
        "recall": [hits[b] / true[b] if true[b] else np.nan for b in bins],
        "precision": [hits[b] / top[b] if top[b] else np.nan for b in bins],
        "psp": [psp[b] / total for b in bins],
        "psp_ideal": [ideal[b] / total for b in bins],
    }


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(1, 6),
    st.one_of(st.integers(1, 12), st.sets(st.integers(1, 12), min_size=1).map(sorted)),
)
def test_the_bins_are_those_of_a_slow_walk(seed, n, n_labels, k, bins):
    rng = np.random.default_rng(seed)
    Y_train = (rng.random((12, n_labels)) < rng.random(n_labels) ** 2).astype(int)
    Y_true = (rng.random((n, n_labels)) < 0.4).astype(int)
    ranked = np.argsort(rng.random((n, n_labels)), axis=1)
    ranked[rng.random(ranked.shape) < 0.1] = -1
    p = propensities(Y_train)
    display = LabelFrequencyDisplay.from_predictions(
        sp.csr_array(Y_true), ranked, Y_train=Y_train, k=k, bins=bins
    )
    plt.close("all")
    for name, expected in slow_measures(Y_train.tolist(), Y_true, ranked, k, bins, p).items():
        np.testing.assert_allclose(getattr(display, name), expected, err_msg=name)
    psp = psp_at_k(Y_true, ranked, k=k, propensities=p)
    assert display.psp.sum() == pytest.approx(psp)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_the_bins_are_those_of_the_benchmark(frequency):
    spec = importlib.util.spec_from_file_location("benchmark_data", BENCHMARK / "data.py")
    module = sys.modules.setdefault("benchmark_data", importlib.util.module_from_spec(spec))
    if not hasattr(module, "bins_of"):
        spec.loader.exec_module(module)
    frequency = np.array(frequency)
    theirs = module.bins_of(frequency)
    # Ours have no gaps.
    expected = np.searchsorted(np.unique(theirs), theirs)
    np.testing.assert_array_equal(_frequency._bin_labels(frequency, 10), expected)


def test_each_bin_holds_a_tenth_of_the_positives():
    rng = np.random.default_rng(0)
    frequency = rng.zipf(1.5, 2000).clip(max=500)
    share = np.bincount(_frequency._bin_labels(frequency, 10), frequency) / frequency.sum()
    assert len(share) == 10
    np.testing.assert_allclose(share, 0.1, atol=500 / frequency.sum())


def test_given_starts_of_bins_and_labels_without_a_row():
    Y_train = np.zeros((12, 5), int)
    for label, n in enumerate([0, 1, 3, 9, 12]):
        Y_train[:n, label] = 1
    display = LabelFrequencyDisplay.from_predictions(
        np.eye(5, dtype=int), np.eye(5)[::-1], Y_train=Y_train, k=1, bins=[2, 10]
    )
    assert display.frequency_range.tolist() == [[0, 0], [1, 1], [3, 9], [12, 12]]
    ticks = [tick.get_text() for tick in display.ax_.get_xticklabels()]
    assert ticks == ["0", "1", "3–9", "12"]
    assert display.recall.tolist() == [0, 0, 0.5, 0]


@pytest.mark.parametrize("metric", ["recall", "precision", "psp"])
def test_the_line_shows_the_metric(data, clf, metric):
    _, X_test, Y_train, Y_test = data
    display = LabelFrequencyDisplay.from_estimator(
        clf, X_test, Y_test, Y_train=Y_train, k=3, metric=metric, name="uniform"
    )
    x, y = display.line_.get_data()
    np.testing.assert_array_equal(y, getattr(display, metric))
    np.testing.assert_array_equal(x, np.arange(len(display.frequency_range)))
    assert display.ax_.get_ylim()[0] == 0
    assert "3" in display.ax_.get_ylabel()
    assert display.figure_ is display.ax_.figure
    legend = legend_of(display.ax_)
    if metric == "psp":
        assert legend == [f"uniform (PSP@3 = {display.psp.sum():.3f})", "ideal ranking"]
        heights = [bar.get_height() for bar in display.ideal_]
        np.testing.assert_array_equal(heights, display.psp_ideal)
        assert sum(heights) == pytest.approx(1)
    else:
        assert legend == ["uniform"]
        assert display.ideal_ is None


def test_several_models_differ_in_dash_and_marker_and_none_is_cut_off(data):
    _, _, Y_train, Y_test = data
    rng = np.random.default_rng(0)
    ax = None
    lines = []
    for i, quality in enumerate([0.0, 0.2, 0.5, 1.0, 2.0]):
        scores = rng.random(Y_test.shape) + quality * Y_test.toarray()
        display = LabelFrequencyDisplay.from_predictions(
            Y_test, scores, Y_train=Y_train, name=f"model {i}", ax=ax, metric="psp"
        )
        ax = display.ax_
        lines.append(display.line_)
    looks = {(line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == len({line.get_color() for line in lines}) == 5
    names = legend_of(ax)
    assert [name.split(" (")[0] for name in names] == [
        *(f"model {i}" for i in range(5)),
        "ideal ranking",
    ]
    assert len(ax.containers) == 1  # the bars once
    top = ax.get_ylim()[1]
    assert all(line.get_ydata().max() < top for line in lines)


def test_classifiers_rank_alike_by_all_that_they_offer(data, clf):
    """Columns of predict_topk, dense and sparse scores, alone and inside wrappers."""
    X_train, X_test, Y_train, Y_test = data

    def recall(estimator):
        return LabelFrequencyDisplay.from_estimator(
            estimator, X_test, Y_test, Y_train=Y_train, k=4
        ).recall

    expected = recall(clf)
    ranked, _ = clf.predict_topk(X_test, k=4)
    from_columns = LabelFrequencyDisplay.from_predictions(Y_test, ranked, Y_train=Y_train, k=4)
    np.testing.assert_array_equal(from_columns.recall, expected)
    pipe = make_pipeline(MaxAbsScaler(), XMCClassifier()).set_params(
        **{f"xmcclassifier__{key}": value for key, value in clf.get_params(False).items()}
    )
    search = GridSearchCV(
        pipe, {"xmcclassifier__max_iter": [2]}, scoring=precision_at_k_scorer(1), cv=2
    )
    search.fit(X_train, Y_train)
    scaled = search.best_estimator_[0].transform(X_test)
    inner = search.best_estimator_[1].predict_topk(scaled, k=4)[0]
    from_columns = LabelFrequencyDisplay.from_predictions(Y_test, inner, Y_train=Y_train, k=4)
    np.testing.assert_array_equal(recall(search), from_columns.recall)

    class Scores:
        """Neither ours nor scikit-learn's: dense or sparse decision values."""

        def __init__(self, scores):
            self.scores = scores

        def decision_function(self, X):
            return self.scores

    top = clf.set_params(top_k=4, tail_bias=0.0).decision_function(X_test)
    dense = clf.set_params(top_k=None).decision_function(X_test)
    np.testing.assert_array_equal(recall(Scores(top)), recall(Scores(dense)))
    np.testing.assert_array_equal(recall(Scores(dense)), recall(clf))


def test_scikit_learns_classifiers_decision_values_and_lists_of_probabilities(data):
    X_train, X_test, Y_train, Y_test = data
    Y = Y_train.toarray().astype(int)
    Y[:, 0], Y[:, 1] = 0, 1  # a forest gives the constant labels a single column
    forest = RandomForestClassifier(5, random_state=0).fit(X_train, Y)
    proba = forest.predict_proba(X_test)
    assert {part.shape[1] for part in proba} == {1, 2}
    scores = np.zeros(Y_test.shape)
    for j, part in enumerate(proba):
        for c, value in enumerate(forest.classes_[j]):
            scores[:, j] += part[:, c] * value
    from_scores = LabelFrequencyDisplay.from_predictions(Y_test, scores, Y_train=Y)
    display = LabelFrequencyDisplay.from_estimator(forest, X_test, Y_test, Y_train=Y)
    np.testing.assert_array_equal(display.recall, from_scores.recall)
    assert display.name == "RandomForestClassifier"
    linear = OneVsRestClassifier(LogisticRegression())
    Y, Y_test = Y_train[:, :9].toarray().astype(int), Y_test[:, :9]
    linear.fit(X_train, Y)
    from_scores = LabelFrequencyDisplay.from_predictions(
        Y_test, linear.decision_function(X_test), Y_train=Y
    )
    display = LabelFrequencyDisplay.from_estimator(linear, X_test, Y_test, Y_train=Y)
    np.testing.assert_array_equal(display.recall, from_scores.recall)


def test_one_label_a_row_as_classes(data):
    X_train, X_test, Y_train, Y_test = data
    names = np.array(["b", "d", "a", "c"])
    y_train = names[Y_train.indices[Y_train.indptr[:-1]] % 4]
    y_test = names[Y_test.indices[Y_test.indptr[:-1]] % 4]
    clf = XMCClassifier("full", hidden_layer_sizes=(8,), max_iter=2, n_jobs=1, random_state=0)
    clf.fit(X_train, y_train)
    display = LabelFrequencyDisplay.from_estimator(
        clf, X_test, y_test, Y_train=y_train, k=1, bins=1
    )
    assert display.recall.tolist() == [pytest.approx(clf.score(X_test, y_test))]
    linear = LogisticRegression().fit(X_train, y_train)
    display = LabelFrequencyDisplay.from_estimator(
        linear, X_test, y_test, Y_train=y_train, k=1, bins=1
    )
    assert display.recall.tolist() == [pytest.approx(linear.score(X_test, y_test))]
    scores = linear.decision_function(X_test)
    by_scores = LabelFrequencyDisplay.from_predictions(y_test, scores, Y_train=y_train, k=1, bins=1)
    assert by_scores.recall.tolist() == display.recall.tolist()


def test_what_is_wrong_is_said_before_the_classifier_is_asked(data, clf):
    _, X_test, Y_train, Y_test = data

    class Unasked:
        def predict_proba(self, X):
            raise AssertionError("asked")

    def draw(y=Y_test, Y_train=Y_train, **kwargs):
        LabelFrequencyDisplay.from_estimator(Unasked(), X_test, y, Y_train=Y_train, **kwargs)

    with pytest.raises(AssertionError, match="asked"):
        draw()
    for bins in (0, -1, True, [], [3, 3], [5, 2], "many", None, [[1, 2]], [1, np.nan]):
        with pytest.raises(ValueError, match=r"bins=.*must be a number of bins"):
            draw(bins=bins)
    with pytest.raises(ValueError, match="metric='psp@5' must be one of 'recall'"):
        draw(metric="psp@5")
    with pytest.raises(ValueError, match="Y_train has 39 label columns, but y has 40"):
        draw(Y_train=Y_train[:, :39])
    with pytest.raises(ValueError, match="Y_train must be a binary indicator"):
        draw(Y_train=Y_train * 2)
    with pytest.raises(ValueError, match="propensities has 3 values"):
        draw(propensities=[0.5] * 3)
    with pytest.raises(TypeError, match="k must be an integer"):
        draw(k=2.5)
    with pytest.raises(ValueError, match="estimator ranks 40 labels, but y has 39 columns"):
        LabelFrequencyDisplay.from_estimator(clf, X_test, Y_test[:, :39], Y_train=Y_train[:, :39])
    with pytest.raises(TypeError, match="estimator ranks with NearestNeighbors"):
        LabelFrequencyDisplay.from_estimator(
            NearestNeighbors().fit(X_test), X_test, Y_test, Y_train=Y_train
        )


def test_axes_of_something_else_are_refused(data, clf):
    _, X_test, Y_train, Y_test = data
    display = LabelFrequencyDisplay.from_estimator(clf, X_test, Y_test, Y_train=Y_train, k=3)
    with pytest.raises(ValueError, match="give the same metric and k"):
        display.plot(display.ax_, metric="precision")
    with pytest.raises(ValueError, match="give the same Y_train and bins"):
        LabelFrequencyDisplay.from_estimator(
            clf, X_test, Y_test, Y_train=Y_train, k=3, bins=2, ax=display.ax_
        )
    assert len(display.ax_.lines) == 1
    display.plot(display.ax_, name="again", line_kw={"c": "black", "lw": 3})
    assert display.line_.get_color() == "black"
    assert legend_of(display.ax_) == ["XMCClassifier", "again"]


# -- TrainingDisplay -------------------------------------------------------------------------------


def test_the_panels_show_what_the_fit_recorded(clf):
    display = TrainingDisplay.from_estimator(clf)
    drawn = {"loss": clf.loss_curve_, "validation": clf.validation_scores_}
    if getattr(clf, "hardness_curve_", None) is not None:
        drawn["hardness"] = clf.hardness_curve_
    assert list(display.axes_) == list(display.lines_) == list(drawn)
    for panel, values in drawn.items():
        x, y = display.lines_[panel].get_data()
        assert x.tolist() == [1, 2, 3]
        assert list(y) == values
        assert display.axes_[panel].get_xlabel() == "Epoch"
        assert display.axes_[panel].get_ylabel()
    assert display.figure_.axes == list(display.axes_.values())
    assert legend_of(display.axes_["loss"]) == ["uniform"]


def test_over_seconds_the_epochs_add_up():
    display = TrainingDisplay([3, 2, 1], epoch_seconds=[2.0, 0.5, 1.5]).plot(x="seconds")
    assert display.lines_["loss"].get_xdata().tolist() == [2, 2.5, 4]
    assert display.axes_["loss"].get_xlabel() == "Training time (s)"
    assert display.axes_["loss"].get_legend() is None  # without a name
    display = TrainingDisplay([3, 2, 1], validation_scores=[0.1, 0.2], epoch_seconds=[2, 1, 1])
    for x, expected in {"epoch": [1, 2], "seconds": [2, 3]}.items():
        assert display.plot(x=x).lines_["validation"].get_xdata().tolist() == expected


def test_hardness_and_margins_have_panels_of_their_own(data):
    hinge = fit(data, loss="squared-hinge")
    display = TrainingDisplay.from_estimator(hinge, panels=["active"])
    assert list(display.lines_["active"].get_ydata()) == hinge.active_fraction_
    hinge.hardness_curve_ = [0.5, 0.25, 0.125]
    display = TrainingDisplay.from_estimator(hinge)
    assert list(display.axes_) == ["loss", "hardness", "active"]
    assert list(display.lines_["hardness"].get_ydata()) == [0.5, 0.25, 0.125]


def test_fits_share_axes_and_look_alike_in_all_panels():
    first = TrainingDisplay([3, 2], validation_scores=[0.1, 0.2], name="a").plot()
    second = TrainingDisplay([4, 3], name="b").plot(first.axes_)
    third = TrainingDisplay([4, 3], validation_scores=[0.2, 0.3], name="c").plot(second.axes_)
    assert second.axes_ == third.axes_ == first.axes_
    assert list(second.lines_) == ["loss"]
    loss, validation = third.lines_["loss"], third.lines_["validation"]
    for get in ("get_color", "get_linestyle", "get_marker"):
        assert getattr(loss, get)() == getattr(validation, get)()
    looks = {
        (d.lines_["loss"].get_linestyle(), d.lines_["loss"].get_marker())
        for d in (first, second, third)
    }
    assert len(looks) == 3
    assert legend_of(first.axes_["loss"]) == ["a", "b", "c"]


def test_axes_alone_in_a_row_or_by_name():
    display = TrainingDisplay([3, 2], validation_scores=[0.1, 0.2], epoch_seconds=[1, 1])
    _, ax = plt.subplots()
    assert display.plot(ax).axes_ == {"loss": ax}
    _, ax = plt.subplots()
    assert display.plot(ax, panels=["validation"]).lines_["validation"].axes is ax
    _, row = plt.subplots(1, 2)
    assert display.plot(row).axes_ == {"loss": row[0], "validation": row[1]}
    mosaic = plt.figure().subplot_mosaic([["validation", "hardness"]])
    assert list(display.plot(mosaic).lines_) == ["validation"]
    with pytest.raises(ValueError, match="ax holds 2 axes for 1 panels"):
        display.plot(row, panels=["loss"])
    with pytest.raises(ValueError, match="ax has axes for 'hardness'"):
        display.plot({"hardness": ax})
    with pytest.raises(ValueError, match=r"x='seconds', but ax shows 'Epoch'"):
        display.plot(row, x="seconds")


def test_a_search_and_a_pipeline_show_the_classifier_inside(search, data):
    display = TrainingDisplay.from_estimator(search)
    assert display.loss_curve is search.best_estimator_.loss_curve_
    pipe = make_pipeline(MaxAbsScaler(), search.best_estimator_)
    assert TrainingDisplay.from_estimator(pipe, name="x").loss_curve is display.loss_curve
    composed = XMCClassifier(MIPSSampler(5) + UniformSampler(20)).set_params(
        hidden_layer_sizes=(8,), n_estimators=1, max_iter=1, n_jobs=1
    )
    display = TrainingDisplay.from_estimator(composed.fit(data[0], data[2]))
    assert display.name == "mips(5)+uniform(20)"


def test_training_refuses_what_has_no_curve(data, search):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        TrainingDisplay.from_estimator(XMCClassifier())
    with pytest.raises(TypeError, match="holds DummyClassifier, which has no loss_curve_"):
        TrainingDisplay.from_estimator(DummyClassifier().fit([[0]], [0]))
    with pytest.raises(TypeError, match="a search with refit"):
        TrainingDisplay.from_estimator(
            GridSearchCV(DummyClassifier(), {}, cv=2, refit=False).fit([[0], [1]] * 2, [0, 1] * 2)
        )
    display = TrainingDisplay([1.0])
    with pytest.raises(ValueError, match=r"no epoch_seconds: use x='epoch'"):
        display.plot(x="seconds")
    with pytest.raises(ValueError, match=r"x='minutes' must be one of 'epoch'"):
        display.plot(x="minutes")
    for panel in ("hardness", "lost"):
        with pytest.raises(ValueError, match=f"panels names '{panel}', .* curve for: 'loss'."):
            display.plot(panels=[panel])
    assert not plt.get_fignums()


# -- SamplerComparisonDisplay ----------------------------------------------------------------------


def test_a_point_for_each_candidate_with_its_spread(search):
    display = SamplerComparisonDisplay.from_cv_results(search)
    results = search.cv_results_
    assert display.names == [
        "in-batch",
        "uniform(7)",
        "mips(5)+uniform(20)",
    ]
    assert legend_of(display.ax_) == display.names
    assert display.ax_.get_ylabel() == "P@1"  # what refit names
    looks = set()
    for i, bars in enumerate(display.errorbars_):
        folds = [results[f"split{fold}_test_P@1"][i] for fold in range(2)]
        point, _, (across, up) = bars.lines
        x, y = point.get_xydata()[0]
        assert x == results["mean_fit_time"][i]
        assert y == pytest.approx(np.mean(folds))
        low, high = up.get_segments()[0][:, 1]
        assert [low, high] == pytest.approx([y - np.std(folds), y + np.std(folds)])
        low, high = across.get_segments()[0][:, 0]
        assert high - low == pytest.approx(2 * results["std_fit_time"][i])
        assert point.get_linestyle() == "None"
        looks.add(point.get_marker())
    assert len(looks) == 3


def test_another_metric_other_names_and_the_results_alone(search):
    display = SamplerComparisonDisplay.from_cv_results(
        search.cv_results_, metric="nDCG@3", names=list("abc")
    )
    np.testing.assert_array_equal(display.scores, search.cv_results_["mean_test_nDCG@3"])
    assert legend_of(display.ax_) == ["a", "b", "c"]
    assert display.ax_.get_ylabel() == "nDCG@3"
    again = SamplerComparisonDisplay.from_cv_results(search, ax=display.ax_, score_name="both")
    assert len(again.errorbars_) == 3
    markers = {bars.lines[0].get_marker() for bars in display.errorbars_ + again.errorbars_}
    assert len(markers) == 6


def test_candidates_are_named_by_what_differs():
    def names(*params):
        results = {"params": list(params)} | {
            key: np.arange(len(params)) / 10 + 1
            for key in ("mean_test_score", "std_test_score", "mean_fit_time", "std_fit_time")
        }
        display = SamplerComparisonDisplay.from_cv_results(results)
        assert display.ax_.get_ylabel() == "Test score"
        return display.names

    assert names(
        {"clf__max_iter": 5, "clf__sampler": "uniform", "clf__dropout": 0.5},
        {"clf__max_iter": 5, "clf__sampler": "uniform", "clf__dropout": 0.2},
        {"clf__max_iter": 5, "clf__sampler": UniformSampler(3), "clf__dropout": 0.2},
    ) == [
        "uniform, dropout=0.5",
        "uniform, dropout=0.2",
        "uniform(3), dropout=0.2",
    ]
    assert names({"sampler__n_negatives": 3}, {"sampler": "mips"}) == ["n_negatives=3", "mips"]
    assert names({"sampler": "mips"}) == ["mips"]


def test_more_points_than_markers_are_told_apart():
    n = 14
    display = SamplerComparisonDisplay(
        [str(i) for i in range(n)], range(n), [1] * n, range(n), [1] * n
    ).plot(errorbar_kw={"capsize": 0})
    points = [bars.lines[0] for bars in display.errorbars_]
    assert len({(point.get_marker(), point.get_fillstyle()) for point in points}) == n


def test_results_of_cross_validate(data):
    X, Y = data[0], data[2].toarray()  # cross_validate takes no sparse y
    clf = XMCClassifier(hidden_layer_sizes=(8,), n_estimators=1, max_iter=1, n_jobs=1)
    scoring = {"P@1": precision_at_k_scorer(1), "P@2": precision_at_k_scorer(2)}
    results = {
        sampler: cross_validate(clf.set_params(sampler=sampler), X, Y, cv=2, scoring=scoring)
        for sampler in ("uniform", "in-batch")
    }
    display = SamplerComparisonDisplay.from_results(results, metric="P@2")
    assert display.names == ["uniform", "in-batch"]
    for i, result in enumerate(results.values()):
        x, y = display.errorbars_[i].lines[0].get_xydata()[0]
        assert [x, y] == [np.mean(result["fit_time"]), np.mean(result["test_P@2"])]
        assert display.score_stds[i] == np.std(result["test_P@2"])
        assert display.fit_stds[i] == np.std(result["fit_time"])
    with pytest.raises(ValueError, match=r"metric=None must be one of .*'P@1', 'P@2'"):
        SamplerComparisonDisplay.from_results(results)
    lone = SamplerComparisonDisplay.from_results({"a": {"fit_time": [1, 3], "test_score": [0, 1]}})
    assert [lone.scores[0], lone.score_stds[0], lone.fit_seconds[0]] == [0.5, 0.5, 2]


def test_comparison_refuses_what_is_no_result(search):
    draw = SamplerComparisonDisplay.from_cv_results
    with pytest.raises(TypeError, match="search is of type GridSearchCV and has no cv_results_"):
        draw(GridSearchCV(DummyClassifier(), {}))
    with pytest.raises(TypeError, match="search is of type dict"):
        draw({})
    with pytest.raises(ValueError, match=r"metric='P@7' must be one of .*'nDCG@3'"):
        draw(search, metric="P@7")
    with pytest.raises(ValueError, match="metric=None"):
        draw(search.cv_results_)
    with pytest.raises(ValueError, match="names has 1 entries for 3 candidates"):
        draw(search, names=["a"])
    for results in ({}, [1], None):
        with pytest.raises(ValueError, match="must be a dict of what cross_validate"):
            SamplerComparisonDisplay.from_results(results)
    with pytest.raises(ValueError, match=r"results\['a'\] has no 'fit_time'"):
        SamplerComparisonDisplay.from_results({"a": {"test_score": [1]}})


def test_samplers_have_short_names():
    class OwnSampler(UniformSampler):
        pass

    samplers = [
        InBatchSampler() + (UniformSampler() + MIPSSampler(refresh_epochs=9)),
        MIPSSampler(5, refresh_epochs=9),
        OwnSampler(3),
    ]
    assert [_plotting.describe_sampler(sampler) for sampler in samplers] == [
        "in-batch+uniform+mips(refresh_epochs=9)",
        "mips(5, refresh_epochs=9)",
        "OwnSampler(n_negatives=3)",
    ]


# -- without matplotlib ----------------------------------------------------------------------------


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, data, clf, search):
    _, X_test, Y_train, Y_test = data
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    extra = r'pip install "skxmc\[plot\]"'
    with pytest.raises(ImportError, match=f"LabelFrequencyDisplay draws .*{extra}"):
        LabelFrequencyDisplay.from_estimator(clf, X_test, Y_test, Y_train=Y_train)
    with pytest.raises(ImportError, match=extra):
        TrainingDisplay.from_estimator(clf)
    with pytest.raises(ImportError, match=extra):
        TrainingDisplay([1.0]).plot()
    with pytest.raises(ImportError, match=extra):
        SamplerComparisonDisplay.from_cv_results(search)
