"""Exact search in 8 bits: bounds that hold, and results that do not depend on the way."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_index import assert_same_topk, integers, label_rows, slow_topk

from skxmc._index import ExactIndex, _exact, _kernels, int8_is_fast


def has_int8():
    try:
        torch._int_mm(torch.ones(1, 1, dtype=torch.int8), torch.ones(1, 1, dtype=torch.int8))
    except (AttributeError, RuntimeError):
        return False
    return True


needs_int8 = pytest.mark.skipif(not has_int8(), reason="this torch has no 8-bit product")
WAYS = [pytest.param(True, id="int8", marks=needs_int8), pytest.param(False, id="float32")]


def force(monkeypatch, int8):
    """One way, whatever is faster here, and from the first row on."""
    monkeypatch.setattr(_exact, "int8_is_fast", lambda: int8)
    monkeypatch.setattr(_exact, "_ENOUGH", 0)


@pytest.fixture(params=WAYS)
def int8(request, monkeypatch):
    """Both ways."""
    force(monkeypatch, request.param)
    return request.param


def reals(rng, n, n_labels, width, scale=1.0):
    """Hidden vectors as after a ReLU, label vectors of many lengths, log-odds for biases."""
    hidden = np.maximum(rng.normal(size=(n, width)), 0)
    weights = rng.normal(size=(n_labels, width)) * rng.lognormal(size=(n_labels, 1)) * scale
    biases = rng.normal(-8, 2, n_labels) * scale
    return [torch.from_numpy(a.astype(np.float32)) for a in (hidden, weights, biases)]


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("coded", [True, False])
@given(
    width=st.sampled_from([1, 2, 7, 64]),
    scale=st.sampled_from([1e-30, 1e-12, 1.0, 1e4]),
    shift=st.sampled_from([0.0, 1.0, -3.0, 1000.0]),
    seed=st.integers(0, 2**16),
)
def test_bounds_hold(coded, width, scale, shift, seed):
    """What 8 bits say of a score, plus and minus what they may lose, contains the score."""
    rng = np.random.default_rng(seed)
    hidden, weights, biases = (a.numpy() for a in reals(rng, 6, 9, width, scale))
    hidden += np.float32(shift)
    hidden[0], weights[0], biases[:2] = 0, 0, (-1e30, 0)
    hidden[1], weights[1] = 3, -2  # all alike
    codes = [np.empty((len(a) if coded else 0, width), np.int8) for a in (hidden, weights)]
    queries, terms = np.empty((6, 4), np.float32), np.empty((6, 9), np.float32)
    _kernels.encode_queries(hidden, codes[0], queries)
    _kernels.encode_labels(weights, biases, codes[1], terms)
    scores = hidden.astype(float) @ weights.astype(float).T + biases
    if coded:
        products = codes[0].astype(np.int32) @ codes[1].astype(np.int32).T
        assert codes[1].min() >= -127
    else:
        products = hidden @ weights.T
    middle = queries[:, [0]] * (products.astype(np.float32) * terms[0]) + queries[:, [1]] * terms[1]
    loss = queries[:, [3]] * terms[2] + queries[:, [2]] * terms[3]
    assert (middle + terms[4] + loss >= scores).all()
    assert (middle + terms[5] - loss <= scores).all()
    if coded and width == 64 and scale >= 1 and not shift:  # and are of use
        lengths = np.linalg.norm(hidden, axis=1)[:, None] * np.linalg.norm(weights, axis=1)
        assert (loss <= 0.05 * lengths + 1e-6 * abs(biases) + 1e-10).all()


@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=40),
    k=st.integers(1, 10),
)
def test_reached_is_close_below_the_kth_value(values, k):
    values = np.array(values, np.float32)
    got = _kernels._reached(values, np.empty(len(values), np.int32), k)
    ranked = np.sort(np.where(np.isnan(values), -np.inf, values))[::-1]
    kth = ranked[k - 1] if k <= len(values) else -np.inf
    assert got <= kth
    if np.isfinite(kth):
        assert got >= float(kth) - 1e-3 * abs(float(kth)) - 1e-36


@given(marks=st.lists(st.booleans(), min_size=1, max_size=50))
def test_gather_finds_the_marks(marks):
    padded = np.zeros(-(-len(marks) // 8) * 8, np.uint8)
    padded[: len(marks)] = marks
    places = np.empty(len(padded) + 1, np.int32)
    n = _kernels._gather(padded, padded.view(np.uint64), places)
    assert places[:n].tolist() == np.flatnonzero(marks).tolist()


# --- the search -----------------------------------------------------------------------------------


@pytest.mark.parametrize("int8", WAYS)
@given(
    n=st.integers(1, 20),
    n_labels=st.integers(1, 30),
    width=st.integers(1, 3),
    k=st.integers(1, 35),
    density=st.sampled_from([None, 0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_both_ways_are_a_stable_argsort(int8, n, n_labels, width, k, density, seed):
    rng = np.random.default_rng(seed)
    problem = integers(rng, n, width), integers(rng, n_labels, width), integers(rng, n_labels)
    exclude = rows = None
    if density is not None:
        exclude, rows = label_rows(n, n_labels, density, rng), rng.permutation(n)
    index = ExactIndex().build(*problem[1:])
    with pytest.MonkeyPatch.context() as patch:
        force(patch, int8)
        got = index.topk(problem[0], k, exclude, rows)
    assert (index._encoded[0] is not None) == int8
    assert_same_topk(got, slow_topk(*problem, k, exclude, rows))


@pytest.mark.parametrize("n_labels", [2047, 2048, 2049, 9000])
def test_both_ways_across_blocks_and_with_lists_that_overflow(int8, n_labels):
    """Few distinct scores: bounds leave many labels that float32 must tell apart."""
    rng = np.random.default_rng(n_labels)
    problem = integers(rng, 9, 4), integers(rng, n_labels, 4), integers(rng, n_labels)
    exclude, rows = label_rows(9, n_labels, 0.2, rng), rng.permutation(9)
    for k in (1, 10, 600):
        got = ExactIndex().build(*problem[1:]).topk(problem[0], k, exclude, rows)
        assert_same_topk(got, slow_topk(*problem, k, exclude, rows))


@needs_int8
@pytest.mark.parametrize("order", ["random", "ascending"])
@pytest.mark.parametrize("k", [1, 5, 50])
def test_both_ways_give_the_same_bits(monkeypatch, k, order):
    rng = np.random.default_rng(k)
    hidden, weights, biases = reals(rng, 300, 5000, 48)
    if order == "ascending":  # the best come last: each block overflows the lists
        biases = biases.sort().values
    found = []
    for fast in (True, False):
        monkeypatch.setattr(_exact, "int8_is_fast", lambda fast=fast: fast)
        found.append(ExactIndex(n_threads=2).build(weights, biases).topk(hidden, k))
    np.testing.assert_array_equal(found[0][0].view(np.int32), found[1][0].view(np.int32))
    np.testing.assert_array_equal(found[0][1], found[1][1])
    best, labels = slow_topk(hidden, weights, biases, k)
    np.testing.assert_allclose(found[0][0], best, rtol=1e-5, atol=1e-5)
    assert (found[0][1] == labels).mean() > 0.999


def test_a_row_has_the_same_bits_in_any_company(int8):
    hidden, weights, biases = reals(np.random.default_rng(0), 300, 3000, 32)
    index = ExactIndex().build(weights, biases)
    scores, labels = index.topk(hidden, 5)
    for i in (0, 17, 299):
        alone = index.topk(hidden[i : i + 1], 5)
        np.testing.assert_array_equal(alone[0][0], scores[i])
        np.testing.assert_array_equal(alone[1][0], labels[i])


def test_infinite_weights_and_labels_never_seen(int8):
    """As after training that diverged; an infinite score is the best, NaN is none."""
    hidden, weights, biases = reals(np.random.default_rng(0), 10, 3000, 8)
    hidden += 0.1
    weights[7] = np.inf
    weights[8] = np.nan
    weights[9:1000] = 0
    biases[9:1000] = -1e30
    biases[1000] = -np.inf
    scores, labels = ExactIndex().build(weights, biases).topk(hidden, 3000)
    assert (labels[:, 0] == 7).all()
    assert np.isinf(scores[:, 0]).all()
    assert not np.isin(labels, [8, 1000]).any()
    assert (labels[:, -2:] == -1).all()
    assert labels[0, -993:-2].tolist() == list(range(9, 1000))
    assert (scores[:, -993:-2] == np.float32(-1e30)).all()


def test_eight_bits_are_made_when_they_pay(monkeypatch):
    monkeypatch.setattr(_exact, "int8_is_fast", has_int8)
    if not has_int8():
        pytest.skip("no 8-bit product")
    hidden, weights, biases = reals(np.random.default_rng(0), 256, 40, 8)
    index = ExactIndex().build(weights, biases)
    first = index.topk(hidden[:1], 5)
    assert index._encoded[0] is None
    second = index.topk(hidden[:1], 5)
    assert index._encoded[0] is not None
    np.testing.assert_array_equal(first, second)
    index = ExactIndex().build(weights, biases)
    index.topk(hidden, 5)
    assert index._encoded[0] is not None


def test_torch_without_the_product_takes_float32(monkeypatch):
    int8_is_fast.cache_clear()
    monkeypatch.delattr(torch, "_int_mm", raising=False)
    assert int8_is_fast() is False
    int8_is_fast.cache_clear()


@needs_int8
def test_a_product_that_overflows_is_not_taken(monkeypatch):
    """On processors without instructions for it, pairs of products add up in 16 bits."""

    def product(a, b, out):
        out[:] = (a.int() @ b.int()).clamp(-(2**15), 2**15 - 1)

    int8_is_fast.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", product)
    assert int8_is_fast() is False
    int8_is_fast.cache_clear()
