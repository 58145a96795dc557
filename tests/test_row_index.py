"""Nearest of very many rows, by clusters, beside a search of all."""

import numpy as np
import pytest
import torch

from skxmc._clusters import balanced_clusters
from skxmc._index import ExactIndex, _row_kernels, row_index
from skxmc._index._rows import COMPARED, SIZE, RowIndex


def units(n, width=24, n_topics=50, seed=0):
    """Rows around centres, of unit length."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_topics, width))
    vectors = centres[rng.integers(n_topics, size=n)] + 0.5 * rng.standard_normal((n, width))
    return torch.nn.functional.normalize(torch.from_numpy(vectors.astype(np.float32)))


def slow_topk(vectors, queries, k):
    cosines = queries.double().numpy() @ vectors.double().numpy().T
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, rows, 1), rows


@pytest.mark.parametrize("n", [1, 31, 33, 1000, COMPARED])
@pytest.mark.parametrize("k", [1, 5, 32])
def test_where_all_are_compared_it_finds_what_a_slow_loop_does(n, k):
    vectors, queries = units(n), units(40, seed=1)
    cosines, rows = RowIndex(vectors).topk(queries, k)
    expected, _ = slow_topk(vectors, queries, k)
    m = min(n, k)
    np.testing.assert_allclose(cosines[:, :m], expected, atol=0.01)  # of 8 bits
    found = np.take_along_axis(queries.numpy() @ vectors.numpy().T, rows[:, :m], 1)
    np.testing.assert_allclose(found, cosines[:, :m], atol=0.01)
    assert (np.diff(cosines[:, :m]) <= 0).all()
    assert all(len(set(row)) == m for row in rows[:, :m].tolist())
    assert (rows[:, m:] == -1).all()
    assert np.isneginf(cosines[:, m:]).all()


def test_of_many_rows_it_finds_nearly_all_of_the_nearest():
    vectors, queries = units(40_000, n_topics=400), units(300, n_topics=400, seed=0)
    _, rows = RowIndex(vectors, n_threads=2).topk(queries, 32, n_threads=2)
    _, expected = slow_topk(vectors, queries, 32)
    held = np.mean([np.isin(a, b).mean() for a, b in zip(expected, rows, strict=True)])
    assert held > 0.9
    assert (rows[:, 0] == expected[:, 0]).mean() > 0.9


def test_only_rows_of_the_nearest_clusters_are_compared():
    vectors, queries = units(9000), units(20, seed=1)
    order = balanced_clusters(vectors.numpy(), SIZE, np.random.default_rng(0))
    cluster = np.empty(9000, np.int64)
    cluster[order] = np.arange(9000) // SIZE
    sums = np.zeros((cluster.max() + 1, 24))
    np.add.at(sums, cluster, vectors.numpy())
    centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    _, rows = RowIndex(vectors).topk(queries, COMPARED)
    for query, found in zip(queries.numpy(), rows, strict=True):
        near = np.argsort(-(centres @ query))
        looked_into = set(cluster[found[found >= 0]])
        assert len(looked_into) <= COMPARED // SIZE
        assert len(looked_into & set(near[: COMPARED // SIZE])) > 0.97 * COMPARED // SIZE


@pytest.mark.parametrize(("n_clusters", "wanted"), [(100, 100), (2048, 50), (4097, 128), (9000, 7)])
@pytest.mark.parametrize("kind", ["normal", "ties", "best last", "all alike"])
def test_the_nearest_clusters_are_those_of_highest_product(n_clusters, wanted, kind):
    rng = np.random.default_rng(n_clusters)
    products = rng.integers(-(2**20), 2**20, (6, n_clusters)).astype(np.int32)
    if kind == "ties":
        products = rng.integers(0, 30, (6, n_clusters)).astype(np.int32)
    if kind == "best last":
        products[:], products[:, -wanted:] = 0, np.arange(1, wanted + 1)
    if kind == "all alike":
        products[:] = 3
    scales = np.ones(n_clusters, np.float32)
    scales[::2] = 0.5
    clusters = np.full((6, wanted), -1, np.int32)
    _row_kernels.nearest_clusters(products, scales, clusters)
    values = products * scales
    expected = -np.sort(-values, axis=1)[:, :wanted]
    np.testing.assert_array_equal(
        -np.sort(-np.take_along_axis(values, clusters, 1), axis=1), expected
    )
    assert all(len(set(row)) == wanted for row in clusters.tolist())


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_rows_that_are_all_alike_hide_no_others(share):
    vectors, queries = units(20_000, n_topics=400), units(100, n_topics=400)
    alike = np.random.default_rng(5).random(len(vectors)) < share
    vectors[alike] = vectors[0].clone()
    _, rows = RowIndex(vectors).topk(queries, 32)
    _, expected = slow_topk(vectors, queries, 32)
    held = [np.isin(a, b).mean() for a, b in zip(expected, rows, strict=True)]
    assert np.mean(held) > 0.9


def test_one_query_and_many_and_threads_find_the_same_bits():
    vectors, queries = units(10_000), units(700, seed=1)
    index = RowIndex(vectors)
    cosines, rows = index.topk(queries, 32)
    others = [index.topk(queries, 32, n_threads=2), RowIndex(vectors, 2).topk(queries, 32)]
    parts = [index.topk(queries[i : i + 1], 32) for i in range(20)]
    others.append(tuple(map(np.concatenate, zip(*parts, strict=True))))
    for other in others:
        n = len(other[0])
        np.testing.assert_array_equal(other[0], cosines[:n])
        np.testing.assert_array_equal(other[1], rows[:n])


def test_of_equal_rows_the_first_come_first():
    vectors = units(200).repeat(30, 1)  # 30 times each
    _, rows = RowIndex(vectors).topk(vectors[:200], 10)
    np.testing.assert_array_equal(rows, np.arange(200)[:, None] + 200 * np.arange(10))


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_what_has_no_direction_is_like_nothing(wrong):
    vectors, queries = units(5000), units(6, seed=1)
    vectors[::7], queries[2] = wrong, wrong
    cosines, rows = RowIndex(vectors).topk(queries, 40)
    assert np.isfinite(cosines).all()
    assert (cosines[2] == 0).all()
    others = [0, 1, 3, 4, 5]
    assert (rows[others] % 7 != 0).all()
    assert (cosines[others] > 0).all()


def test_widths_beyond_what_float32_counts_exactly():
    vectors, queries = units(600, width=3000), units(50, width=3000, seed=1)
    index = RowIndex(vectors)
    cosines, rows = index.topk(queries, 5)
    np.testing.assert_allclose(cosines, slow_topk(vectors, queries, 5)[0], atol=0.02)
    one = index.topk(queries[:1], 5)
    np.testing.assert_array_equal(one[1], rows[:1])


def test_few_rows_are_searched_exactly(monkeypatch):
    assert isinstance(row_index(units(100)), ExactIndex)
    monkeypatch.setattr("skxmc._index._rows.MANY", 99)
    assert isinstance(row_index(units(100)), RowIndex)
