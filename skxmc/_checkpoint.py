"""Checkpoints of a fit: all that the next epoch depends on, in one file, without pickle.

The file is a .npz of plain arrays. One of them, "json", is the tree that the others hang on, beside
what the fit was of: its parameters and hashes of its data.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import struct
import time
import tokenize
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator

from skxmc.datasets._replace import replacing, sync_folder

NAME = "checkpoint.npz"
FORMAT = 1  # raised when the file changes in a way that older code would misread

# Parameters that may be others when a fit goes on. Seeds and epochs have rules of their own.
_FREE = ("checkpoint", "device", "max_iter", "n_jobs", "random_state", "top_k", "verbose",
         "warm_start")  # fmt: skip

# What parameters that came later were before.
_SINCE = {"compute_dtype": "'float32'"}


# What a file that is not what it should be may raise.
_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, RecursionError,
    SyntaxError, TypeError, ValueError, struct.error, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


class Checkpoint(BaseEstimator):
    """Where, and how often, a fit writes down how far it is.

    Parameters
    ----------
    folder : str or os.PathLike
        Folder of one fit; made if it does not exist. The file in it is ``checkpoint.npz``.
    every_epochs : int, default=1
        Write at the end of every so many epochs.
    every_minutes : float or None, default=None
        But not before so many minutes have passed since the last time: for epochs that take
        seconds, and models that take as long to write. None: always.

    See Also
    --------
    skxmc.XMCClassifier : Its parameter `checkpoint` takes this, or the folder alone.

    Examples
    --------
    >>> from skxmc import Checkpoint, XMCClassifier
    >>> clf = XMCClassifier(checkpoint=Checkpoint("run1", every_minutes=10))
    >>> clf.get_params()["checkpoint__folder"]
    'run1'
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every_epochs: int = 1,
        every_minutes: float | None = None,
    ):
        self.folder = folder
        self.every_epochs = every_epochs
        self.every_minutes = every_minutes

    def _check(self):
        if not isinstance(self.folder, (str, os.PathLike)) or not os.fspath(self.folder):
            raise TypeError(f"folder={self.folder!r} of a checkpoint must be the path of a folder.")
        n, minutes = self.every_epochs, self.every_minutes
        if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
            raise ValueError(f"every_epochs={n!r} of {self} must be a positive integer.")
        if minutes is not None and not (isinstance(minutes, Real) and minutes >= 0):
            raise ValueError(f"every_minutes={minutes!r} of {self} must be None or a number >= 0.")


class CheckpointFile:
    """The checkpoint of one fit: what is found in the folder, and what is written to it.

    Raises
    ------
    OSError
        If the folder cannot be made or written to.
    ValueError
        If there is a file of that name that is no checkpoint, or damaged.
    """

    def __init__(self, checkpoint):
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        checkpoint._check()
        self._every, self._minutes = checkpoint.every_epochs, checkpoint.every_minutes
        self.path = Path(checkpoint.folder).absolute() / NAME
        self._prepare_folder()
        self.epoch = None  # how many epochs the file has; None: there is no file
        self._written = time.monotonic()
        if self.path.exists():
            with self.naming(), self._open(check=True) as arrays:
                header = _read_json(arrays)
                if header["format"] > FORMAT:
                    raise ValueError(f"it has format {header['format']}, of a newer skxmc")
                self.epoch, self._fit = int(header["epoch"]), _SINCE | header["fit"]
                self._seed, self._max_iter = int(header["seed"]), int(header["max_iter"])

    @contextmanager
    def naming(self):
        """Say of whatever the contents of the file lead to which file it was, and what to do."""
        try:
            yield
        except _DAMAGE as error:
            raise ValueError(
                f"{self.path} is no checkpoint, or damaged: {type(error).__name__}: {error}. It is "
                "left as it is; delete it to begin anew, or name another folder."
            ) from error

    def _prepare_folder(self):
        """Find out before any work whether the folder can be written to."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{NAME}.*.tmp"):  # of a fit that was killed as it wrote
                left.unlink()
            probe = folder / f"{NAME}.{secrets.token_hex(4)}.tmp"
            probe.write_bytes(b"?")
            probe.unlink()
        except OSError as error:
            raise OSError(
                f"checkpoint: the folder {folder} cannot be written to ({error}). Free or name "
                "another, or pass checkpoint=None."
            ) from error

    # -- what the fit is of ------------------------------------------------------------------------

    def check(self, parameters, random_state, max_iter, seed, X, Y):
        """Raise where the file found is of another fit; returns the seed to train with.

        parameters : of the estimator, by name. seed : what `random_state` gave. X : as validated,
        Y : csr_array.
        """
        schedule = parameters["learning_rate"]
        parameters = {name: v for name, v in parameters.items() if name not in _FREE}
        fit = describe(parameters)
        fit |= {
            "the shape of X": str(X.shape), "the values of X": _hash(X),
            "the shape of y": str(Y.shape), "the values of y": _hash(Y),
        }  # fmt: skip
        if self.epoch is None:
            self._fit, self._seed, self._max_iter = fit, seed, max_iter
            return seed
        there = self._fit
        wrong = []
        for name in sorted({*fit, *there}, key=lambda name: (" " in name, name)):
            old, new = there.get(name, "absent"), fit.get(name, "absent")
            if old != new and "values" in name:
                wrong.append(f"{name} differ")
            elif old != new and "array" in old + new:
                wrong.append(f"{name} differs")
            elif old != new:
                wrong.append(f"{name} is {old} there and {new} here")
        # Of no seed, or a generator that has moved on, the one that the fit began with.
        if isinstance(random_state, Integral) and seed != self._seed:
            wrong.append("random_state differs")
        if wrong:
            raise ValueError(
                f"{self.path} is the checkpoint of another fit, {self.epoch} epochs of it: "
                f"{'; '.join(wrong)}. Pass what it was to go on with that fit; to begin this one, "
                "name another folder, or delete the file."
            )
        if max_iter != self._max_iter and not (
            isinstance(schedule, str) and schedule == "constant"
        ):
            raise ValueError(
                f"{self.path} is the checkpoint of a fit with max_iter={self._max_iter}, not "
                f"{max_iter}: its {self.epoch} epochs would have had other step sizes, since "
                f"learning_rate={schedule!r} goes by max_iter. Set it back, or delete the file to "
                "begin anew; learning_rate='constant' lets max_iter change."
            )
        if max_iter < self.epoch:
            raise ValueError(
                f"{self.path} holds {self.epoch} epochs, more than max_iter={max_iter}. Raise it, "
                "or delete the file to begin anew."
            )
        self._max_iter = max_iter
        return self._seed

    # -- reading and writing -----------------------------------------------------------------------

    def load(self):
        """The state as `save` was given it; its members one by one, as they are asked for.

        To be used within `naming`.
        """
        with self._open() as arrays:
            state = _read_json(arrays)["state"]["dict"]
            members = state.pop("members")
            return {**decode({"dict": state}, arrays), "members": map(self._load_member, members)}

    @contextmanager
    def _open(self, check=False):
        # numpy leaves a file open that it opened and could not read.
        with open(self.path, "rb") as file:
            if check:
                _check_sizes(file)
                file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                yield arrays

    def _load_member(self, member):
        with self._open() as arrays:
            return decode(member, arrays)

    def due(self, epoch: int) -> bool:
        """Whether to write after so many epochs."""
        minutes = (time.monotonic() - self._written) / 60
        return epoch % self._every == 0 and (self._minutes is None or minutes >= self._minutes)

    def save(self, epoch, state):
        """Replace the file as a whole or not at all; what fails is a warning.

        The fit is worth more than its checkpoint, so that a full disk does not end it.
        """
        arrays = {}
        try:
            header = {
                "format": FORMAT, "epoch": epoch, "seed": self._seed, "max_iter": self._max_iter,
                "fit": self._fit, "state": encode(state, arrays),
            }  # fmt: skip
            arrays["json"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
            _replace(self.path, arrays)
        except (OSError, TypeError) as error:
            kept = f"that of epoch {self.epoch} stays" if self.epoch else "there is none yet"
            warnings.warn(
                f"The checkpoint of epoch {epoch} could not be written to {self.path}: {error}. "
                f"The fit goes on; {kept}.",
                UserWarning,
                stacklevel=6,  # the line that calls fit
            )
            return
        self.epoch, self._written = epoch, time.monotonic()

    def remove(self) -> None:
        """The fit is over, and its folder left empty."""
        self.path.unlink(missing_ok=True)
        self.epoch = None


def _replace(path, arrays):
    """Write beside the file, bring that to disk, and let it take the file's place."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)  # the new name, too, is to survive a crash of the machine


def _check_sizes(file):
    """Raise where an array claims more than its part of the file: numpy would allocate first."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1:
                raise ValueError(f"{part.filename} is compressed or encrypted")
            if not 0 <= part.header_offset <= size - part.file_size:
                raise ValueError(f"{part.filename} is said to lie outside of the file")
            with archive.open(part) as member:
                version = np.lib.format.read_magic(member)
                one = np.lib.format.read_array_header_1_0
                read = one if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
            overflown = dtype.itemsize < 0  # numpy 1.26, of strings of 4 GB
            if overflown or math.prod(shape) * max(1, dtype.itemsize) > part.file_size:
                raise ValueError(f"{part.filename} is said to have shape {shape} and {dtype}")


def _read_json(arrays):
    return json.loads(arrays["json"].tobytes())


# -- values as JSON and arrays ---------------------------------------------------------------------


def encode(value, arrays, name="state"):
    """What stands for a value in the JSON part; its arrays are put into `arrays`.

    TypeError for what cannot be stored, with its name.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        parts = [encode(part, arrays, f"{name}[{i}]") for i, part in enumerate(value)]
        return parts if type(value) is list else {"tuple": parts}
    if type(value) is dict and all(type(key) is str for key in value):
        parts = {key: encode(part, arrays, f"{name}[{key!r}]") for key, part in value.items()}
        return {"dict": parts}
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        key = f"a{len(arrays)}"
        arrays[key] = np.asarray(value)
        return {"array" if isinstance(value, np.ndarray) else "scalar": key}
    if isinstance(value, np.random.Generator):
        return {"generator": encode(value.bit_generator.state, arrays, name)}
    if sp.issparse(value) and value.format == "csr":
        return {"csr": encode([value.data, value.indices, value.indptr, value.shape], arrays)}
    kind = type(value)
    raise TypeError(
        f"{name} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold: "
        "None, numbers, strings, arrays, csr arrays, numpy Generators, and lists, tuples and dicts "
        "of these are all that it can. A sampler of your own may override get_state and set_state"
    )


def decode(value, arrays):
    """The reverse of `encode`."""
    if type(value) is list:
        return [decode(part, arrays) for part in value]
    if type(value) is not dict:
        return value
    ((kind, what),) = value.items()
    if kind == "tuple":
        return tuple(decode(what, arrays))
    if kind == "dict":
        return {key: decode(part, arrays) for key, part in what.items()}
    if kind == "array":
        return arrays[what]
    if kind == "scalar":
        return arrays[what][()]
    if kind == "generator":
        state = decode(what, arrays)
        if state["bit_generator"] not in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"):
            raise ValueError(f"it names the generator {state['bit_generator']!r}")
        bits = getattr(np.random, state["bit_generator"])()
        bits.state = state
        return np.random.Generator(bits)
    if kind == "csr":
        data, indices, indptr, shape = decode(what, arrays)
        return sp.csr_array((data, indices, indptr), shape=shape)
    raise ValueError(f"it has a value of the kind {kind!r}")


# -- what tells fits apart -------------------------------------------------------------------------


def describe(parameters, prefix=""):
    """Parameters, and those of objects among them, as text by name: sampler__first__skip ..."""
    out = {}
    for key, value in parameters.items():
        name = prefix + key
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            value = value.item()
        if isinstance(value, np.ndarray):
            out[name] = f"array {_hash(value, np.float64)}"
        elif isinstance(value, (list, tuple)):
            out[name] = str(tuple(x.item() if isinstance(x, np.generic) else x for x in value))
        elif value is None or isinstance(value, (str, Real)):
            out[name] = repr(value)
        else:  # an object: which class, and its parameters
            own = value.get_params(deep=False) if hasattr(value, "get_params") else vars(value)
            out[name] = type(value).__qualname__
            out |= describe(own, f"{name}__")
    return out


def _hash(matrix, dtype=np.float32, block=1 << 20):
    """Hash of the values of an array or a csr matrix as numbers of this type, whatever theirs."""
    digest = hashlib.blake2b(digest_size=16)
    parts = [(matrix, dtype)]
    if sp.issparse(matrix):
        parts = [(matrix.indptr, np.int64), (matrix.indices, np.int32), (matrix.data, dtype)]
    for array, kind in parts:
        n = max(1, block * len(array) // max(array.size, 1))  # rows at a time
        for start in range(0, len(array), n):
            with np.errstate(over="ignore"):
                digest.update(np.ascontiguousarray(array[start : start + n], kind).reshape(-1))
    return digest.hexdigest()
