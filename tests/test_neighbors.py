"""Training rows that vote: against slow loops, chosen by rows held out, kept and stored."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, train_test_split

from skxmc import XMCClassifier, presets
from skxmc import _neighbors as neighbors_module
from skxmc._axes import evened_axes, leading_axes
from skxmc._choices import NEIGHBOR_WEIGHTS, _row_precision
from skxmc._ends import Rows
from skxmc._index._rows import RowIndex
from skxmc._inputs import as_rows, sample_rows
from skxmc._neighbors import (
    N_AXES,
    N_NEIGHBORS,
    TEMPERATURE,
    Neighbors,
    Voters,
    _log_odds,
    mix,
)
from skxmc._network import hidden_vectors
from skxmc._predictor import UNSEEN
from skxmc.distributed import ShardedXMCClassifier
from skxmc.ensemble import average
from skxmc.metrics import precision_at_k
from skxmc.persistence import load_model, save_model


def xmc(**parameters):
    defaults = {
        "hidden_layer_sizes": (16,), "max_iter": 3, "batch_size": 32, "n_jobs": 1,
        "random_state": 0, "tail_bias": 0.0,
    }  # fmt: skip
    return XMCClassifier(**{**defaults, **parameters})


def sets_of_labels(n_rows=1600, n_sets=150, n_labels=60, seed=0):
    """Rows that belong to one of many sets: three labels and a few words each, with noise.

    What labels go together, the rows know, and scores of each label on its own do not.
    """
    rng = np.random.default_rng(seed)
    words = rng.random((n_sets, 40)) < 0.1
    labels = np.array([rng.permutation(n_labels)[:3] for _ in range(n_sets)])
    member = rng.integers(n_sets, size=n_rows)
    X = (words[member] ^ (rng.random((n_rows, 40)) < 0.03)).astype(np.float32)
    Y = np.zeros((n_rows, n_labels), np.int64)
    np.put_along_axis(Y, labels[member], 1, 1)
    X /= np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1)
    return sp.csr_array(X), sp.csr_array(Y)


@pytest.fixture(scope="module")
def data():
    X, Y = sets_of_labels()
    return train_test_split(X, Y, test_size=400, random_state=0)  # X, X_test, Y, Y_test


@pytest.fixture(scope="module")
def clf(data):
    return xmc(neighbor_weight=0.2).fit(data[0], data[2])


# -- the mixture -----------------------------------------------------------------------------------


def hidden_of(clf, X):
    network = clf._predictor(X).network
    X = X if isinstance(X, np.ndarray) else Rows.of(sp.csr_array(X, dtype=np.float32))
    return hidden_vectors(network, X, np.arange(X.shape[0]), 1).numpy()


def slow_votes(clf, X, X_train, Y_train):
    """Shares of the vote, (n, L), by loops over rows and all training rows with a label."""
    kept = np.flatnonzero(np.diff(Y_train.indptr))
    near, queries = hidden_of(clf, X_train)[kept] @ clf.neighbor_axes_, hidden_of(clf, X)
    out = np.zeros((X.shape[0], Y_train.shape[1]))
    for i, query in enumerate(queries @ clf.neighbor_axes_):
        length = np.linalg.norm(query)
        cosines = [
            float(v @ query / max(np.linalg.norm(v) * length, 1e-12)) for v in near.astype(float)
        ]
        # Of rows with equal hidden vectors the first; their cosines differ in the last bits.
        best = sorted(range(len(kept)), key=lambda j: (-round(cosines[j], 6), j))[:N_NEIGHBORS]
        weights = [
            np.exp((cosines[j] - cosines[best[0]]) / TEMPERATURE) * (cosines[j] > 0) for j in best
        ]
        for j, weight in zip(best, weights, strict=True):
            row = kept[j]
            for label in Y_train.indices[Y_train.indptr[row] : Y_train.indptr[row + 1]]:
                out[i, label] += weight / max(sum(weights), 1e-30)
    return out


@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize("dense", [False, True])
def test_rankings_are_those_of_a_slow_loop(data, n_estimators, dense):
    X, X_test, Y, _ = data
    Y = sp.csr_array(Y.toarray() * (np.arange(Y.shape[0]) % 7 > 0)[:, None])  # some without labels
    if dense:
        X, X_test = X.toarray(), X_test.toarray()
    clf = xmc(neighbor_weight=0.3, n_estimators=n_estimators, tail_bias=0.5).fit(X, Y)
    X_test = X_test[:50]
    votes = slow_votes(clf, X_test, X, Y)
    scores = clf.decision_function(X_test) + 0.5 * clf.tail_offsets_
    mixed = 0.7 / (1 + np.exp(-scores.astype(float))) + 0.3 * votes
    order = np.argsort(-mixed, axis=1, kind="stable")
    for k in (1, 5, 60):
        labels, odds = clf.predict_topk(X_test, k=k)
        found = np.take_along_axis(mixed, labels, 1)
        expected = np.take_along_axis(mixed, order[:, :k], 1)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        np.testing.assert_allclose(odds, np.log(found / (1 - found)), atol=1e-3)
        assert all(len(set(row)) == k for row in labels.tolist())


def test_few_rows_and_many_and_threads_agree(clf, data):
    X_test = data[1]
    labels, scores = clf.predict_topk(X_test)
    for n in (1, 7, 30):
        some = clf.predict_topk(X_test[:n])
        np.testing.assert_array_equal(some[0], labels[:n])
        np.testing.assert_allclose(some[1], scores[:n], atol=1e-5)
    two = clone(clf).set_params(n_jobs=2)
    vars(two).update({k: v for k, v in vars(clf).items() if k.endswith("_") and k != "n_jobs"})
    two._kind, two._kept = clf._kind, clf._kept
    np.testing.assert_array_equal(two.predict_topk(X_test)[0], labels)


def test_a_row_that_is_like_none_is_ranked_by_its_scores(clf, data):
    """Without features, and with units that are dead then, there is no direction to compare."""
    empty = sp.csr_array((2, data[0].shape[1]), dtype=np.float32)
    clf = pickle.loads(pickle.dumps(clf))
    for biases in clf.hidden_biases_:
        biases[:] = -1  # ReLU leaves nothing
    clf._kept = type(clf._kept)()
    labels, odds = clf.predict_topk(empty, k=60)
    order = np.argsort(-clf.decision_function(empty), axis=1, kind="stable")
    np.testing.assert_array_equal(labels, order)
    p = 0.8 / (1 + np.exp(-np.sort(clf.decision_function(empty), axis=1)[:, ::-1].astype(float)))
    np.testing.assert_allclose(odds, np.log(p / (1 - p)), rtol=1e-4)


@settings(max_examples=200)
@given(
    score=st.floats(-30, 30, width=32), vote=st.floats(0, 1), weight=st.floats(0, 0.99),
)  # fmt: skip
def test_log_odds_are_those_of_the_mixture(score, vote, weight):
    p = (1 - weight) / (1 + np.exp(-score)) + weight * vote
    q = (1 - weight) / (1 + np.exp(score)) + weight * (1 - vote)
    out = _log_odds(np.array([score], np.float32), np.array([vote]), weight)[0]
    assert out == pytest.approx(np.log(p) - np.log(q), rel=1e-6, abs=1e-6)


def test_log_odds_of_what_cannot_be_told_by_a_sigmoid():
    scores = np.array([UNSEEN, -1000, -200, 200, 1e4], np.float32)
    out = _log_odds(scores, np.zeros(5), 0.2)
    assert np.isfinite(out).all()
    assert (np.diff(out) >= 0).all()
    assert (np.diff(out)[:3] > 0).all()
    np.testing.assert_allclose(_log_odds(scores, np.zeros(5), 0.0), scores)


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.sampled_from([0.0, 0.1, 0.5]))
def test_a_mixture_ranks_as_a_loop_over_all_labels(seed, k, weight):
    rng = np.random.default_rng(seed)
    n, n_labels = 5, 8
    scores = rng.integers(-4, 5, (n, n_labels)).astype(np.float32)
    votes = rng.random((n, n_labels)) * (rng.random((n, n_labels)) < 0.3) / n_labels
    mixed = (1 - weight) / (1 + np.exp(-scores.astype(float))) + weight * votes
    votes = sp.csr_array(votes)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    own = scores[np.repeat(np.arange(n), np.diff(votes.indptr)), votes.indices]
    labels, _ = mix((best, np.take_along_axis(scores, best, 1)), votes, own, weight, k)
    expected = -np.sort(-mixed, axis=1)[:, :k]
    np.testing.assert_allclose(np.take_along_axis(mixed, labels, 1), expected, rtol=1e-6)


# -- axes ------------------------------------------------------------------------------------------


def test_axes_span_the_leading_eigenvectors_and_even_them():
    rng = np.random.default_rng(0)
    lengths = np.array([8.0, 5, 3, 2, 1, 0.01, 0.01, 0.01])
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    vectors = (rng.standard_normal((4000, 8)) * lengths) @ turn.T
    units = torch.nn.functional.normalize(torch.from_numpy(vectors.astype(np.float32)))
    axes = leading_axes(units, 3, rng)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    assert np.linalg.norm(turn[:, :3].T @ axes.numpy(), 2) == pytest.approx(1, abs=1e-3)
    along = (units @ evened_axes(units, 5, rng)).numpy().astype(float)
    moments = along.T @ along / len(along)
    # Without evening these would be the squares of their ratios.
    values = np.linalg.eigvalsh((units.T @ units / len(units)).numpy().astype(float))[::-1]
    np.testing.assert_allclose(np.diag(moments), np.sort(np.sqrt(values[:5])), rtol=0.02)
    np.testing.assert_allclose(moments - np.diag(np.diag(moments)), 0, atol=1e-3)


def test_axes_of_dead_units_are_finite():
    rng = np.random.default_rng(0)
    units = torch.zeros(50, 12)
    units[:, 3] = 1
    for found in (evened_axes(units, 6, rng), evened_axes(torch.zeros(50, 12), 6, rng)):
        assert found.shape == (12, 6)
        assert torch.isfinite(found).all()


# -- what a fit chooses and keeps ------------------------------------------------------------------


def test_votes_help_where_labels_go_together(data):
    X, X_test, Y, Y_test = data
    clf = xmc(neighbor_weight="auto").fit(X, Y)
    assert clf.neighbor_weight_ in NEIGHBOR_WEIGHTS
    voted = precision_at_k(Y_test, clf.predict_topk(X_test, k=3)[0], k=3)
    clf.neighbor_weight_ = 0.0
    assert voted > precision_at_k(Y_test, clf.predict_topk(X_test, k=3)[0], k=3) + 0.01


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_weight_is_the_best_on_rows_that_were_held_out(data, early_stopping, monkeypatch):
    X, _, Y, _ = data
    seen = []

    def watching(held_out, columns, n_threads):
        for who, near, part, labels in held_out:
            assert not set(map(bytes, rows_of(part))) & set(map(bytes, rows_of(trained[len(seen)])))
            seen.append((near, labels))
            scores = who.topk(part, labels.shape[0], 60)
            assert scores[0].shape == (labels.shape[0], 60)
        return 0.3

    def rows_of(part):
        matrix = sp.csr_array((part.data, part.indices, part.indptr), shape=part.shape)
        return matrix.toarray()

    # Rows are told apart by a feature of their own.
    X = sp.csr_array(sp.hstack([X, sp.csr_array(np.arange(X.shape[0])[:, None] * 1e-6 + 1e-3)]))
    X = sp.csr_array(X, dtype=np.float32)
    trained = []
    original = Voters.some

    def some(self, m, wanted):
        trained.append(Rows.of(X[np.flatnonzero(wanted)]))
        return original(self, m, wanted)

    monkeypatch.setattr(Voters, "some", some)
    if early_stopping:
        kept = Voters.all

        def everyone(self):
            trained.append(Rows.of(X[:0]))
            return kept(self)

        monkeypatch.setattr(Voters, "all", everyone)
    monkeypatch.setattr("skxmc._fitting.choose_neighbor_weight", watching)
    clf = xmc(neighbor_weight="auto", early_stopping=early_stopping).fit(X, Y)
    assert len(seen) == (1 if early_stopping else 2)
    assert clf.neighbor_weight_ == 0.3
    n_rows = [near.labels.shape[0] for near, _ in seen]
    n_held = [labels.shape[0] for _, labels in seen]
    assert n_rows == ([1080] if early_stopping else [1140, 1140])
    assert n_held == ([120] if early_stopping else [60, 60])
    assert clf.neighbor_vectors_.shape[0] == (1080 if early_stopping else 1200)


def test_the_choice_is_that_of_fits_of_one_weight_each(data):
    """By the held-out rows of early stopping, which every fit of one seed shares."""
    X, _, Y, _ = data
    chosen = xmc(neighbor_weight="auto", early_stopping=True).fit(X, Y).neighbor_weight_
    held = train_test_split(np.arange(X.shape[0]), test_size=0.1, random_state=seed_of(0))[1]
    precision = {}
    for weight in (0.0, *NEIGHBOR_WEIGHTS):
        clf = xmc(neighbor_weight=weight, early_stopping=True).fit(X, Y)
        precision[weight] = _row_precision(Y[held], clf.predict_topk(X[held])[0]).mean()
    assert precision[chosen] == pytest.approx(max(precision.values()), abs=1e-12)


def seed_of(random_state):
    return int(np.random.RandomState(random_state).randint(2**31 - 1))


def kept_nothing(clf):
    parts = clf.neighbor_axes_, clf.neighbor_vectors_, clf.neighbor_labels_
    return clf.neighbor_weight_ == 0 and parts == (None, None, None)


def test_nothing_is_kept_where_votes_do_not_help(data, monkeypatch):
    votes = Neighbors.votes

    def misled(self, *args):
        right = votes(self, *args)
        return sp.csr_array((right.data, 59 - right.indices, right.indptr), shape=right.shape)

    monkeypatch.setattr(Neighbors, "votes", misled)
    assert kept_nothing(xmc().fit(data[0], data[2]))


def test_nothing_is_kept_where_votes_cannot_be_judged(data):
    X, _, Y, _ = data
    cases = (
        xmc(neighbor_weight=0.0).fit(X, Y),
        xmc().fit(X[:900], Y[:900]),  # too few rows to judge by
        xmc().fit(X, Y.toarray()[:, 0]),
        xmc(late_fusion=0.5).fit(X, Y),
        xmc(sampler="label-embedding").fit(X, Y),
    )
    assert all(map(kept_nothing, cases))


def test_arrays_have_the_shapes_that_the_docs_say(clf, data):
    n_rows, width = data[0].shape[0], 32
    assert clf.neighbor_weight_ == 0.2
    assert clf.neighbor_axes_.shape == (width, width)  # no more than units
    assert clf.neighbor_vectors_.shape == (n_rows, width)
    np.testing.assert_allclose(np.linalg.norm(clf.neighbor_vectors_, axis=1), 1, rtol=1e-5)
    indptr, indices = clf.neighbor_labels_
    lists = sp.csr_array((np.ones(len(indices)), indices, indptr), shape=data[2].shape)
    np.testing.assert_array_equal(lists.toarray(), data[2].toarray())
    wide = xmc(neighbor_weight=0.2, hidden_layer_sizes=(128,), max_iter=1).fit(data[0], data[2])
    assert wide.neighbor_axes_.shape == (256, N_AXES)
    assert not wide.neighbor_axes_[:128, N_AXES // 2 :].any()  # each member has axes of its own


def test_labels_without_a_row_move_none(data):
    """Columns that training passes over leave the others where they are."""
    X, X_test, Y, _ = data
    wide = np.zeros((Y.shape[0], 130), np.int64)
    wide[:, 5:125:2] = Y.toarray()
    plain, clf = (xmc(neighbor_weight=0.2).fit(X, y) for y in (Y, sp.csr_array(wide)))
    labels, _ = clf.predict_topk(X_test)
    np.testing.assert_array_equal(plain.predict_topk(X_test)[0] * 2 + 5, labels)


def test_of_very_many_rows_some_are_kept(data, monkeypatch):
    monkeypatch.setattr(neighbors_module, "MOST_ROWS", 100)
    X, X_test, Y, _ = data
    clf = xmc(neighbor_weight=0.2).fit(X, Y)
    assert clf.neighbor_vectors_.shape == (100, 32)
    assert len(clf.neighbor_labels_[0]) == 101
    assert clf.predict_topk(X_test)[0].shape == (400, 5)


def test_the_same_seed_keeps_the_same_bits(data, clf):
    again = clone(clf).fit(data[0], data[2])
    np.testing.assert_array_equal(clf.neighbor_vectors_, again.neighbor_vectors_)
    np.testing.assert_array_equal(clf.neighbor_axes_, again.neighbor_axes_)
    for left, right in zip(clf.predict_topk(data[1]), again.predict_topk(data[1]), strict=True):
        np.testing.assert_array_equal(left, right)


def test_votes_leave_training_and_what_is_no_ranking_as_they_are(clf, data):
    X, X_test, Y, _ = data
    plain = clone(clf).set_params(neighbor_weight=0.0).fit(X, Y)
    np.testing.assert_array_equal(plain.label_weights_, clf.label_weights_)
    np.testing.assert_array_equal(plain.decision_function(X_test), clf.decision_function(X_test))
    np.testing.assert_array_equal(plain.predict(X_test).toarray(), clf.predict(X_test).toarray())
    clf.set_params(top_k=3)
    plain.set_params(top_k=3)
    np.testing.assert_array_equal(
        plain.predict_proba(X_test).toarray(), clf.predict_proba(X_test).toarray()
    )
    ranked = clf.decision_function(X_test)
    clf.set_params(top_k=None)
    labels, odds = clf.predict_topk(X_test, k=3)
    np.testing.assert_array_equal(np.take_along_axis(ranked.toarray(), labels, 1), odds)


def test_partial_fit_keeps_no_rows(clf, data):
    X, X_test, Y, _ = data
    going = pickle.loads(pickle.dumps(clf)).partial_fit(X, Y)
    assert kept_nothing(going)
    assert going.predict_topk(X_test)[0].shape == (400, 5)


def test_an_average_lets_the_rows_vote_that_its_members_have_in_common(clf, data):
    X, X_test, Y, _ = data
    parts = [clf, *(clone(clf).set_params(random_state=i).fit(X, Y) for i in (1, 2))]
    parts[1] = clone(parts[1]).set_params(neighbor_weight=0.0).fit(X, Y)
    together = average(parts)
    assert together.neighbor_weight_ == pytest.approx(0.4 / 3)
    assert together.neighbor_axes_.shape == (96, 64)
    assert not together.neighbor_axes_[32:64].any()  # of the one that keeps no rows
    votes = slow_votes(together, X_test[:20], X, Y)  # by rows as the axes have them
    scores = together.decision_function(X_test[:20]).astype(float)
    weight = together.neighbor_weight_
    mixed = (1 - weight) / (1 + np.exp(-scores)) + weight * votes
    labels, _ = together.predict_topk(X_test[:20], k=3)
    found, best = np.take_along_axis(mixed, labels, 1), -np.sort(-mixed, axis=1)[:, :3]
    np.testing.assert_allclose(found, best, atol=0.02)  # members' vectors are of one length
    other = clone(clf).fit(X[:800], Y[:800])
    assert kept_nothing(average([clf, other]))
    assert kept_nothing(average([parts[1], parts[1]]))


def test_a_grid_search_goes_over_weights(data):
    X, _, Y, _ = data
    search = GridSearchCV(xmc(max_iter=1), {"neighbor_weight": [0.0, 0.3]}, cv=2).fit(X, Y)
    assert search.best_estimator_.neighbor_weight_ == search.best_params_["neighbor_weight"]


@pytest.mark.parametrize(
    "parameters",
    [{"late_fusion": 0.5}, {"late_fusion": "auto"}, {"sampler": "label-embedding"}],
)
def test_votes_beside_another_way_to_rank_are_refused(data, parameters):
    clf = xmc(neighbor_weight=0.2, **parameters)
    with pytest.raises(ValueError, match=r"^neighbor_weight=0\.2: .* Set it to 0 or 'auto'\.$"):
        clf.fit(data[0], data[2])


def test_votes_of_classes_are_refused(data):
    with pytest.raises(ValueError, match=r"^neighbor_weight=0\.2: votes need an indicator y"):
        xmc(neighbor_weight=0.2).fit(data[0], data[2].toarray()[:, 0])


@pytest.mark.parametrize("weight", [-0.1, 1.0, "all", None])
def test_a_weight_that_is_none_is_refused(data, weight):
    with pytest.raises(ValueError, match="The 'neighbor_weight' parameter of XMCClassifier must"):
        xmc(neighbor_weight=weight).fit(data[0], data[2])


def test_presets_of_papers_have_none_and_processes_refuse_them(data):
    assert presets.few_mips().neighbor_weight == presets.lightdxml(100).neighbor_weight == 0
    with pytest.raises(ValueError, match=r"neighbor_weight=0\.2 is not supported by several"):
        ShardedXMCClassifier(xmc(neighbor_weight=0.2)).fit(data[0], data[2])


def test_very_many_rows_are_sought_by_clusters(clf, data, monkeypatch):
    monkeypatch.setattr("skxmc._index._rows.MANY", 1000)
    X_test = data[1]
    found = (again := damaged(clf)).predict_topk(X_test)[0]
    assert isinstance(again._predictor(as_rows(X_test)).neighbors._index, RowIndex)
    exact = clf.predict_topk(X_test)[0]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]) > 0.98


def test_an_index_of_rows_is_made_once(clf, data, monkeypatch):
    made, real = [], neighbors_module.row_index
    monkeypatch.setattr(
        neighbors_module, "row_index", lambda *args, **more: made.append(1) or real(*args, **more)
    )
    clf = damaged(clf)
    for change in ({}, {"neighbor_weight_": 0.1}, {"tail_bias": 0.5}, {"neighbor_weight_": 0.3}):
        vars(clf).update(change)
        clf.predict_topk(data[1])
        clf.predict_proba(data[1][:2])
    assert made == [1]


# -- stored ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_stored_model_ranks_alike(clf, data, tmp_path, dtype):
    pytest.importorskip("safetensors")
    path = tmp_path / "clf.safetensors"
    save_model(clf, path, dtype=dtype)
    labels, scores = clf.predict_topk(data[1])
    again = load_model(path)
    found = again.predict_topk(data[1])
    if dtype == "float32":
        np.testing.assert_array_equal(found[0], labels)
        np.testing.assert_array_equal(found[1], scores)
    else:
        assert (found[0] == labels).mean() > 0.98
    unpickled = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(unpickled.predict_topk(data[1])[0], labels)


def damaged(clf, **attributes):
    clf = pickle.loads(pickle.dumps(clf))
    vars(clf).update(attributes)
    return clf


@pytest.mark.parametrize(
    "change",
    [
        lambda indptr, indices: (indptr, indices + 60),
        lambda indptr, indices: (indptr, -indices - 1),
        lambda indptr, indices: (indptr + 1, indices),
        lambda indptr, indices: (indptr[::-1].copy(), indices),
        lambda indptr, indices: (indptr[:-1], indices[: indptr[-2]]),
        lambda indptr, indices: (indptr.astype(np.float32), indices),
        lambda indptr, indices: (indptr, indices[:-1]),
        lambda indptr, indices: (indptr, np.append(indices, indices)[:, None]),
    ],
)
def test_lists_that_are_none_are_refused(clf, tmp_path, change):
    pytest.importorskip("safetensors")
    path = tmp_path / "clf.safetensors"
    save_model(damaged(clf, neighbor_labels_=change(*clf.neighbor_labels_)), path)
    with pytest.raises(ValueError, match="no file of save_model, or damaged"):
        load_model(path)


@pytest.mark.parametrize(
    "attributes",
    [
        {"neighbor_weight_": 1.5}, {"neighbor_weight_": "0.2"}, {"neighbor_axes_": None},
        {"neighbor_axes_": np.zeros((31, 32), np.float32)},
        {"neighbor_vectors_": np.zeros((1200, 31), np.float32)},
        {"neighbor_vectors_": np.zeros((1200, 32))},
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_together_are_refused(clf, tmp_path, attributes):
    pytest.importorskip("safetensors")
    path = tmp_path / "clf.safetensors"
    save_model(damaged(clf, **attributes), path)
    with pytest.raises(ValueError, match="no file of save_model, or damaged"):
        load_model(path)


def test_pickles_from_before_there_were_neighbours_load(clf, data):
    plain = clone(clf).set_params(neighbor_weight=0.0).fit(data[0], data[2])
    state = {k: v for k, v in plain.__getstate__().items() if not k.startswith("neighbor")}
    again = XMCClassifier()
    vars(again).clear()
    again.__setstate__({**state, "_skxmc_format": 1})
    assert again.neighbor_weight == again.neighbor_weight_ == 0
    np.testing.assert_array_equal(again.predict_topk(data[1])[0], plain.predict_topk(data[1])[0])


# -- next to nothing to vote -----------------------------------------------------------------------


def passed_over(n_rows, n_members):
    return sample_rows(n_rows, n_members, seed_of(0))


@pytest.mark.parametrize("n_estimators", [1, 2, 5])
@pytest.mark.parametrize("n_labelled", [1, 3])
@pytest.mark.parametrize("weight", ["auto", 0.3])
def test_labels_on_rows_that_a_member_passes_over_alone(data, n_estimators, n_labelled, weight):
    """It has none to vote; one row makes one axis."""
    X = data[0]
    Y = np.zeros((X.shape[0], 4), np.int64)
    Y[passed_over(X.shape[0], n_estimators)[0][:n_labelled], :n_labelled] = np.eye(n_labelled)
    clf = xmc(neighbor_weight=weight, n_estimators=n_estimators).fit(X, Y)
    labels, scores = clf.predict_topk(data[1], k=4)
    assert (np.sort(labels) == np.arange(4)).all()
    assert not np.isnan(scores).any()
    if weight != "auto":
        assert np.isfinite(clf.neighbor_axes_).all()
        assert np.isfinite(clf.neighbor_vectors_).all()


def test_rows_that_are_all_alike_vote_alike(data):
    X = sp.csr_array(np.ones((300, 6), np.float32))
    Y = np.arange(300)[:, None] % 3 == np.arange(3)
    clf = xmc(neighbor_weight=0.3).fit(X, Y.astype(np.int64))
    assert np.isfinite(clf.neighbor_vectors_).all()
    assert np.isfinite(clf.predict_topk(X[:20], k=3)[1]).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_vectors_that_compare_with_nothing_do_not_vote(clf, data, wrong):
    spoilt = damaged(clf, neighbor_vectors_=np.full_like(clf.neighbor_vectors_, wrong))
    plain = damaged(clf, neighbor_weight_=0.0)
    found = [one.predict_topk(data[1], k=5)[0] for one in (spoilt, plain)]
    np.testing.assert_array_equal(*found)


def test_rows_that_do_not_vote_are_not_stored(clf, data, tmp_path):
    pytest.importorskip("safetensors")
    clf = damaged(clf, neighbor_weight_=0.0)
    assert clf.neighbor_vectors_ is not None
    save_model(clf, tmp_path / "clf")
    for again in (load_model(tmp_path / "clf"), pickle.loads(pickle.dumps(clf))):
        assert kept_nothing(again)
        np.testing.assert_array_equal(again.predict_topk(data[1])[0], clf.predict_topk(data[1])[0])
        again.neighbor_weight_ = 0.2
        with pytest.raises(ValueError, match=r"neighbor_weight_=0\.2, but no rows are kept"):
            again.predict_topk(data[1])
