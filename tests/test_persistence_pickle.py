"""Pickles of a newer skxmc are refused; skops loads what it is told to trust, and nothing else."""

import copy
import pickle
import re
from unittest import mock

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from skxmc import Checkpoint, XMCClassifier, _format
from skxmc.datasets import make_xmc
from skxmc.losses import OrderedWeightedLoss
from skxmc.persistence import load_model, save_model, trusted_types
from skxmc.samplers import MIPSSampler, UniformSampler

X, Y = make_xmc(200, 300, 30, random_state=0)


@pytest.fixture
def clf():
    clf = XMCClassifier("uniform", hidden_layer_sizes=(8,), max_iter=1, n_jobs=1, random_state=0)
    clf.fit(X, Y).predict_topk(X)  # which keeps what the next prediction may use
    return clf


def newer_pickle(clf):
    """What a version of the next format would write, without the class knowing."""
    with (
        mock.patch("skxmc._fitted.FORMAT", _format.FORMAT + 1),
        mock.patch("skxmc._fitted.own_version", return_value="9.1"),
    ):
        return pickle.dumps(clf)


def test_a_pickle_of_a_newer_format_is_refused(clf):
    text = re.escape(
        f"was written by skxmc 9.1 with format {_format.FORMAT + 1}; this skxmc "
        f"{_format.own_version()} reads up to {_format.FORMAT}. Update skxmc."
    )
    with pytest.raises(ValueError, match=text):
        pickle.loads(newer_pickle(clf))
    with pytest.raises(ValueError, match=text):
        pickle.loads(newer_pickle(make_pipeline(MaxAbsScaler(), clf)))


def test_pickles_of_this_format_and_from_before_there_was_one_load(clf, tmp_path):
    state = clf.__getstate__()
    assert state["_skxmc_format"] == _format.FORMAT
    assert state["_skxmc_version"] == _format.own_version()
    old = clone(clf)
    old.__setstate__({k: v for k, v in state.items() if not k.startswith("_skxmc")})
    joblib.dump(clf, tmp_path / "clf.joblib")
    mapped = joblib.load(tmp_path / "clf.joblib", mmap_mode="r")
    for again in (old, pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf), copy.copy(clf), mapped):
        assert vars(again).keys() == vars(clf).keys()
        for left, right in zip(again.predict_topk(X), clf.predict_topk(X), strict=True):
            np.testing.assert_array_equal(left, right)
    assert state.keys() == clf.__getstate__().keys()  # loading has not used it up


def test_unfitted_estimators_are_pickled_too():
    clf = pickle.loads(pickle.dumps(XMCClassifier("mips", max_iter=3)))
    assert vars(clf) == vars(XMCClassifier("mips", max_iter=3))


@pytest.mark.parametrize("way", ["safetensors", "joblib"])
def test_read_only_arrays_predict_and_go_on_without_a_warning(way, clf, tmp_path):
    """Warnings are errors here; torch has one of read-only memory."""
    clf.set_params(late_fusion=0.5, n_estimators=2, hidden_layer_sizes=(8, 4)).fit(X, Y)
    if way == "joblib":
        joblib.dump(clf, tmp_path / "clf")
        mapped = joblib.load(tmp_path / "clf", mmap_mode="r")
    else:
        pytest.importorskip("safetensors")
        save_model(clf, tmp_path / "clf")
        mapped = load_model(tmp_path / "clf")
    assert not mapped.label_embeddings_.flags.writeable
    for again in (mapped, clf):
        again.predict_topk(X)
        again.partial_fit(X, Y)
    for left, right in zip(mapped.predict_topk(X), clf.predict_topk(X), strict=True):
        np.testing.assert_array_equal(left, right)


# -- skops -----------------------------------------------------------------------------------------


def test_skops_loads_what_is_trusted_and_predicts_the_same_bits(clf):
    sio = pytest.importorskip("skops.io")
    stored = sio.dumps(clf)
    assert set(sio.get_untrusted_types(data=stored)) <= set(trusted_types())
    with pytest.raises(sio.exceptions.UntrustedTypesFoundException, match="XMCClassifier"):
        sio.loads(stored)
    with pytest.raises(sio.exceptions.UntrustedTypesFoundException, match="XMCClassifier"):
        sio.loads(stored, trusted=["skxmc.samplers._mips.MIPSSampler"])
    again = sio.loads(stored, trusted=trusted_types())
    assert again.get_params() == clf.get_params()
    for method in ("predict_topk", "decision_function"):
        for left, right in zip(getattr(again, method)(X), getattr(clf, method)(X), strict=True):
            np.testing.assert_array_equal(left, right)


def test_skops_takes_pipelines_samplers_losses_and_every_optional_part():
    sio = pytest.importorskip("skops.io")
    clf = XMCClassifier(
        MIPSSampler(3, index="exact") + UniformSampler(7), OrderedWeightedLoss(theta=[1.0, 0.5]),
        hidden_layer_sizes=(8, 4), max_iter=1, residual=True, late_fusion=0.5, n_jobs=1,
        positive_weight=np.linspace(1, 2, 30), random_state=0,
    )  # fmt: skip
    pipe = make_pipeline(MaxAbsScaler(), clf).fit(X, Y)
    labels, scores = pipe[-1].predict_topk(X)
    stored = sio.dumps(pipe)
    needed = set(sio.get_untrusted_types(data=stored))
    assert "skxmc.losses._ordered.OrderedWeightedLoss" in needed
    assert needed <= set(trusted_types())
    again = sio.loads(stored, trusted=trusted_types())
    assert repr(again) == repr(pipe)
    found = again[-1].predict_topk(X)
    np.testing.assert_array_equal(found[0], labels)
    np.testing.assert_array_equal(found[1], scores)


def test_every_trusted_type_is_needed(clf):
    """A sampler, loss or checkpoint that is a parameter, or the estimator: there is no other."""
    sio = pytest.importorskip("skops.io")
    from skxmc import losses, samplers

    found = set()
    for part, parameter in ((samplers, "sampler"), (losses, "loss")):
        for name in part.__all__:
            thing = getattr(part, name)
            if isinstance(thing, type) and name not in ("Problem", "Proposal", "UnionSampler"):
                clf.set_params(**{parameter: thing()})
                found |= set(sio.get_untrusted_types(data=sio.dumps(clf)))
    clf.set_params(sampler=UniformSampler() + UniformSampler(), checkpoint=Checkpoint("folder"))
    found |= set(sio.get_untrusted_types(data=sio.dumps(clf)))
    assert sorted(found) == trusted_types()


def test_skops_refuses_a_newer_format_too(clf):
    sio = pytest.importorskip("skops.io")
    with mock.patch("skxmc._fitted.FORMAT", _format.FORMAT + 1):
        stored = sio.dumps(clf)
    with pytest.raises(ValueError, match="Update skxmc"):
        sio.loads(stored, trusted=trusted_types())
