"""One model in several processes, against the same in one."""

import multiprocessing
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import skxmc._network
from skxmc import XMCClassifier
from skxmc._ends import Rows, TorchEnds
from skxmc._ranks import Span
from skxmc._shards import localize
from skxmc.datasets import make_xmc
from skxmc.distributed import ShardedXMCClassifier
from skxmc.persistence import load_model
from skxmc.samplers import LabelEmbeddingSampler, MIPSSampler, UniformSampler


def data_of(name):
    X, Y = make_xmc(1100 if name == "many" else 500, 500, 90, random_state=0)
    if name == "dense":
        X = X[:, :40].toarray()
    if name == "unseen":  # labels without a row, at both ends and in between
        Y = Y.tolil()
        Y[:, [0, 1, 40, 41, 42, 89]] = 0
        Y = sp.csr_array(Y)
    if name == "classes":
        Y = np.array([f"class {label}" for label in Y.indices[Y.indptr[:-1]]])
    return X, Y


def classifier(**parameters):
    defaults = {
        "hidden_layer_sizes": (16,), "n_estimators": 1, "max_iter": 2, "batch_size": 128,
        "n_jobs": 1, "random_state": 0, "neighbor_weight": 0.0,
    }  # fmt: skip
    return XMCClassifier(**defaults | parameters)


# What is fitted, by one process and by three: data, and parameters.
CASES = {
    "default": ("many", {"n_estimators": 2}),
    "softmax": ("sparse", {"sampler": "uniform", "loss": "softmax"}),
    "ordered": ("sparse", {"sampler": "in-batch+uniform", "loss": "owl"}),
    "hinge": ("sparse", {"sampler": "frequency", "loss": "squared-hinge"}),
    "snm": ("sparse", {"sampler": "snm"}),
    "own negatives": ("sparse", {"sampler": UniformSampler(20, shared=False)}),
    "mips": ("sparse", {"sampler": "mips+uniform"}),
    "full": ("sparse", {"sampler": "full"}),
    "layers": ("sparse", {"hidden_layer_sizes": (12, 16), "residual": True, "dropout": 0.0}),
    "dense": ("dense", {"sampler": "in-batch+uniform"}),
    "unseen": ("unseen", {"n_estimators": 2}),
    "classes": ("classes", {"loss": "decoupled-softmax"}),
    "stopping": ("sparse", {"early_stopping": True, "max_iter": 6, "n_iter_no_change": 1}),
    "tail": ("sparse", {"tail_bias": 0.5, "positive_weight": "propensity"}),
    "torch": ("sparse", {"sampler": "in-batch+uniform"}),  # in plain torch, as on a GPU
}


def fitted(name, sharded):
    data, parameters = CASES[name]
    clf = classifier(**parameters)
    kept = skxmc._network.CompiledEnds
    if name == "torch":
        skxmc._network.CompiledEnds = TorchEnds
    try:
        return (ShardedXMCClassifier(clf) if sharded else clf).fit(*data_of(data))
    finally:
        skxmc._network.CompiledEnds = kept


# -- what the processes do ---------------------------------------------------------------------


def start(work, size, *args, **environment):
    """Processes 0 to size - 1, each at work(*args) under torchrun's environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = []
    for rank in range(size):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
        names |= {"MASTER_ADDR": "127.0.0.1", **environment}
        processes.append(context.Process(target=run, args=(names, work, args)))
        processes[-1].start()
    return processes


def run(environment, work, args):
    os.environ.update({name: str(value) for name, value in environment.items()})
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("error", UserWarning)
    work(*args)


def finish(processes, seconds=120):
    """Their exit codes."""
    end = time.monotonic() + seconds
    try:
        for process in processes:
            process.join(max(0.1, end - time.monotonic()))
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()


def error_of(call, *args):
    """What it raises, as text."""
    try:
        call(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def fit_all(folder):
    rank = int(os.environ["RANK"])
    found = {}
    for name, (data, _) in CASES.items():
        clf = fitted(name, sharded=True)
        clf.save(folder / f"{name}.safetensors")
        X, Y = data_of(data)
        found[name] = {
            "topk": clf.predict_topk(X, 7), "all": clf.predict_topk(X[:50], 90),
            "dense rows": clf.predict_topk(X[:50].toarray() if sp.issparse(X) else X[:50], 90),
            "one": clf.predict_topk(X[:1], 3), "score": clf.score(X, Y), "ranges": (
                clf.label_range_, clf.feature_range_, clf._part.label_weights_.shape,
                clf._part.feature_weights_.shape,
            ),
        }  # fmt: skip
    X, Y = data_of("sparse")
    again = fitted("default", sharded=True)
    again.save(folder / "again.safetensors")
    errors = {
        "max_iter": error_of(ShardedXMCClassifier(classifier(max_iter=rank + 1)).fit, X, Y),
        "X": error_of(ShardedXMCClassifier(classifier()).fit, X * (1 + rank), Y),
        "k": error_of(again.predict_topk, X, 3 + rank),
        "few": error_of(ShardedXMCClassifier(classifier()).fit, X, Y[:, :2]),
        "save": error_of(again.save, folder / "missing" / "file"),
        "bad row": error_of(
            ShardedXMCClassifier(classifier(learning_rate_init=1e30)).fit, X * 1e6, Y
        ),
    }
    seeds = [
        ShardedXMCClassifier(classifier(random_state=state, max_iter=1)).fit(X, Y).loss_curve_
        for state in (None, None, np.random.RandomState(3))
    ]
    with open(folder / f"{rank}.pkl", "wb") as file:
        pickle.dump({"cases": found, "errors": errors, "seeds": seeds}, file)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """What three processes say, and the folder of the models that they saved."""
    folder = tmp_path_factory.mktemp("three")
    assert finish(start(fit_all, 3, folder)) == [0, 0, 0]
    found = []
    for rank in range(3):
        with open(folder / f"{rank}.pkl", "rb") as file:
            found.append(pickle.load(file))
    return found, folder


ARRAYS = ("feature_weights_", "label_weights_", "label_biases_", "loss_curve_", "hardness_curve_")


def check_equal(clf, other, **tolerance):
    for name in ARRAYS:
        np.testing.assert_allclose(
            getattr(clf, name), getattr(other, name), err_msg=name, **tolerance
        )
    pairs = [*zip(clf.hidden_biases_, other.hidden_biases_, strict=True)]
    pairs += zip(clf.hidden_weights_, other.hidden_weights_, strict=True)
    pairs += zip(clf.residual_ or (), other.residual_ or (), strict=True)
    pairs += zip(clf._memory, other._memory, strict=True)
    for one, two in pairs:
        np.testing.assert_allclose(one, two, **tolerance)
    assert clf.tail_bias_ == other.tail_bias_
    assert clf.n_iter_ == other.n_iter_
    assert clf.validation_scores_ == other.validation_scores_
    np.testing.assert_array_equal(clf.classes_, other.classes_)


CLOSE = {"rtol": 1e-3, "atol": 2e-5}


# -- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_three_processes_train_what_one_does(three, name):
    found, folder = three
    expected = fitted(name, sharded=False)
    model = load_model(folder / f"{name}.safetensors")
    check_equal(model, expected, **CLOSE)
    X, Y = data_of(CASES[name][0])
    for case in (one["cases"][name] for one in found):
        for what, k in (("topk", 7), ("all", 90), ("dense rows", 90), ("one", 3)):
            labels, scores = case[what]
            rows = X[: len(labels)]
            own, own_scores = model.predict_topk(rows, k)  # of the weights that were saved
            np.testing.assert_allclose(scores, own_scores, rtol=1e-4, atol=1e-5)
            assert (labels == own).mean() > 0.99  # near ties
        assert case["score"] == pytest.approx(expected.score(X, Y), abs=0.005)


def test_each_process_holds_a_third(three):
    found, _ = three
    ranges = [one["cases"]["default"]["ranges"] for one in found]
    assert [labels for labels, *_ in ranges] == [(0, 30), (30, 60), (60, 90)]
    assert [features for _, features, *_ in ranges] == [(0, 166), (166, 333), (333, 500)]
    assert [shape for *_, shape, _ in ranges] == [(30, 32)] * 3
    assert [shape[0] for *_, shape in ranges] == [166, 167, 167]
    unseen = [one["cases"]["unseen"]["ranges"][0] for one in found]  # 28 labels trained, each
    assert (unseen[0][0], unseen[-1][1]) == (0, 90)
    assert [stop for _, stop in unseen[:-1]] == [first for first, _ in unseen[1:]]


def test_the_same_number_of_processes_gives_the_same_bits(three):
    _, folder = three
    check_equal(
        load_model(folder / "again.safetensors"), load_model(folder / "default.safetensors"),
        rtol=0, atol=0,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["default", "unseen", "dense", "stopping"])
def test_one_process_gives_the_bits_of_the_classifier(tmp_path, name):
    clf = fitted(name, sharded=True)
    clf.save(tmp_path / "model")
    expected = fitted(name, sharded=False)
    check_equal(load_model(tmp_path / "model"), expected, rtol=0, atol=0)
    X, _ = data_of(CASES[name][0])
    for one, two in zip(clf.predict_topk(X, 9), expected.predict_topk(X, 9), strict=True):
        np.testing.assert_array_equal(one, two)
    assert clf.classes_ is not None
    assert clf.loss_curve_ == expected.loss_curve_


def test_processes_that_disagree_are_told_so(three):
    found, _ = three
    for rank, errors in enumerate(one["errors"] for one in found):
        assert (
            "estimator: max_iter differs between process 0 (1) and process 1 (2)"
            in (errors["max_iter"])
        )
        assert "X differs between process 0" in errors["X"]
        assert "k differs between process 0 (3) and process 1 (4)" in errors["k"]
        assert "2 labels with a row are too few for 3 processes" in errors["few"]
        assert ("FileNotFoundError" if rank == 0 else "Process 0 of 3 could not write") in (
            errors["save"]
        )
        assert "ValueError: Training diverged" in errors["bad row"]


def test_without_a_seed_all_draw_the_same(three):
    found, _ = three
    assert found[0]["seeds"] == found[1]["seeds"] == found[2]["seeds"]
    assert found[0]["seeds"][0] != found[0]["seeds"][1]
    clf = classifier(random_state=np.random.RandomState(3), max_iter=1).fit(*data_of("sparse"))
    assert found[0]["seeds"][2] == pytest.approx(clf.loss_curve_, rel=1e-5)


def test_the_plan_adds_up(monkeypatch, capsys):
    path = Path(__file__).resolve().parents[1] / "examples" / "scale" / "sharded_plan.py"
    monkeypatch.setattr(sys, "argv", ["sharded_plan.py", "--processes", "1", "4"])
    runpy.run_path(str(path), run_name="__main__")
    heading, one, four = capsys.readouterr().out.splitlines()
    assert heading.startswith("processes  tables GB  all GB")
    assert one.split()[:3] == ["1", "108.7", "117.1"]  # 4 (1e8 * 259 + 5e6 * 257) / 1e9; + 8.4
    assert four.split()[:5] == ["4", "27.2", "35.6", "4", "4.44"]
    sent = 4 * 1024 * (2 * 256 + 210) * 2 * 3 / 4 / 1e6
    assert float(four.split()[4]) == pytest.approx(sent, abs=0.01)


def test_rows_in_the_columns_of_a_span():
    rng = np.random.default_rng(0)
    for _ in range(20):
        dense = rng.random((8, 11)) * (rng.random((8, 11)) < 0.4)
        matrix = Rows.of(sp.csr_array(dense.astype(np.float32)))
        rows, (start_at, stop) = rng.integers(0, 8, 5), sorted(rng.integers(0, 12, 2))
        local = localize(matrix, rows, Span(start_at, stop))
        out = sp.csr_array((local.data, local.indices, local.indptr), shape=local.shape)
        np.testing.assert_array_equal(
            out.toarray(), dense.astype(np.float32)[rows][:, start_at:stop]
        )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"warm_start": True}, "warm_start=True is not supported"),
        ({"late_fusion": 0.5}, "late_fusion=0.5 is not supported"),
        ({"sampler": "label-embedding"}, "looks at the whole label table"),
        ({"sampler": UniformSampler(5) + LabelEmbeddingSampler()}, "looks at the whole label"),
        ({"sampler": MIPSSampler(index="pynndescent")}, "index='pynndescent'"),
    ],
)
def test_what_is_not_supported_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        ShardedXMCClassifier(classifier(**parameters)).fit(*data_of("sparse"))


def test_wrong_arguments_are_refused():
    X, Y = data_of("sparse")
    with pytest.raises(TypeError, match="must be an XMCClassifier, got int"):
        ShardedXMCClassifier(3).fit(X, Y)
    with pytest.raises(ValueError, match="timeout=0"):
        ShardedXMCClassifier(classifier(), timeout=0).fit(X, Y)
    clf = ShardedXMCClassifier(classifier(max_iter=1)).fit(X, Y)
    with pytest.raises(TypeError, match="Use its method save"):
        pickle.dumps(clf)


# -- checkpoints, and processes that are lost ------------------------------------------------------


class FallingSampler(UniformSampler):
    """Ends its process, or raises, in a certain step; after a restart no more."""

    def propose(self, rows, rng):
        left = int(os.environ.get("FALLS_AFTER", -1))
        os.environ["FALLS_AFTER"] = str(left - 1)
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if left == 0 and first and os.environ.get("RANK", "1") == "1":
            if "RANK" not in os.environ:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGKILL)
        return super().propose(rows, rng)


LONG = {
    "sampler": FallingSampler(20), "max_iter": 6, "n_estimators": 2, "early_stopping": True,
    "n_iter_no_change": 10,
}  # fmt: skip


def fit_with_checkpoint(folder, timeout):
    X, Y = data_of("sparse")
    clf = ShardedXMCClassifier(classifier(**LONG, checkpoint=folder / "run"), timeout=timeout)
    try:
        clf.fit(X, Y)
        clf.estimator.set_params(sampler="uniform")  # what a file can name
        clf.save(folder / "model.safetensors")
    except RuntimeError as error:
        (folder / f"error-{os.environ['RANK']}").write_text(str(error))
        sys.exit(7)


@pytest.fixture
def unbroken():
    return classifier(**LONG).fit(*data_of("sparse"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_lost_process_ends_the_others_and_fewer_go_on(tmp_path, unbroken):
    # 4 steps an epoch and member: 8 an epoch; in the fourth.
    before = time.monotonic()
    codes = finish(start(fit_with_checkpoint, 3, tmp_path, 300, FALLS_AFTER=28))
    assert time.monotonic() - before < 200  # without waiting for the timeout
    assert codes == [7, -signal.SIGKILL, 7]
    for rank in (0, 2):
        text = (tmp_path / f"error-{rank}").read_text()
        assert f"Process {rank} of 3 has lost the others in epoch 4 after step 4 of 8" in text
        assert f"from the last checkpoint in {tmp_path / 'run'}" in text
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert len(left) == 4
    assert "checkpoint.npz" in left
    with pytest.raises(ValueError, match="sharded is True there and absent here"):
        classifier(**LONG, checkpoint=tmp_path / "run").fit(*data_of("sparse"))
    # Two go on with the fourth epoch; one falls in the fifth, and both are started again.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    run = subprocess.run(
        [*torchrun, "--max-restarts", "1", "--nproc-per-node", "2", __file__, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FALLS_AFTER": "10"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "in epoch 5 after step 2 of 8" in (tmp_path / "error-0").read_text()
    check_equal(load_model(tmp_path / "model.safetensors"), unbroken, **CLOSE)
    assert not any((tmp_path / "run").iterdir())


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """The folder of a fit by one process, which was interrupted in its fourth epoch."""
    monkeypatch.setenv("FALLS_AFTER", "28")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(KeyboardInterrupt):
        ShardedXMCClassifier(classifier(**LONG, checkpoint=tmp_path)).fit(*data_of("sparse"))
    monkeypatch.setenv("FALLS_AFTER", "-1")
    return tmp_path


def test_one_process_goes_on_to_the_same_bits(interrupted, unbroken, tmp_path_factory):
    clf = ShardedXMCClassifier(classifier(**LONG, checkpoint=interrupted))
    clf.fit(*data_of("sparse"))
    path = tmp_path_factory.mktemp("model") / "model"
    clf.estimator.set_params(sampler="uniform")  # what a file can name
    clf.save(path)
    check_equal(load_model(path), unbroken, rtol=0, atol=0)
    assert not any(interrupted.iterdir())


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "header"])
def test_a_damaged_checkpoint_is_refused_and_left_as_it_is(interrupted, damage):
    (rows,) = interrupted.glob("rows-*.bin")
    if damage == "missing":
        rows.unlink()
    elif damage == "truncated":
        rows.write_bytes(rows.read_bytes()[:-4])
    elif damage == "foreign":
        rows.write_bytes(b"?" * rows.stat().st_size)
    else:
        header = interrupted / "checkpoint.npz"
        header.write_bytes(header.read_bytes()[:-100])
    before = {path.name: path.read_bytes() for path in interrupted.iterdir()}
    with pytest.raises(ValueError, match="is no checkpoint, or damaged"):
        ShardedXMCClassifier(classifier(**LONG, checkpoint=interrupted)).fit(*data_of("sparse"))
    assert {path.name: path.read_bytes() for path in interrupted.iterdir()} == before


def test_an_ordinary_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FALLS_AFTER", "28")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(KeyboardInterrupt):
        classifier(**LONG, checkpoint=tmp_path).fit(*data_of("sparse"))
    with pytest.raises(ValueError, match="sharded is absent there and True here"):
        ShardedXMCClassifier(classifier(**LONG, checkpoint=tmp_path)).fit(*data_of("sparse"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_a_full_disk_is_a_warning_and_the_checkpoint_before_stays(interrupted, monkeypatch):
    """One process; what fails is told to all."""
    before = {path.name: path.read_bytes() for path in interrupted.iterdir()}
    kept = []

    def fail(handle):
        kept.append({path.name for path in interrupted.iterdir()} >= set(before))
        raise OSError("No space left on device")

    monkeypatch.setattr("skxmc._sharded_checkpoint.os.fsync", fail)
    with pytest.warns(UserWarning, match=r"epoch [45] could not be .* No space .* epoch 3 stays"):
        ShardedXMCClassifier(classifier(**LONG, checkpoint=interrupted)).fit(*data_of("sparse"))
    assert kept == [True, True]  # after epochs 4 and 5
    assert not any(interrupted.iterdir())


def test_a_checkpoint_of_another_fit_is_refused(interrupted):
    other = classifier(**LONG | {"dropout": 0.1}, checkpoint=interrupted)
    with pytest.raises(ValueError, match=r"another fit.*dropout is 0.4 there and 0.1 here"):
        ShardedXMCClassifier(other).fit(*data_of("sparse"))
    assert len(list(interrupted.iterdir())) == 2


if __name__ == "__main__":  # as torchrun starts it
    fit_with_checkpoint(Path(sys.argv[1]), 300)
