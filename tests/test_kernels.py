"""The two ends against each other and against plain loops; shortlists against plain loops."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skxmc import _kernels, _shortlist_kernels
from skxmc._ends import FIRST_SQUARES, CompiledEnds, Rows, Table, TorchEnds
from skxmc._training import make_shortlist
from skxmc._units import SIZE, Units
from skxmc.samplers import Proposal
from skxmc.samplers._base import draw_uniform

ENDS = [
    pytest.param(CompiledEnds, id="compiled"),
    pytest.param(TorchEnds, id="torch"),
    pytest.param(
        lambda: TorchEnds("cuda"),
        id="torch-cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    ),
]
SKIP = 0.25
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

# --- batches of ragged lists of (id, coefficient), in the two forms that the ends take ------------


class Batch:
    """Lists of (id, coefficient), a vector for each list, and a table; `places` for any ends.

    Under dropout the vectors have numbers for some of the table's `columns` alone.
    """

    def __init__(self, kind, lists, n_table, width, with_bias, order, seed, dropout=0.0):
        rng = np.random.default_rng(seed)
        self.kind = kind
        # About a third of the coefficients lies below SKIP, some are 0, one is SKIP itself.
        choices = np.array([0.0, 0.01, -0.1, SKIP, -SKIP, 0.5, -1.0, 2.0], np.float32)
        if kind == "padded":
            longest = max(map(len, lists))
            self.ids = np.array([a + [-1] * (longest - len(a)) for a in lists], np.int32)
            self.ids = self.ids.reshape(len(lists), longest)
            self.coefficients = rng.choice(choices, self.ids.shape)
            self.lists = [
                list(zip(a, b, strict=True))
                for a, b in zip(self.ids.tolist(), self.coefficients, strict=True)
            ]
        else:
            lists = [[i for i in a if i >= 0] for a in lists]
            flat = np.array([i for a in lists for i in a], np.int32)
            indptr = np.cumsum([0] + [len(a) for a in lists])
            self.matrix = Rows(
                indptr.astype(np.int64), flat, rng.choice(choices, len(flat)), (len(lists), n_table)
            )
            self.rows = np.array(order) % len(lists)  # some left out, some twice, in any order
            self.lists = [
                [(flat[p], self.matrix.data[p]) for p in range(indptr[i], indptr[i + 1])]
                for i in self.rows
            ]
        n_bias = n_table if with_bias else 0
        self.units = Units.draw(width, dropout, rng) if dropout else None
        self.columns = np.arange(width) if self.units is None else self.units.columns
        shape = (len(self.lists), len(self.columns))
        self.source = rng.standard_normal(shape, dtype=np.float32)
        self.weights = rng.standard_normal((n_table, width), dtype=np.float32)
        self.biases = rng.standard_normal(n_bias, dtype=np.float32)
        self.squares = rng.random(n_table, dtype=np.float32) + np.float32(0.01)
        self.bias_squares = rng.random(n_bias, dtype=np.float32) + np.float32(0.01)

    def places(self, ends):
        if self.kind == "rows":
            return ends.places(self.matrix, self.rows)
        return ends.padded_places(self.ids, torch.from_numpy(self.coefficients).to(ends.device))

    def table(self, ends):
        arrays = (self.weights, self.biases, self.squares, self.bias_squares)
        tensors = (torch.from_numpy(a.copy()).to(ends.device) for a in arrays)
        return Table(*tensors, units=self.units)

    def hidden(self, ends):
        return torch.from_numpy(self.source).to(ends.device)


@st.composite
def batches(draw, kinds=("padded", "rows")):
    n_table = draw(st.integers(1, 7))
    lists = draw(
        st.lists(st.lists(st.integers(-1, n_table - 1), max_size=6), min_size=1, max_size=5)
    )
    return Batch(
        draw(st.sampled_from(kinds)),
        lists,
        n_table,
        width=draw(st.sampled_from([1, 2, 3, 17, 70])),
        with_bias=draw(st.booleans()),
        order=draw(st.lists(st.integers(0, 4), min_size=1, max_size=5)),
        seed=draw(st.integers(0, 2**16)),
        dropout=draw(st.sampled_from([0.0, 0.3, 0.9])),
    )


def bits(array):
    return np.ascontiguousarray(array, np.float32).view(np.int32)


# --- the slow truth -------------------------------------------------------------------------------


def slow_gather_sum(batch):
    out = np.zeros(batch.source.shape)
    for i, places in enumerate(batch.lists):
        for row, coefficient in places:
            if row >= 0:
                out[i] += float(coefficient) * batch.weights[row, batch.columns]
    return out


def slow_gather_dot(batch):
    out = []
    for i, places in enumerate(batch.lists):
        for row, _ in places:
            score = 0.0
            if row >= 0:
                score = float(batch.biases[row])
                for a, b in zip(batch.source[i], batch.weights[row, batch.columns], strict=True):
                    score += float(a) * float(b)
            out.append(score)
    return np.array(out)


def slow_adagrad(batch, gradients, bias_gradients, rate):
    """Row-wise Adagrad from dicts of row -> gradient; returns the four arrays, float64.

    Columns that take no part have a gradient of 0.
    """
    weights, biases, squares, bias_squares = (
        a.astype(float) for a in (batch.weights, batch.biases, batch.squares, batch.bias_squares)
    )
    for row, gradient in gradients.items():
        squares[row] += sum(g * g for g in gradient) / weights.shape[1]
        weights[row, batch.columns] -= rate * gradient / squares[row] ** 0.5
        if len(biases):
            bias_squares[row] += bias_gradients[row] ** 2
            biases[row] -= rate * bias_gradients[row] / bias_squares[row] ** 0.5
    return weights, biases, squares, bias_squares


def slow_gradients(batch, skip):
    gradients, bias_gradients = {}, {}
    for i, places in enumerate(batch.lists):
        for row, coefficient in places:
            if row < 0 or abs(coefficient) < skip:
                continue
            old = gradients.get(row, np.zeros(batch.source.shape[1]))
            gradients[row] = old + float(coefficient) * batch.source[i]
            bias_gradients[row] = bias_gradients.get(row, 0.0) + float(coefficient)
    return gradients, bias_gradients


def assert_updated(table, batch, expected, touched):
    """The touched rows moved as expected; others, and columns left out, kept their very bits."""
    before = (batch.weights, batch.biases, batch.squares, batch.bias_squares)
    after = (table.weights, table.biases, table.squares, table.bias_squares)
    still = np.setdiff1d(np.arange(len(batch.weights)), list(touched))
    for old, new, wanted in zip(before, after, expected, strict=True):
        new = new.cpu().numpy()
        np.testing.assert_allclose(new, wanted, **CLOSE)
        if len(old):
            np.testing.assert_array_equal(bits(new[still]), bits(old[still]))
    out = np.setdiff1d(np.arange(batch.weights.shape[1]), batch.columns)
    new = table.weights.cpu().numpy()
    np.testing.assert_array_equal(bits(new[:, out]), bits(batch.weights[:, out]))


# --- the ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_ends", ENDS)
@given(batch=batches())
def test_gather_sum_is_the_weighted_sum_of_table_rows(make_ends, batch):
    ends = make_ends()
    out = ends.gather_sum(batch.places(ends), batch.table(ends))
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.cpu(), slow_gather_sum(batch), **CLOSE)


@pytest.mark.parametrize("make_ends", ENDS)
@given(batch=batches(kinds=["padded"]).filter(lambda batch: len(batch.biases)))
def test_gather_dot_scores_each_place_and_is_0_where_there_is_none(make_ends, batch):
    ends = make_ends()
    places = ends.padded_places(batch.ids)
    out = ends.gather_dot(places, batch.hidden(ends), batch.table(ends))
    assert out.shape == (batch.ids.size,)
    np.testing.assert_allclose(out.cpu(), slow_gather_dot(batch), **CLOSE)
    assert (out.cpu().numpy()[batch.ids.ravel() < 0] == 0).all()


@pytest.mark.parametrize("make_ends", ENDS)
@given(batch=batches(), skip=st.sampled_from([0.0, SKIP]))
def test_scatter_is_one_step_of_row_wise_adagrad_for_each_row_held(make_ends, batch, skip):
    ends = make_ends()
    table = batch.table(ends)
    ends.scatter(batch.places(ends), batch.hidden(ends), table, 0.1, skip)
    gradients = slow_gradients(batch, skip)
    assert_updated(table, batch, slow_adagrad(batch, *gradients, 0.1), gradients[0])


@pytest.mark.parametrize("make_ends", ENDS)
@given(batch=batches(), data=st.data())
def test_update_rows_is_one_step_of_row_wise_adagrad_for_the_rows_given(make_ends, batch, data):
    n, width = len(batch.weights), len(batch.columns)
    block = data.draw(st.booleans())
    ids = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
    ids = list(range(len(ids))) if block else ids
    rng = np.random.default_rng(len(ids))
    gradients = rng.standard_normal((len(ids), width), dtype=np.float32)
    bias_gradients = rng.standard_normal(len(ids) if len(batch.biases) else 0, dtype=np.float32)
    ends = make_ends()
    table = batch.table(ends)
    ends.update_rows(
        slice(0, len(ids)) if block else np.array(ids, np.int32),
        torch.from_numpy(gradients).to(ends.device),
        torch.from_numpy(bias_gradients).to(ends.device),
        table,
        0.1,
    )
    expected = slow_adagrad(
        batch,
        dict(zip(ids, gradients.astype(float), strict=True)),
        dict(zip(ids, bias_gradients.astype(float), strict=False)),
        0.1,
    )
    assert_updated(table, batch, expected, ids)


@pytest.mark.parametrize("make_ends", ENDS)
@given(batch=batches(), data=st.data())
def test_take_copies_table_rows_and_of_them_the_columns_that_take_part(make_ends, batch, data):
    ids = data.draw(st.lists(st.integers(0, len(batch.weights) - 1), max_size=6))
    ends = make_ends()
    table = batch.table(ends)
    out = ends.take(np.array(ids, np.int32), table).cpu().numpy()
    np.testing.assert_array_equal(bits(out), bits(batch.weights[ids][:, batch.columns]))
    assert not np.shares_memory(out, table.weights.cpu().numpy())
    if make_ends is CompiledEnds:
        n_rows = len(ids) + data.draw(st.integers(0, 3))
        with pytest.MonkeyPatch.context() as patch:  # memory as it may be found
            patch.setattr(torch, "empty", lambda *shape, dtype: torch.full(shape, torch.nan))
            longer = ends.take(np.array(ids, np.int32), table, n_rows).numpy()
        np.testing.assert_array_equal(bits(longer[: len(ids)]), bits(out))
        np.testing.assert_array_equal(
            longer[len(ids) :], np.zeros((n_rows - len(ids), len(batch.columns)))
        )


@given(batch=batches())
def test_compiled_scatter_leaves_its_scratch_as_it_found_it(batch):
    ends = CompiledEnds()
    table = batch.table(ends)
    for skip in (0.0, SKIP, 0.0):
        ends.scatter(batch.places(ends), batch.hidden(ends), table, 0.1, skip)
        assert (ends.slot(len(table.weights)) == -1).all()


@given(batch=batches())
def test_a_second_compiled_scatter_continues_from_the_first(batch):
    """State that a first call left behind (scratch, squares) must not leak into a second."""
    compiled, plain = CompiledEnds(), TorchEnds()
    tables = {ends: batch.table(ends) for ends in (compiled, plain)}
    for rate in (0.1, 0.03, 0.2):
        for ends, table in tables.items():
            ends.scatter(batch.places(ends), batch.hidden(ends), table, rate)
    for name in ("weights", "biases", "squares", "bias_squares"):
        one, other = (getattr(tables[ends], name) for ends in (compiled, plain))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make_ends", ENDS)
def test_equal_calls_give_equal_bits(make_ends):
    rng = np.random.default_rng(0)
    lists = [rng.integers(-1, 50, 40).tolist() for _ in range(20)]
    batch = Batch("padded", lists, 50, 33, True, [], seed=0)

    def run():
        ends = make_ends()
        table = batch.table(ends)
        places, hidden = batch.places(ends), batch.hidden(ends)
        out = [ends.gather_sum(places, table), ends.gather_dot(places, hidden, table)]
        ends.scatter(places, hidden, table, 0.1)
        return [a.cpu().numpy() for a in [*out, table.weights, table.biases, table.squares]]

    for one, other in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(bits(one), bits(other))


# --- the layer, and dense weights -----------------------------------------------------------------


@pytest.mark.parametrize("make_ends", ENDS)
@given(
    width=st.sampled_from([1, 3, 40, 70]),
    dropout=st.sampled_from([0.0, 0.4]),
    spoiled=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_rectify_and_its_gradients_are_those_of_autograd(make_ends, width, dropout, spoiled, seed):
    ends, rng = make_ends(), np.random.default_rng(seed)
    units = Units.draw(width, dropout, rng) if dropout else None
    columns, scale = (range(width), 1.0) if units is None else (units.columns, units.scale)
    biases = torch.from_numpy(rng.standard_normal(width, dtype=np.float32)).to(ends.device)
    shape = (4, len(columns))
    inputs, gradient = (
        torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(ends.device)
        for _ in range(2)
    )
    if spoiled:
        inputs[1, 0] = torch.nan
    one, other = inputs.clone().requires_grad_(), biases.clone().requires_grad_()
    expected = torch.relu(one + other[list(columns)]) * scale
    out, back = ends.rectify(inputs, biases, units)
    torch.testing.assert_close(out, expected.detach(), equal_nan=True)
    if spoiled:  # what a step makes of NaN does not count: it ends the fit
        return
    for mine, his in zip(
        back(gradient), torch.autograd.grad(expected, [one, other], gradient), strict=True
    ):
        torch.testing.assert_close(mine, his)


@pytest.mark.parametrize("make_ends", ENDS)
@pytest.mark.parametrize("shape", [(3,), (4, 5)])
def test_dense_weights_move_as_adagrad_of_torch_moves_them(make_ends, shape):
    ends, rng = make_ends(), np.random.default_rng(0)
    start = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(ends.device)
    weights, squares = start.clone().requires_grad_(), torch.zeros_like(start)
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.Adagrad([theirs], lr=0.3)
    for _ in range(3):
        gradient = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(ends.device)
        theirs.grad = gradient
        optimiser.step()
        ends.adagrad(weights, squares, gradient, 0.3)
        torch.testing.assert_close(weights, theirs)


@pytest.mark.parametrize("make_ends", ENDS)
@given(n=st.integers(1, 4), m=st.integers(1, 40), seed=st.integers(0, 99), data=st.data())
def test_summarize_counts_what_stands_behind_the_positives(make_ends, n, m, seed, data):
    first = data.draw(st.integers(0, m))
    rng = np.random.default_rng(seed)
    gradient = rng.choice(np.array([0, 0.5, -2, 1e-30], np.float32), (n, m))
    weights = rng.choice(np.array([0, 1, 3], np.float32), (n, m))
    ends = make_ends()
    tensors = (torch.from_numpy(a).to(ends.device) for a in (gradient, weights))
    total, n_active, n_weights = ends.summarize(*tensors, first)
    assert float(total) == pytest.approx(abs(gradient[:, first:]).sum())
    assert int(n_active) == np.count_nonzero(gradient[:, first:])
    assert int(n_weights) == np.count_nonzero(weights[:, first:])


# --- which units take part ------------------------------------------------------------------------


@given(
    width=st.integers(1, 700),
    dropout=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**16),
)
def test_units_are_blocks_apart_and_some_always_take_part(width, dropout, seed):
    units = Units.draw(width, dropout, np.random.default_rng(seed))
    columns = units.columns
    np.testing.assert_array_equal(columns, np.unique(columns))
    assert len(columns) == units.n > 0
    assert columns[-1] < width
    spans = units.spans.astype(int)
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[1:, 0] > spans[:-1, 1]).all()  # else it would be one
    size = min(SIZE, max(1, width // 16))
    np.testing.assert_array_equal(spans[:, 0] % size, 0)
    assert all(stop % size == 0 or stop == width for stop in spans[:, 1])


@pytest.mark.parametrize("dropout", [0.1, 0.4, 0.5, 0.97])
@pytest.mark.parametrize("width", [5, 16, 100, 512])
def test_each_unit_takes_part_as_often_as_dropout_says_and_its_mean_stays(width, dropout):
    rng, n = np.random.default_rng(0), 4000
    counts, mean = np.zeros(width), np.zeros(width)
    for _ in range(n):
        units = Units.draw(width, dropout, rng)
        counts[units.columns] += 1
        mean[units.columns] += units.scale / n
    n_blocks = -(-width // min(SIZE, max(1, width // 16)))
    share = max(1 - dropout, 1 / n_blocks)  # one block at least
    spread = 5 * np.sqrt(share * (1 - share) / n)
    np.testing.assert_allclose(counts / n, share, atol=spread)
    np.testing.assert_allclose(mean, 1, atol=spread / share)


def test_training_starts_from_the_same_small_sum_of_squares_everywhere():
    table = Table(torch.ones(3, 2), torch.ones(3))
    table.prepare_training()
    assert table.squares.tolist() == table.bias_squares.tolist()
    np.testing.assert_allclose(table.squares, [FIRST_SQUARES] * 3)
    none = Table(torch.ones(3, 2), torch.ones(0))
    none.prepare_training()
    assert none.bias_squares.shape == (0,)


def test_rows_of_a_matrix_copy_only_what_has_another_dtype():
    matrix = sp.random(5, 7, 0.5, "csr", np.float32, random_state=0)
    matrix.indptr = matrix.indptr.astype(np.int64)
    matrix.indices = matrix.indices.astype(np.int32)
    rows = Rows.of(matrix)
    assert rows.shape == (5, 7)
    assert np.shares_memory(rows.indptr, matrix.indptr)
    assert np.shares_memory(rows.indices, matrix.indices)
    assert np.shares_memory(rows.data, matrix.data)
    wide = Rows.of(sp.csr_array(matrix, dtype=np.float64), values=False)
    assert (wide.indptr.dtype, wide.indices.dtype, wide.data) == (np.int64, np.int32, None)


# --- shortlists -----------------------------------------------------------------------------------


def label_rows(lists, n_labels):
    indptr = np.cumsum([0] + [len(a) for a in lists]).astype(np.int64)
    flat = np.array([label for a in lists for label in sorted(a)], np.int32)
    return Rows(indptr, flat, None, (len(lists), n_labels))


def slow_negatives(positives, i, proposals):
    """Label -> weight for row i: the row's own proposals first, then those that all rows share."""
    own = [a for a in proposals if a.labels.ndim == 2]
    shared = [a for a in proposals if a.labels.ndim == 1]
    counted = {}
    for proposal in own + shared:
        labels = proposal.labels[i] if proposal.labels.ndim == 2 else proposal.labels
        weights = np.broadcast_to(proposal.weight, labels.shape)
        for label, weight in zip(labels.tolist(), weights, strict=True):
            if label >= 0 and label not in positives and label not in counted:
                counted[label] = pytest.approx(weight)
    return counted


def counted_places(shortlist, i):
    """What row i is trained against: [(label, weight)] of the positives, and of the negatives."""
    labels = [*shortlist.labels[i].tolist(), *shortlist.shared.tolist()]
    places = list(zip(labels, shortlist.weights[i].tolist(), strict=True))
    split = [places[: shortlist.n_positives], places[shortlist.n_positives :]]
    return [[(label, weight) for label, weight in part if weight != 0] for part in split]


def check_shortlist(lists, rows, proposals, n_labels, max_positives=256, seed=0, weights=None):
    Y = label_rows(lists, n_labels)
    slot = np.full(n_labels, -1, np.int32)
    rng = np.random.default_rng(seed)
    out = make_shortlist(Y, rows, proposals, rng, slot, max_positives, weights)

    assert (slot == -1).all()
    assert out.labels.dtype == out.shared.dtype == np.int32
    assert out.weights.dtype == np.float32
    r = out.labels.shape[1]
    assert out.weights.shape == (len(rows), r + len(out.shared))
    assert out.n_positives == min(max(len(lists[i]) for i in rows), max_positives)
    np.testing.assert_array_equal(out.labels < 0, out.weights[:, :r] == 0)
    for i, row in enumerate(rows):
        positives, negatives = counted_places(out, i)
        assert all(w == (1 if weights is None else weights[label]) for label, w in positives)
        taken = [label for label, _ in positives]
        assert len(set(taken)) == len(taken) == min(len(lists[row]), max_positives)
        assert set(taken) <= set(lists[row])
        assert len(dict(negatives)) == len(negatives), "a label counts twice"
        assert dict(negatives) == slow_negatives(lists[row], i, proposals)
    return out


@st.composite
def shortlist_problems(draw):
    n_labels = draw(st.integers(1, 8))
    label = st.integers(0, n_labels - 1)
    lists = draw(st.lists(st.sets(label).map(sorted), min_size=1, max_size=5))
    rows = draw(st.permutations(range(len(lists))))
    rows = np.array(rows[: draw(st.integers(1, len(lists)))])
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    proposals = []
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            labels = np.array(sorted(draw(st.sets(label))), np.int32)
            rng.shuffle(labels)
        else:
            labels = rng.integers(-1, n_labels, (len(rows), draw(st.integers(0, 6))), np.int32)
        weight = rng.uniform(0.5, 5, labels.shape[-1])
        proposals.append(Proposal(labels, weight if draw(st.booleans()) else rng.uniform(0.5, 5)))
    return lists, rows, proposals, n_labels


@settings(max_examples=400)
@given(
    problem=shortlist_problems(),
    max_positives=st.one_of(st.just(256), st.integers(1, 4)),
    weighted=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_shortlist_counts_every_label_of_a_row_once(problem, max_positives, weighted, seed):
    weights = np.random.default_rng(seed).uniform(0.5, 5, problem[-1]).astype(np.float32)
    check_shortlist(*problem, max_positives, seed, weights if weighted else None)


@given(
    n_labels=st.integers(1, 300),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=9),
    seed=st.integers(0, 2**16),
)
def test_sets_of_labels_are_what_numpy_says(n_labels, sizes, seed):
    rng = np.random.default_rng(seed)
    lists = [rng.integers(0, n_labels, min(size, n_labels)).tolist() for size in sizes]
    lists[0].append(n_labels - 1)
    Y, rows = label_rows(lists, n_labels), rng.permutation(len(lists))
    labels = np.concatenate([lists[row] for row in rows]).astype(np.int32)
    distinct, first = np.unique(labels, return_index=True)
    found = _shortlist_kernels.labels_of(Y.indptr, Y.indices, rows, n_labels)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, distinct)
    slot = np.full(n_labels, -1, np.int32)
    np.testing.assert_array_equal(_shortlist_kernels.first_of_each(labels, slot), first)
    assert (slot == -1).all()
    own = np.array([[9999, -1], [9999, n_labels - 1]], np.int32)
    assert _shortlist_kernels.are_labels(own, 1, labels, n_labels)
    assert _shortlist_kernels.are_labels(own, 2, labels[:0], 0)
    assert not _shortlist_kernels.are_labels(own, 1, labels, n_labels - 1)
    assert not _shortlist_kernels.are_labels(own, 2, labels, n_labels - 1)
    assert not _shortlist_kernels.are_labels(own, 0, labels, n_labels)
    labels[-1] = -1
    assert not _shortlist_kernels.are_labels(own, 1, labels, n_labels)


@given(n_labels=st.integers(1, 200), share=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_distinct_labels_are_drawn_in_floyds_way(n_labels, share, seed):
    uniform = np.random.default_rng(seed).random(round(share * n_labels))
    uniform[:1] = np.nextafter(1, 0)  # the highest that there is
    taken = []
    for t, u in enumerate(uniform):
        m = n_labels - len(uniform) + t
        label = int(u * (m + 1))
        taken.append(m if label in taken else label)
    out = _shortlist_kernels.draw_distinct(n_labels, uniform)
    assert out.dtype == np.int32
    assert out.tolist() == taken
    assert len(set(taken)) == len(taken)
    assert all(0 <= label < n_labels for label in taken)


def test_each_set_of_labels_is_drawn_as_often():
    rng, n = np.random.default_rng(0), 20_000
    sets = (tuple(sorted(draw_uniform(rng, 5, 2).tolist())) for _ in range(n))
    _, counts = np.unique(list(sets), axis=0, return_counts=True)
    assert len(counts) == 10
    assert np.abs(counts - n / 10).max() < 4.5 * np.sqrt(n * 0.09)


def shared(*labels, weight=1.0):
    return Proposal(np.array(labels, np.int32), weight)


def own(*rows, weight=1.0):
    return Proposal(np.array(rows, np.int32), weight)


ROWS = np.arange(2)
LISTS = [[0, 3], [2]]


@pytest.mark.parametrize("others", [(), (shared(1, 4),)], ids=["alone", "beside another"])
@pytest.mark.parametrize("label", [5, 2**31 + 3, 2**32 + 3, -1])
def test_what_is_no_label_is_not_trained_on(label, others):
    """Nor does it lead to memory beyond the tables."""
    dtype = np.int32 if label < 2**31 else np.int64
    for proposal in (
        Proposal(np.array([3, label], dtype)),
        Proposal(np.array([[3, label]] * 2, dtype)),
    ):
        slot, rng = np.full(5, -1, np.int32), np.random.default_rng(0)
        args = label_rows(LISTS, 5), ROWS, [proposal, *others], rng, slot
        if label == -1 and proposal.labels.ndim == 2:
            assert counted_places(make_shortlist(*args), 1)[1][0] == (3, 1.0)
        else:
            with pytest.raises(IndexError, match="none of the 5 that there are"):
                make_shortlist(*args)
        assert (slot == -1).all()


def test_labels_of_another_dtype_are_labels_too():
    wide = [Proposal(a.labels.astype(np.int64)) for a in (own([1], [4]), shared(4, 2))]
    out = check_shortlist(LISTS, ROWS, wide, 5)
    assert out.shared.tolist() == [4, 2]


def test_positives_come_first_in_order():
    out = check_shortlist(LISTS, ROWS, [own([1], [1])], 5)
    assert out.labels.tolist() == [[0, 3, 1], [2, -1, 1]]
    assert out.weights.tolist() == [[1, 1, 1], [1, 0, 1]]


def test_accidental_hits_are_masked():
    out = check_shortlist(LISTS, ROWS, [own([0, 1], [2, 2]), shared(3, 2, 4)], 5)
    assert out.labels.tolist() == [[0, 3, -1, 1], [2, -1, -1, -1]]
    assert out.weights[:, 4:].tolist() == [[0, 1, 1], [1, 0, 1]]


def test_repeats_within_own_between_own_and_shared_and_between_shared_count_once():
    proposals = [own([1, 1], [4, 1], weight=2.0), shared(1, 4, weight=3.0), shared(4, 2, weight=5)]
    out = check_shortlist(LISTS, ROWS, proposals, 5)
    assert out.shared.tolist() == [1, 2, 4]
    assert out.weights[:, 4:].tolist() == [[0, 5, 3], [0, 0, 0]]
    assert out.weights[:, 2:4].tolist() == [[2, 0], [2, 2]]


def test_weights_of_a_shared_proposal_follow_its_labels_when_two_are_merged():
    proposals = [shared(4, 1, weight=np.array([4.0, 1.5])), shared(3, weight=3.0)]
    out = check_shortlist([[], []], ROWS, proposals, 5)
    assert dict(counted_places(out, 0)[1]) == {1: 1.5, 3: 3.0, 4: 4.0}


def test_rows_without_labels_have_negatives_only():
    out = check_shortlist([[], []], ROWS, [own([1], [2]), shared(2, 3)], 5)
    assert out.n_positives == 0
    assert counted_places(out, 1) == [[], [(2, 1.0), (3, 1.0)]]


def test_rows_of_all_labels_have_no_negatives():
    everything = list(range(5))
    proposals = [own(everything, everything), shared(*everything)]
    out = check_shortlist([everything, everything], ROWS, proposals, 5)
    assert out.weights.sum() == 10


def test_without_proposals_there_are_positives_only():
    out = check_shortlist(LISTS, ROWS, [], 5)
    assert out.labels.tolist() == [[0, 3], [2, -1]]
    assert out.shared.shape == (0,)


def test_without_proposals_and_positives_the_shortlist_is_empty():
    out = check_shortlist([[], []], ROWS, [], 5)
    assert out.weights.shape == (2, 0)


def test_of_too_many_positives_each_is_drawn_equally_often_and_none_becomes_a_negative():
    lists = [[0, 2, 3, 5, 6, 7, 9], [1]]
    n_draws, times = 3000, np.zeros(10)
    for seed in range(n_draws):
        out = check_shortlist(lists, ROWS, [shared(*range(10))], 10, max_positives=3, seed=seed)
        times[[label for label, _ in counted_places(out, 0)[0]]] += 1
    expected = np.isin(np.arange(10), lists[0]) * n_draws * 3 / 7
    # Five standard errors of a count with chance 3/7.
    assert (abs(times - expected) <= 5 * np.sqrt(n_draws * 3 / 7 * 4 / 7)).all()
    assert times[lists[0]].min() > 0


# --- loops of the samplers ------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    n=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
def test_one_candidate_is_drawn_of_each_stratum(counts, n, seed):
    rng = np.random.default_rng(seed)
    candidates = np.full((len(counts), 9), -1, np.int32)
    for row, count in zip(candidates, counts, strict=True):
        row[:count] = rng.permutation(100)[:count]
    rows = rng.integers(0, len(counts), 4)
    uniform = rng.random((4, n))
    out = np.empty((4, n), np.int32)
    _shortlist_kernels.draw_from_strata(candidates, rows, uniform, out)
    for row, chances, drawn in zip(rows, uniform, out, strict=True):
        count = counts[row]
        if count <= n:
            assert drawn.tolist() == candidates[row, :n].tolist()
            continue
        for k in range(n):
            stratum = candidates[row, k * count // n : (k + 1) * count // n]
            assert drawn[k] == stratum[int(chances[k] * len(stratum))]


def slow_bisect(V, size, uniform, n_iter, first=0):
    """The places of unit vectors, cluster after cluster; `first`: the place of the first of V."""
    n_clusters = -(-len(V) // size)
    at = np.arange(len(V))
    if n_clusters < 2:
        return at
    n_left = n_clusters // 2 * size
    start = V[int(uniform[first] * len(V))]
    to_right = V[(V @ start).argmin()] - start
    for _ in range(n_iter):
        at = at[np.argsort(V[at] @ to_right)]
        left, right = V[at[:n_left]].sum(0), V[at[n_left:]].sum(0)
        to_right = right / np.linalg.norm(right) - left / np.linalg.norm(left)
    parts = [(at[:n_left], first), (at[n_left:], first + n_left)]
    return np.concatenate([a[slow_bisect(V[a], size, uniform, n_iter, f)] for a, f in parts])


@pytest.mark.parametrize(("n_rows", "size"), [(1, 1), (5, 8), (33, 2), (100, 8), (64, 1)])
def test_bisecting_rows_gives_the_clusters_of_plain_loops(n_rows, size):
    rng = np.random.default_rng(n_rows)
    vectors = rng.standard_normal((n_rows, 17), dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    uniform = rng.random(n_rows)
    order = _kernels.bisect_rows(vectors, 1 / lengths, size, uniform, 4)
    expected = slow_bisect((vectors / lengths[:, None]).astype(float), size, uniform, 4)
    for begin in range(0, n_rows, size):  # the order within a cluster says nothing
        assert set(order[begin : begin + size]) == set(expected[begin : begin + size])
