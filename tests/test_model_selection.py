"""Sparse y through scikit-learn's model selection, our helpers where it refuses, and our splits."""

import doctest
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import uniform
from sklearn import model_selection as reference
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
    train_test_split,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MultiLabelBinarizer, Normalizer

from skxmc import XMCClassifier, model_selection
from skxmc.datasets import make_xmc
from skxmc.metrics import precision_at_k, precision_at_k_scorer, propensities, ranking_scorers
from skxmc.model_selection import (
    MultilabelStratifiedKFold,
    cross_validate,
    learning_curve,
    multilabel_train_test_split,
    validation_curve,
)
from skxmc.samplers import MIPSSampler, UniformSampler

FAST = {
    "hidden_layer_sizes": (16,),
    "n_estimators": 1,
    "max_iter": 2,
    "batch_size": 32,
    "top_k": 5,
    "n_jobs": 1,
}


def xmc(sampler="uniform", **parameters):
    return XMCClassifier(sampler, random_state=0, **{**FAST, **parameters})


@pytest.fixture(scope="module")
def data():
    return make_xmc(300, 300, 40, random_state=0)


@pytest.fixture(scope="module")
def texts():
    """Documents, and lists of the one to three topics whose words they are made of."""
    rng = np.random.default_rng(0)
    documents, topics = [], []
    for _ in range(150):
        own = rng.choice(12, rng.integers(1, 4), replace=False)
        words = [f"word{topic}{'abcd'[w]}" for topic in own for w in rng.integers(4, size=5)]
        documents.append(" ".join(words))
        topics.append([f"topic {topic}" for topic in own])
    return documents, topics


# -- scikit-learn's own, as it is ------------------------------------------------------------------


def test_one_ranking_a_fit_and_fold_serves_every_metric_of_a_grid(texts, monkeypatch):
    """Names and objects in one grid, over a pipeline of raw text, propensities bound."""
    documents, topics = texts
    Y = MultiLabelBinarizer(sparse_output=True).fit_transform(topics)
    calls = []
    ask = XMCClassifier.decision_function
    monkeypatch.setattr(
        XMCClassifier, "decision_function", lambda clf, X: calls.append(X.shape[0]) or ask(clf, X)
    )
    pipe = make_pipeline(TfidfVectorizer(), xmc())
    grid = {"xmcclassifier__sampler": ["full", MIPSSampler(2) + UniformSampler(4)]}
    scoring = ranking_scorers(k=(1, 3, 5), propensities=propensities(Y))
    assert len(scoring) == 12
    search = GridSearchCV(
        pipe, grid, scoring=scoring, refit="PSP@3", cv=KFold(3), error_score="raise"
    ).fit(documents, Y)
    assert calls == 2 * 3 * [50]  # 2 samplers, 3 folds of 50 rows
    assert all(f"mean_test_{name}" in search.cv_results_ for name in scoring)
    scores = search.cv_results_["mean_test_PSP@3"]
    assert search.best_params_["xmcclassifier__sampler"] in grid["xmcclassifier__sampler"]
    assert search.best_score_ == max(scores) > min(scores)


def test_randomized_search_over_a_union_of_words_and_embeddings(texts):
    documents, topics = texts
    Y = MultiLabelBinarizer(sparse_output=True).fit_transform(topics)
    embeddings = make_pipeline(
        TfidfVectorizer(), TruncatedSVD(8, random_state=0), Normalizer(copy=False)
    )
    rows = make_union(TfidfVectorizer(), embeddings)
    assert rows.fit_transform(documents).shape == (150, 48 + 8)
    choices = {
        "featureunion__pipeline__truncatedsvd__n_components": [2, 8],
        "xmcclassifier__learning_rate_init": uniform(0.2, 0.1),
    }
    search = RandomizedSearchCV(
        make_pipeline(rows, xmc("full", max_iter=20, batch_size=8)), choices, n_iter=3, cv=2,
        scoring=precision_at_k_scorer(1), random_state=0, error_score="raise",
    ).fit(documents, Y)  # fmt: skip
    assert search.best_score_ > 0.8  # the most frequent topic alone: below 0.25
    assert sp.issparse(search.predict(documents))


@pytest.mark.parametrize("form", ["csr_array", "csr_matrix", "csc_array", "coo_matrix"])
def test_train_test_split_and_cross_val_predict_take_every_format(data, form):
    X, Y = data
    _, _, Y_train, Y_test = train_test_split(X, getattr(sp, form)(Y), random_state=0)
    expected = train_test_split(Y.toarray(), random_state=0)
    assert isinstance(Y_train, sp.sparray) == form.endswith("array")
    np.testing.assert_array_equal(Y_train.toarray(), expected[0])
    np.testing.assert_array_equal(Y_test.toarray(), expected[1])
    predicted = cross_val_predict(xmc("full"), X, getattr(sp, form)(Y), cv=2)
    expected = cross_val_predict(xmc("full"), X, Y.toarray(), cv=2)
    np.testing.assert_array_equal(predicted.toarray(), expected)


@pytest.mark.parametrize("search", [HalvingGridSearchCV, HalvingRandomSearchCV])
@pytest.mark.parametrize("resource", ["n_samples", "max_iter"])
def test_halving_searches_work_where_they_need_not_count_classes(data, search, resource):
    how = {
        "n_samples": {"min_resources": 100},
        "max_iter": {"resource": "max_iter", "max_resources": 3},
    }[resource]
    X, Y = data
    halving = search(
        xmc(), {"learning_rate_init": [0.01, 0.1, 0.3]}, random_state=0, error_score="raise",
        cv=MultilabelStratifiedKFold(2, random_state=0), **how,
    )  # fmt: skip
    found = clone(halving).fit(X, Y)
    expected = clone(halving).fit(X, Y.toarray())
    assert found.n_resources_ == {"n_samples": [100, 300], "max_iter": [1, 3]}[resource]
    scores = found.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(scores, expected.cv_results_["mean_test_score"])
    assert len(set(scores)) > 1
    assert found.best_params_ == expected.best_params_


# -- the functions that scikit-learn keeps from a sparse y -----------------------------------------


@pytest.mark.parametrize("form", ["csr_array", "csr_matrix", "coo_array", "csc_matrix"])
@pytest.mark.parametrize("many", [False, True])
def test_cross_validate_returns_what_scikit_learn_does_for_the_dense_y(data, form, many):
    X, Y = data
    scoring = ranking_scorers(k=(1, 3)) if many else precision_at_k_scorer(1)
    how = {"scoring": scoring, "cv": 3, "return_train_score": True, "error_score": "raise"}
    found = cross_validate(xmc(), X, getattr(sp, form)(Y), **how)
    expected = reference.cross_validate(xmc(), X, Y.toarray(), **how)
    assert list(found) == list(expected)
    for name in found.keys() - {"fit_time", "score_time"}:
        np.testing.assert_array_equal(found[name], expected[name])


def test_out_of_fold_rankings_from_cross_validate(data):
    """The way round cross_val_predict(method="decision_function"), as the guide has it."""
    X, Y = data
    how = {"return_estimator": True, "return_indices": True, "cv": 3, "error_score": "raise"}
    result = cross_validate(xmc(), X, Y, **how)
    ranked = np.empty((X.shape[0], 5), np.int64)
    for clf, test in zip(result["estimator"], result["indices"]["test"], strict=True):
        ranked[test], _ = clf.predict_topk(X[test], k=5)
    scores = cross_val_predict(xmc(), X, Y.toarray(), method="decision_function", cv=3)
    for k in (1, 5):
        assert precision_at_k(Y, ranked, k=k) == precision_at_k(Y, scores, k=k)


def test_curves_are_those_of_the_dense_y(data):
    X, Y = data
    sizes = {"train_sizes": [0.3, 1.0], "cv": 2, "error_score": "raise"}
    values = {"param_name": "max_iter", "param_range": [1, 4], "cv": 2, "error_score": "raise"}
    for function, how in ((learning_curve, sizes), (validation_curve, values)):
        found = function(xmc(), X, Y, **how)
        expected = getattr(reference, function.__name__)(xmc(), X, Y.toarray(), **how)
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(left, right)


def test_checks_other_than_that_of_y_stay(data):
    X, Y = data
    with pytest.raises(ValueError, match="'dropout' parameter"):
        cross_validate(xmc(dropout=-2.0), X, Y, error_score="raise")
    with pytest.raises(ValueError, match="inconsistent numbers"):
        cross_validate(xmc(), X, Y[:-1])
    with pytest.raises(ValueError, match="'error_score' parameter"):  # scikit-learn's own for dense
        cross_validate(xmc(), X, Y.toarray(), error_score="ignore")


def test_1d_classes_go_to_scikit_learn(data):
    X, y = data[0], np.arange(300) % 2
    knn = KNeighborsClassifier(3)
    found = cross_validate(knn, X, y)["test_score"]
    np.testing.assert_array_equal(found, reference.cross_val_score(knn, X, y))


# -- stratified folds ------------------------------------------------------------------------------


def deal_slowly(Y, sizes, shares, needed, random_state):
    """Iterative stratification as it is written down, for lists of sets and exact fractions."""
    random_state = np.random.RandomState(random_state)
    order = random_state.permutation(Y.shape[0])
    first = random_state.randint(len(sizes), size=Y.shape[0])
    labels = [set(np.flatnonzero(Y[row])) for row in order]
    parts = [[] for _ in sizes]
    open_rows = set(range(len(order)))

    def rows_with(label, rows):
        return [row for row in rows if label in labels[row]]

    def merit(row, label, j):
        """What a part has for it: labels not lost, the label's wish, room, place in the circle."""
        lost = sum(
            needed[j] and len(rows_with(m, parts[j])) + 1 == len(rows_with(m, range(len(order))))
            for m in labels[row]
        )
        share = len(rows_with(label, range(len(order)))) * shares[j]
        wish = share - len(rows_with(label, parts[j])) * sum(shares)
        room = sizes[j] - len(parts[j])
        return -lost, wish, room, -((j - first[row]) % len(sizes))

    def give(row, label):
        free = [j for j in range(len(sizes)) if len(parts[j]) < sizes[j]]
        parts[max(free, key=lambda j: merit(row, label, j))].append(row)
        open_rows.remove(row)

    while left := {m: n for m in range(Y.shape[1]) if (n := len(rows_with(m, open_rows)))}:
        label = min(left, key=lambda m: (left[m], m))
        for row in sorted(rows_with(label, open_rows)):
            give(row, label)
    for row in sorted(open_rows):
        give(row, -1)
    out = np.empty(len(order), int)
    for j, rows in enumerate(parts):
        out[order[rows]] = j
    return out


@st.composite
def indicators(draw):
    """Small indicators with rare and frequent labels, empty rows and empty columns."""
    n, n_labels = draw(st.integers(2, 16)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = rng.choice([0.0, 0.08, 0.2, 0.6, 1.0], n_labels)
    return (rng.random((n, n_labels)) < shares).astype(np.int8)


@settings(max_examples=200)
@given(indicators(), st.integers(2, 6), st.integers(0, 3))
def test_folds_are_those_of_the_slow_algorithm(Y, k, seed):
    k = min(k, len(Y))
    sizes = [len(Y) // k + (j < len(Y) % k) for j in range(k)]
    expected = deal_slowly(Y, sizes, [1] * k, [True] * k, seed)
    cv = MultilabelStratifiedKFold(k, random_state=seed)
    folds = list(cv.split(np.zeros(len(Y)), sp.csr_array(Y)))
    assert len(folds) == cv.get_n_splits() == k
    for j, (train, test) in enumerate(folds):
        np.testing.assert_array_equal(test, np.flatnonzero(expected == j))
        np.testing.assert_array_equal(train, np.flatnonzero(expected != j))
        assert len(test) == sizes[j]


@settings(max_examples=200)
@given(indicators(), st.integers(1, 15), st.integers(0, 3))
def test_split_is_that_of_the_slow_algorithm(Y, n_test, seed):
    n_test = min(n_test, len(Y) - 1)
    sizes = [len(Y) - n_test, n_test]
    expected = deal_slowly(Y, sizes, sizes, [False, True], seed)
    train, test, Y_train, Y_test = multilabel_train_test_split(
        np.arange(len(Y)), sp.csr_array(Y), test_size=n_test, random_state=seed
    )
    np.testing.assert_array_equal(train, np.flatnonzero(expected == 0))
    np.testing.assert_array_equal(test, np.flatnonzero(expected == 1))
    np.testing.assert_array_equal(Y_train.toarray(), Y[train])
    np.testing.assert_array_equal(Y_test.toarray(), Y[test])


@settings(max_examples=100)
@given(st.lists(st.integers(0, 9), min_size=6, max_size=60), st.integers(2, 5), st.integers(0, 3))
def test_single_labels_are_divided_to_within_two_rows_and_none_is_lost(labels, k, seed):
    Y = sp.csr_array(np.eye(10, dtype=np.int8)[labels])
    for train, test in MultilabelStratifiedKFold(k, random_state=seed).split(Y, Y):
        counts = np.bincount(labels, minlength=10)
        assert (np.abs(Y[test].sum(axis=0) - counts / k) < 2).all()
        assert set(np.flatnonzero(counts >= 2)) <= set(Y[train].indices)


@pytest.fixture(scope="module")
def long_tail():
    return make_xmc(3000, 100, 1500, n_features_per_sample=3, random_state=0)[1]


def lost_labels(Y, train):
    """Labels of two or more rows, none of which is in the training part."""
    return int(((Y.sum(axis=0) >= 2) & (Y[train].sum(axis=0) == 0)).sum())


def label_deviation(Y, parts):
    """LD of Sechidis et al.: how far the odds of labels in the parts are from those in all rows."""
    total = 0.0
    for column in Y.toarray().T:
        odds = column.sum() / (len(column) - column.sum())
        own = [column[part].sum() / (len(part) - column[part].sum()) for part in parts]
        total += np.mean(np.abs(np.array(own) - odds))
    return total / Y.shape[1]


@pytest.mark.parametrize("k", [3, 5])
def test_folds_of_a_long_tail_lose_no_label_and_hold_their_shares(long_tail, k):
    ours = list(MultilabelStratifiedKFold(k, random_state=0).split(long_tail, long_tail))
    chance = list(KFold(k, shuffle=True, random_state=0).split(long_tail))
    assert sum(lost_labels(long_tail, train) for train, _ in ours) == 0
    assert sum(lost_labels(long_tail, train) for train, _ in chance) > 20
    deviations = [label_deviation(long_tail, [test for _, test in cv]) for cv in (ours, chance)]
    assert deviations[0] < 0.7 * deviations[1]


def test_every_label_of_the_test_part_has_a_training_row(long_tail):
    splits = {
        split.__name__: split(long_tail, long_tail, test_size=0.3, random_state=0)
        for split in (train_test_split, multilabel_train_test_split)
    }
    unseen = {
        name: int(((train.sum(axis=0) == 0) & (test.sum(axis=0) > 0)).sum())
        for name, (_, _, train, test) in splits.items()
    }
    assert unseen["multilabel_train_test_split"] == 0
    assert unseen["train_test_split"] > 20


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "coo_array", "dense", "lists", "bool"])
def test_folds_do_not_depend_on_how_y_is_stored(data, form):
    Y = data[1]
    given = {
        "dense": lambda: Y.toarray(), "lists": lambda: Y.toarray().tolist(),
        "bool": lambda: Y.astype(bool),
    }.get(form, lambda: getattr(sp, form)(Y))()  # fmt: skip
    cv = MultilabelStratifiedKFold(3, random_state=1)
    for (_, left), (_, right) in zip(cv.split(Y, given), cv.split(Y, Y), strict=True):
        np.testing.assert_array_equal(left, right)


def test_stored_zeros_and_order_do_not_matter_and_y_is_left_as_it_was(data):
    Y = data[1]
    n, n_labels = Y.shape
    backwards = np.tile(np.arange(n_labels)[::-1], n)
    parts = Y.toarray()[:, ::-1].ravel(), backwards, np.arange(n + 1) * n_labels
    stored = sp.csr_array(parts, shape=Y.shape)
    assert stored.nnz == n * n_labels > Y.nnz
    cv = MultilabelStratifiedKFold(3, random_state=1)
    for (_, left), (_, right) in zip(cv.split(Y, stored), cv.split(Y, Y), strict=True):
        np.testing.assert_array_equal(left, right)
    assert stored.nnz == n * n_labels
    np.testing.assert_array_equal(stored.indices, backwards)


def test_random_state_decides_the_folds(data):
    Y = data[1]

    def folds(seed):
        return [
            test.tolist() for _, test in MultilabelStratifiedKFold(3, random_state=seed).split(Y, Y)
        ]

    assert folds(0) == folds(0) != folds(1)
    moving = np.random.RandomState(0)
    assert folds(moving) != folds(moving)


def test_folds_work_in_searches_and_clones(data):
    cv = MultilabelStratifiedKFold(3, random_state=0)
    assert repr(cv) == "MultilabelStratifiedKFold(n_splits=3, random_state=0)"
    X, Y = data
    search = GridSearchCV(xmc(), {"max_iter": [1, 3]}, cv=cv, error_score="raise").fit(X, Y)
    assert search.n_splits_ == 3
    train, test = next(cv.split(X, Y))
    by_hand = clone(xmc()).set_params(max_iter=3).fit(X[train], Y[train])
    assert search.cv_results_["split0_test_score"][1] == by_hand.score(X[test], Y[test])


def test_split_takes_texts_and_frames_and_more_arrays(texts):
    pd = pytest.importorskip("pandas")
    documents, topics = texts
    Y = MultiLabelBinarizer(sparse_output=True).fit_transform(topics)
    frame, numbers = pd.DataFrame({"text": documents}), np.arange(150)
    out = multilabel_train_test_split(documents, Y, frame, numbers, test_size=0.1, random_state=0)
    assert [np.shape(part)[0] for part in out] == 4 * [135, 15]
    assert out[0] == [documents[i] for i in out[6]]
    assert out[1] == [documents[i] for i in out[7]] == out[5]["text"].tolist()
    np.testing.assert_array_equal(out[3].toarray(), Y[out[7]].toarray())


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.arange(4), "1 dimension"),
        (sp.csr_array(np.array([[2, 0], [0, 1], [1, 0], [0, 1]])), "got 2. Binarize"),
        (sp.csr_array(np.array([[0.5, 0], [0, 1], [1, 0], [0, 1]])), "got 0.5"),
        (np.array([[np.nan, 0], [0, 1], [1, 0], [0, 1]]), "got nan"),
        (np.array([["a", "b"]] * 4), "dtype <U1"),
        (sp.coo_array((np.ones(2), ([0, 0], [1, 1])), shape=(4, 2)), "got 2.0"),
        (np.eye(3), "inconsistent numbers"),
    ],
)
def test_bad_y_is_refused(y, message):
    X = np.zeros((4, 2))
    with pytest.raises(ValueError, match=message):
        next(MultilabelStratifiedKFold(2).split(X, y))
    with pytest.raises(ValueError, match=message):
        multilabel_train_test_split(X, y)


@pytest.mark.parametrize("n_splits", [1, 5, 2.0, "3", True, None])
def test_bad_n_splits_is_refused(n_splits):
    with pytest.raises(ValueError, match=r"n_splits=.* from 2 to the number of rows, 4"):
        next(MultilabelStratifiedKFold(n_splits).split(np.eye(4), np.eye(4)))


@pytest.mark.parametrize("test_size", [0, 4, 0.0, 1.0, -1, 0.9, True, "half", None])
def test_bad_test_size_is_refused(test_size):
    with pytest.raises(ValueError, match=r"test_size=.* of the 4: .* from 1 to 3"):
        multilabel_train_test_split(np.eye(4), np.eye(4), test_size=test_size)


def test_test_size_is_rounded_up_as_scikit_learn_does():
    for test_size in (0.1, 0.25, 0.26, 2, np.int64(3)):
        found = multilabel_train_test_split(np.eye(10), np.eye(10), test_size=test_size)
        expected = train_test_split(np.eye(10), test_size=test_size)
        assert len(found[1]) == len(expected[1])


def test_every_public_name_is_there():
    assert all(callable(getattr(model_selection, name)) for name in model_selection.__all__)


def test_the_guide_prints_what_it_says():
    guide = Path(__file__).resolve().parents[1] / "docs" / "guide" / "model_selection.rst"
    found = doctest.testfile(str(guide), module_relative=False, encoding="utf8")
    assert found.failed == 0
    assert found.attempted > 20
