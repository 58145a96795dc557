"""A fitted classifier in one safetensors file, without pickle; and what skops is to trust.

The file holds the arrays as tensors, and everything else as JSON in its header. Loading runs no
code of the file, checks each number in it before use, and maps the arrays into memory.
"""

from __future__ import annotations

import json
import math
import mmap as mmaps
import os
from contextlib import contextmanager
from typing import Literal

import numpy as np
import sklearn
from sklearn.utils.validation import check_is_fitted

from skxmc import losses, samplers
from skxmc._checkpoint import Checkpoint
from skxmc._classifier import XMCClassifier
from skxmc._fitted import NO_NEIGHBORS
from skxmc._format import FORMAT, own_version, refuse_newer
from skxmc._predictor import Kept
from skxmc.datasets._replace import replacing

__all__ = ["load_model", "save_model", "trusted_types"]

_TABLES = (  # what is halved
    "feature_weights_", "label_weights_", "label_embeddings_", "neighbor_vectors_",
)  # fmt: skip
_ARRAYS = (np.ndarray, np.memmap)  # memory maps are what joblib may load
# What predictions make anew, and scikit-learn's callbacks, which only a fit calls.
_NOT_STORED = ("_kept", "_skl_callbacks", "_parent_callback_ctx")
_MAX_HEADER = 100_000_000  # bytes, the format's own limit
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "<i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip


def save_model(
    clf: XMCClassifier,
    path: str | os.PathLike[str],
    *,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Save a fitted classifier as one safetensors file.

    The file appears as a whole or not at all: it is written under another name in the same folder,
    brought to disk, and then takes the place of an old one. It holds all parameters and fitted
    attributes, and no callbacks. Needs the library safetensors:
    ``pip install "skxmc[safetensors]"``.

    Parameters
    ----------
    clf : XMCClassifier
        Fitted.
    path : str or os.PathLike
        File to write, by custom with the suffix ``.safetensors``.
    dtype : {"float32", "float16"}, default="float32"
        How the tables of features, labels, label embeddings and neighbours are stored. "float16"
        halves the file, at about three significant digits a weight; loaded, they are float32 again.

    Raises
    ------
    TypeError
        If `clf` is no XMCClassifier, or a parameter is something that the file cannot hold: an
        object of a class of your own, or a RandomState. Pickle can, and so can skops; or set that
        parameter to something else, which does not change what is fitted.
    ValueError
        If `dtype` is unknown, or a weight is too large for it.
    FileNotFoundError
        If the folder does not exist.
    sklearn.exceptions.NotFittedError
        If `clf` is not fitted.

    See Also
    --------
    load_model : Load it.
    trusted_types : For skops, which also stores pipelines.

    Notes
    -----
    A RandomState is refused: fitting has moved it on, so that it would not repeat the fit, and None
    in its place would be another parameter than the one that was set.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.persistence import load_model, save_model
    >>> X, Y = make_xmc(200, 300, 20, random_state=0)
    >>> clf = XMCClassifier(hidden_layer_sizes=(8,), max_iter=1, n_jobs=1, random_state=0)
    >>> _ = clf.fit(X, Y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "tags.safetensors"
    ...     save_model(clf, path)
    ...     again = load_model(path, mmap=False)
    >>> bool((again.decision_function(X) == clf.decision_function(X)).all())
    True
    """
    if type(clf) is not XMCClassifier:
        raise TypeError(
            f"clf must be an XMCClassifier, got {type(clf).__name__}. Of a pipeline save the last "
            "step, pipe[-1]; pipelines and subclasses as a whole are for pickle or skops."
        )
    check_is_fitted(clf)
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype={dtype!r} is unknown; pass 'float32' or 'float16'.")
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError(
            'save_model needs safetensors: pip install "skxmc[safetensors]"'
        ) from error

    tensors: dict[str, np.ndarray] = {}
    stored = contents(clf, tensors, _TABLES if dtype == "float16" else ())
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"skxmc": json.dumps(stored)})
        except SafetensorError as error:
            raise OSError(f"{os.fspath(path)} could not be written: {error}") from error
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())


def contents(clf, tensors, halved=()):
    """The JSON part of the file of a fitted classifier, whose arrays are put into `tensors`."""
    # Where a fit wrote its checkpoints is no part of a model.
    parameters = clf.get_params(deep=False) | {"checkpoint": None}
    state = {
        name: value
        for name, value in vars(clf).items()
        if name not in parameters and name not in _NOT_STORED
    }
    if not clf.neighbor_weight_:  # rows that do not vote are nobody's business
        state |= NO_NEIGHBORS
    state |= {name: _halve(name, state[name]) for name in halved}
    return {
        "format": FORMAT,
        "version": own_version(),
        "sklearn": sklearn.__version__,
        "parameters": {
            name: _encode(value, name, "parameter", tensors) for name, value in parameters.items()
        },
        "attributes": {
            name: _encode(value, name, "attribute", tensors) for name, value in state.items()
        },
    }


def load_model(path: str | os.PathLike[str], *, mmap: bool = True) -> XMCClassifier:
    """Load a classifier that `save_model` wrote.

    Nothing in the file is run, and every shape in it is checked before use.

    Parameters
    ----------
    path : str or os.PathLike
    mmap : bool, default=True
        Map the arrays into memory, read-only: they are read when they are used, and processes that
        load the same file share them. The file must then stay as it is; `save_model` may replace
        it. False: read them into memory. Tables stored as float16 are always read.

    Returns
    -------
    XMCClassifier
        Fitted; it predicts, bit for bit, what the saved one did if its tables are float32. A new
        `fit` replaces the arrays.

    Raises
    ------
    ValueError
        If the file is not one of `save_model`, is cut short or damaged, or was written by a newer
        skxmc with a format that this one does not know.
    OSError
        If the file cannot be read.

    See Also
    --------
    save_model : With an example.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        with _naming(name):
            header, stored = _read_header(file)
        written_by = stored.get("version")
        refuse_newer(stored["format"], written_by, name)
        with _naming(name, written_by):
            tensors = _Tensors(file, header, mmap)
            parameters = _decode_all(stored["parameters"], tensors)
            attributes = _decode_all(stored["attributes"], tensors)
            if stored["format"] < 2:  # before there were neighbours
                parameters["neighbor_weight"] = 0.0
                attributes |= NO_NEIGHBORS
    with _naming(name, written_by):
        clf = XMCClassifier(**parameters)
        for attribute, value in attributes.items():
            if hasattr(clf, attribute):
                raise ValueError(f"{attribute} is no fitted attribute")
            setattr(clf, attribute, value)
        _check_attributes(clf)
        clf._kept = Kept()
        return clf


def trusted_types() -> list[str]:
    """The types of skxmc that `skops.io.load` is to trust, to load a fitted classifier.

    skops loads types outside scikit-learn and numpy only if they are named. These are the
    estimator, the samplers, the losses and Checkpoint; classes of your own are for you to add.

    Returns
    -------
    list of str
        Full names, sorted.

    See Also
    --------
    save_model : A single file without skops, which can be mapped into memory.

    Examples
    --------
    >>> from skxmc.persistence import trusted_types
    >>> trusted_types()[0]
    'skxmc._checkpoint.Checkpoint'

    With skops installed and a fitted `clf`, alone or in a pipeline::

        skops.io.dump(clf, "clf.skops")
        clf = skops.io.load("clf.skops", trusted=trusted_types())
    """
    types = {XMCClassifier, Checkpoint, *_parameter_classes().values()}
    return sorted(f"{one.__module__}.{one.__qualname__}" for one in types)


# -- writing ---------------------------------------------------------------------------------------


def _parameter_classes():
    """The public samplers and losses by the names that files call them."""
    return {
        f"{part.__name__}.{name}": getattr(part, name)
        for part, base in ((samplers, samplers.Sampler), (losses, losses.Loss))
        for name in part.__all__
        if isinstance(getattr(part, name), type) and issubclass(getattr(part, name), base)
    }


class Elsewhere:
    """An array of the file that is written by others: its shape and dtype are all there is."""

    def __init__(self, shape, dtype=np.float32):
        self.shape, self.dtype = shape, np.dtype(dtype)


class _Half:
    """A table that is float32 for the user, and float16 in the file."""

    def __init__(self, array):
        self.array = array


def _halve(name, table):
    if table is None:
        return None
    with np.errstate(over="ignore"):
        half = table.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(
            f"{name} has weights beyond 65504, the largest float16, or not finite. Save with "
            "dtype='float32'."
        )
    return _Half(half)


def _encode(value, name, what, tensors):
    """What stands for a value in the JSON part. Arrays go to `tensors`, under `name`."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) in (list, tuple):
        parts = [_encode(part, f"{name}.{i}", what, tensors) for i, part in enumerate(value)]
        return parts if type(value) is list else {"tuple": parts}
    if isinstance(value, Elsewhere):
        tensors[name] = value
        return {"array": name}
    if isinstance(value, _Half):
        tensors[name] = value.array
        return {"half": name}
    if type(value) in _ARRAYS and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        # The library takes the memory as it lies, and writes its bytes in this order.
        tensors[name] = np.require(value, value.dtype.newbyteorder("<"), "C")
        return {"array": name}
    if type(value) in _ARRAYS and value.dtype.kind in "OU":
        kind = "objects" if value.dtype.kind == "O" else "strings"
        parts = [p.item() if isinstance(p, np.generic) else p for p in value.tolist()]
        if value.ndim == 1 and all(type(part) in (bool, int, float, str) for part in parts):
            # Text in a tensor: a header, which ends at 100 MB, is too small for many labels.
            tensors[name] = np.frombuffer(json.dumps(parts).encode(), np.uint8)
            return {kind: name}
    for known, cls in _parameter_classes().items():
        if type(value) is cls:
            parameters = value.get_params(deep=False)
            return {
                "class": known,
                "parameters": {
                    key: _encode(part, f"{name}.{key}", what, tensors)
                    for key, part in parameters.items()
                },
            }
    raise TypeError(
        f"The {what} {name} is {_describe(value)}, which a safetensors file cannot hold: numbers, "
        "strings, arrays of them, and the samplers and losses of skxmc are all that it can. "
        + (
            f"Pickle the estimator, or use skops; or set {name} to something else, such as its "
            "default, with clf.set_params, which leaves what is fitted as it is."
            if what == "parameter"
            else "Pickle the estimator, or delete the attribute if it is one of your own."
        )
    )


def _describe(value):
    kind = type(value)
    if kind is np.ndarray:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"a {kind.__module__}.{kind.__qualname__}"


# -- reading ---------------------------------------------------------------------------------------


@contextmanager
def _naming(path, written_by=None):
    """Say of whatever the contents of a file lead to which file it was."""
    try:
        yield
    except (
        ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        why = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        if written_by not in (None, own_version()):
            why += f" (written by skxmc {written_by}, this is {own_version()})"
        raise ValueError(f"{path} is no file of save_model, or damaged: {why}.") from error


def _read_header(file):
    """The header and our part of it; behind it the file's position is that of the first byte."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
        raise ValueError(f"its {size} bytes do not begin with a safetensors header")
    header = json.loads(file.read(length))
    stored = json.loads(header["__metadata__"]["skxmc"])
    if type(stored["format"]) is not int or stored["format"] < 1:
        raise ValueError(f"its format is {stored['format']!r}")
    return header, stored


class _Tensors:
    """The tensors of a file by name; what the header says of one is checked against its bytes."""

    def __init__(self, file, header, mapped):
        self._file, self._header, self._start = file, header, file.tell()
        self._size = os.fstat(file.fileno()).st_size - self._start
        self._map = mmaps.mmap(file.fileno(), 0, access=mmaps.ACCESS_READ) if mapped else None

    def get(self, name):
        """The tensor of this name: a view of the map, or read."""
        about = self._header[name]
        begin, end = about["data_offsets"]
        shape, dtype = about["shape"], np.dtype(_DTYPES[about["dtype"]])
        if any(type(n) is not int or n < 0 for n in (begin, end, *shape)):
            raise ValueError(f"{name} has shape {shape} at bytes {begin} to {end}")
        count = math.prod(shape)
        if end > self._size or end - begin != count * dtype.itemsize:
            raise ValueError(
                f"{name}, of shape {shape} and {dtype}, is said to fill bytes {begin} to {end} of "
                f"{self._size}"
            )
        if self._map is None:
            self._file.seek(self._start + begin)
            return np.fromfile(self._file, dtype, count).reshape(shape)
        array = np.frombuffer(self._map, dtype, count, self._start + begin).reshape(shape)
        return np.require(array, requirements="A")


def _decode(value, tensors):
    """The reverse of `_encode`."""
    if type(value) is list:
        return [_decode(part, tensors) for part in value]
    if type(value) is not dict:
        return value
    kind = next(iter(value), None)
    what = value[kind]
    if kind == "float":
        return float(what)
    if kind == "tuple":
        return tuple(_decode(what, tensors))
    if kind == "array":
        return tensors.get(what)
    if kind == "half":
        return tensors.get(what).astype(np.float32)
    if kind in ("objects", "strings"):
        text = tensors.get(what).tobytes()
        parts = json.loads(text)
        if kind == "objects":
            return np.array(parts, object)
        longest = max(map(len, parts), default=0)  # numpy gives each as much room
        if 4 * len(parts) * longest > max(1 << 30, 1000 * len(text)):
            raise ValueError(f"{what} has {len(parts)} strings, and one of {longest} characters")
        return np.array(parts, np.str_)
    if kind == "class":
        return _parameter_classes()[what](**_decode_all(value["parameters"], tensors))
    raise ValueError(f"it has a value of the kind {kind!r}")


def _decode_all(values, tensors):
    return {name: _decode(value, tensors) for name, value in values.items()}


def _check_attributes(clf):
    """Raise where the parts do not fit together: compiled loops read memory without looking."""
    n_labels, sizes = len(clf.classes_), [len(biases) for biases in clf.hidden_biases_]
    width, n_hidden = sizes[-1], len(sizes) - 1
    wanted = {
        "feature_weights_": (clf.n_features_in_, sizes[0]),
        **{f"hidden_weights_.{i}": tuple(sizes[i : i + 2]) for i in range(n_hidden)},
        **{f"hidden_biases_.{i}": (size,) for i, size in enumerate(sizes)},
        "label_weights_": (n_labels, width),
        "label_biases_": (n_labels,),
        "tail_offsets_": (n_labels,),
    }
    if clf.residual_ is not None:
        wanted |= {"residual_.0": (width, width), "residual_.1": (width,)}
    if clf.label_embeddings_ is not None:
        wanted["label_embeddings_"] = (n_labels, width)
    if clf.neighbor_weight_ or clf.neighbor_labels_ is not None:
        indptr, indices = clf.neighbor_labels_
        n_rows, n_axes = len(indptr) - 1, clf.neighbor_axes_.shape[-1]
        wanted |= {"neighbor_axes_": (width, n_axes), "neighbor_vectors_": (n_rows, n_axes)}
        _check_lists(indptr, indices, n_labels)
    for name, shape in wanted.items():
        attribute, _, part = name.partition(".")
        array = getattr(clf, attribute)
        array = array[int(part)] if part else array
        if array.dtype != np.float32 or array.shape != shape:
            raise ValueError(
                f"{name} is {array.dtype} of shape {array.shape}, not float32 of {shape}"
            )
    shortlist, fusion = clf.shortlist_size_, clf.late_fusion_
    if (
        len(clf.hidden_weights_) != n_hidden
        or clf.classes_.ndim != 1
        or clf._kind not in ("sparse", "dense", "classes")
        or type(clf.tail_bias_) not in (int, float)
        or type(clf.neighbor_weight_) not in (int, float)
        or not 0 <= clf.neighbor_weight_ < 1
        or (shortlist is not None and not (type(shortlist) is int and shortlist > 0))
        or (fusion is not None and type(fusion) not in (int, float))
        or (clf.label_embeddings_ is None and (shortlist, fusion) != (None, None))
    ):
        raise ValueError("its attributes contradict each other")


def _check_lists(indptr, indices, n_labels):
    """Raise where these are no lists of labels."""
    if not (
        indptr.ndim == indices.ndim == 1
        and len(indptr) > 1
        and indptr.dtype.kind == indices.dtype.kind == "i"
        and (indptr[0], indptr[-1]) == (0, len(indices))
        and (np.diff(indptr) >= 0).all()
        and (not len(indices) or 0 <= indices.min() <= indices.max() < n_labels)
    ):
        raise ValueError("neighbor_labels_ are no lists of labels")
