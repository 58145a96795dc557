"""Members that are averaged, the tail bias, and what an estimator keeps between predictions."""

import importlib.util
import pickle
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone

from skxmc import XMCClassifier
from skxmc._choices import TAIL_BIASES, choose_tail_bias
from skxmc._ends import Rows
from skxmc._ensemble import Ensemble, MemberTables
from skxmc._network import Network, Weights
from skxmc._predictor import Kept
from skxmc._training import Trainer
from skxmc.datasets import make_xmc
from skxmc.metrics import propensities, psp_at_k


def make(**parameters):
    defaults = {
        "hidden_layer_sizes": (16,),
        "n_estimators": 1,
        "max_iter": 4,
        "positive_weight": None,
        "tail_bias": 0.0,
        "device": "cpu",
        "n_jobs": 1,
        "random_state": 0,
    }
    return XMCClassifier(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def data():
    X, Y = make_xmc(1200, 600, 150, n_labels_per_sample=2.0, random_state=0)
    return X[:900], Y[:900], X[900:], Y[900:]


def arrays_of(clf):
    out = [clf.feature_weights_, *clf.hidden_weights_, *clf.hidden_biases_]
    return [*out, clf.label_weights_, clf.label_biases_, *(clf.residual_ or ())]


# -- members ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("sizes", [(5,), (6, 4), (3, 7, 5)])
@pytest.mark.parametrize("n_members", [2, 3])
def test_a_merged_network_scores_the_mean_of_its_members(n_members, sizes, residual):
    rng = np.random.default_rng(0)
    X = Rows.of(sp.random(20, 30, 0.3, "csr", np.float32, random_state=0))
    rows = np.arange(20)
    members = [
        Weights.initial(30, sizes, rng.standard_normal(9), rng, residual) for _ in range(n_members)
    ]
    for member in members:
        for bias in member.hidden_biases:
            bias[:] = rng.standard_normal(len(bias))
        if residual:
            member.residual[1][:] = rng.standard_normal(sizes[-1])

    def scores(weights):
        hidden = Network(weights).hidden(X, rows).numpy()
        return hidden @ weights.labels.T + weights.label_biases

    merged = Weights.merge(members)
    assert merged.labels.shape == (9, n_members * sizes[-1])
    mean = np.mean([scores(member) for member in members], axis=0)
    np.testing.assert_allclose(scores(merged), mean, rtol=1e-4, atol=1e-5)
    assert all(a.dtype == np.float32 for a in (merged.features, merged.labels, *merged.hidden))


@pytest.mark.parametrize("n_members", [1, 2, 3, 5])
@pytest.mark.parametrize("n_rows", [1, 7, 5000])
@pytest.mark.parametrize("n_more", [0, 3, 6000])
def test_tables_are_put_side_by_side_in_their_own_memory(n_members, n_rows, n_more):
    rng = np.random.default_rng(0)
    tables = MemberTables(n_members, n_rows, 3, n_rows + n_more)
    tables.members[:] = rng.standard_normal(tables.members.shape)
    at = np.sort(rng.choice(n_rows + n_more, n_rows, replace=False))
    expected = np.zeros((n_rows + n_more, 3 * n_members), np.float32)
    expected[at] = np.concatenate(tables.members, axis=1)
    merged = tables.merge(at)
    np.testing.assert_array_equal(merged, expected)
    assert np.may_share_memory(merged, tables.members)


@pytest.mark.parametrize("n_estimators", [1, 2, 3])
def test_finish_gives_the_bits_of_a_merged_copy(n_estimators, data, monkeypatch):
    X, Y = data[:2]
    Y, finish, copies = sp.hstack([Y[:, :5] * 0, Y], "csr"), Ensemble.finish, []

    def watch(self, seen):
        copies.append((Weights.merge([weights for weights, _ in self.checkpoint()]), seen))
        return finish(self, seen)

    monkeypatch.setattr(Ensemble, "finish", watch)
    clf = make(n_estimators=n_estimators, residual=True, max_iter=1).fit(X, Y)
    ((weights, seen),) = copies
    np.testing.assert_array_equal(clf.feature_weights_, weights.features)
    np.testing.assert_array_equal(clf.label_weights_[seen], weights.labels)
    assert not np.delete(clf.label_weights_, seen, axis=0).any()
    np.testing.assert_array_equal(clf.label_biases_[seen], weights.label_biases)
    np.testing.assert_array_equal(clf.residual_[0], weights.residual[0])


@pytest.mark.parametrize("sampler", ["in-batch+uniform", "mips+clustered-in-batch+uniform"])
def test_a_fit_takes_little_more_memory_than_the_model(sampler):
    X, Y = make_xmc(2000, 60_000, 10_000, random_state=0)
    settings = {"sampler": sampler, "n_estimators": 2, "hidden_layer_sizes": (128,)}
    make(max_iter=1, **settings).fit(X[:300, :500], Y[:300])  # compiles
    tracemalloc.start()
    clf = make(max_iter=1, tail_bias="auto", **settings).fit(X, Y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    model = clf.feature_weights_.nbytes + clf.label_weights_.nbytes
    assert peak < 1.3 * model


def test_one_member_is_merged_without_a_copy():
    one = Weights.initial(3, (2,), np.zeros(2), np.random.default_rng(0))
    assert Weights.merge([one]) is one


@pytest.mark.parametrize("sampler", ["mips+in-batch+uniform", "label-embedding", "snm"])
def test_members_are_trained_on_their_own_and_the_first_as_if_alone(sampler, data):
    X, Y, X_test, _ = data
    alone = make(sampler=sampler).fit(X, Y)
    clf = make(sampler=sampler, n_estimators=2).fit(X, Y)
    first, second = np.split(clf.feature_weights_, 2, axis=1)
    np.testing.assert_array_equal(first, alone.feature_weights_)
    assert abs(first - second).max() > 0.01
    np.testing.assert_array_equal(clf.label_weights_[:, :16] * 2, alone.label_weights_)
    assert clf.predict_topk(X_test)[0].shape == (300, 5)


@pytest.mark.parametrize("n_estimators", [2, 3])
def test_threads_up_to_the_number_of_members_give_the_same_bits(n_estimators, data):
    X, Y = data[:2]
    one, two = (make(n_estimators=n_estimators, n_jobs=n).fit(X, Y) for n in (1, 2))
    for a, b in zip(arrays_of(one), arrays_of(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.loss_curve_ == two.loss_curve_


def test_early_stopping_keeps_the_members_best_epoch(data):
    X, Y = data[:2]
    # The learning rate would fall sooner in a shorter run: a factor for each epoch stands still.
    factors = [1 - epoch / 6 for epoch in range(6)]
    settings = {"sampler": "mips+uniform", "early_stopping": True, "n_iter_no_change": 6}
    settings["n_estimators"] = 2
    long = make(max_iter=6, learning_rate=factors, **settings).fit(X, Y)
    n = int(np.argmax(long.validation_scores_)) + 1
    short = make(max_iter=n, learning_rate=factors[:n], **settings).fit(X, Y)
    for a, b in zip(arrays_of(long), arrays_of(short), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_without_a_row_stay_unseen_in_every_member(data):
    X, Y = data[:2]
    Y = sp.hstack([Y, sp.csr_array((Y.shape[0], 3))], "csr")
    clf = make(n_estimators=2, late_fusion=0.5).fit(X, Y)
    labels, _ = clf.predict_topk(X, k=150)
    assert labels.max() < 150 or not np.isin(labels[:, :140], [150, 151, 152]).any()


@pytest.mark.parametrize("value", [0, -1, 1.5, "two"])
def test_a_wrong_number_of_members_is_refused(value, data):
    with pytest.raises(ValueError, match="n_estimators"):
        make(n_estimators=value).fit(*data[:2])


# -- the tail --------------------------------------------------------------------------------------


def test_the_tail_bias_adds_the_offsets_to_what_ranks_and_to_nothing_else(data):
    X, Y, X_test, _ = data
    clf = make(top_k=3).fit(X, Y)
    offsets = np.log(2 / propensities(Y) - 1)
    np.testing.assert_allclose(clf.tail_offsets_, offsets, rtol=1e-5)
    plain = clone_with(clf, top_k=None).decision_function(X_test)
    proba = clf.predict_proba(X_test).toarray()
    for bias in (-0.5, 0.0, 0.75):
        biased = clone_with(clf, tail_bias=bias)
        scores = plain + bias * offsets
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :4]
        labels, found = biased.predict_topk(X_test, k=4)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(
            found, np.take_along_axis(scores, expected, 1), rtol=1e-4, atol=1e-5
        )
        ranked = biased.decision_function(X_test).tocsr()
        np.testing.assert_array_equal(
            ranked.indices.reshape(-1, 3), np.sort(expected[:, :3], axis=1)
        )
        np.testing.assert_array_equal(biased.predict_proba(X_test).toarray(), proba)
        dense = clone_with(biased, top_k=None)
        np.testing.assert_array_equal(dense.decision_function(X_test), plain)


def clone_with(clf, **parameters):
    """The same fitted model with other parameters."""
    out = clone(clf).set_params(**parameters)
    vars(out).update({k: v for k, v in vars(clf).items() if k.endswith("_") or k[0] == "_"})
    return out


@pytest.mark.parametrize("n_estimators", [1, 2])
def test_auto_chooses_by_rows_that_a_member_does_not_visit(n_estimators, data, monkeypatch):
    X, Y = sp.vstack(data[::2], "csr"), sp.vstack(data[1::2], "csr")  # 1,200 rows
    trainers, step, init, finish = {}, Trainer.step, Trainer.__init__, Ensemble.finish

    def watch(self, worker, rows, number):
        trainers[self].append(rows)
        return step(self, worker, rows, number)

    def note(self, *args, **parameters):
        trainers[self] = []
        init(self, *args, **parameters)

    def keep(self, seen):  # the members, which `finish` makes one network
        networks = [Network(weights) for weights, _ in self.checkpoint()]
        out = finish(self, seen)
        for trainer, network in zip(self.trainers, networks, strict=True):
            trainer.network = network
        return out

    monkeypatch.setattr(Trainer, "step", watch)
    monkeypatch.setattr(Trainer, "__init__", note)
    monkeypatch.setattr(Ensemble, "finish", keep)
    clf = make(n_estimators=n_estimators, tail_bias="auto").fit(X, Y)
    assert len(trainers) == n_estimators
    seen = np.flatnonzero(np.asarray(Y.sum(0)).ravel())
    left_out, precision = [], {bias: [] for bias in TAIL_BIASES}
    for trainer, visited in trainers.items():
        assert len(np.concatenate(visited)) == 4 * 1140
        rows = np.setdiff1d(np.arange(1200), np.concatenate(visited))
        left_out += rows.tolist()
        # What the member says of these rows, with each bias in turn.
        weights = trainer.network.weights()
        plain = trainer.hidden(rows).numpy() @ weights.labels.T + weights.label_biases
        for bias in TAIL_BIASES:
            order = np.argsort(-(plain + bias * clf.tail_offsets_[seen]), axis=1, kind="stable")
            for row, labels in zip(rows, seen[order[:, :5]], strict=True):
                hits = [Y[row, label] for label in labels]
                precision[bias].append(np.mean([sum(hits[:k]) / k for k in (1, 3, 5)]))
    assert len(set(left_out)) == len(left_out) == 60 * n_estimators
    best = max(np.mean(rows) for rows in precision.values())
    top = next(np.array(rows) for rows in precision.values() if np.mean(rows) == best)
    as_good = [
        bias
        for bias, rows in precision.items()
        if np.mean(top - rows) <= np.std(top - rows) / np.sqrt(len(top))
    ]
    assert abs(clf.tail_bias_) == min(abs(bias) for bias in as_good)


class Says:
    """A predictor that ranks labels by fixed scores and the bias of its table."""

    def __init__(self, scores):
        self.scores, self.network = scores, mock.Mock()
        self.network.labels.biases = torch.zeros(scores.shape[1])
        self.network.own_labels = lambda array: array

    def topk(self, X, n_rows, k):
        scores = self.scores + self.network.labels.biases.numpy()
        labels = np.argsort(-scores, axis=1)[:, :k]
        return labels, np.take_along_axis(scores, labels, 1)


@pytest.mark.parametrize(("shift", "expected"), [(0.6, -0.75), (0.0, 0.0), (-0.7, 0.75)])
@pytest.mark.parametrize("n_rows", [20, 3000])
def test_the_tail_bias_undoes_a_shift_that_many_rows_show(shift, expected, n_rows):
    rng = np.random.default_rng(0)
    offsets = np.where(np.arange(20) < 10, 0.0, 2.0).astype(np.float32)
    logits = rng.standard_normal((n_rows, 20))
    Y = sp.csr_array((logits > np.sort(logits, axis=1)[:, [-5]]).astype(int))
    held_out = [(Says(logits + shift * offsets), None, Y)]
    found = choose_tail_bias(held_out, offsets, np.arange(20))
    if n_rows == 3000:
        assert abs(found - expected) <= 0.25
        assert np.sign(found) == np.sign(expected)
    else:
        assert abs(found) <= abs(expected)


def test_the_tail_bias_is_what_a_ranking_of_all_labels_under_each_would_choose():
    rng = np.random.default_rng(1)
    offsets = rng.exponential(2, 400).astype(np.float32)
    for shift in (-0.6, -0.3, 0.1, 0.4, 0.8):
        logits = rng.standard_normal((2000, 400)) * 2
        scores = logits - shift * offsets
        true = logits > np.sort(logits, axis=1)[:, [-5]]
        rows = {}
        for bias in sorted(TAIL_BIASES, key=abs):
            top = np.argsort(-(scores + bias * offsets), axis=1)[:, :5]
            hits = np.take_along_axis(true, top, 1)
            rows[bias] = np.mean([hits[:, :k].mean(1) for k in (1, 3, 5)], axis=0)
        best = max(rows.values(), key=np.mean)
        loss = {bias: best - part for bias, part in rows.items()}
        good = [b for b, part in loss.items() if part.mean() <= part.std() / np.sqrt(2000)]
        held_out = [(Says(scores), None, sp.csr_array(true.astype(int)))]
        found = choose_tail_bias(held_out, offsets, np.arange(400))
        assert found == good[0]


@pytest.mark.parametrize(
    ("rows", "parameters"), [(900, {}), (1200, {"max_iter": 1, "early_stopping": True})]
)
def test_auto_leaves_no_row_out_where_they_are_few_or_others_are_held_out(rows, parameters, data):
    X, Y = sp.vstack(data[::2], "csr")[:rows], sp.vstack(data[1::2], "csr")[:rows]
    clf = make(tail_bias="auto", **parameters).fit(X, Y)
    same = make(tail_bias=0.0, **parameters).fit(X, Y)
    np.testing.assert_array_equal(clf.label_weights_, same.label_weights_)
    assert clf.tail_bias_ == 0.0 or parameters


def test_auto_is_0_where_a_row_has_one_class(data):
    X, Y = sp.vstack(data[::2], "csr"), sp.vstack(data[1::2], "csr")
    y = np.asarray(Y.argmax(axis=1)).ravel()
    clf = make(tail_bias="auto", max_iter=1).fit(X, y)
    assert clf.tail_bias_ == 0.0


def test_the_tail_bias_buys_psp(data):
    X, Y, X_test, Y_test = data
    clf, p = make(max_iter=8).fit(X, Y), propensities(Y)
    scores = []
    for bias in (-1.0, 0.0, 1.0):
        labels, _ = clf.set_params(tail_bias=bias).predict_topk(X_test)
        scores.append(psp_at_k(Y_test, labels, k=5, propensities=p))
    assert scores[0] < scores[1] < scores[2]


def test_a_power_of_the_propensity_weights(data):
    X, Y = data[:2]
    weights = 2 / propensities(Y) - 1
    for power, same in ((1.0, "propensity"), (0.5, weights**0.5), (0.0, None)):
        one, other = (make(positive_weight=w).fit(X, Y) for w in (power, same))
        np.testing.assert_allclose(one.label_weights_, other.label_weights_, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["tail_bias", "positive_weight"])
@pytest.mark.parametrize("value", [float("nan"), "much", -float("inf")])
def test_wrong_tail_settings_are_refused(name, value, data):
    with pytest.raises(ValueError, match=name):
        make(**{name: value}).fit(*data[:2])


def test_two_rows_have_no_propensities_and_are_trained_all_the_same():
    X, Y = np.eye(2, dtype=np.float32), np.eye(2, dtype=int)
    clf = make(tail_bias=1.0).fit(X, Y)
    assert not clf.tail_offsets_.any()
    assert clf.predict_topk(X, k=2)[0].shape == (2, 2)


# -- what is kept ----------------------------------------------------------------------------------


def test_single_rows_are_ranked_as_among_many(data):
    X, Y, X_test, _ = data
    clf = make(n_estimators=2).fit(X, Y)
    labels, scores = clf.predict_topk(X_test)
    for i in (0, 7, 299):
        one = clf.predict_topk(X_test[[i]])
        np.testing.assert_array_equal(one[0][0], labels[i])
        np.testing.assert_allclose(one[1][0], scores[i], rtol=1e-5)


def test_a_prediction_keeps_its_preparations_until_an_array_is_another(data):
    X, Y, X_test, _ = data
    clf = make().fit(X, Y)
    first = clf.predict_topk(X_test)
    index = clf._predictor(X_test).index
    assert clf._predictor(X_test[:1]).index is index
    clf.label_weights_ = -clf.label_weights_
    assert clf._predictor(X_test).index is not index
    assert not np.array_equal(clf.predict_topk(X_test)[0], first[0])
    clf.label_weights_ = -clf.label_weights_
    np.testing.assert_array_equal(clf.predict_topk(X_test)[0], first[0])


def test_what_is_kept_is_not_pickled(data):
    X, Y = data[:2]
    clf = make().fit(X, Y)
    before = len(pickle.dumps(clf))
    expected = clf.predict_topk(X)
    assert len(pickle.dumps(clf)) == before
    again = pickle.loads(pickle.dumps(clf))
    for a, b in zip(expected, again.predict_topk(X), strict=True):
        np.testing.assert_array_equal(a, b)


def test_kept_makes_anew_only_for_other_parts():
    kept, made = Kept(), []
    one, two = np.zeros(2), np.zeros(2)

    def make_value():
        made.append(object())
        return made[-1]

    assert kept.get("a", (one,), make_value) is kept.get("a", (one,), make_value)
    assert len(made) == 1
    assert kept.get("a", (two,), make_value) is made[1]
    assert kept.get("a", (one,), make_value) is made[2]
    assert kept.get("b", (two,), make_value) is made[3]
    assert kept.get("a", (one,), make_value) is made[2]  # names have nothing to do with another


# -- the example that measures memory ----------------------------------------------------------


@pytest.mark.parametrize("seen_only", [False, True])
def test_the_scale_example_trains_all_labels_and_draws(seen_only, tmp_path):
    path = Path(__file__).resolve().parents[1] / "examples" / "benchmark" / "scale.py"
    spec = importlib.util.spec_from_file_location("scale", path)
    scale = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scale)
    job = {"features": 900, "rows": 2000, "width": 8, "members": 2, "seen_only": seen_only}
    job |= {"sampler": "mips+uniform", "labels": 3000}
    result = scale.measure(job)
    assert (result["labels"] == 3000) != seen_only
    assert result["train_us"] > 0
    assert result["look_up_us"] > 0
    assert result["p1"] > 0
    lines = scale.table([result, result]).splitlines()
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    scale.draw([result], tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 5000
