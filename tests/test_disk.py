"""Matrices on disk: what is written comes back, damage is named, and fit takes them as they lie."""

import json
import mmap
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from skxmc import XMCClassifier, _mapped
from skxmc._choices import choose_fusion
from skxmc._ends import Rows
from skxmc._inputs import as_rows, take
from skxmc._mapped import MappedOrder, is_mapped
from skxmc._targets import count_labels, encode_targets, select_labels, without_rows
from skxmc._training import Trainer
from skxmc.datasets import (
    CSRWriter,
    _disk,
    _files,
    convert_xmc_file,
    load_xmc_file,
    make_xmc,
    open_csr,
    save_csr,
    save_xmc_file,
)

few = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def assert_same(matrix, expected):
    """Arrays, types and all."""
    assert matrix.shape == expected.shape
    for name in ("indptr", "indices", "data"):
        a, b = getattr(matrix, name), getattr(expected, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def problem():
    return make_xmc(600, 400, 30, random_state=0)


@pytest.fixture
def saved(tmp_path, problem):
    save_csr(tmp_path / "X", problem[0])
    return tmp_path / "X"


# ------------------------------------------------------------------------- what comes back


@few
@given(data=st.data())
def test_any_matrix_in_any_blocks_comes_back(tmp_path_factory, data):
    shape = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 7)))
    seed = data.draw(st.integers(0, 99))
    dtype = data.draw(st.sampled_from([np.float32, np.float64, np.int8, bool, np.int64]))
    values = np.random.default_rng(seed).integers(0, 3, shape).astype(dtype)
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[0]), max_size=4)))
    chunk = data.draw(st.sampled_from([1, 3, 1 << 20]))
    path = tmp_path_factory.mktemp("m") / "X"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_disk, "_CHUNK", chunk)
        save_csr(path, (sp.csc_array(part) for part in np.split(values, cuts)))
        matrix = open_csr(path, check=True)
    fresh = sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    fresh.check_format(full_check=True)
    assert fresh.has_canonical_format
    assert matrix.has_canonical_format
    assert matrix.dtype == dtype
    np.testing.assert_array_equal(matrix.toarray(), values)
    assert len(list(path.iterdir())) == 4


def test_a_matrix_keeps_its_types_and_is_mapped_read_only(saved, problem):
    matrix = open_csr(saved)
    assert_same(matrix, problem[0])
    for name in ("indptr", "indices", "data"):
        assert is_mapped(getattr(matrix, name))
        assert not getattr(matrix, name).flags.writeable
    assert is_mapped(matrix.data[7:])
    assert not is_mapped(problem[0].data)


def test_blocks_are_made_canonical_and_the_callers_stay(tmp_path):
    block = sp.csr_array(
        (np.array([1.0, 2.0, 0.0, 3.0]), np.array([2, 0, 1, 2]), np.array([0, 4])), (1, 3)
    )
    save_csr(tmp_path / "X", block)
    assert_same(open_csr(tmp_path / "X"), sp.csr_array([[2.0, 0.0, 4.0]]))
    np.testing.assert_array_equal(block.indices, [2, 0, 1, 2])
    save_csr(tmp_path / "X", np.eye(2, dtype=np.float16))
    assert open_csr(tmp_path / "X").dtype == np.float32


def test_wide_matrices_have_int64_indices_and_many_entries_int64_row_ends(tmp_path, monkeypatch):
    wide = sp.csr_array(
        (np.ones(2, np.float32), np.array([5, 2**40]), np.array([0, 1, 2])), (2, 2**40 + 1)
    )
    save_csr(tmp_path / "X", wide)
    assert_same(open_csr(tmp_path / "X", check=True), wide)
    monkeypatch.setattr(_disk, "_INT32_MAX", 20)  # as if 20 entries were 2 ** 31
    X = sp.csr_array(np.ones((5, 6), np.float32))
    save_csr(tmp_path / "X", X)
    found = open_csr(tmp_path / "X", check=True)
    assert (found.indptr.dtype, found.indices.dtype) == (np.int64, np.int32)
    assert is_mapped(found.indices)
    assert as_rows(found).indices is found.indices
    np.testing.assert_array_equal(found.toarray(), X.toarray())
    np.testing.assert_array_equal(found[1:3].toarray(), X.toarray()[1:3])


def test_a_new_matrix_replaces_an_old_one_that_stays_open(saved, problem):
    old = open_csr(saved)
    save_csr(saved, sp.eye_array(3, dtype=np.float32, format="csr"))
    assert_same(old, problem[0])
    assert open_csr(saved).shape == (3, 3)
    assert len(list(saved.iterdir())) == 4


def test_an_error_leaves_the_old_matrix_and_nothing_else(saved, problem, tmp_path):
    def blocks():
        yield problem[0][:5]
        raise KeyboardInterrupt

    for path in (saved, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            save_csr(path, blocks())
    assert_same(open_csr(saved), problem[0])
    assert len(list(saved.iterdir())) == 4
    assert [a.name for a in tmp_path.iterdir()] == ["X"]


def test_a_matrix_is_there_only_at_the_end_and_what_a_killed_process_left_goes(tmp_path):
    killed = CSRWriter(tmp_path / "X", 3, dtype=np.float32)
    killed.append(np.eye(3))
    for file in killed._files.values():
        file.close()
    with pytest.raises(ValueError, match="unfinished"):
        open_csr(tmp_path / "X")
    with CSRWriter(tmp_path / "X") as writer:
        writer.append(np.eye(2))
    assert open_csr(tmp_path / "X").shape == (2, 2)
    assert len(list((tmp_path / "X").iterdir())) == 4
    with pytest.raises(ValueError, match="closed"):
        writer.append(np.eye(2))


def test_no_block_wants_columns_and_type(tmp_path):
    with pytest.raises(ValueError, match="no block was appended; say n_columns and dtype"):
        save_csr(tmp_path / "X", [])
    assert not (tmp_path / "X").exists()
    with CSRWriter(tmp_path / "X", 4, dtype=np.float32):
        pass
    assert open_csr(tmp_path / "X", check=True).shape == (0, 4)


@pytest.mark.parametrize(
    ("blocks", "error", "match"),
    [
        ([np.eye(2), np.eye(3)], ValueError, "has 3 columns, the matrix 2"),
        ([np.eye(2, dtype=np.int8), np.eye(2)], TypeError, "float64, the matrix of int8"),
        ([[1.0, 2.0]], ValueError, "block must have two dimensions, got 1"),
        ([np.eye(2) * 1j], TypeError, "real numeric type"),
    ],
)
def test_save_refuses(tmp_path, blocks, error, match):
    with pytest.raises(error, match=match):
        save_csr(tmp_path / "X", blocks)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_not_written_to(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files, such as 'notes\.txt'"):
        save_csr(tmp_path, np.eye(2))
    with pytest.raises(ValueError, match="is a file"):
        save_csr(tmp_path / "notes.txt", np.eye(2))
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        save_csr(tmp_path / "none" / "X", np.eye(2))
    (tmp_path / "header.json").write_text("{}")
    with pytest.raises(ValueError, match="foreign"):
        save_csr(tmp_path, np.eye(2))
    with pytest.raises(TypeError, match=r"n_columns must be a whole number or None, got 2\.0"):
        CSRWriter(tmp_path / "X", 2.0)
    with pytest.raises(ValueError, match="n_columns=-1"):
        CSRWriter(tmp_path / "X", -1)
    with pytest.raises(TypeError, match="dtype=object"):
        CSRWriter(tmp_path / "X", 2, dtype=object)
    assert sorted(a.name for a in tmp_path.iterdir()) == ["header.json", "notes.txt"]


# ------------------------------------------------------------------------------- damage


HUGE = 2**55
DAMAGE = {
    "rows": (lambda h: h["shape"].__setitem__(0, HUGE), "indptr.*by its header it should have"),
    "entries": (lambda h: h.update(nnz=HUGE), "indices.*should have"),
    "fewer columns": (lambda h: h["shape"].__setitem__(1, 7), "is not one of 7"),
    "negative": (lambda h: h["shape"].__setitem__(0, -1), "header.json is damaged.*no sizes"),
    "bool": (lambda h: h.update(nnz=True), "no sizes"),
    "float": (lambda h: h.update(nnz=1.5), "no sizes"),
    "beyond 64 bits": (lambda h: h.update(nnz=2**70), "no sizes"),
    "shape": (lambda h: h.update(shape=3), "no sizes"),
    "no arrays": (lambda h: h.pop("arrays"), "header.json is damaged"),
    "objects": (lambda h: h["arrays"]["data"].update(dtype="|O"), "no type of data"),
    "index type": (lambda h: h["arrays"]["indptr"].update(dtype="<f4"), "no type of indptr"),
    "elsewhere": (lambda h: h["arrays"]["data"].update(file="../../x.bin"), "no file of data"),
    "swapped": (lambda h: h["arrays"].update(data=h["arrays"]["indices"]), "no file of data"),
    "missing": (lambda h: h["arrays"]["data"].update(file="data.00000000.bin"), "is missing"),
    "newer": (lambda h: h.update(version=2), "version 2, and this skxmc knows up to 1: update"),
    "format": (lambda h: h.update(format="zarr"), "foreign, or damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_header_is_refused_and_allocates_nothing(saved, name):
    change, match = DAMAGE[name]
    header = json.loads((saved / "header.json").read_text())
    change(header)
    (saved / "header.json").write_text(json.dumps(header))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            open_csr(saved, check=True)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [b"", b"[", b"[1]", b"\xff\xfe", b"[" * 60_000, b"1" * 100_000])
def test_a_foreign_header_is_refused(saved, text):
    (saved / "header.json").write_bytes(text)
    with pytest.raises(ValueError, match="foreign, or damaged"):
        open_csr(saved)


@pytest.mark.parametrize("name", ["indptr", "indices", "data"])
@pytest.mark.parametrize("change", [-1, 4])
def test_a_file_of_another_size_is_named(saved, name, change):
    (path,) = saved.glob(f"{name}.*")
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(ValueError, match=rf"{name}\..*bytes, and by its header it should have"):
        open_csr(saved)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("name", "at", "value", "match"),
    [
        ("indptr", 0, 1, "row ends do not ascend"),
        ("indptr", 3, 10**6, "row ends do not ascend"),
        ("indptr", -1, 5, "row ends do not ascend"),
        ("indices", 5, -1, "column -1 is not one of 400"),
        ("indices", -1, 400, "column 400 is not one of 400"),
        ("indices", 1, 0, "do not ascend at entry 1"),
    ],
)
def test_check_finds_damage_inside(saved, monkeypatch, chunk, name, at, value, match):
    monkeypatch.setattr(_disk, "_CHUNK", chunk)
    (path,) = saved.glob(f"{name}.*")
    array = np.fromfile(path, np.int32)
    array[at] = value
    array.tofile(path)
    with pytest.raises(ValueError, match=match):
        open_csr(saved, check=True)


def test_not_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_csr(tmp_path / "none")
    (tmp_path / "a").write_text("a")
    with pytest.raises(ValueError, match="is a file"):
        open_csr(tmp_path / "a")
    with pytest.raises(ValueError, match=r"no header\.json"):
        open_csr(tmp_path)


# ----------------------------------------------------------------------------- conversion


@pytest.mark.parametrize("block", [1, 1 << 23])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("form", ["xmc", "svmlight"])
def test_conversion_gives_what_loading_gives(tmp_path, monkeypatch, form, name, dtype, block):
    monkeypatch.setattr(_files, "_BLOCK_BYTES", block)
    path = tmp_path / name
    save_xmc_file(path, *make_xmc(120, 80, 20, random_state=0), format=form)
    convert_xmc_file(path, tmp_path / "X", tmp_path / "Y", dtype=dtype)
    for part, expected in zip("XY", load_xmc_file(path, dtype=dtype), strict=True):
        assert_same(open_csr(tmp_path / part, check=True), expected)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("1 1:1 3:2\n0,2 2:0\n3\n", {"zero_based": "auto"}),
        ("1 1:1 3:2\n0 0:1\n", {"zero_based": "auto"}),
        ("1 1:1 3:2\n", {"zero_based": False, "n_labels": 9}),
        ("1 1:1 3:2\n", {"n_features": 2**40}),
        ("1 1:1\n0 5000000000:2 3:1\n 1:1\n", {}),
        ("1 2147483648:1\n2 5:1\n", {"zero_based": "auto"}),
        ("0 4 3\n", {}),
        ("2 4 3\n\n\n", {}),
    ],
)
def test_conversion_of_corner_cases(tmp_path, text, arguments):
    path = tmp_path / "a.txt"
    path.write_text(text)
    convert_xmc_file(path, tmp_path / "X", tmp_path / "Y", **arguments)
    for part, expected in zip("XY", load_xmc_file(path, **arguments), strict=True):
        assert_same(open_csr(tmp_path / part, check=True), expected)


def test_a_fault_in_the_text_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("2 4 3\n1 0:1\n1 oops\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 3"):
        convert_xmc_file(path, tmp_path / "X", tmp_path / "Y")
    with pytest.raises(ValueError, match="dtype=int8"):
        convert_xmc_file(path, tmp_path / "X", tmp_path / "Y", dtype=np.int8)
    with pytest.raises(ValueError, match="X_path and Y_path are both"):
        convert_xmc_file(path, tmp_path / "X", tmp_path / "." / "X")
    with pytest.raises(FileNotFoundError):
        convert_xmc_file(tmp_path / "none", tmp_path / "X", tmp_path / "Y")
    assert [a.name for a in tmp_path.iterdir()] == ["a.txt"]


def test_conversion_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_files, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(_files, "_SECONDS", 0)
    path = tmp_path / "a.txt"
    save_xmc_file(path, *make_xmc(50, 80, 20, random_state=0))
    convert_xmc_file(path, tmp_path / "X", tmp_path / "Y", verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("[convert_xmc_file] 50 rows  100%")
    assert len(lines) > 5


def test_conversion_needs_no_memory_for_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr(_disk, "_CHUNK", 1 << 12)
    path = tmp_path / "a.txt"
    save_xmc_file(path, *make_xmc(20_000, 80, 20, random_state=0))
    load_xmc_file(path)  # compiles
    tracemalloc.start()
    try:
        convert_xmc_file(path, tmp_path / "X", tmp_path / "Y")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000 < open_csr(tmp_path / "X").data.nbytes


# ------------------------------------------------------------------------------- training


@pytest.mark.parametrize("sampler", ["uniform", "clustered-in-batch+uniform"])
def test_fit_and_predict_give_the_same_bits_as_in_memory(tmp_path, problem, sampler):
    X, Y = problem
    save_csr(tmp_path / "X", X)
    save_csr(tmp_path / "Y", Y)
    parameters = {"hidden_layer_sizes": (16,), "n_estimators": 1, "max_iter": 2, "n_jobs": 1}
    clf = XMCClassifier(sampler, random_state=0, **parameters).fit(X, Y)
    mapped = open_csr(tmp_path / "X"), open_csr(tmp_path / "Y")
    other = XMCClassifier(sampler, random_state=0, **parameters).fit(*mapped)
    for a, b in zip(clf.predict_topk(X), other.predict_topk(mapped[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_same(open_csr(tmp_path / "X", check=True), X)
    assert_same(open_csr(tmp_path / "Y", check=True), Y)


def test_the_forms_that_training_works_on_are_the_mapped_arrays(tmp_path, problem):
    X, Y = problem
    save_csr(tmp_path / "X", X)
    save_csr(tmp_path / "Y", Y)
    X, Y = open_csr(tmp_path / "X"), open_csr(tmp_path / "Y")
    rows = as_rows(X)
    assert np.shares_memory(rows.indices, X.indices)
    assert np.shares_memory(rows.data, X.data)
    targets, _, kind = encode_targets(Y)
    assert kind == "sparse"
    assert np.shares_memory(targets.indices, Y.indices)
    every = np.arange(Y.shape[1])
    assert np.shares_memory(select_labels(targets, every).indices, Y.indices)


def test_labels_are_counted_and_selected_as_scipy_does(problem):
    Y = sp.csr_array(problem[1][:40])
    np.testing.assert_array_equal(count_labels(Y), Y.sum(axis=0))
    seen = np.flatnonzero(Y.sum(axis=0))
    assert len(seen) < Y.shape[1]
    np.testing.assert_array_equal(select_labels(Y, seen).toarray(), Y[:, seen].toarray())


@pytest.mark.parametrize("stored", ["zeros", "twice", "unsorted"])
def test_a_y_that_is_not_canonical_stays_as_it_is(stored):
    data, indices = {
        "zeros": ([1, 0, 1], [0, 1, 1]),
        "twice": ([1, 1, 1], [0, 1, 1]),
        "unsorted": ([1, 1, 1], [1, 0, 1]),
    }[stored]
    Y = sp.csr_array((np.array(data), np.array(indices), np.array([0, 2, 3])), (2, 2))
    before = Y.data.copy(), Y.indices.copy()
    targets, *_ = encode_targets(Y)
    np.testing.assert_array_equal(targets.toarray(), Y.toarray())
    assert targets.has_canonical_format
    assert targets.data.all()
    np.testing.assert_array_equal(Y.data, before[0])
    np.testing.assert_array_equal(Y.indices, before[1])


def test_take_gives_rows_as_scipy_does(problem):
    X = problem[0]
    rows = np.random.default_rng(0).permutation(X.shape[0])[:50]
    for part in (rows, rows[:0]):
        found = take(as_rows(X), part)
        assert found.indptr.dtype == np.int64
        matrix = sp.csr_array((found.data, found.indices, found.indptr), shape=found.shape)
        np.testing.assert_array_equal(matrix.toarray(), X[part].toarray())


@pytest.fixture
def large(saved, monkeypatch):
    """A mapped matrix that takes itself for a large one."""
    monkeypatch.setattr("skxmc._mapped.RUN_BYTES", 2_000)
    monkeypatch.setattr("skxmc._mapped.MIXED_BYTES", 50_000)
    monkeypatch.setattr("skxmc._mapped.GAP_BYTES", 0)
    return as_rows(open_csr(saved))


def test_rows_on_disk_are_visited_in_runs_that_are_mixed(large):
    mapped = MappedOrder.of(large)
    n = large.shape[0]
    order = mapped.draw(np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    other = mapped.draw(np.random.default_rng(1))
    assert (order != other).mean() > 0.9
    assert mapped.run < mapped.mixed < n
    for start in range(0, n, mapped.mixed):
        part = order[start : start + mapped.mixed]
        runs = np.unique(part // mapped.run)
        assert len(runs) <= len(part) / mapped.run + 2  # whole runs, but at the ends
        assert np.abs(np.diff(part)).mean() > mapped.run  # and mixed


def test_rows_in_memory_or_few_have_no_such_order(saved, large, monkeypatch):
    X = open_csr(saved)
    assert MappedOrder.of(Rows.of(X.copy())) is None
    assert MappedOrder.of(X.toarray()) is None
    monkeypatch.setattr("skxmc._mapped.MIXED_BYTES", 2**26)
    assert MappedOrder.of(large) is None


@pytest.mark.parametrize("window", [None, 100])
def test_each_row_is_asked_for_once_before_it_is_due(large, monkeypatch, window):
    if not hasattr(mmap, "MADV_WILLNEED"):
        pytest.skip("no madvise")
    mapped = MappedOrder.of(large)
    asked = np.zeros(large.shape[0], int)
    advice = []

    def note(name, first=0, last=None):
        advice.append(name)
        if name == "MADV_WILLNEED":
            asked[first:last] += 1

    order = mapped.draw(np.random.default_rng(0))
    step = window or mapped.mixed
    real = mapped._advise
    monkeypatch.setattr(mapped, "_advise", lambda *a: (note(*a), real(*a)))
    with mapped.reading(order, window) as reach:
        for start in range(0, len(order), 64):
            reach(start)
            end = start // step * step + step  # of the window: the next may be asked for right now
            assert (asked[order[start : min(start + 64, end)]] == 1).all()
            assert asked.sum() <= start + 3 * step
    assert (asked == 1).all()
    assert (advice[0], advice[-1]) == ("MADV_RANDOM", "MADV_NORMAL")


def test_a_call_asks_for_no_more_than_a_disk_reads_ahead(large, monkeypatch):
    if not hasattr(mmap, "MADV_WILLNEED"):
        pytest.skip("no madvise")
    calls = []
    libc = SimpleNamespace(madvise=lambda at, size, advice: calls.append((at.value, size.value)))
    monkeypatch.setattr(_mapped, "_libc", lambda: libc)
    monkeypatch.setattr(_mapped, "CALL_BYTES", mmap.PAGESIZE)
    MappedOrder.of(large)._advise("MADV_WILLNEED")
    pages = {at + i for at, size in calls for i in range(0, size, mmap.PAGESIZE)}
    for array in (large.indices, large.data):
        begin = array.ctypes.data
        assert set(range(begin, begin + array.nbytes, mmap.PAGESIZE)) <= pages
    assert max(size for _, size in calls) == mmap.PAGESIZE
    assert len(calls) > 10


def test_what_is_between_rows_is_read_too_where_it_is_little(large, monkeypatch):
    mapped = MappedOrder.of(large)
    asked = []
    monkeypatch.setattr(mapped, "_advise", lambda name, *rows: asked.append(rows))
    mapped.gap = 3
    with mapped.reading(np.array([20, 3, 9, 5, 8])) as reach:
        reach(0)
    assert asked == [(), (3, 10), (20, 21), ()]


def test_training_visits_mapped_rows_in_that_order_and_learns_as_much(
    saved, large, problem, monkeypatch
):
    X, Y = problem
    drawn = []
    draw = MappedOrder.draw
    monkeypatch.setattr(MappedOrder, "draw", lambda *a: drawn.append(draw(*a)) or drawn[-1])
    parameters = {"hidden_layer_sizes": (16,), "n_estimators": 2, "max_iter": 5, "n_jobs": 1}
    mapped = open_csr(saved)
    clf = XMCClassifier("uniform", random_state=0, **parameters).fit(X, Y)
    assert not drawn
    other = XMCClassifier("uniform", random_state=0, **parameters).fit(mapped, Y)
    assert len(drawn) == 10
    assert other.score(X, Y) > clf.score(X, Y) - 0.1  # seeds differ by 0.02
    XMCClassifier("clustered-in-batch", random_state=0, **parameters).fit(mapped, Y)


@pytest.mark.parametrize(
    "parameters", [{"early_stopping": True, "tail_bias": 0}, {"late_fusion": "auto"}]
)
def test_rows_on_disk_are_held_out_without_a_copy(saved, large, problem, monkeypatch, parameters):
    monkeypatch.setattr("skxmc._mapped.MIXED_BYTES", 10_000)
    X, Y = open_csr(saved), problem[1]
    fit = {"hidden_layer_sizes": (16,), "n_estimators": 2, "max_iter": 4, "n_jobs": 1}
    trained, most = [], []
    epoch = Trainer.epoch
    monkeypatch.setattr(Trainer, "epoch", lambda *a: trained.append(a[0]) or epoch(*a))
    monkeypatch.setattr("skxmc._inputs.take", lambda *a: most.append(len(a[1])) or take(*a))
    clf = XMCClassifier("in-batch+uniform", random_state=0, **fit, **parameters).fit(X, Y)
    assert all(np.shares_memory(trainer.X.data, X.data) for trainer in trained)
    assert max(most) == MappedOrder.of(large).mixed < 60  # and not all rows held out at once
    assert sum(most) >= 2 * 60
    _, held = train_test_split(
        np.arange(X.shape[0]), test_size=0.1,
        random_state=np.random.RandomState(0).randint(2**31 - 1),
    )  # fmt: skip
    for trainer in trained:
        np.testing.assert_array_equal(np.flatnonzero(~trainer.visited), np.sort(held))
        assert not np.diff(trainer.Y.indptr)[held].any()  # nothing of them is known
    other = XMCClassifier("in-batch+uniform", random_state=0, **fit, **parameters)
    other.fit(problem[0], Y)
    found = X[held], Y[held]
    assert abs(clf.score(*found) - other.score(*found)) < 0.2
    if "early_stopping" in parameters:
        assert max(clf.validation_scores_) == pytest.approx(clf.score(*found))
    else:
        ranked = clf._predictor(found[0], clf.tail_bias_).rankings(as_rows(found[0]), len(held), 5)
        assert clf.late_fusion_ == choose_fusion([(ranked, Y[held])])


def test_labels_of_some_rows_are_taken_out(problem):
    Y = problem[1]
    rows = np.arange(0, 600, 7)
    expected = Y.toarray()
    expected[rows] = 0
    found = without_rows(Y, rows)
    found.check_format(full_check=True)
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.indptr.dtype == Y.indptr.dtype
