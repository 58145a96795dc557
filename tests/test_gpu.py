"""What a GPU is for: the same results, no waiting for it, blocks of all labels, its memory.

Where there is none, the same code runs on the CPU (`TorchEnds`), or without numbers (torch's "meta"
device, on which reading a number is an error, as waiting for one on a GPU would be).
"""

import copy
import pickle
import re
import runpy
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone

from skxmc import (
    XMCClassifier,
    _all_labels,
    _checkpoint,
    _device_memory,
    _ends,
    _network,
    _shortlist,
    _training,
)
from skxmc._all_labels import Positives
from skxmc._checkpoint import CheckpointFile, describe
from skxmc._device_memory import Need
from skxmc._ends import CompiledEnds, Rows, TorchEnds
from skxmc._inputs import find_device
from skxmc._network import Network, Weights
from skxmc._training import Trainer
from skxmc.datasets import make_xmc
from skxmc.losses import (
    BinaryCrossEntropy,
    DecoupledSoftmax,
    Loss,
    OrderedWeightedLoss,
    SampledSoftmax,
    SquaredHinge,
)
from skxmc.metrics import precision_at_k
from skxmc.samplers import FullSampler, Problem, make_sampler

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
CLOSE = {"rtol": 1e-3, "atol": 1e-5}
N_LABELS = 40
BY_BLOCKS = [
    BinaryCrossEntropy(),
    BinaryCrossEntropy(label_smoothing=0.1),
    SquaredHinge(),
    SampledSoftmax(),
    DecoupledSoftmax(),
]


@pytest.fixture(scope="module")
def data():
    X, Y = make_xmc(600, 300, N_LABELS, random_state=0)
    return X[:400], Y[:400], X[400:], Y[400:]


def xmc(sampler="full", loss="bce", **parameters):
    settings = {
        "hidden_layer_sizes": (16,), "n_estimators": 1, "max_iter": 3, "n_jobs": 1,
        "tail_bias": 0.0, "device": "cpu", "random_state": 0,
    }  # fmt: skip
    return XMCClassifier(sampler, loss, **settings | parameters)


@pytest.fixture
def torch_ends(monkeypatch):
    """Fit on the CPU by the code of a GPU."""
    monkeypatch.setattr(_network, "CompiledEnds", TorchEnds)


def make_trainer(
    sampler, loss, device="cpu", ends=None, dense=False, n_labels=N_LABELS, sizes=(8, 6), **more
):
    """Rows of 0 to n_labels labels, and weights of a size at which no gradient is negligible."""
    rng = np.random.default_rng(0)
    Y = np.zeros((30, n_labels), np.float32)
    for i in range(29):
        Y[i, rng.choice(n_labels, i % 7, replace=False)] = 1
    Y[28] = 1
    Y = sp.csr_array(Y)
    X = rng.standard_normal((30, 15)).astype(np.float32) * (rng.random((30, 15)) < 0.5)
    weights = Weights.initial(15, sizes, rng.standard_normal(n_labels), rng, residual=True)
    for table in (weights.features, weights.labels):
        table[:] = 0.5 * rng.standard_normal(table.shape)
    problem = Problem(
        Rows.of(Y, values=False), np.bincount(Y.indices, minlength=n_labels), batch_size=12
    )
    network = Network(weights, device, **more)
    network.ends = ends() if ends else network.ends
    trainer = Trainer(
        network, X if dense else Rows.of(sp.csr_array(X)), problem,
        make_sampler(sampler).begin(problem), clone(loss).begin(problem),
        n_epochs=1, learning_rate=0.3, dropout=0.3,
        positive_weights=rng.random(n_labels, dtype=np.float32) + np.float32(0.5),
    )  # fmt: skip
    return trainer


def arrays(trainer):
    """All that a step may have moved."""
    return [a.detach().cpu().float().numpy() for a in trainer._tensors()]


# --- all labels, by blocks ------------------------------------------------------------------------


def one_step(by_blocks, loss, ends=None, max_positives=None, **parameters):
    trainer = make_trainer("full", loss, ends=ends, **parameters)
    assert trainer.by_blocks
    trainer.by_blocks = by_blocks
    trainer.max_positives = max_positives or trainer.max_positives
    before = copy.deepcopy(arrays(trainer))
    sums = trainer.step(trainer.workers[0], np.array([3, 28, 0, 12, 29, 6, 7, 20]), 0)
    return [float(a) for a in sums], arrays(trainer), before


@pytest.mark.parametrize("cells", [8 * 7, 2**18], ids=["six blocks", "one block"])
@pytest.mark.parametrize("ends", [CompiledEnds, TorchEnds])
@pytest.mark.parametrize("loss", BY_BLOCKS, ids=repr)
def test_a_step_by_blocks_is_the_step_on_all_scores(loss, ends, cells, monkeypatch):
    monkeypatch.setitem(_device_memory._CELLS, "cpu", cells)
    assert _device_memory.block_size(8, 6, torch.device("cpu")) == cells // 8
    for max_positives in (None, 3):
        expected, wanted, before = one_step(False, loss, ends, max_positives)
        sums, found, _ = one_step(True, loss, ends, max_positives)
        np.testing.assert_allclose(sums, expected, rtol=1e-5)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, **CLOSE)
        moved = [abs(a - b).max() for a, b in zip(wanted, before, strict=True) if a.size]
        assert sum(m > 1e-3 for m in moved) >= 10


def test_rows_without_labels_and_of_all_labels_have_their_mask():
    Y = sp.csr_array(np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0]], np.float32))
    positives = Positives(Rows.of(Y, values=False), np.array([2, 0, 1]), torch.device("cpu"))
    assert positives.n == 4
    for block in (slice(0, 3), slice(0, 2), slice(1, 2), slice(2, 3)):
        expected = 1 - Y.toarray()[[2, 0, 1], block]
        np.testing.assert_array_equal(positives.mask(block), expected)


class Own(Loss):
    """A loss of a user, that says nothing of its negatives."""

    def forward(self, scores, targets, weights):
        return (weights * (scores - targets) ** 2).sum()


@pytest.mark.parametrize("loss", [Own(), OrderedWeightedLoss(k=2)], ids=repr)
def test_a_loss_that_cannot_be_cut_gets_all_scores_at_once(loss, monkeypatch):
    trainer = make_trainer("full", loss)
    shapes = []
    forward = type(loss).forward

    def record(self, scores, *args):
        shapes.append(tuple(scores.shape))
        return forward(self, scores, *args)

    monkeypatch.setattr(type(loss), "forward", record)
    trainer.step(trainer.workers[0], np.array([0, 1, 3]), 0)
    assert shapes == [(3, 3 + N_LABELS)]  # three positives at most


def test_a_sum_with_the_full_sampler_takes_the_shortlist():
    assert not make_trainer(FullSampler() + make_sampler("uniform"), BinaryCrossEntropy()).by_blocks


def test_a_network_of_some_of_the_labels_takes_the_shortlist(monkeypatch):
    monkeypatch.setattr(Network, "divided", True)  # as where processes share a table
    assert not make_trainer("full", BinaryCrossEntropy()).by_blocks


def test_no_tensor_of_a_step_has_a_place_for_each_row_and_label(monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    n_labels, most = 5000, []

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            most.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    monkeypatch.setitem(_device_memory._CELLS, "cpu", 12 * 500)
    for loss in BY_BLOCKS:
        most.clear()
        trainer = make_trainer("full", loss, ends=TorchEnds, n_labels=n_labels, sizes=(4,))
        with Largest():
            trainer.step(trainer.workers[0], np.arange(12), 0)
        # The table itself is the largest; no scores, targets or weights of all labels.
        assert max(most) == n_labels * 4 < 12 * n_labels


# --- the code of a GPU, on the CPU ----------------------------------------------------------------

FITS = [
    ("full", "bce", {}),
    ("full", "squared-hinge", {"n_estimators": 2}),
    ("full", "decoupled-softmax", {"residual": True}),
    ("full", "owl", {}),
    ("uniform", "softmax", {"hidden_layer_sizes": (16, 8)}),
    ("mips+uniform", "bce", {}),
    ("clustered-in-batch+uniform", "bce", {"dropout": 0.2}),
    ("snm", "owl", {}),
    ("label-embedding", "bce", {"residual": True, "late_fusion": 0.5}),
]


@pytest.mark.parametrize(("sampler", "loss", "parameters"), FITS)
def test_the_code_of_a_gpu_gives_the_results_of_the_compiled_loops(
    data, sampler, loss, parameters, monkeypatch
):
    X, Y, X_test, _ = data
    first = xmc(sampler, loss, **parameters).fit(X, Y)
    monkeypatch.setattr(_network, "CompiledEnds", TorchEnds)
    other = xmc(sampler, loss, **parameters).fit(X, Y)
    np.testing.assert_allclose(other.loss_curve_, first.loss_curve_, rtol=1e-3)
    np.testing.assert_allclose(other.hardness_curve_, first.hardness_curve_, rtol=1e-2)
    if first.active_fraction_ is not None:
        np.testing.assert_allclose(other.active_fraction_, first.active_fraction_, rtol=1e-2)
    np.testing.assert_allclose(
        other.decision_function(X_test), first.decision_function(X_test), atol=0.05
    )


def test_losses_are_fetched_once_in_a_while(data, torch_ends, monkeypatch):
    X, Y, *_ = data
    asked = []
    numbers = _training.numbers
    monkeypatch.setattr(_training, "numbers", lambda new: asked.append(len(new)) or numbers(new))
    monkeypatch.setattr(_training, "WAIT_AFTER", 20)
    xmc("uniform", max_iter=1, batch_size=8).fit(X, Y)
    assert asked == [20, 20, 10]


def test_a_loss_that_explodes_is_noticed_though_the_host_runs_ahead(data, torch_ends):
    X, Y, *_ = data
    with pytest.raises(ValueError, match="Training diverged in epoch 1"):
        xmc(learning_rate_init=1e30, max_iter=2).fit(X, Y)


# --- no waiting -----------------------------------------------------------------------------------


@pytest.fixture
def no_numbers(monkeypatch):
    """Let training run on torch's "meta" device: shapes without numbers, none of which is read."""
    for module in (_ends, _network, _training, _all_labels, _shortlist):
        monkeypatch.setattr(module, "move", lambda a, device: torch.as_tensor(a).to(device))
    monkeypatch.setitem(_device_memory._CELLS, "meta", 100)


WAITLESS = [("full", loss) for loss in BY_BLOCKS] + [
    ("uniform", BinaryCrossEntropy()),
    ("frequency", SquaredHinge()),
    ("in-batch+uniform", SampledSoftmax()),
    ("snm+uniform", BinaryCrossEntropy()),
]


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("sampler", "loss"), WAITLESS, ids=repr)
def test_a_step_reads_no_number_of_the_device(sampler, loss, dense, compute_dtype, no_numbers):
    trainer = make_trainer(sampler, loss, "meta", dense=dense, compute_dtype=compute_dtype)
    assert isinstance(trainer.network.ends, TorchEnds)
    n_rows, value, hardness, *_ = trainer.step(trainer.workers[0], np.arange(12), 0)
    assert value.device.type == hardness.device.type == "meta"
    assert n_rows == 12


def test_what_does_read_numbers_is_found_out(no_numbers):
    """And is what the documentation names: the loss that sorts."""
    trainer = make_trainer("full", OrderedWeightedLoss(), "meta")
    with pytest.raises((NotImplementedError, RuntimeError), match=r"(?i)meta"):
        trainer.step(trainer.workers[0], np.arange(12), 0)


# --- bfloat16 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("sampler", ["full", "uniform"])
def test_a_step_in_bfloat16_is_near_that_in_float32_and_keeps_float32(sampler, dense):
    found = {}
    for dtype in ("float32", "bfloat16"):
        trainer = make_trainer(sampler, BinaryCrossEntropy(), dense=dense, compute_dtype=dtype)
        before = copy.deepcopy(arrays(trainer))
        loss = trainer.step(trainer.workers[0], np.arange(12), 0)[1]
        assert {a.dtype for a in trainer._tensors()} == {torch.float32}
        found[dtype] = loss, [a - b for a, b in zip(arrays(trainer), before, strict=True)]
    assert found["bfloat16"][0] == pytest.approx(found["float32"][0], rel=0.01)
    assert found["bfloat16"][0] != found["float32"][0]
    for exact, near in zip(found["float32"][1], found["bfloat16"][1], strict=True):
        assert np.linalg.norm(near - exact) <= 0.03 * np.linalg.norm(exact)


def test_a_fit_in_bfloat16_predicts_as_well_and_leaves_torch_as_it_is():
    X, Y = make_xmc(3000, 300, N_LABELS, random_state=0)
    X, Y, X_test, Y_test = X[:1000], Y[:1000], X[1000:], Y[1000:]

    def settings():
        return (
            torch.get_float32_matmul_precision(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
            torch.get_default_dtype(),
            torch.is_autocast_enabled("cpu"),
        )

    before = settings()
    fits = [
        xmc(max_iter=10, compute_dtype=dtype, hidden_layer_sizes=(32, 16)).fit(X, Y)
        for dtype in ("float32", "bfloat16")
    ]
    assert settings() == before
    exact, near = (precision_at_k(Y_test, clf.predict_topk(X_test, 1)[0], k=1) for clf in fits)
    assert exact > 0.3
    assert near == pytest.approx(exact, abs=0.06)
    assert fits[1].label_weights_.dtype == np.float32
    assert not np.array_equal(fits[0].label_weights_, fits[1].label_weights_)


def test_another_compute_dtype_is_refused(data):
    with pytest.raises(ValueError, match=r"'compute_dtype' parameter.*'bfloat16'"):
        xmc(compute_dtype="float16").fit(*data[:2])


def test_pickles_from_before_there_was_a_compute_dtype_have_float32(data):
    clf = xmc().fit(*data[:2])
    state = clf.__getstate__()
    del state["compute_dtype"]
    old = XMCClassifier.__new__(XMCClassifier)
    old.__setstate__(state)
    assert old.get_params()["compute_dtype"] == "float32"
    assert old.fit(*data[:2]).compute_dtype == "float32"


def test_checkpoints_from_before_there_was_a_compute_dtype_go_on(data, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(self, epoch, state):
        save(self, epoch, state)
        raise Stop

    def describe_as_then(parameters, prefix=""):
        parameters = {name: v for name, v in parameters.items() if name != "compute_dtype"}
        return describe(parameters, prefix)

    X, Y, *_ = data
    expected = xmc().fit(X, Y)
    clf = xmc(checkpoint=tmp_path)
    save = CheckpointFile.save
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFile, "save", stop)
        patch.setattr(_checkpoint, "describe", describe_as_then)
        with pytest.raises(Stop):
            clf.fit(X, Y)
    with pytest.raises(ValueError, match=r"compute_dtype is 'float32' there and 'bfloat16' here"):
        clone(clf).set_params(compute_dtype="bfloat16").fit(X, Y)
    clf.fit(X, Y)
    np.testing.assert_array_equal(clf.label_weights_, expected.label_weights_)


# --- which device ---------------------------------------------------------------------------------


@contextmanager
def gpus(monkeypatch, n, free=10**12):
    """As if there were so many GPUs, of so many free bytes."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: n > 0)
        patch.setattr(torch.cuda, "device_count", lambda: n)
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, 10**12))
        patch.setattr(torch.cuda, "memory_reserved", lambda device=None: 0)
        patch.setattr(torch.cuda, "memory_allocated", lambda device=None: 0)
        yield


def test_devices_are_found_by_name(monkeypatch):
    with gpus(monkeypatch, 2):
        assert find_device("auto") == "cuda"
        for name in ("cpu", "cuda", "cuda:0", "cuda:1"):
            assert find_device(name) == name
        with pytest.raises(ValueError, match=r"'cuda:2' does not exist.*'cuda:0', 'cuda:1'\."):
            find_device("cuda:2")
    with gpus(monkeypatch, 0):
        assert find_device("auto") == "cpu"
        with pytest.raises(ValueError, match=r"no GPU here.*clf\.set_params\(device='auto'\)"):
            find_device("cuda")


def test_a_model_fitted_on_a_gpu_predicts_where_there_is_none(data):
    X, Y, X_test, _ = data
    clf = xmc().fit(X, Y)
    expected = clf.predict_topk(X_test)
    clf.device = "cuda"  # as if it had been fitted there: its arrays are numpy's
    again = pickle.loads(pickle.dumps(clf))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"clf\.set_params\(device='auto'\)"):
            again.predict_topk(X_test)
    found = again.set_params(device="cpu").predict_topk(X_test)
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_neighbours_vote_as_on_the_cpu(data, device, monkeypatch):
    """By the code of a GPU, and on one where there is one."""
    X, Y, X_test, _ = data
    parameters = {"sampler": "in-batch", "neighbor_weight": 0.3, "n_estimators": 2}
    clf = xmc(**parameters).fit(X, Y)
    expected = clf.predict_topk(X_test, 10)
    monkeypatch.setattr(_network, "CompiledEnds", TorchEnds)
    again = pickle.loads(pickle.dumps(clf)).set_params(device=device)
    labels, scores = again.predict_topk(X_test, 10)
    assert (labels == expected[0]).mean() > 0.99  # near ties
    np.testing.assert_allclose(np.sort(scores), np.sort(expected[1]), rtol=1e-3, atol=1e-3)
    one = again.predict_topk(X_test[:1], 10)
    np.testing.assert_allclose(one[1], scores[:1], rtol=1e-3, atol=1e-3)
    kept = xmc(device=device, **parameters).fit(X, Y)  # seen by a GPU, and kept here
    assert kept.neighbor_vectors_.shape == clf.neighbor_vectors_.shape
    assert kept.neighbor_weight_ == 0.3
    assert isinstance(kept.neighbor_axes_, np.ndarray)


# --- out of memory --------------------------------------------------------------------------------

NEED = Need("cuda", 10_000, 670_000, (512,), 2, 128, 50, False, True, True, False)


def test_a_fit_that_cannot_fit_is_refused_before_it_begins_and_told_what_would(data, monkeypatch):
    X, Y, *_ = data
    clf = xmc(device="cuda", hidden_layer_sizes=(512,), n_estimators=2)
    with (
        gpus(monkeypatch, 1, free=3_000_000),
        pytest.raises(MemoryError, match=r"device='cuda' has 3.0 MB free.*would fit: hidden_layer"),
    ):
        clf.fit(X, Y)
    assert not hasattr(clf, "label_weights_")


def test_the_bytes_of_the_tables_are_those_of_the_arrays():
    trainer = make_trainer("full", BinaryCrossEntropy(), sizes=(8, 6))
    need = Need("cuda", 15, N_LABELS, (8, 6), 3, 12, 8, False, True, True, False)
    net = trainer.network
    tables = (net.features.weights, net.labels.weights, net.labels.biases, *net.hidden_weights)
    assert need.parts()[0] == 3 * sum(a.nbytes for a in tables)
    squares = [*trainer._table_squares(), trainer.workers[0].squares[0]]
    assert need.parts()[1] == 3 * sum(a.nbytes for a in squares)


def test_what_is_said_to_fit_does_and_no_more_would():
    free = 25 * 10**8
    width, members = NEED.smaller(free)  # no batch is small enough
    assert members == "n_estimators=1"
    width = int(width.removeprefix("hidden_layer_sizes=(").removesuffix(",)"))

    def fits(width):
        return sum(_device_memory.replace(NEED, sizes=(width,)).parts()) <= free

    assert fits(width)
    assert not fits(width + 1)
    assert "Not even one hidden unit would fit: use device='cpu'" in NEED.explain(10**6)
    assert "batch_size=64" in NEED.explain(10**12)


@pytest.mark.parametrize("where", ["train", "predict"])
def test_memory_that_runs_out_is_an_error_that_says_what_would_fit(data, monkeypatch, where):
    X, Y, X_test, _ = data
    clf = xmc(hidden_layer_sizes=(512,))
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    def fail(*args, **kwargs):
        raise error

    if where == "predict":
        clf.fit(X, Y)
        monkeypatch.setattr(Network, "hidden", fail)
        match = r"device='cpu' has 1.0 MB free for this model, which needs .* MB.*set_params"
        call = clf.predict_topk
    else:
        monkeypatch.setattr(Network, "embed", fail)
        match = r"device='cpu' has 1.0 MB free for this fit, which needs about .* MB.*would fit"
        call = lambda X: clf.fit(X, Y)  # noqa: E731
    with gpus(monkeypatch, 0, free=1_000_000), pytest.raises(MemoryError, match=match) as caught:
        call(X_test if where == "predict" else X)
    assert caught.value.__cause__ is error
    if where == "predict":
        with gpus(monkeypatch, 0, free=10**6), pytest.raises(MemoryError, match="set_params"):
            clf.decision_function(X_test)


# --- the example ----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_the_example_prints_rates_and_precisions(device, capsys):
    path = Path(__file__).resolve().parents[1] / "examples" / "scale" / "gpu.py"
    runpy.run_path(str(path))["main"](
        f"--device {device} --labels 300 500 --width 8 --batch 32 --steps 4 --tflops 1".split()
    )
    printed = capsys.readouterr().out
    lines = re.findall(r"^ +(300|500)  (float32|bfloat16) +([\d,]+) samples/s", printed, re.M)
    assert len(lines) == 4
    scores = re.findall(rf"^(?:cpu|{device}) +\S+ +P@1 ([\d.]+)", printed, re.M)
    assert len(scores) == (2 if device == "cpu" else 3)
    assert max(map(float, scores)) - min(map(float, scores)) < 4
    assert min(map(float, scores)) > 50


# --- on a GPU -------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize(("sampler", "loss", "parameters"), FITS)
def test_a_gpu_gives_the_results_of_the_cpu(data, sampler, loss, parameters):
    X, Y, X_test, _ = data
    first = xmc(sampler, loss, **parameters).fit(X, Y)
    other = xmc(sampler, loss, device="cuda", **parameters).fit(X, Y)
    np.testing.assert_allclose(other.loss_curve_, first.loss_curve_, rtol=0.01)
    np.testing.assert_allclose(
        other.decision_function(X_test), first.decision_function(X_test), atol=0.1
    )
    again = pickle.loads(pickle.dumps(other))
    assert isinstance(again.label_weights_, np.ndarray)
    np.testing.assert_allclose(
        again.set_params(device="cpu").decision_function(X_test),
        other.decision_function(X_test),
        atol=1e-3,
    )


@needs_gpu
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("sampler", "loss"), WAITLESS, ids=repr)
def test_a_step_on_a_gpu_waits_for_nothing(sampler, loss, dense, compute_dtype):
    trainer = make_trainer(sampler, loss, "cuda", dense=dense, compute_dtype=compute_dtype)
    worker, rows = trainer.workers[0], np.arange(12)
    trainer.step(worker, rows, 0)  # what is set up once may wait
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(worker, rows, 0)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@needs_gpu
def test_all_labels_by_blocks_take_the_memory_that_is_foretold():
    n_labels, width = 100_000, 64
    torch.cuda.empty_cache()
    trainer = make_trainer("full", BinaryCrossEntropy(), "cuda", n_labels=n_labels, sizes=(width,))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer.step(trainer.workers[0], np.tile(np.arange(30), 40), 0)
    need = Need("cuda", 15, n_labels, (width,), 1, 1200, 8, False, True, True, False)
    assert torch.cuda.max_memory_allocated() - before < need.parts()[2]


@needs_gpu
def test_a_gpu_that_is_too_small_says_so(data):
    X, Y, *_ = data
    with pytest.raises(MemoryError, match="What would fit: hidden_layer_sizes="):
        xmc(device="cuda", hidden_layer_sizes=(10**9,)).fit(X, Y)
