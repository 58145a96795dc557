"""The data module: synthetic problems, and text files there and back."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file, load_svmlight_file
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import type_of_target

from skxmc.datasets import _files, _save, load_xmc_file, make_xmc, save_xmc_file

few = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CONTAINERS = [sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix, sp.lil_array, np.asarray]


def write(folder, text, name="data.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def dense(matrix):
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def assert_canonical(matrix):
    """What the constructor believes is so, looked at by someone who does not believe."""
    assert isinstance(matrix, sp.csr_array)
    assert matrix.indices.dtype == matrix.indptr.dtype
    fresh = sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    fresh.check_format(full_check=True)
    assert fresh.has_canonical_format
    assert (matrix.data != 0).all()


# ---------------------------------------------------------------------------------- make_xmc


def tail_share(Y):
    counts = Y.sum(axis=0)
    return ((counts >= 1) & (counts <= 5)).mean()


@pytest.fixture(scope="module")
def problem():
    return make_xmc(random_state=0)


def test_make_xmc_shapes_and_types(problem):
    X, Y = problem
    assert X.shape == (10_000, 20_000)
    assert Y.shape == (10_000, 2_000)
    for matrix in problem:
        assert matrix.dtype == np.float32
        assert matrix.indices.dtype == np.int32
        assert_canonical(matrix)
    assert (Y.data == 1).all()
    assert type_of_target(Y) == "multilabel-indicator"
    np.testing.assert_allclose(np.sqrt((X * X).sum(axis=1)), 1, atol=1e-6)


def test_make_xmc_is_long_tailed(problem):
    X, Y = problem
    assert 2.8 < Y.nnz / Y.shape[0] < 3.1
    assert 40 < X.nnz / X.shape[0] < 50
    assert (np.diff(Y.indptr) >= 1).all()
    counts = np.sort(Y.sum(axis=0))[::-1]
    assert 0.02 < counts[0] / Y.shape[0] < 0.1
    assert 0.25 < tail_share(Y) < 0.55
    assert 0 < (counts == 0).mean() < 0.1
    assert tail_share(make_xmc(label_skew=0, random_state=0)[1]) < 0.01
    document_share = np.sort(np.diff(X.tocsc().indptr))[::-1] / X.shape[0]
    assert document_share[0] > 0.5  # a stop word
    assert np.median(document_share) < 0.002
    _, Y_test = train_test_split(Y, test_size=0.2, random_state=0)
    Y_train = train_test_split(Y, test_size=0.2, random_state=0)[0]
    assert ((Y_train.sum(axis=0) == 0) & (Y_test.sum(axis=0) > 0)).sum() > 10


def test_make_xmc_topics_group_labels_and_words():
    X, Y = make_xmc(2_000, 3_000, 100, n_topics=5, noise=0.3, random_state=0)
    pairs = (Y.T @ Y).toarray()
    np.fill_diagonal(pairs, 0)
    expected = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / pairs.sum()
    together = pairs > 3 * expected  # labels of a topic
    assert 0.05 < together.mean() < 0.35
    centroids = (Y.T @ X).toarray()
    centroids -= centroids.mean(axis=0)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True) + 1e-9
    alike = centroids @ centroids.T
    off = ~np.eye(100, dtype=bool)
    assert alike[together & off].mean() > alike[~together & off].mean() + 0.15


def centroid_precision(X, Y, k=1):
    """Precision of the nearest centroid, and of always giving the most frequent labels."""
    X, X_test, Y, Y_test = train_test_split(X, Y, test_size=0.2, random_state=0)
    counts = Y.sum(axis=0)
    scores = (X_test @ (X.T @ Y)).toarray() / np.sqrt(np.maximum(counts, 1))
    truth, rows = Y_test.toarray(), np.arange(len(scores))[:, None]
    best = np.argsort(-scores, axis=1)[:, :k]
    return truth[rows, best].mean(), truth[:, np.argsort(-counts)[:k]].mean()


def test_make_xmc_can_be_learned(problem):
    model, baseline = centroid_precision(*problem)
    assert baseline < 0.1
    assert model > 0.3
    assert model > 1.3 * centroid_precision(*problem, k=5)[0]
    model, baseline = centroid_precision(*make_xmc(2_000, 2_000, 200, noise=1.0, random_state=0))
    assert model < baseline + 0.03  # nothing but noise


def test_make_xmc_seeds():
    sizes = {"n_samples": 200, "n_features": 300, "n_labels": 50, "missing_labels": 0.2}
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = make_xmc(**sizes, random_state=3)
    second = make_xmc(**sizes, random_state=np.random.RandomState(3))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    for a, b in zip(first, second, strict=True):
        assert a.data.tobytes() == b.data.tobytes()
        assert a.indices.tobytes() == b.indices.tobytes()
        assert a.indptr.tobytes() == b.indptr.tobytes()
    other = make_xmc(**sizes, random_state=4)
    assert (first[1] != other[1]).nnz > 0


def test_make_xmc_missing_labels_spare_the_text_and_hit_the_tail():
    X, Y = make_xmc(5_000, 2_000, 1_000, random_state=0)
    X_less, Y_less = make_xmc(5_000, 2_000, 1_000, missing_labels=0.4, random_state=0)
    assert (X_less != X).nnz == 0
    assert (Y_less > Y).nnz == 0
    assert Y_less.nnz / Y.nnz == pytest.approx(0.6, abs=0.03)
    counts, kept = Y.sum(axis=0), Y_less.sum(axis=0)
    head = counts > 100
    assert kept[head].sum() / counts[head].sum() > 0.75
    assert kept[~head].sum() / counts[~head].sum() < 0.6
    assert make_xmc(50, 20, 10, missing_labels=1.0, random_state=0)[1].nnz == 0


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_samples": 1},
        {"n_features": 1},
        {"n_labels": 1, "n_labels_per_sample": 1},
        {"n_samples": 1, "n_features": 1, "n_labels": 1, "n_labels_per_sample": 0.5},
        {"n_labels_per_sample": 0},
        {"n_labels": 4, "n_labels_per_sample": 4},
        {"n_features_per_sample": 1, "n_topics": 1},
        {"n_labels": 5, "n_labels_per_sample": 2, "n_topics": 5, "noise": 0},
        {"label_skew": 30},
    ],
    ids=str,
)
def test_make_xmc_small(sizes):
    sizes = {"n_samples": 40, "n_features": 30, "n_labels": 20} | sizes
    X, Y = make_xmc(**sizes, random_state=0)
    assert X.shape == (sizes["n_samples"], sizes["n_features"])
    assert Y.shape == (sizes["n_samples"], sizes["n_labels"])
    assert_canonical(X)
    assert_canonical(Y)
    np.testing.assert_allclose(np.sqrt((X * X).sum(axis=1)), 1, atol=1e-6)


def test_make_xmc_blocks_of_text(monkeypatch):
    from skxmc.datasets import _make

    monkeypatch.setattr(_make, "_BLOCK_WORDS", 100)
    X, _ = make_xmc(300, 200, 20, random_state=0)
    assert X.shape == (300, 200)
    assert_canonical(X)
    np.testing.assert_allclose(np.sqrt((X * X).sum(axis=1)), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "error", "match"),
    [
        ("n_samples", 0, ValueError, r"n_samples=0 .* 1 and"),
        ("n_samples", 10.5, TypeError, r"n_samples must be a whole number, got 10.5"),
        ("n_features", True, TypeError, "n_features must be a whole number"),
        ("n_labels", -1, ValueError, "n_labels=-1 is out of range"),
        ("n_topics", 21, ValueError, r"n_topics=21 .* between 1 and n_labels=20"),
        ("n_labels_per_sample", 21, ValueError, r"between 0 and n_labels=20"),
        ("n_labels_per_sample", "3", TypeError, "n_labels_per_sample must be a number"),
        ("n_features_per_sample", 0.5, ValueError, r"n_features_per_sample=0.5 .* 1 or more"),
        ("label_skew", float("nan"), ValueError, "label_skew=nan"),
        ("label_skew", float("inf"), ValueError, "label_skew=inf"),
        ("noise", 1.5, ValueError, r"noise=1.5 .* between 0 and 1"),
        ("missing_labels", -0.1, ValueError, r"missing_labels=-0.1"),
        ("random_state", "seed", ValueError, "cannot be used to seed"),
    ],
)
def test_make_xmc_refuses(name, value, error, match):
    arguments = {"n_samples": 40, "n_features": 30, "n_labels": 20} | {name: value}
    with pytest.raises(error, match=match):
        make_xmc(**arguments)


# ------------------------------------------------------------------------------- round trips

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def problems(draw, values=floats):
    rows, columns, labels = draw(st.tuples(*[st.integers(0, 6)] * 3))
    X = np.array(
        draw(
            st.lists(
                st.lists(st.one_of(st.just(0.0), values), min_size=columns, max_size=columns),
                min_size=rows,
                max_size=rows,
            )
        ),
        dtype=np.float64,
    ).reshape(rows, columns)
    Y = draw(st.lists(st.booleans(), min_size=rows * labels, max_size=rows * labels))
    return X, np.array(Y, dtype=np.float64).reshape(rows, labels)


@few
@given(
    data=problems(),
    container=st.sampled_from(CONTAINERS),
    dtype=st.sampled_from([np.float32, np.float64]),
    label_dtype=st.sampled_from([np.bool_, np.int8, np.int64, np.float32]),
    name=st.sampled_from(["a.txt", "a.txt.gz"]),
    block=st.sampled_from([1, 2, 7, 64, 1 << 16]),
    entries=st.sampled_from([0, 3, 1 << 17]),
)
def test_round_trip(tmp_path, data, container, dtype, label_dtype, name, block, entries):
    X, Y = container(data[0].astype(dtype)), container(data[1].astype(label_dtype))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_files, "_BLOCK_BYTES", block)
        patch.setattr(_save, "_BLOCK_ENTRIES", entries)
        save_xmc_file(tmp_path / name, X, Y)
        X_back, Y_back = load_xmc_file(str(tmp_path / name))
    np.testing.assert_array_equal(dense(X_back), data[0].astype(np.float32))
    np.testing.assert_array_equal(dense(Y_back), data[1])
    for matrix in (X_back, Y_back):
        assert_canonical(matrix)
        assert matrix.dtype == np.float32
        assert matrix.indices.dtype == np.int32
    np.testing.assert_array_equal(dense(X), data[0].astype(dtype))  # the caller's is left alone


@few
@given(
    data=problems(st.floats(allow_nan=False, allow_infinity=False)),
    block=st.sampled_from([1, 30, 1 << 16]),
)
def test_round_trip_svmlight_in_double_precision(tmp_path, data, block):
    X, Y = data
    path = tmp_path / "a.svm"
    if 0 in X.shape:
        with pytest.raises(ValueError, match="svmlight cannot hold"):
            save_xmc_file(path, X, Y, format="svmlight")
        return
    save_xmc_file(path, X, Y, format="svmlight", precision=17)
    sizes = {"n_features": X.shape[1], "n_labels": Y.shape[1]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_files, "_BLOCK_BYTES", block)
        X_back, Y_back = load_xmc_file(path, dtype=np.float64, **sizes)
    assert X_back.dtype == np.float64
    np.testing.assert_array_equal(X_back.toarray(), X)
    np.testing.assert_array_equal(Y_back.toarray(), Y)
    X_peer, Y_peer = load_svmlight_file(
        str(path), multilabel=True, zero_based=True, n_features=X.shape[1]
    )
    np.testing.assert_array_equal(X_peer.toarray(), X)
    assert [tuple(map(int, row)) for row in Y_peer] == [tuple(np.flatnonzero(y)) for y in Y]


@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize("comment", [None, "a comment\nof two lines"])
def test_svmlight_by_scikit_learn(tmp_path, zero_based, comment):
    X, Y = make_xmc(80, 60, 20, n_labels_per_sample=0.7, random_state=1)
    path = tmp_path / "a.svm"
    dump_svmlight_file(X, Y, str(path), zero_based=zero_based, comment=comment, multilabel=True)
    X_back, Y_back = load_xmc_file(path, zero_based=zero_based, n_features=60, n_labels=20)
    X_peer, _ = load_svmlight_file(str(path), multilabel=True, zero_based=zero_based, n_features=60)
    np.testing.assert_array_equal(X_back.toarray(), X_peer.astype(np.float32).toarray())
    np.testing.assert_array_equal(Y_back.toarray(), Y.toarray())
    X_auto, _ = load_xmc_file(path, zero_based="auto", n_features=60)
    np.testing.assert_array_equal(X_auto.toarray(), X_back.toarray())


def test_wide_indices_and_memory(tmp_path):
    columns = 3_000_000_000
    index = np.array([0, columns - 1])
    X = sp.csr_array((np.float32([1, 2]), index, np.array([0, 2, 2])), shape=(2, columns))
    Y = sp.csr_array((np.int8([1]), np.array([columns - 1]), np.array([0, 1, 1])), shape=X.shape)
    save_xmc_file(tmp_path / "a", X, Y)
    X_back, Y_back = load_xmc_file(tmp_path / "a")
    assert X_back.indices.dtype == Y_back.indices.dtype == np.int64
    assert X_back.shape == Y_back.shape == X.shape
    np.testing.assert_array_equal(X_back.indices, index)
    np.testing.assert_array_equal(X_back.data, X.data)
    narrow, _ = load_xmc_file(write(tmp_path, f"1 {columns} 3\n1 5:1\n"))
    assert narrow.indices.dtype == np.int64  # the shape asks for it


# ----------------------------------------------------------------------------------- numbers


def load_values(folder, tokens, dtype):
    line = " ".join(f"{k}:{token}" for k, token in enumerate(tokens))
    path = write(folder, f"1 {len(tokens)} 1\n {line}\n")
    return load_xmc_file(path, dtype=dtype)[0].toarray()[0]


decimals = st.from_regex(
    r"\A[+-]?([0-9]{1,25}\.?[0-9]{0,25}|\.[0-9]{1,25})([eE][+-]?[0-9]{1,2})?\Z"
)


@few
@given(tokens=st.lists(decimals, min_size=1, max_size=20))
@example(tokens=["1e-45", "7e-46", "3.4028234e38", "0.1", "1E5", "5.", ".5", "-0", "+1", "1e-400"])
@example(tokens=["16777217", "16777219", "0.000000000000000000000000000000000000001"])
@example(tokens=["0" * 400 + "1", "1" + "0" * 30 + "e-30", "0." + "0" * 300 + "1e300"])
def test_numbers_are_read_as_python_reads_them(tmp_path, tokens):
    truth = np.array([float(token) for token in tokens])
    found = load_values(tmp_path, tokens, np.float64)
    exact = np.array([len(t.strip("+-").partition("e")[0].partition("E")[0]) <= 19 for t in tokens])
    np.testing.assert_array_equal(found[exact], truth[exact])
    np.testing.assert_array_max_ulp(found, truth, maxulp=1)
    with np.errstate(over="ignore"):
        small = truth.astype(np.float32)
    kept = np.isfinite(small)
    found = load_values(tmp_path, [t for t, k in zip(tokens, kept, strict=True) if k], np.float32)
    np.testing.assert_array_max_ulp(found, small[kept], maxulp=1)


def test_many_random_numbers(tmp_path):
    random = np.random.RandomState(0)
    bits = random.randint(0, 2**32, size=20_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (values != 0)]
    save_xmc_file(tmp_path / "a", values[None, :], [[1]])
    np.testing.assert_array_equal(load_xmc_file(tmp_path / "a")[0].data, values)
    bits = random.randint(0, 2**63, size=20_000, dtype=np.uint64)
    values = bits.view(np.float64)
    values = values[np.isfinite(values) & (values != 0)]
    save_xmc_file(tmp_path / "a", values[None, :], [[1]], precision=17)
    np.testing.assert_array_equal(load_xmc_file(tmp_path / "a", dtype=np.float64)[0].data, values)
    tokens = [repr(value) for value in values[:3000].tolist()]
    np.testing.assert_array_equal(load_values(tmp_path, tokens, np.float64), values[:3000])


@pytest.mark.parametrize("precision", [1, 3, 6, 9, 17])
def test_numbers_are_written_as_g_writes_them(tmp_path, precision):
    values = [1, -1, 0.5, 0.1, 100, 123456789, 1e-4, 0.00012345, 9.9999e-5, 99999.5, 1e10, 1e-5]
    values += [9.9999999999, 0.99999999999, 2 / 3, 1e22, 1e23, 5e-324, 1e-300, 1.5e300, 999.9996]
    values += [10.0**k for k in range(-20, 20)] + [123.456 * 10.0**k for k in range(-40, 40, 7)]
    save_xmc_file(tmp_path / "a", [values], [[0]], precision=precision)
    text = (tmp_path / "a").read_text().splitlines()[1]
    found = [token.partition(":")[2] for token in text.split()]
    truth = [f"{value:.{precision}g}" for value in values]
    assert [float(token) for token in found] == [float(token) for token in truth]
    assert all(len(f) <= len(t) for f, t in zip(found, truth, strict=True))


# ------------------------------------------------------------------------ what is well-formed


@pytest.mark.parametrize("block", [1, 3, 1 << 23])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_layouts(tmp_path, monkeypatch, block, end, last):
    monkeypatch.setattr(_files, "_BLOCK_BYTES", block)
    lines = ["7 6 4", "0,3 0:1 5:.5", " 1:2", "2:3", "1", "", "3,1,3\t5:1   2:2 \t", "0 4:0 3:7 "]
    text = end.join(lines) + end * last
    X, Y = load_xmc_file(write(tmp_path, text))
    truth = np.zeros((7, 6)), np.zeros((7, 4))
    for row, column, value in [(0, 0, 1), (0, 5, 0.5), (1, 1, 2), (2, 2, 3), (5, 5, 1), (5, 2, 2)]:
        truth[0][row, column] = value
    truth[0][6, 3] = 7
    for row, label in [(0, 0), (0, 3), (3, 1), (5, 3), (5, 1), (6, 0)]:
        truth[1][row, label] = 1
    np.testing.assert_array_equal(X.toarray(), truth[0])
    np.testing.assert_array_equal(Y.toarray(), truth[1])
    assert_canonical(X)
    assert_canonical(Y)


def test_layouts_svmlight(tmp_path):
    text = "# first\n\n0,2 1:1 # a comment\n   1 0:1#none\n2:5\n#\n \t \n4 \n"
    X, Y = load_xmc_file(write(tmp_path, text))
    np.testing.assert_array_equal(X.toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 5], [0, 0, 0]])
    np.testing.assert_array_equal(Y.toarray().argmax(axis=1), [0, 1, 0, 4])
    assert Y.shape == (4, 5)
    X, Y = load_xmc_file(write(tmp_path, "3\n"))
    assert X.shape == (1, 0)
    X, Y = load_xmc_file(write(tmp_path, "1:1\n"), n_features=9, n_labels=np.int64(2))
    assert (X.shape, Y.shape) == ((1, 9), (1, 2))


def test_header_layouts(tmp_path):
    X, Y = load_xmc_file(write(tmp_path, b"\xef\xbb\xbf 1\t2  3 \r\n0 1:1"))
    assert (X.shape, Y.shape) == ((1, 2), (1, 3))
    assert load_xmc_file(write(tmp_path, "0 5 7\n"))[1].shape == (0, 7)
    X, Y = load_xmc_file(write(tmp_path, "1 2 3\n1 0:1\n\n \n"), n_features=5, n_labels=8)
    assert (X.shape, Y.shape) == ((1, 5), (1, 8))
    X, _ = load_xmc_file(write(tmp_path, "1 2 3\n1 1:5 2:6\n"), zero_based=False)
    np.testing.assert_array_equal(X.toarray(), [[5, 6]])
    X, _ = load_xmc_file(write(tmp_path, "1 1:5 2:6\n"), zero_based="auto")
    np.testing.assert_array_equal(X.toarray(), [[5, 6]])


def test_gzip_is_told_by_content(tmp_path):
    path = write(tmp_path, gzip.compress(b"1 2 3\n1 0:1\n"), "plain.txt")
    assert load_xmc_file(path)[0].nnz == 1
    assert load_xmc_file(write(tmp_path, "1 2 3\n1 0:1\n", "named.gz"))[0].nnz == 1


def test_a_long_line_and_disorder(tmp_path):
    random = np.random.RandomState(0)
    order, labels = random.permutation(5000), random.randint(700, size=3000)
    line = ",".join(map(str, labels)) + "".join(f" {k}:{k + 1}" for k in order)
    X, Y = load_xmc_file(write(tmp_path, line))
    np.testing.assert_array_equal(X.toarray()[0], np.arange(5000) + 1)
    np.testing.assert_array_equal(Y.indices, np.unique(labels))
    assert_canonical(Y)


# -------------------------------------------------------------------------- what is malformed

HEADER = "3 10 5\n"
MALFORMED = {
    "feature range": (
        "1 10:1\n",
        2,
        "feature 10 is out of range for 10 features.*zero_based=False",
    ),
    "feature far": ("1 0:1\n1 2:1 11:1\n", 3, "feature 11 is out of range for 10 features"),
    "label range": ("1,5 1:1\n", 2, "label 5 is out of range for 5 labels"),
    "negative feature": ("1 -2:1\n", 2, "feature -2 is negative: features count from 0"),
    "negative label": ("1,-2 1:1\n", 2, "label -2 is negative"),
    "no colon": ("1 0:1\n1 3 4:1\n", 3, "'3' has no colon"),
    "label behind a blank": (" 1 4:1\n", 2, "'1' has no colon"),
    "blank in labels": ("1, 2 4:1\n", 2, "a label index is missing behind a comma"),
    "comma at the end": ("1,2,\n", 2, "a label index is missing behind a comma"),
    "comma at the start": (",2 1:1\n", 2, "a label index is missing"),
    "two commas": ("1,,2 1:1\n", 2, "a label index is missing behind a comma"),
    "label word": ("one 1:1\n", 2, "label 'one' is not a whole number"),
    "label with a value": ("1,3:1 4:1\n", 2, "label '3:1' is not a whole number"),
    "label fraction": ("1.0 1:1\n", 2, "label '1.0' is not a whole number"),
    "feature word": ("1 a:1\n", 2, "feature 'a' is not a whole number"),
    "feature word first": ("a:1\n", 2, "feature 'a' is not a whole number"),
    "feature missing": ("1 :1\n", 2, "a feature index is missing"),
    "feature first, far": ("12345678901234567890:1\n", 2, "feature 12345678901234567890 is out"),
    "not a number": ("1 3:x\n", 2, "value 'x' of feature 3 is not a number"),
    "two points": ("1 3:1.2.3\n", 2, "value '1.2.3' of feature 3 is not a number"),
    "underscore": ("1 3:1_0\n", 2, "value '1_0' of feature 3 is not a number"),
    "exponent": ("1 3:1e\n", 2, "value '1e' of feature 3 is not a number"),
    "sign only": ("1 3:-\n", 2, "value '-' of feature 3 is not a number"),
    "two pairs": ("1 3:1,4:1\n", 2, "value '1,4:1' of feature 3 is not a number"),
    "no value": ("1 3:\n", 2, "feature 3 has no value"),
    "value behind a blank": ("1 3: 1\n", 2, "feature 3 has no value"),
    "nan": ("1 3:nan\n", 2, "value nan of feature 3 is not finite"),
    "inf": ("1 3:1 4:-Inf\n", 2, "value -Inf of feature 4 is not finite"),
    "too big": ("1 3:1e39\n", 2, "value 1e39 of feature 3 does not fit float32"),
    "twice": ("1 3:1 4:1 3:2\n", 2, "feature 3 comes twice"),
    "twice, a zero": ("1 3:1 3:0\n", 2, "feature 3 comes twice"),
    "index overflow": ("1 18446744073709551617:1\n", 2, "feature 18446744073709551617 is out"),
    "label overflow": ("9223372036854775809 1:1\n", 2, "label 9223372036854775809 is out"),
    "too many rows": ("1\n1\n1\n\n1\n", 6, "more rows than the 3 that the header says"),
    "too few rows": ("1\n1 0:1\n", 3, "the file ends after 2 rows, its header says 3"),
    "no rows": ("", 1, "the file ends after 0 rows"),
    "comment": ("1 0:1 # why\n", 2, "feature '#' is not a whole number"),
    "old Mac": ("1 0:1\r2 0:1\r3 0:1", 2, "value '1\\\\r2' of feature 0 is not a number"),
    "utf-8": ("1 3:½\n", 2, "value '½' of feature 3 is not a number"),
}


@pytest.mark.parametrize("block", [1, 1 << 23])
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(_files, "_BLOCK_BYTES", block)
    text, line, reason = MALFORMED[name]
    path = write(tmp_path, HEADER + text)
    with pytest.raises(ValueError, match=rf"data\.txt, line {line}: {reason}"):
        load_xmc_file(path)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "the file is empty"),
        ("\n# only\n  \n", 4, "the file is empty: no rows"),
        ("3 10\n1 0:1\n", 1, "'10' has no colon.* a header is three whole numbers: '3 10'"),
        ("3 10 5 7\n", 1, "'10' has no colon"),
        ("-3 10 5\n", 1, "a negative number in the header"),
        ("3 10 99999999999999999999\n", 1, "a number beyond 64 bits in the header"),
        ("1000000000000000 1000000000000000 1000000000000000\n1 0:1\n", 2, "ends after 1 rows"),
        ("# c\n1 0:1\nqid 0:1\n", 3, "label 'qid' is not a whole number"),
        ("1 qid:1 0:1\n", 1, "feature 'qid' is not a whole number"),
        (b"PK\x03\x04\x14\0\0\0", 1, "not a text file"),
        (b"\x93NUMPY\x01\0v\0{'descr': '<f4'\n", 1, "not a text file"),
        ("1 0:1\n".encode("utf-16"), 1, "not a text file"),
        (b"1 0:1\n1 \xff\xfe:1\n", 2, "is not a whole number"),
        ("x" * 100_000, 1, r"label 'x{40}\.\.\.' is not a whole number: 'x{80}'\.\.\."),
    ],
)
def test_malformed_without_a_good_header(tmp_path, text, line, reason):
    with pytest.raises(ValueError, match=rf"data\.txt, line {line}: .*{reason}") as caught:
        load_xmc_file(write(tmp_path, text))
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_malformed_far_in_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_BLOCK_BYTES", 1000)
    lines = ["1,2 3:0.5 4:0.25"] * 5000
    lines[4321] = "1 " + "2:1 " + " ".join(f"{k}:1" for k in range(3, 100)) + " oops 100:1"
    text = "\n".join(["5000 200 3", *lines])
    with pytest.raises(
        ValueError, match=r"line 4323: feature 'oops' is not a whole number: \.\.\.'.* oops 100:1'"
    ):
        load_xmc_file(write(tmp_path, text))


def test_sizes_must_agree(tmp_path):
    path = write(tmp_path, "1 10 5\n1 0:1\n")
    with pytest.raises(ValueError, match="n_features=9 is less than the 10 of the header"):
        load_xmc_file(path, n_features=9)
    with pytest.raises(ValueError, match="n_labels=4 is less than the 5"):
        load_xmc_file(path, n_labels=4)
    with pytest.raises(ValueError, match="line 1: zero_based='auto' is for files without a header"):
        load_xmc_file(path, zero_based="auto")
    with pytest.raises(ValueError, match=r"line 2: feature 0 is out of range .* from 1"):
        load_xmc_file(path, zero_based=False)
    plain = write(tmp_path, "1 1:1\n1 0:1\n\n2 3:1\n")
    with pytest.raises(ValueError, match="line 4: feature 3 is out of range for 3"):
        load_xmc_file(plain, n_features=3)
    with pytest.raises(ValueError, match="line 4: feature 3 is out of range for 3"):
        load_xmc_file(plain, n_features=3, zero_based="auto")
    with pytest.raises(ValueError, match="line 4: label 2 is out of range for 2"):
        load_xmc_file(plain, n_labels=2)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"dtype": np.int32}, ValueError, "dtype=int32 is not supported; pass np.float32"),
        ({"n_features": -1}, ValueError, "n_features=-1"),
        ({"n_features": 2.0}, TypeError, "n_features must be a whole number"),
        ({"n_labels": 2**63}, ValueError, "n_labels=9223372036854775808"),
        ({"zero_based": "maybe"}, ValueError, "zero_based='maybe'"),
        ({"zero_based": 1}, ValueError, "zero_based=1"),
    ],
)
def test_load_refuses(tmp_path, arguments, error, match):
    with pytest.raises(error, match=match):
        load_xmc_file(write(tmp_path, "1 0:1\n"), **arguments)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_xmc_file(tmp_path / "none")


@pytest.mark.parametrize("damage", ["cut", "flip", "tail"])
def test_damaged_gzip(tmp_path, damage):
    lines = "".join(f"{k % 5} {k % 7}:{k}\n" for k in range(20_000))
    good = gzip.compress(b"20000 7 5\n" + lines.encode())
    middle = len(good) // 2
    bad = {
        "cut": good[:middle],
        "flip": good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :],
        "tail": good[:-4] + b"abcd",
    }[damage]
    path = write(tmp_path, bad, "data.txt.gz")
    with pytest.raises(ValueError, match=r"data\.txt\.gz, .*line \d+.*"):
        load_xmc_file(path)


def test_cut_gzip_says_so(tmp_path):
    path = write(tmp_path, gzip.compress(b"1 2 3\n1 0:1\n")[:-9], "a.gz")
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_xmc_file(path)


@few
@given(text=st.text(alphabet="0123,: .-e\n\t\r#x", max_size=40), block=st.sampled_from([1, 5, 99]))
def test_any_text_loads_or_says_the_line(tmp_path, text, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_files, "_BLOCK_BYTES", block)
        try:
            X, Y = load_xmc_file(write(tmp_path, text))
        except ValueError as error:
            assert "data.txt, line " in str(error)  # noqa: PT017
        else:
            assert_canonical(X)
            assert_canonical(Y)
            assert X.shape[0] == Y.shape[0]


# ------------------------------------------------------------------------------------ saving


@pytest.mark.parametrize(
    ("X", "Y", "arguments", "error", "match"),
    [
        ([[1.0]], [[1], [0]], {}, ValueError, "X has 1 rows and Y has 2"),
        ([[1.0], [np.nan]], [[1], [0]], {}, ValueError, "X has NaN or infinity in row 1"),
        ([[1.0], [-np.inf]], [[1], [0]], {}, ValueError, "X has NaN or infinity in row 1"),
        ([[1.0], [1.0]], [[1], [2]], {}, ValueError, "Y has a value other than 0 and 1 in row 1"),
        ([[1.0]], [[0.5]], {}, ValueError, "Y has a value other than 0 and 1 in row 0"),
        ([[1.0]], [1], {}, ValueError, "Y must have two dimensions, got 1"),
        ([["a"]], [[1]], {}, TypeError, "X must be of a real numeric type"),
        ([[1j]], [[1]], {}, TypeError, "X must be of a real numeric type, got complex128"),
        ([[1.0]], [[1]], {"format": "csv"}, ValueError, "format='csv' is unknown"),
        ([[1.0]], [[1]], {"precision": 18}, ValueError, "precision=18 is out of range"),
        ([[1.0]], [[1]], {"precision": "9"}, TypeError, "precision must be a whole number"),
    ],
)
def test_save_refuses(tmp_path, X, Y, arguments, error, match):
    path = write(tmp_path, "old")
    with pytest.raises(error, match=match):
        save_xmc_file(path, X, Y, **arguments)
    assert [found.name for found in tmp_path.iterdir()] == ["data.txt"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_save_is_atomic(tmp_path, monkeypatch, name):
    from skxmc.datasets import _parse

    path = write(tmp_path, "old", name)
    calls = []

    def fail(*arguments):
        calls.append(len(list(tmp_path.iterdir())))
        raise KeyboardInterrupt

    monkeypatch.setattr(_parse, "write_rows", fail)
    with pytest.raises(KeyboardInterrupt):
        save_xmc_file(path, [[1.0]], [[1]])
    assert calls == [2]
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert path.read_text() == "old"


def test_save_over_an_old_file(tmp_path):
    path = write(tmp_path, "old")
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    save_xmc_file(link, [[1.0]], [[1]])
    assert link.is_symlink()
    assert path.read_text() == "1 1 1\n0 0:1\n"
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(FileNotFoundError, match=r"folder .* does not exist"):
        save_xmc_file(tmp_path / "none" / "a", [[1.0]], [[1]])


def test_save_text(tmp_path):
    X = sp.csr_array(
        (np.array([1.0, 2.0, 0.0, 3.0]), np.array([2, 0, 1, 2]), np.array([0, 4, 4, 4])), (3, 3)
    )
    copy = X.copy()
    Y = np.array([[True, True], [True, False], [False, False]])
    save_xmc_file(tmp_path / "a", X, Y)
    assert (tmp_path / "a").read_text() == "3 3 2\n0,1 0:2 2:4\n0\n\n"  # sorted, summed, no zero
    save_xmc_file(tmp_path / "a", X, Y, format="svmlight")
    assert (tmp_path / "a").read_text() == "0,1 0:2 2:4\n0\n 0:0\n"
    np.testing.assert_array_equal(X.indices, copy.indices)
    np.testing.assert_array_equal(X.data, copy.data)
    save_xmc_file(tmp_path / "a", np.ones((1, 1), np.float16), np.ones((1, 1)))
    save_xmc_file(tmp_path / "b", np.ones((1, 1), np.longdouble), np.ones((1, 1), np.uint8))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_gzip_bytes_are_repeatable(tmp_path):
    X, Y = make_xmc(50, 30, 10, random_state=0)
    for name in ("a.gz", "b.gz"):
        save_xmc_file(tmp_path / name, X, Y)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).startswith(b"50 30 10\n")


def test_importing_and_making_needs_neither_torch_nor_numba():
    """Run as a new process since other tests import both; the package itself may want torch."""
    code = (
        "import importlib.util, sys, types;"
        "package = types.ModuleType('skxmc'); package.__path__ = [sys.argv[1]];"
        "sys.modules['skxmc'] = package;"
        "from skxmc.datasets import make_xmc; make_xmc(20, 20, 5);"
        "assert not {'torch', 'numba'} & set(sys.modules)"
    )
    package = Path(_files.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(package)], check=True)
