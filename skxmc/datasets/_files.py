"""`load_xmc_file`, `convert_xmc_file`: the field's text files, a row a line, `l1,l2 f1:v1 f2:v2`.

The repository's files open with a header of three sizes, svmlight's do not. Reading goes block by
block through the compiled loops of `_parse`, which stop at the first fault; what the fault is, is
then said in words here.
"""

from __future__ import annotations

import gzip
import os
import re
import time
import zlib
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike

from skxmc.datasets._disk import CSRWriter

__all__ = ["convert_xmc_file", "load_xmc_file"]

_BLOCK_BYTES = 1 << 23  # text read at a time
_SECONDS = 5  # between two lines of progress
_INT32_MAX, _INT64_MAX = np.iinfo(np.int32).max, np.iinfo(np.int64).max
_MOST = _INT64_MAX - 2  # a size; one more may then be counted on
_HEADER = re.compile(rb"[ \t]*([+-]?\d+)[ \t]+([+-]?\d+)[ \t]+([+-]?\d+)[ \t]*\r?\Z")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some Windows editors put it before UTF-8 text


def load_xmc_file(
    path: str | os.PathLike[str],
    *,
    dtype: DTypeLike = np.float32,
    n_features: int | None = None,
    n_labels: int | None = None,
    zero_based: bool | str = True,
    verbose: int = 0,
) -> tuple[sp.csr_array, sp.csr_array]:
    r"""Load features and labels from a text file of the Extreme Classification Repository.

    The file is read in blocks, so that memory is needed for the result and some 50 MB.

    Parameters
    ----------
    path : str or os.PathLike
        File to read, plain or compressed by gzip, which is told by its content. The format, too:
        a first line of three whole numbers ``n_samples n_features n_labels`` is the header of
        the repository's format [1]_; a file without it is read as svmlight with label lists.
        See Notes.
    dtype : {np.float32, np.float64}, default=np.float32
        Type of the values of `X`.
    n_features, n_labels : int, default=None
        Numbers of columns of `X` and `Y`. None takes the header's, or one more than the largest
        index in a file without a header: give them there to make training and test data agree.
        They must not be less than the header's.
    zero_based : bool or "auto", default=True
        Whether the file counts features from 0. False is for files that count from 1; "auto",
        for files without a header, takes them to count from 1 when none is 0. A file that counts
        from 1, read with True, just has an empty first column. Labels always count from 0.
    verbose : int, default=0
        1: print every five seconds how far it is.

    Returns
    -------
    X : csr_array of shape (n_samples, n_features)
        Features, with sorted indices and no stored zeros.
    Y : csr_array of shape (n_samples, n_labels), dtype float32
        Binary indicators, with sorted indices. They are float32 since products such as
        ``X.T @ Y`` then need no conversion and ``Y.T @ Y`` cannot overflow, as it would in int8.
        Indices of both are int32 where that suffices, else int64.

    Raises
    ------
    ValueError
        If the file is malformed, does not hold what its header says, or ends in the midst of a
        compressed stream. The message names the file, the line and the reason. Also if an
        argument is out of its range.
    TypeError
        If a size is not a whole number.

    See Also
    --------
    convert_xmc_file : Read to disk, for data that is larger than the memory.
    save_xmc_file : Write such a file.
    sklearn.datasets.load_svmlight_file : Svmlight files, with targets of any kind.

    Notes
    -----
    In the repository's format each line after the header is a row. A line that begins with a
    blank, or at once with ``f:v``, is a row without labels; a line with labels only is a row
    without features; an empty line is a row without both. Empty lines behind the last row are
    ignored.

    In an svmlight file empty lines are skipped, and ``#`` opens a comment.

    A label that a row names twice counts once, for labels are a set. A feature twice in a row is
    an error, for it is not plain which value holds. Values that are not finite are errors. Zeros
    are not stored. Features and labels may come in any order.

    The loops are compiled at the first call, which takes some seconds, and cached on disk.

    References
    ----------
    .. [1] K. Bhatia, K. Dahiya, H. Jain, P. Kar, A. Mittal, Y. Prabhu, M. Varma, "The Extreme
       Classification Repository: Multi-label Datasets and Code", 2016,
       http://manikvarma.org/downloads/XC/XMLRepository.html

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skxmc.datasets import load_xmc_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "train.txt"
    ...     _ = path.write_text("2 4 3\n0,2 0:0.5 3:1\n1 2:0.25\n")
    ...     X, Y = load_xmc_file(path)
    >>> X.toarray()
    array([[0.5 , 0.  , 0.  , 1.  ],
           [0.  , 0.  , 0.25, 0.  ]], dtype=float32)
    >>> Y.toarray()
    array([[1., 0., 1.],
           [0., 1., 0.]], dtype=float32)
    """
    pieces = {"features": _Pieces(), "labels": _Pieces()}
    reader = _make_reader(path, dtype, n_features, n_labels, zero_based, pieces)
    reader.read_all("load_xmc_file" if verbose else None)
    shape_X, shape_Y, shift = reader.finish()
    features, feature_ptr, values = pieces["features"].join()
    features -= features.dtype.type(shift)
    labels, label_ptr, _ = pieces["labels"].join()
    X = _csr(values.astype(reader.dtype, copy=False), features, feature_ptr, shape_X)
    return X, _csr(np.ones(len(labels), np.float32), labels, label_ptr, shape_Y)


def convert_xmc_file(
    path: str | os.PathLike[str],
    X_path: str | os.PathLike[str],
    Y_path: str | os.PathLike[str],
    *,
    dtype: DTypeLike = np.float32,
    n_features: int | None = None,
    n_labels: int | None = None,
    zero_based: bool | str = True,
    verbose: int = 0,
) -> None:
    r"""Convert a text file to two matrices on disk, for data that is larger than the memory.

    What :func:`load_xmc_file` reads into memory, this writes to disk, block by block; it needs some
    50 MB, however large the file is. :func:`open_csr` then opens the matrices for `fit`.

    Parameters
    ----------
    path : str or os.PathLike
        File to read, as in :func:`load_xmc_file`: of the repository's format or svmlight, plain or
        compressed by gzip.
    X_path, Y_path : str or os.PathLike
        Folders to write, new or of matrices that these replace.
    dtype, n_features, n_labels, zero_based : optional
        As in :func:`load_xmc_file`.
    verbose : int, default=0
        1: print every five seconds how far it is.

    Raises
    ------
    ValueError, TypeError
        As :func:`load_xmc_file`; or if a folder holds something else. Nothing is left behind then,
        and old matrices stay as they were.
    FileNotFoundError
        If the file, or a folder around `X_path` or `Y_path`, does not exist.

    See Also
    --------
    open_csr : Open the results.
    load_xmc_file : Read into memory; the formats.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skxmc.datasets import convert_xmc_file, open_csr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "train.txt"
    ...     _ = path.write_text("2 4 3\n0,2 0:0.5 3:1\n1 2:0.25\n")
    ...     convert_xmc_file(path, path.with_name("X"), path.with_name("Y"))
    ...     open_csr(path.with_name("X")).toarray()
    array([[0.5 , 0.  , 0.  , 1.  ],
           [0.  , 0.  , 0.25, 0.  ]], dtype=float32)
    """
    if os.path.realpath(os.fsdecode(X_path)) == os.path.realpath(os.fsdecode(Y_path)):
        raise ValueError(f"X_path and Y_path are both {X_path!r}; pass two folders.")
    reader = _make_reader(path, dtype, n_features, n_labels, zero_based, {})
    with CSRWriter(X_path, 0, dtype=dtype) as X, CSRWriter(Y_path, 0, dtype=np.float32) as Y:
        reader.sinks = {"features": X, "labels": Y}
        reader.read_all("convert_xmc_file" if verbose else None)
        (_, n_features), (_, n_labels), shift = reader.finish()
        X._finish(n_features, shift)
        Y._finish(n_labels)


class _Pieces:
    """Rows in memory, gathered block by block."""

    def __init__(self):
        self._parts, self._n = ([], [np.zeros(1, np.int64)], []), 0

    def _add(self, indices, ends, data):
        """As `CSRWriter._add`."""
        small = np.int32 if indices.max(initial=0) <= _INT32_MAX else np.int64
        self._parts[0].append(indices.astype(small))
        self._parts[1].append(ends + self._n)
        if data is not None:
            self._parts[2].append(data.copy())
        self._n += len(indices)

    def join(self):
        """Column indices, row pointers and values of all; the pieces are no more."""
        indices, pointers, data = self._parts
        return _join(indices), _join(pointers), _join(data, np.float32)


def _make_reader(path, dtype, n_features, n_labels, zero_based, sinks):
    """Check the arguments, before any work."""
    path = os.fsdecode(path)
    dtype = np.dtype(dtype)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype={dtype} is not supported; pass np.float32 or np.float64.")
    sizes = {"n_features": n_features, "n_labels": n_labels}
    for name, size in sizes.items():
        if size is not None and (not isinstance(size, Integral) or isinstance(size, bool)):
            raise TypeError(f"{name} must be a whole number or None, got {size!r}.")
        if size is not None and not 0 <= size <= _MOST:
            raise ValueError(f"{name}={size} is out of range; pass 0 or more, or None.")
    is_flag = isinstance(zero_based, (bool, np.bool_))
    if not is_flag and not (isinstance(zero_based, str) and zero_based == "auto"):
        raise ValueError(f"zero_based={zero_based!r} is unknown; pass True, False or 'auto'.")
    return _Reader(path, dtype, sizes, zero_based if is_flag else "auto", sinks)


@contextmanager
def _open_binary(path):
    """Open a file for its bytes, decompressed where they begin as gzip's do; and as it lies."""
    with open(path, "rb") as raw:
        compressed = raw.peek(2)[:2] == b"\x1f\x8b"
        with gzip.GzipFile(fileobj=raw) if compressed else raw as stream:
            yield stream, raw


def _blocks(stream, size):
    """Yield (buffer, stop): whole lines, each ended by a newline, of about `size` bytes."""
    buffer, fill, more = bytearray(size + 1), 0, True  # one byte for a newline of ours at the end
    first = True
    while more:
        while more and fill < len(buffer) - 1:
            got = stream.readinto(memoryview(buffer)[fill:-1])
            fill, more = fill + got, got > 0
        if not more and fill and buffer[fill - 1] != 10:
            buffer[fill] = 10
            fill += 1
        if first and buffer.startswith(_BYTE_ORDER_MARK) and fill >= 3:
            buffer[: fill - 3], fill = buffer[3:fill], fill - 3
        stop = buffer.rfind(b"\n", 0, fill) + 1
        if stop == 0 and more:  # a line longer than the buffer
            buffer = buffer + bytes(len(buffer))
            continue
        first = False
        if stop:
            yield buffer, stop
        buffer[: fill - stop], fill = buffer[stop:fill], fill - stop


class _Reader:
    """What has been read so far, block by block, and what it must agree with."""

    def __init__(self, path, dtype, sizes, zero_based, sinks):
        self.path, self.dtype, self.sizes, self.zero_based = path, dtype, sizes, zero_based
        self.sinks = sinks  # where the rows go: "features" and "labels", who offer `_add`
        self.header = None
        self.begun = False
        self.state = np.zeros(9, dtype=np.int64)  # see `_parse.parse_rows`
        self.state[2:6] = _INT64_MAX, -1, 0, -1

    @property
    def n_lines(self):
        return int(self.state[0])

    def read_all(self, name=None):
        """Read the file to its end; `name`: who says how far it is, None for silence."""
        begin = said = time.perf_counter()
        try:
            with _open_binary(self.path) as (stream, raw):
                size = os.fstat(raw.fileno()).st_size
                for block, stop in _blocks(stream, _BLOCK_BYTES):
                    self.read(block, stop)
                    now = time.perf_counter()
                    if name and now - said > _SECONDS:
                        said, at = now, raw.tell()
                        print(
                            f"[{name}] {self.state[1]:,} rows  {at / max(size, 1):4.0%}"
                            f"  {at / 1e6 / (now - begin):,.0f} MB/s",
                            flush=True,
                        )
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            line = self.n_lines + 1
            raise ValueError(
                f"{self.path}, at or behind line {line}: the compressed file is truncated or "
                f"damaged ({error}); fetch it anew."
            ) from error

    def read(self, block, stop):
        """Pass on the rows of a block of whole lines."""
        from skxmc.datasets import _parse  # numba, which takes a while to import

        start = 0 if self.begun else self._begin(block, stop)
        text = np.frombuffer(block, dtype=np.uint8)[start:stop]
        room = len(text)  # the shortest label takes two bytes, the shortest feature four
        indices = (np.empty(room // 2 + 1, np.int64), np.empty(room // 4 + 1, np.int64))
        values = np.empty(room // 4 + 1, self.dtype)
        ends = (np.empty(room, np.int64), np.empty(room, np.int64))
        strict = self.header is not None
        auto = self.zero_based == "auto"
        n_rows = self.header[0] if strict else _INT64_MAX
        n_features, n_labels = self.sizes["n_features"], self.sizes["n_labels"]
        # With "auto" an index may turn out to be one less: `finish` then looks again.
        limit = _INT64_MAX - 1 if n_features is None else n_features + auto
        code, at = _parse.parse_rows(
            text,
            room,
            strict,
            n_rows,
            _INT64_MAX if n_labels is None else n_labels,
            limit,
            int(self.zero_based is False),
            self.state,
            indices,
            values,
            ends,
        )
        if code != _parse.FINE:
            raise self._fault(*_line_around(block, start + at, stop), code)
        rows, n_label, n_feature = self.state[6:]
        self.sinks["labels"]._add(indices[0][:n_label], ends[0][:rows], None)
        self.sinks["features"]._add(indices[1][:n_feature], ends[1][:rows], values[:n_feature])

    def _begin(self, block, stop):
        """Look for a header; where the rows start."""
        self.begun = True
        zero = block.find(b"\0", 0, min(stop, 1 << 16))
        if zero >= 0:
            line = block.count(b"\n", 0, zero) + 1
            raise ValueError(f"{self.path}, line {line}: a zero byte: this is not a text file.")
        line = bytes(block[: block.find(b"\n")])
        match = _HEADER.match(line)
        if match is None:
            return 0
        if self.zero_based == "auto":
            raise ValueError(
                f"{self.path}, line 1: zero_based='auto' is for files without a header; this one "
                f"has one: {_show(line)}. Pass True, or False if it counts features from 1."
            )
        self.header = [int(number) for number in match.groups()]
        if min(self.header) < 0 or max(self.header) > _MOST:
            wrong = "a negative number" if min(self.header) < 0 else "a number beyond 64 bits"
            raise ValueError(f"{self.path}, line 1: {wrong} in the header: {_show(line)}")
        for name, size in zip(("n_features", "n_labels"), self.header[1:], strict=True):
            if self.sizes[name] is None:
                self.sizes[name] = size
            elif self.sizes[name] < size:
                raise ValueError(
                    f"{name}={self.sizes[name]} is less than the {size} of the header of "
                    f"{self.path}; pass None or a size of at least this."
                )
        self.state[0] = 1
        return len(line) + 1

    def finish(self):
        """Check the whole against the header; shapes of X and Y, and what features count from."""
        n_rows = int(self.state[1])
        if self.header is None and n_rows == 0:
            raise ValueError(f"{self.path}, line {self.n_lines + 1}: the file is empty: no rows.")
        if self.header is not None and n_rows < self.header[0]:
            raise ValueError(
                f"{self.path}, line {self.n_lines}: the file ends after {n_rows} rows, its header "
                f"says {self.header[0]}; it may be truncated."
            )
        least, largest = int(self.state[2]), int(self.state[3])
        shift = int(self.zero_based == "auto" and 0 < least <= largest)
        n_features, n_labels = self.sizes["n_features"], self.sizes["n_labels"]
        n_features = largest + 1 - shift if n_features is None else n_features
        n_labels = int(self.state[5]) + 1 if n_labels is None else n_labels
        if largest - shift >= n_features:
            raise ValueError(
                f"{self.path}, line {self.state[4]}: feature {largest} is out of range for "
                f"{n_features} features, which count from 0 in this file."
            )
        return (n_rows, n_features), (n_rows, n_labels), shift

    def _fault(self, line, at, code):
        """Say in a ValueError what is wrong at this position of the last line read."""
        from skxmc.datasets import _parse

        sizes, base = self.sizes, int(self.zero_based is False)
        token = re.match(rb"[^ \t]*?(?=[ \t]|\r?\Z)", line[at:])[0].decode(
            "utf-8", "backslashreplace"
        )
        index, _, value = token.partition(":")
        behind_comma = line[:at].endswith(b",")
        if code in (_parse.BAD_LABEL, _parse.LABEL_RANGE) and (behind_comma or ":" not in token):
            index, what, n, base = token.partition(",")[0], "label", sizes["n_labels"], 0
        else:
            what, n = "feature", sizes["n_features"]
        if code == _parse.TOO_MANY:
            reason = f"more rows than the {self.header[0]} that the header says"
        elif code == _parse.NO_COLON:
            reason = f"'{_short(index)}' has no colon: features are written index:value"
            if self.n_lines == 1:
                reason += ", and a header is three whole numbers"
        elif code == _parse.TWICE:
            features = [int(found) for found in re.findall(rb"(\d+):", line[at:])]
            twice = next(f for k, f in enumerate(features) if f in features[:k])
            reason = f"feature {twice} comes twice"
        elif code == _parse.BAD_VALUE:
            reason = _bad_value(index, value)
        elif code == _parse.BIG_VALUE:
            reason = f"value {_short(value)} of feature {index} does not fit {self.dtype}"
        elif not index:
            reason = f"a {what} index is missing" + " behind a comma" * behind_comma
        elif re.fullmatch(r"-\d+", index):
            reason = f"{what} {_short(index)} is negative: {what}s count from {base}"
        elif not re.fullmatch(r"\d+", index):
            reason = f"{what} '{_short(index)}' is not a whole number"
        else:
            reason = f"{what} {_short(index)} is out of range"
            if n is not None:
                reason += f" for {n} {what}s, which count from {base}"
            if what == "feature" and index == str(n) and base == 0:
                reason += "; pass zero_based=False if this file counts from 1"
        return ValueError(f"{self.path}, line {self.n_lines}: {reason}: {_show(line, at)}")


def _bad_value(index, value):
    """Say why this is no value for a feature."""
    if not value:
        return f"feature {_short(index)} has no value"
    if re.fullmatch(r"[+-]?(nan|inf|infinity)", value, flags=re.IGNORECASE):
        return f"value {value} of feature {index} is not finite"
    return f"value '{_short(value)}' of feature {_short(index)} is not a number"


def _line_around(block, at, stop):
    """Find the line that holds position `at`, and the position in it."""
    start = block.rfind(b"\n", 0, at) + 1
    end = block.find(b"\n", at, stop)
    return bytes(block[start:end]), at - start


def _show(line, at=0):
    """Quote a line, or some of it around a position."""
    start = max(0, at - 30)
    start = 0 if start < 10 else start
    part = line[start : start + 80].rstrip(b"\r").decode("utf-8", "backslashreplace")
    return ("..." if start else "") + repr(part) + ("..." if len(line) > start + 80 else "")


def _short(text):
    """Cut a token that a broken file makes endless."""
    return repr(text[:40])[1:-1] + "..." * (len(text) > 40)


def _join(pieces, dtype=None):
    """Join all pieces and let go of them one by one, so that nothing is held twice."""
    dtype = np.result_type(*pieces) if pieces else dtype or np.int32
    whole = np.empty(sum(map(len, pieces)), dtype=dtype)
    end = len(whole)
    while pieces:
        piece = pieces.pop()
        whole[end - len(piece) : end] = piece
        end -= len(piece)
    return whole


def _csr(data, indices, pointers, shape):
    """Make a csr_array of canonical rows; it keeps the index type that it is given."""
    small = max(len(data), shape[1] - 1) <= _INT32_MAX
    index_type = np.int32 if small else np.int64
    indices = indices.astype(index_type, copy=False)
    matrix = sp.csr_array((data, indices, pointers.astype(index_type, copy=False)), shape=shape)
    matrix.has_canonical_format = True
    return matrix
