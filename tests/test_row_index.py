"""Nearest of very many rows, by clusters, beside a search of all."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_few_rows_are_searched_exactly():
    assert isinstance(row_index(units(100)), ExactIndex)
    assert isinstance(row_index(units(100), many=99), RowIndex)


# -- among the labels of rows ----------------------------------------------------------------------


def slow_labels(rows, lists, room):
    out = []
    for row in rows:
        if row >= 0:
            out += [label for label in lists[row] if label not in out]
    return out[:room]


@settings(max_examples=200)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(0, 12),
    st.sampled_from([1, 1024, 50_000_000]),
)  # fmt: skip
def test_labels_of_rows_are_those_of_a_slow_loop(seed, room, n_labels, n_near, step):
    rng = np.random.default_rng(seed)
    lists = [step * rng.permutation(n_labels)[: rng.integers(0, 5)] for _ in range(20)]
    lists = [np.unique(part) for part in lists]
    indptr = np.append(0, np.cumsum([len(part) for part in lists])).astype(np.int32)
    indices = np.concatenate([*lists, np.empty(0)]).astype(np.int32)
    rows = np.array([rng.permutation(20)[:n_near] for _ in range(6)], np.int32).reshape(6, n_near)
    rows[2, n_near // 2 :] = -1
    labels, counts = np.full((6, room), -9, np.int32), np.zeros(6, np.int64)
    _row_kernels.labels_of(rows, indptr, indices, labels, counts)
    for own, n, near in zip(labels, counts, rows, strict=True):
        assert own[:n].tolist() == slow_labels(near, lists, room)
        assert (own[n:] == -9).all()


@pytest.mark.parametrize("n", [3, 300])  # of few, in a first search, float32 is multiplied
@pytest.mark.parametrize("k", [1, 4])
def test_the_best_of_candidates_are_those_of_a_slow_loop(n, k):
    rng = np.random.default_rng(n + k)
    weights = torch.from_numpy(rng.standard_normal((200, 40)).astype(np.float32))
    biases = torch.from_numpy(rng.standard_normal(200).astype(np.float32))
    weights[7], biases[9] = 0, -1e30
    hidden = torch.relu(torch.from_numpy(rng.standard_normal((n, 40)).astype(np.float32)))
    candidates = np.array([rng.permutation(200)[:20] for _ in range(n)], np.int32)
    counts = rng.integers(0, 21, n)
    for i, count in enumerate(counts):
        candidates[i, count:] = -5
    index = ExactIndex().build(weights, biases)
    scores, labels = index.topk_among(hidden, candidates, counts, k, 2)
    every = (hidden.double() @ weights.double().T + biases.double()).numpy()
    for i, count in enumerate(counts):
        own = np.sort(candidates[i, :count])
        best = own[np.argsort(-every[i, own], kind="stable")][:k]
        np.testing.assert_array_equal(labels[i], np.append(best, [-1] * (k - len(best))))
        np.testing.assert_allclose(scores[i, : len(best)], every[i, best], rtol=1e-5, atol=1e-5)
        assert np.isneginf(scores[i, len(best) :]).all()


def test_of_all_labels_it_finds_the_same_bits_as_exact_search():
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.integers(-2, 3, (90, 16)).astype(np.float32))  # full of ties
    hidden = torch.from_numpy(rng.integers(0, 3, (500, 16)).astype(np.float32))
    index = ExactIndex().build(weights, weights[:, 0].contiguous())
    every = np.array([rng.permutation(90) for _ in range(500)], np.int32)
    found = index.topk_among(hidden, every, np.full(500, 90), 7)
    for one, other in zip(found, index.topk(hidden, 7), strict=True):
        np.testing.assert_array_equal(one, other)
