"""Matrix products of either library, plain numpy being the truth, and what pads them."""

import copy

import numpy as np
import pytest
import torch

from skxmc import _products
from skxmc._network import Network, Weights
from skxmc._products import add_product, padded, product, shifted_product, widened
from skxmc._shortlist import Shortlist

CPU = torch.device("cpu")


@pytest.fixture(params=["torch", "onednn"])
def library(request, monkeypatch):
    """Products by torch's own choice, and by oneDNN as on AMD's processors with AVX-512."""
    if request.param == "onednn":
        try:
            _products._onednn(torch.ones(1, 1), torch.ones(1, 1))
        except (AttributeError, RuntimeError):
            pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(_products, "uses_onednn", lambda: request.param == "onednn")
    return request.param


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (128, 307, 96), (2, 1, 64)])
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


def test_columns_beyond_the_bias_are_left_out(library):
    if library == "torch":
        pytest.skip("it pads nothing")
    a, b, out = normal(3, 5), normal(5, 32, seed=1), torch.empty(3, 9)
    shifted_product(torch.ones(9), a, b, out)
    np.testing.assert_allclose(out, a.numpy() @ b.numpy()[:, :9] + 1, rtol=1e-5, atol=1e-5)


def test_equal_products_have_equal_bits(library):
    a, b = normal(100, 60), normal(60, 90, seed=1)
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
@pytest.mark.parametrize("n_shared", [1, 31, 32, 45])
def test_a_step_on_shared_labels_is_that_of_numpy(library, n_shared, compute_dtype):
    """Forward and backward; zeros behind the labels neither score nor learn."""
    rng = np.random.default_rng(0)
    n_labels, width, rate = 50, 16, 0.3
    weights = Weights(
        np.ones((2, width), np.float32), [], [np.zeros(width, np.float32)],
        rng.standard_normal((n_labels, width), dtype=np.float32),
        rng.standard_normal(n_labels, dtype=np.float32),
    )  # fmt: skip
    network = Network(copy.deepcopy(weights), compute_dtype=compute_dtype)
    network.labels.prepare_training()
    squares = network.labels.squares.numpy().copy()
    hidden, gradient = normal(6, width), normal(6, n_shared, seed=1)
    shared = rng.permutation(n_labels)[:n_shared].astype(np.int32)
    none = np.zeros((6, 0), np.int32)
    shortlist = Shortlist(
        none, shared, 0, np.ones((6, n_shared), np.float32), np.zeros(n_shared), []
    )
    table = weights.labels[shared]
    close = (
        {"rtol": 1e-4, "atol": 1e-4} if compute_dtype == "float32" else {"rtol": 0.05, "atol": 0.1}
    )
    scores = network.scores(hidden, shortlist)
    expected = hidden.numpy() @ table.T + weights.label_biases[shared]
    np.testing.assert_allclose(scores, expected, **close)
    back = network.update_labels(hidden, gradient, shortlist, rate)
    np.testing.assert_allclose(back, gradient.numpy() @ table, **close)
    part = gradient.numpy().T @ hidden.numpy()
    step = rate / np.sqrt(squares[shared] + (part**2).mean(1))[:, None]
    after = weights.labels.copy()
    after[shared] -= step * part
    np.testing.assert_allclose(network.weights().labels, after, **close)


def test_the_processor_decides_and_not_the_clock():
    assert {_products.uses_onednn.__wrapped__() for _ in range(5)} == {_products.uses_onednn()}
