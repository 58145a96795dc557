"""Matrix products of either library, plain numpy being the truth, and what pads them."""

import copy

import numpy as np
import pytest
import torch

from skxmc import _products
from skxmc._network import Network, Weights
from skxmc._products import add_product, padded, product, shifted_product, widened
from skxmc._shortlist import Shortlist
from skxmc._units import Units

CPU = torch.device("cpu")


@pytest.fixture(params=["torch", "onednn"])
def library(request, monkeypatch):
    """Products by torch's own choice, and by oneDNN as on AMD's processors with AVX-512."""
    if request.param == "onednn":
        if not torch.backends.mkldnn.is_available():
            pytest.skip("this torch has no oneDNN")
        _products._linear()  # under which name it may be
    monkeypatch.setattr(_products, "uses_onednn", lambda: request.param == "onednn")
    return request.param


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (128, 320, 96), (32, 64, 32)])
def test_products_are_those_of_numpy_however_the_memory_lies(library, shape):
    n, k, m = shape
    wide, high = normal(n, k + 3), normal(m, k, seed=1)
    a, b = wide[:, 2 : k + 2], high.T  # a part of a wider table, and a transpose
    exact = a.numpy().astype(float) @ b.numpy().astype(float)
    close = {"rtol": 1e-5, "atol": 1e-5 * k**0.5}
    np.testing.assert_allclose(product(a, b), exact, **close)
    back = exact @ b.numpy().T
    np.testing.assert_allclose(
        product(torch.from_numpy(exact).float(), b.T), back, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(product(b.T, a.T), exact.T, **close)
    out = torch.ones(n, m + 4)[:, 4:]
    assert add_product(out, a, b) is out
    np.testing.assert_allclose(out, exact + 1, **close)
    bias = normal(m, seed=2)
    shifted_product(bias, a, b, out)
    np.testing.assert_allclose(out, exact + bias.numpy(), **close)


@pytest.mark.parametrize("n_rows", [3, 32])
def test_columns_beyond_the_bias_are_left_out(library, n_rows):
    a, b, out = normal(n_rows, 32), normal(32, 64, seed=1), torch.empty(n_rows, 9)
    shifted_product(torch.ones(9), a, b, out)
    np.testing.assert_allclose(out, a.numpy() @ b.numpy()[:, :9] + 1, rtol=1e-5, atol=1e-5)


def test_equal_products_have_equal_bits(library):
    a, b = normal(128, 64), normal(64, 96, seed=1)
    assert all(torch.equal(product(a, b), product(a.clone(), b.clone())) for _ in range(5))


def test_widened_puts_zeros_behind(library):
    matrix = normal(3, 5)
    assert widened(matrix, 5) is matrix
    out = widened(matrix, 8)
    assert out.shape == (3, 8)
    assert torch.equal(out[:, :5], matrix)
    assert not out[:, 5:].any()


def test_shapes_that_change_are_few_where_code_is_compiled_for_each(library):
    one_dnn = library == "onednn"
    assert [padded(n, CPU, "float32") for n in (1, 32, 33)] == (
        [32, 32, 64] if one_dnn else [1, 32, 33]
    )
    assert [padded(n, CPU, "bfloat16") for n in (1, 32, 33)] == [32, 32, 64]
    assert padded(33, torch.device("cuda"), "bfloat16") == 33


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_rows", [6, 32])
@pytest.mark.parametrize("n_shared", [1, 31, 32, 45])
@pytest.mark.parametrize("spans", [[[0, 64]], [[0, 16], [40, 56]]], ids=["all units", "some"])
def test_a_step_on_shared_labels_is_that_of_numpy(library, spans, n_shared, n_rows, compute_dtype):
    """Forward and backward; zeros behind the labels neither score nor learn."""
    rng = np.random.default_rng(0)
    n_labels, width, rate = 50, 64, 0.3
    weights = Weights(
        np.ones((2, width), np.float32), [], [np.zeros(width, np.float32)],
        rng.standard_normal((n_labels, width), dtype=np.float32),
        rng.standard_normal(n_labels, dtype=np.float32),
    )  # fmt: skip
    network = Network(copy.deepcopy(weights), compute_dtype=compute_dtype)
    network.labels.prepare_training()
    before = network.labels.squares.numpy().copy(), network.labels.bias_squares.numpy().copy()
    units = Units(np.array(spans, np.uint64), sum(b - a for a, b in spans))
    part = network if units.n == width else network.of_units([units])
    columns = units.columns
    hidden, gradient = normal(n_rows, units.n), normal(n_rows, n_shared, seed=1)
    shared = rng.permutation(n_labels)[:n_shared].astype(np.int32)
    ones, none = np.ones((n_rows, n_shared), np.float32), np.zeros((n_rows, 0), np.int32)
    shortlist = Shortlist(none, shared, 0, ones, np.zeros(n_shared), [])
    table = weights.labels[shared][:, columns]
    close = {"rtol": 1e-4, "atol": 1e-4}
    if compute_dtype == "bfloat16":
        close = {"rtol": 0.05, "atol": 0.25}
    scores = part.scores(hidden, shortlist)
    expected = hidden.numpy() @ table.T + weights.label_biases[shared]
    np.testing.assert_allclose(scores, expected, **close)
    back = part.update_labels(hidden, gradient, shortlist, rate)
    np.testing.assert_allclose(back, gradient.numpy() @ table, **close)

    slopes = gradient.numpy().T @ hidden.numpy()  # (n_shared, units.n)
    squares, bias_squares = before
    squares[shared] += (slopes**2).sum(1) / width
    after = weights.labels.copy()
    after[np.ix_(shared, columns)] -= rate * slopes / np.sqrt(squares[shared])[:, None]
    np.testing.assert_allclose(network.weights().labels, after, **close)
    np.testing.assert_allclose(network.labels.squares, squares, rtol=close["rtol"])
    slopes = gradient.numpy().sum(0)
    bias_squares[shared] += slopes**2
    biases = weights.label_biases.copy()
    biases[shared] -= rate * slopes / np.sqrt(bias_squares[shared])
    np.testing.assert_allclose(network.weights().label_biases, biases, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(network.labels.bias_squares, bias_squares, rtol=1e-4)


@pytest.mark.parametrize(
    ("cpu_info", "processor", "capability", "expected"),
    [
        ("vendor_id : AuthenticAMD", "", "AVX512", True),
        ("vendor_id : AuthenticAMD", "", "AVX2", False),
        ("vendor_id : GenuineIntel", "", "AVX512", False),
        (None, "AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", "AVX512", True),
        (None, "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", "AVX512", False),
        (None, "arm", "DEFAULT", False),
        (OSError, "", "AVX512", False),
    ],
)
def test_the_processor_decides(monkeypatch, cpu_info, processor, capability, expected):
    def read(path):
        if cpu_info is OSError:
            raise OSError
        return cpu_info

    monkeypatch.setattr(_products.Path, "exists", lambda path: cpu_info is not None)
    monkeypatch.setattr(_products.Path, "read_text", read)
    monkeypatch.setattr(_products.platform, "processor", lambda: processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    decide = _products.uses_onednn.__wrapped__
    assert decide() is (expected and torch.backends.mkldnn.is_available())

    def missing(a, b):
        raise AttributeError

    monkeypatch.setattr(_products, "_onednn", missing)
    assert decide() is False


def test_onednn_multiplies_few_shapes_only(monkeypatch):
    """It compiles code for each, and keeps it: 600 MB where each number of rows was another."""
    shapes = []

    def record(a, b):
        shapes.append((*a.shape, b.shape[1]))
        return a @ b

    monkeypatch.setattr(_products, "uses_onednn", lambda: True)
    monkeypatch.setattr(_products, "_onednn", record)
    for n in range(1, 100):
        product(normal(n, 64), normal(64, 32))
        product(normal(64, n), normal(n, 32))
        product(normal(64, 32), normal(32, n))
    sizes = [(n, 64, 32) for n in (32, 64, 96)], [(64, n, 32) for n in (32, 64, 96)]
    assert set(shapes) == {*sizes[0], *sizes[1], *((64, 32, n) for n in (32, 64, 96))}
    assert product(normal(64, 0), normal(0, 32)).eq(0).all()
