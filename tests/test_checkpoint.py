"""Checkpoints: a fit that was cut short ends with the bits of one that was not."""

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from skxmc import XMCClassifier
from skxmc._checkpoint import NAME, Checkpoint, CheckpointFile, _hash, decode, describe, encode
from skxmc._training import Trainer
from skxmc.datasets import make_xmc
from skxmc.samplers import (
    SAMPLERS,
    ClusteredInBatchSampler,
    LabelEmbeddingSampler,
    MIPSSampler,
    Proposal,
    Sampler,
    StochasticNegativeMining,
    UniformSampler,
)

FAST = {"hidden_layer_sizes": (8,), "n_estimators": 1, "max_iter": 5, "batch_size": 16, "n_jobs": 1}
ARRAYS = ("feature_weights_", "label_weights_", "label_biases_", "label_embeddings_", "residual_",
          "hidden_weights_", "hidden_biases_", "loss_curve_", "hardness_curve_", "tail_bias_",
          "validation_scores_", "active_fraction_", "late_fusion_", "_memory")  # fmt: skip


class PowerCut(Exception):
    """What stands for the end of the process."""


def xmc(sampler="uniform", **parameters):
    return XMCClassifier(sampler, **{"random_state": 0, **FAST, **parameters})


@pytest.fixture(scope="module")
def data():
    return make_xmc(300, 200, 30, random_state=0)


@pytest.fixture
def cut(monkeypatch):
    """cut(clf, data, epoch): a fit that ends in the middle of this epoch, counted from 0."""

    def fit_some(clf, data, epoch):
        step = Trainer.step

        def failing(self, worker, rows, number):
            if number == epoch * self.n_steps + 3:
                raise PowerCut
            return step(self, worker, rows, number)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", failing)
            with pytest.raises(PowerCut):
                clf.fit(*data)
        return clf

    return fit_some


def assert_same(found, expected):
    for name in ARRAYS:
        a, b = getattr(found, name), getattr(expected, name)
        if a is None or b is None:
            assert a is b, name
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b), name
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)), name
        else:
            assert np.array_equal(a, b), name


# -- the same bits ---------------------------------------------------------------------------------


class Drifting(Sampler):
    """State of every kind that the default hooks store."""

    def __init__(self, n_negatives=3):
        self.n_negatives = n_negatives

    def begin(self, problem):
        super().begin(problem)
        self._rng = np.random.default_rng(problem.random_state)
        self._seen, self._about = [], {"last": (np.float32(0.5), None)}
        return self

    def start_epoch(self, epoch, n_epochs):
        n = self.problem_.n_labels
        self._seen.append(self._rng.choice(n, self.n_negatives, replace=False).astype(np.int32))
        self._about["last"] = (np.float32(epoch), "epoch")

    def propose(self, rows, rng):
        weight = 1 + self._about["last"][0]
        return Proposal(np.unique(np.concatenate(self._seen)), weight)


SETTINGS = [
    ("full", {"hidden_layer_sizes": (8, 6)}),
    ("uniform", {"n_estimators": 3}),
    ("frequency", {"learning_rate": "constant", "tail_bias": 0.25}),
    ("in-batch+uniform", {"early_stopping": True, "n_estimators": 2}),
    (ClusteredInBatchSampler(4, schedule=None, refresh_epochs=3), {"residual": True}),
    ("clustered-in-batch+uniform", {"n_estimators": 2}),
    ("mips+uniform", {"learning_rate": (1, 1, 0.5, 0.5, 0.25)}),
    (MIPSSampler(2, refresh_steps=5, warmup_epochs=1), {"loss": "squared-hinge"}),
    ("label-embedding", {"residual": True, "n_estimators": 2, "late_fusion": "auto"}),
    (LabelEmbeddingSampler(n_hidden=12, refresh_epochs=2) + UniformSampler(5), {}),
    (StochasticNegativeMining(10, 2, schedule="geometric"), {"early_stopping": True}),
    ("snm+mips+in-batch", {"n_estimators": 2, "residual": True}),
    (Drifting() + UniformSampler(5), {}),
]


@pytest.mark.parametrize(("sampler", "more"), SETTINGS)
def test_a_fit_cut_short_twice_ends_with_the_bits_of_an_unbroken_one(
    data, cut, tmp_path, sampler, more
):
    clf = xmc(sampler, checkpoint=tmp_path, **more)
    cut(clone(clf), data, 1)
    cut(clone(clf), data, 3)
    assert os.listdir(tmp_path) == [NAME]
    found = clone(clf).fit(*data)
    assert os.listdir(tmp_path) == []
    assert_same(found, xmc(sampler, **more).fit(*data))


def test_every_sampler_of_the_package_is_cut_short():
    names = {
        name for sampler, _ in SETTINGS if isinstance(sampler, str) for name in sampler.split("+")
    }
    assert names == set(SAMPLERS)


def test_the_checks_above_see_a_state_that_is_lost(data, cut, tmp_path, monkeypatch):
    """Else they would pass on fits that do not depend on what is stored."""
    clf = xmc(Drifting() + UniformSampler(5), checkpoint=tmp_path)
    cut(clone(clf), data, 3)
    monkeypatch.setattr(Drifting, "set_state", lambda self, state: self.start_epoch(0, 5))
    with pytest.raises(AssertionError):
        assert_same(clf.fit(*data), xmc(Drifting() + UniformSampler(5)).fit(*data))


@pytest.mark.parametrize("state", [None, "moving"])
def test_without_an_integer_the_seed_is_that_of_the_first_attempt(data, cut, tmp_path, state):
    def draw():
        return None if state is None else np.random.RandomState(7)

    first = cut(xmc(random_state=draw(), checkpoint=tmp_path), data, 2)
    seed = CheckpointFile(tmp_path)._seed
    found = first.fit(*data)  # a RandomState has moved on
    unbroken = xmc(random_state=None)
    with pytest.MonkeyPatch.context() as patch:
        fixed = type("Fixed", (), {"randint": lambda self, n: seed})
        patch.setattr("skxmc._classifier.check_random_state", lambda _: fixed())
        unbroken.fit(*data)
    assert_same(found, unbroken)


def test_dense_rows_and_classes(cut, tmp_path):
    rng = np.random.default_rng(0)
    X = np.asfortranarray(rng.standard_normal((120, 10)))
    y = np.array(["a", "b", "c"])[np.argmax(X[:, :3], axis=1)]
    cut(xmc(checkpoint=tmp_path), (X, y), 2)
    again = np.ascontiguousarray(X, np.float32)
    assert_same(xmc(checkpoint=tmp_path).fit(again, y), xmc().fit(X, y))


def test_more_threads_may_go_on(data, cut, tmp_path):
    cut(xmc(checkpoint=tmp_path, hidden_layer_sizes=(8, 6)), data, 3)
    clf = xmc(checkpoint=tmp_path, hidden_layer_sizes=(8, 6), n_jobs=3).fit(*data)
    assert clf.n_iter_ == 5
    assert clf.loss_curve_[:3] == xmc(hidden_layer_sizes=(8, 6)).fit(*data).loss_curve_[:3]


def test_a_warm_start_is_cut_short_too(data, cut, tmp_path):
    def begin():
        return xmc(warm_start=True, max_iter=2).fit(*data).set_params(max_iter=4)

    expected = begin().fit(*data)
    clf = cut(begin().set_params(checkpoint=tmp_path), data, 2)
    assert clf.n_iter_ == 2  # what it was
    assert clf.fit(*data).n_iter_ == 6
    assert_same(clf, expected)


# -- when ------------------------------------------------------------------------------------------


def epochs_written(monkeypatch, data, checkpoint, minutes=0.0):
    """After which epochs a fit of five wrote, where an epoch takes so many minutes."""
    written, now = [], [0.0]
    save = CheckpointFile.save

    def noting(self, epoch, state):
        save(self, epoch, state)
        written.append(self.epoch)

    def clock():
        now[0] += 60 * minutes
        return now[0]

    monkeypatch.setattr(CheckpointFile, "save", noting)
    monkeypatch.setattr("skxmc._checkpoint.time.monotonic", clock)
    xmc(checkpoint=checkpoint).fit(*data)
    return written


def test_every_epoch_but_the_last_is_written(monkeypatch, data, tmp_path):
    assert epochs_written(monkeypatch, data, str(tmp_path)) == [1, 2, 3, 4]


def test_every_second_epoch(monkeypatch, data, tmp_path):
    assert epochs_written(monkeypatch, data, Checkpoint(tmp_path, every_epochs=2)) == [2, 4]


def test_minutes_must_have_passed(monkeypatch, data, tmp_path):
    checkpoint = Checkpoint(tmp_path, every_minutes=1.5)
    assert epochs_written(monkeypatch, data, checkpoint, minutes=1.0) == [2, 4]


def test_the_object_is_a_parameter_like_others(tmp_path):
    clf = xmc(checkpoint=Checkpoint("a", every_epochs=2))
    assert repr(clf.checkpoint) == "Checkpoint(every_epochs=2, folder='a')"
    copy = clone(clf).set_params(checkpoint__folder="b")
    assert (copy.checkpoint.folder, clf.checkpoint.folder) == ("b", "a")


# -- another fit -----------------------------------------------------------------------------------


@pytest.fixture
def begun(data, cut, tmp_path):
    cut(xmc("mips+uniform", checkpoint=tmp_path), data, 3)
    return tmp_path


def refused(folder, data, match, kind=ValueError, **parameters):
    """That a fit is refused before any work, and the file left alone."""
    before = (folder / NAME).read_bytes()
    clf = xmc(**{"sampler": "mips+uniform", **parameters}, checkpoint=folder)
    with pytest.raises(kind, match=match):
        clf.fit(*data)
    assert (folder / NAME).read_bytes() == before
    assert not [name for name in vars(clf) if name.endswith("_")]


@pytest.mark.parametrize(
    ("match", "parameters"),
    [
        ("sampler is UnionSampler there and UniformSampler here", {"sampler": "uniform"}),
        (
            "sampler__first__n_negatives is None there and 2 here",
            {"sampler": MIPSSampler(2) + UniformSampler()},
        ),
        (r"hidden_layer_sizes is \(8,\) there and \(8, 4\) here", {"hidden_layer_sizes": (8, 4)}),
        ("n_estimators is 1 there and 2 here", {"n_estimators": 2}),
        ("random_state differs", {"random_state": 1}),
        ("loss is BinaryCrossEntropy there", {"loss": "softmax"}),
        ("positive_weight differs", {"positive_weight": np.ones(30)}),
        ("max_iter=5, not 8.*learning_rate='cooldown' goes by max_iter", {"max_iter": 8}),
        ("dropout is 0.4 there and 0.1 here; early_stopping is False there",
         {"dropout": 0.1, "early_stopping": True}),
    ],
)  # fmt: skip
def test_other_parameters_are_refused_by_name(begun, data, match, parameters):
    refused(begun, data, match, **parameters)


def test_other_data_is_refused_by_name(begun, data):
    X, Y = data
    refused(begun, (X * 2, Y), "epochs of it: the values of X differ. Pass what it was")
    refused(begun, (X[:, :150], Y), r"the shape of X is \(300, 200\) there and \(300, 150\) here")
    other = Y.tolil()
    other[0, 0] = 1 - other[0, 0]
    refused(begun, (X, other.tocsr()), "another fit, 3 epochs of it: the values of y differ")
    refused(begun, (X[::-1], Y[::-1]), "name another folder, or delete the file")


def test_what_does_not_matter_may_differ(begun, data):
    clf = xmc(MIPSSampler() + UniformSampler(), checkpoint=Checkpoint(begun, 3), top_k=3, verbose=0,
              device="cpu", hidden_layer_sizes=[8])  # fmt: skip
    assert_same(clf.fit(*data), xmc("mips+uniform").fit(*data))


def test_max_iter_may_change_where_no_schedule_goes_by_it(data, cut, tmp_path):
    clf = xmc(learning_rate="constant", checkpoint=tmp_path)
    cut(clf, data, 3)
    refused(tmp_path, data, "holds 3 epochs, more than max_iter=2", sampler="uniform",
            learning_rate="constant", max_iter=2)  # fmt: skip
    expected = xmc(learning_rate="constant", max_iter=8).fit(*data)
    assert_same(clf.set_params(max_iter=8).fit(*data), expected)


# -- what files and folders can be -----------------------------------------------------------------


def compressed():
    import io

    file = io.BytesIO()
    np.savez_compressed(file, a=np.arange(5))
    return file.getvalue()


def array_file():
    import io

    file = io.BytesIO()
    np.save(file, np.arange(5))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"hello", pickle.dumps([1, 2]), compressed(), array_file()],
    ids=["empty", "short", "text", "pickle", "npz", "npy"],
)
def test_foreign_files_are_refused_and_left(data, tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    refused(tmp_path, data, f"{NAME} is no checkpoint, or damaged: .*delete it to begin anew")


def test_a_file_cut_short_anywhere_is_refused(begun, data):
    whole = (begun / NAME).read_bytes()
    for n in np.linspace(0, len(whole) - 1, 25).astype(int):
        (begun / NAME).write_bytes(whole[:n])
        refused(begun, data, "is no checkpoint, or damaged")


def flatten(value):
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in flatten(part)]
    if isinstance(value, np.random.Generator):
        return [repr(value.bit_generator.state)]
    return [value.tobytes() if isinstance(value, np.ndarray) else value]


def read(folder):
    file = CheckpointFile(folder)
    with file.naming():
        state = file.load()
        return flatten({**state, "members": list(state["members"])})


def test_a_flipped_bit_is_noticed_or_does_no_harm(begun):
    whole = (begun / NAME).read_bytes()
    expected, rng, noticed = read(begun), np.random.default_rng(0), 0
    for at in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.integers(8)
        (begun / NAME).write_bytes(damaged)
        try:
            found = read(begun)
        except ValueError:
            noticed += 1
        else:
            assert found == expected
    assert noticed > 100


def test_a_newer_format_is_refused(begun, data, monkeypatch):
    monkeypatch.setattr("skxmc._checkpoint.FORMAT", 0)
    refused(begun, data, "it has format 1, of a newer skxmc")


def test_pieces_of_a_fit_that_was_killed_as_it_wrote_are_swept_up(data, tmp_path):
    (tmp_path / f"{NAME}.1234.tmp").write_bytes(b"PK")
    (tmp_path / "notes.txt").write_text("mine")
    xmc(checkpoint=tmp_path, max_iter=2).fit(*data)
    assert os.listdir(tmp_path) == ["notes.txt"]


def no_training(*_):
    raise AssertionError("training began")


def test_a_folder_that_cannot_be_made_is_an_error_before_any_work(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Trainer, "epoch", no_training)
    with pytest.raises(OSError, match=r"checkpoint: the folder .*file/run cannot be written to"):
        xmc(checkpoint=tmp_path / "file" / "run").fit(*data)


def test_a_read_only_folder_is_an_error_before_any_work(data, tmp_path, monkeypatch):
    def refuse(self, content):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)  # root may write anywhere
    monkeypatch.setattr(Trainer, "epoch", no_training)
    with pytest.raises(OSError, match=r"cannot be written to .*Permission denied.*checkpoint=None"):
        xmc(checkpoint=tmp_path).fit(*data)


def test_a_full_disk_is_a_warning_and_the_old_checkpoint_stays(data, tmp_path, monkeypatch):
    written = []
    savez = np.savez

    def fill(file, **arrays):
        if len(written) == 2:
            file.write(b"some of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(1)
        savez(file, **arrays)

    contents = []
    remove = CheckpointFile.remove

    def look(self):
        contents.extend([os.listdir(tmp_path), CheckpointFile(tmp_path).epoch])
        remove(self)

    monkeypatch.setattr("skxmc._checkpoint.np.savez", fill)
    monkeypatch.setattr(CheckpointFile, "remove", look)
    with pytest.warns(
        UserWarning, match="epoch [34] could not be .*No space.*of epoch 2 stays"
    ) as w:
        clf = xmc(checkpoint=tmp_path).fit(*data)
    assert len(w) == 2
    assert contents == [[NAME], 2]
    assert_same(clf, xmc().fit(*data))


@pytest.mark.parametrize(
    ("checkpoint", "kind", "match"),
    [
        (3, ValueError, "'checkpoint' parameter"),
        ("", TypeError, "folder='' of a checkpoint must be the path of a folder"),
        (Checkpoint(None), TypeError, "folder=None of a checkpoint"),
        (Checkpoint("x", 0), ValueError, "every_epochs=0 of .* must be a positive integer"),
        (Checkpoint("x", 1, -1), ValueError, "every_minutes=-1 of .* must be None or a number"),
    ],
)
def test_bad_parameters(data, checkpoint, kind, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=match):
        xmc(checkpoint=checkpoint).fit(*data)
    assert os.listdir(tmp_path) == []


class Holder(UniformSampler):
    def begin(self, problem):
        self._index = object()
        return super().begin(problem)


def test_a_sampler_whose_state_cannot_be_stored_is_refused_before_any_work(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(Trainer, "epoch", no_training)
    with pytest.raises(TypeError, match=r"'_index'\] is a builtins.object, .*override get_state"):
        xmc(Holder(), checkpoint=tmp_path).fit(*data)


# -- values ----------------------------------------------------------------------------------------


def test_values_come_back_as_they_were():
    import json

    import scipy.sparse as sp

    value = {
        "a": [None, True, 3, 2**100, 1e-300, float("inf"), "µ", (1, [2])],
        "b": (np.arange(6, dtype=np.int16).reshape(2, 3), np.float32(0.1), np.array("x")),
        "c": {"csr": sp.random_array((5, 4), density=0.4, random_state=0, format="csr")},
    }
    arrays = {}
    tree = json.loads(json.dumps(encode(value, arrays)))
    found = decode(tree, arrays)
    assert found["a"] == value["a"]
    assert [x.dtype for x in found["b"]] == [x.dtype for x in value["b"]]
    assert isinstance(found["b"][1], np.float32)
    assert (found["c"]["csr"] != value["c"]["csr"]).nnz == 0
    for bits in (np.random.PCG64, np.random.MT19937, np.random.Philox):
        rng = np.random.Generator(bits(3))
        rng.random(5)
        rng.integers(7, size=3, dtype=np.int32)
        twin = decode(json.loads(json.dumps(encode(rng, arrays))), arrays)
        assert twin.random() == rng.random()


def test_descriptions_and_hashes_go_by_values():
    assert describe({"a": np.int64(3), "b": [1, 2]}) == describe({"a": 3, "b": (1, 2)})
    assert describe({"a": 3}) != describe({"a": 4})
    X = np.random.default_rng(0).standard_normal((50, 7))
    assert _hash(X) == _hash(np.asfortranarray(X, np.float32)) == _hash(X, block=20)
    X[3, 3] += 1
    assert _hash(X) != _hash(np.random.default_rng(0).standard_normal((50, 7)))
