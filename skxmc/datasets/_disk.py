"""Sparse matrices on disk, mapped into memory: `save_csr`, `CSRWriter` and `open_csr`.

A matrix is a folder: the three arrays of CSR as they lie in memory, little-endian, a file each, and
`header.json`, which names these files and says how large they are. The header is written last and
replaces an old one in one step, so that a reader finds the old matrix or the new one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike

from skxmc.datasets._replace import sync_folder
from skxmc.datasets._save import _to_csr

__all__ = ["CSRWriter", "open_csr", "save_csr"]

_FORMAT, _VERSION = "skxmc-csr", 1
_HEADER, _MAX_HEADER = "header.json", 1 << 16  # bytes
_ARRAYS = ("indptr", "indices", "data")
_OURS = re.compile(r"(indptr|indices|data|header)\.[0-9a-f]{8}\.(bin|new|tmp)")
_INDEX_TYPES = ("<i4", "<i8")
_DATA_TYPES = ("<f4", "<f8", "|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
_INT32_MAX, _INT64_MAX = np.iinfo(np.int32).max, np.iinfo(np.int64).max
_CHUNK = 1 << 20  # entries that are converted or checked at a time


class CSRWriter:
    """Write a sparse matrix to disk, some rows at a time.

    For a matrix that is larger than the memory. Use it in a ``with`` statement, whose end makes the
    matrix visible as a whole: to :func:`open_csr` it is not there before, or still the old one. If
    an error ends the statement, nothing is left behind.

    Parameters
    ----------
    path : str or os.PathLike
        Folder to write, new or of a matrix that this one replaces.
    n_columns : int, default=None
        Columns of the matrix. None: those of the first block.
    dtype : dtype, default=None
        Type of the values: float32, which training takes as it is, float64, bool or integers. None:
        that of the first block.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the folder holds something else.
    TypeError
        If `n_columns` is not a whole number, or `dtype` is another one.
    FileNotFoundError
        If the folder around it does not exist.

    See Also
    --------
    save_csr : For a matrix in memory, or a generator of blocks.
    convert_xmc_file : For text files.

    Examples
    --------
    >>> import tempfile
    >>> from skxmc.datasets import CSRWriter, make_xmc, open_csr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with CSRWriter(folder + "/X") as writer:
    ...         for seed in range(3):
    ...             X, _ = make_xmc(100, 1000, 50, random_state=seed)
    ...             writer.append(X)
    ...     open_csr(folder + "/X").shape
    (300, 1000)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_columns: int | None = None,
        *,
        dtype: DTypeLike | None = None,
    ):
        if n_columns is not None:
            if not isinstance(n_columns, Integral) or isinstance(n_columns, bool):
                raise TypeError(f"n_columns must be a whole number or None, got {n_columns!r}.")
            if not 0 <= n_columns < _INT64_MAX:
                raise ValueError(f"n_columns={n_columns} is out of range; pass 0 or more, or None.")
        if dtype is not None:
            dtype = np.dtype(dtype)
            if dtype.str not in _DATA_TYPES:
                raise TypeError(f"dtype={dtype} is not supported; pass np.float32, for example.")
        self._dtype, self._n_columns = dtype, None if n_columns is None else int(n_columns)
        self._n_rows = self._nnz = 0
        self._index_type = np.dtype("<i4")
        self._folder = Path(os.path.realpath(os.fsdecode(path)))  # through a link, not over it
        self._made = _make_folder(self._folder)
        self._token, self._files = secrets.token_hex(4), {}
        try:
            for name in _ARRAYS:
                self._files[name] = open(self._file(name), "xb", buffering=0)  # noqa: SIM115
            _put(self._files["indptr"], [0], np.int64)
        except BaseException:
            self._discard()
            raise

    def append(self, block: Any) -> None:
        """Write some rows behind those before.

        Parameters
        ----------
        block : {array-like, sparse array or matrix} of shape (n_rows, n_columns)
            Zeros are not stored.

        Raises
        ------
        ValueError
            If the block has another number of columns.
        TypeError
            If its values cannot become those of the matrix, as 0.5 among integers.
        """
        if self._files is None:
            raise ValueError("The matrix is closed; append within the `with` statement.")
        block = _to_csr(block, "block")
        if self._n_columns is None:
            self._n_columns = block.shape[1]
        if block.shape[1] != self._n_columns:
            raise ValueError(
                f"The block has {block.shape[1]} columns, the matrix {self._n_columns}."
            )
        if self._dtype is None:
            self._dtype = block.dtype
        if not np.can_cast(block.dtype, self._dtype, "same_kind"):
            raise TypeError(
                f"The block has values of {block.dtype}, the matrix of {self._dtype}; convert the "
                "block, or give the writer a dtype for both."
            )
        start = block.indptr[0]
        stop = block.indptr[-1]
        self._add(block.indices[start:stop], block.indptr[1:] - start, block.data[start:stop])

    def _add(self, indices, ends, data):
        """Write rows that end at these places of canonical arrays; data None: ones."""
        if self._index_type.itemsize == 4 and indices.max(initial=0) > _INT32_MAX:
            self._rewrite("indices", "<i8")  # seldom: wider from now on
            self._index_type = np.dtype("<i8")
        _put(self._files["indices"], indices, self._index_type)
        if data is None:
            for start in range(0, len(indices), _CHUNK):
                _put(self._files["data"], np.ones(min(_CHUNK, len(indices) - start)), self._dtype)
        else:
            _put(self._files["data"], data, self._dtype)
        _put(self._files["indptr"], ends, np.int64, add=self._nnz)
        self._n_rows += len(ends)
        self._nnz += len(indices)

    def _file(self, name):
        return self._folder / f"{name}.{self._token}.bin"

    def _rewrite(self, name, dtype, minus=0):
        """Write the array so far anew, as another type or with less in each entry."""
        before = {"indptr": np.dtype("<i8"), "indices": self._index_type}[name]
        self._files[name].close()
        old, new = self._file(name), self._file(name).with_suffix(".new")
        self._files[name] = open(new, "xb", buffering=0)  # noqa: SIM115
        with open(old, "rb", buffering=0) as file:
            while len(array := np.fromfile(file, before, _CHUNK)):
                _put(self._files[name], array, dtype, add=-minus)
        os.replace(new, old)

    def _finish(self, n_columns=None, minus=0):
        """Make the matrix visible; `minus`: what to take off each column number."""
        self._n_columns = self._n_columns if n_columns is None else n_columns
        if self._n_columns is None or self._dtype is None:
            raise ValueError(
                f"{self._folder}: no block was appended; say n_columns and dtype for a matrix "
                "without rows."
            )
        if minus or (self._n_columns - 1 > _INT32_MAX) != (self._index_type.itemsize == 8):
            wide = "<i8" if self._n_columns - 1 > _INT32_MAX else "<i4"
            self._rewrite("indices", wide, minus)
            self._index_type = np.dtype(wide)
        # As scipy has them: both kinds of index are int32 where that suffices.
        narrow = max(self._nnz, self._n_columns - 1) <= _INT32_MAX
        if narrow:
            self._rewrite("indptr", "<i4")
        types = ("<i4" if narrow else "<i8", self._index_type.str, self._dtype.str)
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "shape": [self._n_rows, self._n_columns],
            "nnz": self._nnz,
            "arrays": {
                name: {"file": self._file(name).name, "dtype": dtype}
                for name, dtype in zip(_ARRAYS, types, strict=True)
            },
        }
        for file in self._files.values():
            os.fsync(file.fileno())
            file.close()
        temporary = self._folder / f"header.{self._token}.tmp"
        with open(temporary, "x", encoding="utf-8") as file:
            json.dump(header, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._folder / _HEADER)
        self._files = None
        sync_folder(self._folder)
        for file in self._folder.iterdir():  # of the matrix before, or of a process that was killed
            if _OURS.fullmatch(file.name) and self._token not in file.name:
                with suppress(OSError):  # mapped, on Windows
                    file.unlink()

    def _discard(self):
        """Leave nothing behind."""
        for file in (self._files or {}).values():
            file.close()
        self._files = None
        for file in self._folder.glob(f"*.{self._token}.*"):
            file.unlink()
        if self._made:
            with suppress(OSError):
                self._folder.rmdir()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if self._files is None:
            return
        try:
            if kind is None:
                self._finish()
        finally:
            if self._files is not None:
                self._discard()


def save_csr(path: str | os.PathLike[str], matrix: Any) -> None:
    """Save a sparse matrix on disk, in the form that :func:`open_csr` maps into memory.

    Parameters
    ----------
    path : str or os.PathLike
        Folder to write, new or of a matrix that this one replaces: as a whole or not at all.
    matrix : {ndarray, sparse array or matrix} of shape (n_rows, n_columns), or iterable of them
        A generator of blocks, some thousand rows each, needs the memory of one block only. Zeros
        are not stored.

    Raises
    ------
    ValueError
        If the blocks differ in their columns, there is none, or the folder holds something else.
    TypeError
        If the values are not real numbers.
    FileNotFoundError
        If the folder around it does not exist.

    See Also
    --------
    open_csr : Open it.
    CSRWriter : Where the blocks do not come from one loop.

    Examples
    --------
    >>> import tempfile
    >>> from skxmc.datasets import make_xmc, open_csr, save_csr
    >>> X, Y = make_xmc(100, 1000, 50, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_csr(folder + "/X", X)
    ...     mapped = open_csr(folder + "/X")
    ...     int((mapped != X).nnz)
    0
    """
    blocks = [matrix] if sp.issparse(matrix) or isinstance(matrix, np.ndarray) else matrix
    with CSRWriter(path) as writer:
        for block in blocks:
            writer.append(block)


def open_csr(path: str | os.PathLike[str], *, check: bool = False) -> sp.csr_array:
    """Open a matrix on disk: its arrays are mapped into memory and read when they are used.

    Opening takes no memory and hardly any time, however large the matrix is. The operating system
    keeps as much of it in memory as there is room for, and gives that up when other work needs it.

    Parameters
    ----------
    path : str or os.PathLike
        Folder that :func:`save_csr`, :class:`CSRWriter` or :func:`convert_xmc_file` wrote.
    check : bool, default=False
        Whether to read the matrix once and make sure that all column numbers are in range and
        ascending: for a folder that others wrote or that may be damaged. The header, the sizes of
        the files and the row ends are always checked.

    Returns
    -------
    csr_array
        With sorted indices and read-only arrays. Rows, and products by blocks of rows, read what
        they need; an operation on the whole matrix makes a result in memory. With more than
        2 ** 31 - 1 stored values `indptr` is int64 and `indices` stay int32, for which SciPy's own
        operations copy the indices; `fit` and `predict_topk` do not.

    Raises
    ------
    ValueError
        If the folder holds no such matrix, a file is cut short or damaged, or a newer skxmc wrote
        it. The message names the file.
    FileNotFoundError
        If there is no such folder.

    See Also
    --------
    save_csr : Save a matrix, with an example.

    Notes
    -----
    The files must stay as they are while they are mapped. A matrix that is saved to the same folder
    writes new files; the one that is open keeps the old ones, which the disk frees in the end. On
    Windows they stay until a later save.
    """
    folder = Path(os.fsdecode(path))
    header = _read_header(folder)
    try:
        shape, nnz, files = _parse_header(header)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / _HEADER} is damaged: {error!r}; save the matrix anew."
        ) from None
    sizes = dict(zip(_ARRAYS, (shape[0] + 1, nnz, nnz), strict=True))
    for name, (file, dtype) in files.items():
        size, found = sizes[name] * dtype.itemsize, _size(folder / file)
        if found != size:
            raise ValueError(
                f"{folder / file} has {found} bytes, and by its header it should have {size}: it "
                "is cut short or was changed. Save the matrix anew."
            )
    indptr, indices, data = (
        np.asarray(np.memmap(folder / file, dtype, "r")) if sizes[name] else np.empty(0, dtype)
        for name, (file, dtype) in files.items()
    )
    last = 0
    for start in range(0, len(indptr), _CHUNK):
        part = indptr[start : start + _CHUNK]
        if part[0] < last or (part[1:] < part[:-1]).any() or (start == 0 and part[0] != 0):
            last = -1
            break
        last = part[-1]
    if last != nnz:
        raise ValueError(
            f"{folder / files['indptr'][0]} is damaged: its row ends do not ascend from 0 to {nnz}."
            " Save the matrix anew."
        )
    if check:
        _check_indices(folder / files["indices"][0], indptr, indices, shape[1])
    if indptr.dtype == indices.dtype:
        matrix = sp.csr_array((data, indices, indptr), shape=shape)
    else:  # the constructor would make a copy, int64, of the indices
        matrix = sp.csr_array(shape, dtype=data.dtype)
        matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    matrix.has_canonical_format = True
    return matrix


def _make_folder(folder):
    """Make it, or see whether it is one of ours; whether it is new."""
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"The folder {folder.parent} does not exist; make it first.")
    try:
        folder.mkdir()
        return True
    except FileExistsError:
        pass
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; a matrix on disk is a folder. Choose another name.")
    if (folder / _HEADER).exists():
        _read_header(folder)
    elif strange := [a.name for a in folder.iterdir() if not _OURS.fullmatch(a.name)]:
        raise ValueError(
            f"{folder} holds other files, such as {strange[0]!r}; choose a new folder."
        )
    return False


def _put(file, array, dtype, add=0):
    """Write an array as this type, a chunk at a time."""
    for start in range(0, len(array), _CHUNK):
        chunk = np.asarray(array[start : start + _CHUNK])
        if add:
            chunk = chunk.astype(np.int64) + add
        view = memoryview(chunk.astype(dtype, order="C", copy=False)).cast("B")
        while len(view):  # a raw file may take less than all
            view = view[file.write(view) :]


def _read_header(folder):
    """The JSON of a folder, known to be of our format and version."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        kind = ValueError if folder.exists() else FileNotFoundError
        raise kind(f"{folder} {what}: pass the folder that save_csr wrote.")
    path = folder / _HEADER
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_HEADER)
        header = json.loads(text)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no matrix, or an unfinished one: it has no {_HEADER}. Save it (anew)."
        ) from None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f"{path} is no header of a matrix by save_csr: foreign, or damaged.")
    version = header.get("version")
    if not _is_count(version) or version > _VERSION:
        raise ValueError(
            f"{path} has format version {version!r}, and this skxmc knows up to {_VERSION}: update "
            "skxmc, or save the matrix anew."
        )
    return header


def _parse_header(header):
    """(shape, nnz, {name: (file, dtype)}) of a header, whose every part is checked."""
    shape, nnz = header["shape"], header["nnz"]
    if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_count, [*shape, nnz])):
        raise ValueError(f"shape {shape!r} and nnz {nnz!r} are no sizes")
    files = {}
    for name in _ARRAYS:
        file, dtype = header["arrays"][name]["file"], header["arrays"][name]["dtype"]
        if not isinstance(file, str) or not re.fullmatch(name + r"\.[0-9a-f]{8}\.bin", file):
            raise ValueError(f"{file!r} is no file of {name}")
        if dtype not in (_DATA_TYPES if name == "data" else _INDEX_TYPES):
            raise ValueError(f"{dtype!r} is no type of {name}")
        files[name] = file, np.dtype(dtype)
    return tuple(shape), nnz, files


def _is_count(value):
    return type(value) is int and 0 <= value < 2**60


def _size(path):
    """Bytes of a file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; save the matrix anew.") from None


def _check_indices(path, indptr, indices, n_columns):
    """ValueError where a column number is out of range, or not above the one before in its row."""
    for start in range(0, len(indices), _CHUNK):
        part = indices[max(0, start - 1) : start + _CHUNK]  # with the one before
        if part.min() < 0 or part.max() >= n_columns:
            raise ValueError(
                f"{path} is damaged: column {part.max() if part.min() >= 0 else part.min()} is not "
                f"one of {n_columns}. Save the matrix anew."
            )
        falls = np.flatnonzero(part[1:] <= part[:-1]) + max(0, start - 1) + 1
        falls = falls.astype(indptr.dtype)
        first = indptr[np.searchsorted(indptr, falls)] == falls  # a new row may begin lower
        if not first.all():
            raise ValueError(
                f"{path} is damaged: the columns of a row do not ascend at entry "
                f"{falls[~first][0]}. Save the matrix anew."
            )
