"""`save_xmc_file`: write the field's text files, a line a row, `l1,l2,l3 f1:v1 f2:v2 ...`."""

from __future__ import annotations

import gzip
import os
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import scipy.sparse as sp

from skxmc._typing import MatrixLike
from skxmc.datasets._replace import replacing

__all__ = ["save_xmc_file"]

_BLOCK_ENTRIES = 1 << 17  # labels, features and rows written at a time: 6 MB of text at most
_GZIP_LEVEL = 6  # gzip's own default: 9 takes thrice as long for a few percent


def save_xmc_file(
    path: str | os.PathLike[str],
    X: MatrixLike,
    Y: MatrixLike,
    *,
    format: str = "xmc",
    precision: int = 9,
) -> None:
    """Save features and labels as a text file of the Extreme Classification Repository.

    The file appears as a whole or not at all: rows go to a temporary file in the same folder,
    which then takes the place of an old file.

    Parameters
    ----------
    path : str or os.PathLike
        File to write. A name that ends in ``.gz`` is compressed by gzip; equal data give equal
        bytes.
    X : {array-like, sparse array or matrix} of shape (n_samples, n_features)
        Features: real and finite. Zeros are not written.
    Y : {array-like, sparse array or matrix} of shape (n_samples, n_labels)
        Binary indicators, of any numeric type.
    format : {"xmc", "svmlight"}, default="xmc"
        With the header of the repository, or without it. Svmlight files do not hold the numbers
        of columns, and their readers skip empty lines, so that a row without labels and features
        is written as ``0:0``. Indices count from 0 in both.
    precision : int, default=9
        Significant digits of a value, between 1 and 17: 9 digits give back every float32 as it
        was, 17 every float64.

    Raises
    ------
    ValueError
        If the shapes do not agree, `X` holds NaN or infinity, `Y` anything but 0 and 1, or an
        argument is out of its range. No file is left behind, and an old one stays as it was.
    TypeError
        If `X` or `Y` is not of a real numeric type.

    See Also
    --------
    load_xmc_file : Read such a file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skxmc.datasets import save_xmc_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "train.txt"
    ...     save_xmc_file(path, [[0.5, 0, 0, 1], [0, 0, 0.25, 0]], [[1, 0, 1], [0, 1, 0]])
    ...     print(path.read_text())
    2 4 3
    0,2 0:0.5 3:1
    1 2:0.25
    """
    if format not in ("xmc", "svmlight"):
        raise ValueError(f"format={format!r} is unknown; pass 'xmc' or 'svmlight'.")
    if not isinstance(precision, Integral) or isinstance(precision, bool):
        raise TypeError(f"precision must be a whole number, got {precision!r}.")
    if not 1 <= precision <= 17:
        raise ValueError(f"precision={precision} is out of range; pass 9, or 1 to 17.")
    X, Y = _to_csr(X, "X"), _to_csr(Y, "Y")
    if X.shape[0] != Y.shape[0]:
        raise ValueError(
            f"X has {X.shape[0]} rows and Y has {Y.shape[0]}; pass matrices of the same rows."
        )
    if not np.isfinite(X.data).all():
        row = np.searchsorted(X.indptr, np.flatnonzero(~np.isfinite(X.data))[0], side="right") - 1
        raise ValueError(f"X has NaN or infinity in row {row}; replace or remove it first.")
    if (Y.data != 1).any():
        row = np.searchsorted(Y.indptr, np.flatnonzero(Y.data != 1)[0], side="right") - 1
        raise ValueError(
            f"Y has a value other than 0 and 1 in row {row}; pass binary indicators, such as "
            "(Y != 0)."
        )
    if format == "svmlight" and min(X.shape) == 0:
        raise ValueError(f"X has shape {X.shape}, which svmlight cannot hold; use format='xmc'.")
    with _writing(path) as stream:
        if format == "xmc":
            stream.write(b"%d %d %d\n" % (*X.shape, Y.shape[1]))
        _write_rows(stream, X, Y, int(precision), format == "svmlight")


def _to_csr(matrix, name):
    """Make a canonical CSR array without stored zeros; the caller's matrix stays as it is."""
    if not sp.issparse(matrix):
        matrix = np.asarray(matrix)
    if matrix.ndim != 2:
        raise ValueError(
            f"{name} must have two dimensions, got {matrix.ndim}; reshape it to (rows, columns)."
        )
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be of a real numeric type, got {matrix.dtype}; convert it.")
    if matrix.dtype.kind == "f" and matrix.dtype.itemsize not in (4, 8):
        matrix = matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    csr = sp.csr_array(matrix)  # shares the memory of a CSR matrix
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    if (csr.data == 0).any():
        csr = csr.copy()
        csr.eliminate_zeros()
    return csr


def _write_rows(stream, X, Y, precision, keep_empty):
    """Write all rows, some thousands at a time."""
    from skxmc.datasets import _parse

    n_rows = X.shape[0]
    room = X.indptr.astype(np.int64) + Y.indptr + np.arange(n_rows + 1)  # entries before a row
    start, text = 0, np.empty(0, dtype=np.uint8)
    while start < n_rows:
        stop = int(np.searchsorted(room, room[start] + _BLOCK_ENTRIES, side="right")) - 1
        stop = max(start + 1, stop)
        feature_ptr = X.indptr[start : stop + 1].astype(np.int64)
        label_ptr = Y.indptr[start : stop + 1].astype(np.int64)
        features = X.indices[feature_ptr[0] : feature_ptr[-1]].astype(np.int64)
        values = X.data[feature_ptr[0] : feature_ptr[-1]].astype(np.float64)
        labels = Y.indices[label_ptr[0] : label_ptr[-1]].astype(np.int64)
        # An index takes up to 19 bytes and a separator, a value up to 25 and a separator.
        longest = 20 * len(labels) + 46 * len(features) + 5 * (stop - start)
        if len(text) < longest:
            text = np.empty(longest, dtype=np.uint8)
        size = _parse.write_rows(
            text, label_ptr, labels, feature_ptr, features, values, precision, keep_empty
        )
        stream.write(memoryview(text[:size]))
        start = stop


@contextmanager
def _writing(path):
    """Open a file for its bytes, compressed by its name, that takes the place of `path`."""
    with replacing(path) as temporary, open(temporary, "xb") as raw:
        if os.fsdecode(path).endswith(".gz"):
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as stream:
                yield stream
        else:
            yield raw
