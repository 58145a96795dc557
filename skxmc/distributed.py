"""One model trained by several processes, on one machine or many, by torch.distributed.

Each process holds a block of rows of the two large tables, of features and of labels, and what the
optimiser remembers of them; all see the same X and y. `torchrun` starts the processes.
"""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skxmc._checkpoint import describe
from skxmc._classifier import XMCClassifier
from skxmc._inputs import check_k, find_device
from skxmc._part import Part
from skxmc._ranks import Ranks
from skxmc._shards import own_device
from skxmc._typing import MatrixLike
from skxmc.samplers import MIPSSampler, Sampler, UnionSampler, make_sampler

__all__ = ["ShardedXMCClassifier"]

# Parameters that may differ between processes.
_HERE = ("checkpoint", "device", "n_jobs", "random_state", "verbose")


class ShardedXMCClassifier(ClassifierMixin, BaseEstimator):
    """One `XMCClassifier` whose tables are divided among several processes.

    Start the same program several times, by ``torchrun --nproc-per-node 4 train.py``, and have each
    process call the same methods with the same data. Each holds a part of the feature table and of
    the label table; they train the model that one process with ``n_jobs=1`` would train, up to the
    order of sums. Without torchrun, or with one process, it is that model to the bit, with
    ``neighbor_weight=0``: no rows are kept to vote.

    Parameters
    ----------
    estimator : XMCClassifier
        What to train; it stays as it is. Not supported are `warm_start`, `late_fusion`, neighbours,
        callbacks, the sampler "label-embedding", samplers of your own that override `refresh`, and
        an `index` of "mips" that is not exact ("auto" is exact here). A process trains with one
        thread; `n_jobs` is for the ranking of labels in look-ups and `predict_topk`.
        ``device="auto"`` or "cuda" gives each process of a machine a GPU of its own.
    timeout : float, default=1800
        Seconds after which a process that does not answer is taken for lost. One that has ended is
        noticed at once.

    Attributes
    ----------
    classes_, label_counts_, tail_offsets_, tail_bias_, loss_curve_, epoch_seconds_, ... : object
        All fitted attributes of `estimator` but its tables: the same in each process.
    n_processes_ : int
        How many have trained.
    label_range_ : tuple of int
        The first row of the label table that this process holds, and the first that it does not.
    feature_range_ : tuple of int
        The same of the feature table. A feature table for dense X is not divided.
    n_bytes_exchanged_ : int
        Bytes of the arrays that `fit` has summed over the processes. In a ring of n, each sends
        ``2 * (n - 1) / n`` times as much.

    See Also
    --------
    skxmc.XMCClassifier : The model, in one process.

    Notes
    -----
    If the process group exists already it is used; else it is made as torchrun's environment says,
    gloo on CPUs and nccl on GPUs. With ``checkpoint=`` in the estimator, a folder that all
    processes share, a fit goes on from there when it is called again, by any number of processes.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.distributed import ShardedXMCClassifier
    >>> X, Y = make_xmc(200, 300, 20, random_state=0)
    >>> clf = XMCClassifier(hidden_layer_sizes=(8,), max_iter=1, n_jobs=1, random_state=0)
    >>> clf = ShardedXMCClassifier(clf).fit(X, Y)
    >>> labels, scores = clf.predict_topk(X, k=3)
    >>> labels.shape, clf.n_processes_, clf.label_range_
    ((200, 3), 1, (0, 20))
    """

    def __init__(self, estimator: XMCClassifier, *, timeout: float = 1800):
        self.estimator = estimator
        self.timeout = timeout

    def fit(self, X: MatrixLike, y: MatrixLike) -> Self:
        """Train, together with the other processes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            As in `XMCClassifier.fit`, and the same in each process; of
            :func:`skxmc.datasets.open_csr`, the processes of a machine share one copy.

        Returns
        -------
        ShardedXMCClassifier

        Raises
        ------
        TypeError
            If `estimator` is no XMCClassifier.
        ValueError
            As in `XMCClassifier.fit`; if a parameter is not supported, parameters or data differ
            between processes, or there are fewer features or labels than processes.
        RuntimeError
            If another process is lost. The message says where, and how to go on.
        """
        parameters = self._check()
        ranks = Ranks.join(self.timeout, parameters["device"])
        ranks.where = "before the fit"
        described = describe({n: v for n, v in parameters.items() if n not in _HERE})
        seed = self.estimator.random_state
        described["random_state"] = repr(seed) if isinstance(seed, Integral) else str(type(seed))
        ranks.agree(
            {f"estimator: {name}": value for name, value in described.items()},
            "Pass the same parameters in each process.",
        )
        if not ranks.alone and not isinstance(seed, Integral):
            state = check_random_state(seed)
            parameters["random_state"] = ranks.tell(state)[0]
            state.randint(2**31 - 1)  # as the fit of a classifier moves it
        if ranks.rank:
            parameters["verbose"] = 0
        ranks.remedy = (
            "Start all of them again: the fit begins anew. With checkpoint=, it would go on."
            if parameters["checkpoint"] is None
            else "Start all of them again, as many as there are: the fit goes on from the last "
            f"checkpoint in {_folder(parameters['checkpoint'])}."
        )
        part = Part(**parameters)
        part.ranks, part.index_threads = ranks, self.estimator.n_jobs
        part.fit(X, y)
        ranks.where = "in a call after the fit"
        ranks.remedy = "Start all of them again."
        self._part = part
        for name, value in vars(part).items():
            if name.endswith("_") and not name.startswith("_") and name not in _TABLES:
                setattr(self, name, value)
        self.n_processes_, self.n_bytes_exchanged_ = ranks.size, ranks.n_bytes
        self.label_range_ = tuple(part.shards.final_span)
        self.feature_range_ = tuple(part.shards.feature_span)
        return self

    def _check(self):
        """Refuse what is not supported; returns the parameters to train with."""
        if not isinstance(self.estimator, XMCClassifier):
            raise TypeError(
                f"estimator must be an XMCClassifier, got {type(self.estimator).__name__}."
            )
        if not isinstance(self.timeout, Real) or not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout={self.timeout!r} must be a positive number of seconds.")
        parameters = self.estimator.get_params(deep=False)
        if parameters["neighbor_weight"] == "auto":
            parameters["neighbor_weight"] = 0.0
        for name, wanted in (
            ("warm_start", False), ("late_fusion", None), ("neighbor_weight", 0),
            ("search", "exact"),
        ):  # fmt: skip
            if parameters[name] != wanted:
                raise ValueError(
                    f"{name}={parameters[name]!r} is not supported by several processes. Set "
                    f"{name}={wanted!r}."
                )
        if getattr(self.estimator, "_skl_callbacks", None):
            raise ValueError("Callbacks are not supported by several processes. Set none.")
        sampler = make_sampler(parameters["sampler"])
        parameters["sampler"] = _supported(sampler)
        parameters["device"] = own_device(find_device(parameters["device"]))
        return parameters | {"n_jobs": 1}

    def predict_topk(self, X: MatrixLike, k: int = 5) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Rank the k best labels of each row: each process its own labels, and the best of these.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The same in each process.
        k : int, default=5
            At most the number of labels are returned.

        Returns
        -------
        labels : ndarray of shape (n_samples, min(k, n_labels))
            As `XMCClassifier.predict_topk`; the same in each process.
        scores : ndarray of shape (n_samples, min(k, n_labels)), float32

        Raises
        ------
        ValueError
            If k is not a positive integer, X has NaN, infinity or another number of features, or k
            or the shape of X differ between processes.
        RuntimeError
            If another process is lost.
        """
        check_is_fitted(self)
        self._part.ranks.agree(
            {"The shape of X": np.shape(X), "k": check_k(k)}, "All processes make the same calls."
        )
        return self._part.predict_topk(X, k)

    def score(self, X: MatrixLike, y: MatrixLike) -> float:
        """Precision@1, as `XMCClassifier.score`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)

        Returns
        -------
        float
            The same in each process.
        """
        check_is_fitted(self)
        self._part.ranks.agree(
            {"The shape of X": np.shape(X)}, "All processes make the same calls."
        )
        return self._part.score(X, y)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as one file, which `skxmc.persistence.load_model` loads as a whole.

        Process 0 writes, piece by piece as the others send their rows: none ever holds the tables
        of others. The file appears as a whole or not at all.

        Parameters
        ----------
        path : str or os.PathLike
            File to write, by custom with the suffix ``.safetensors``; of use to process 0.

        Raises
        ------
        OSError
            If the file cannot be written.
        TypeError
            If a parameter of the estimator is something that the file cannot hold: see
            :func:`skxmc.persistence.save_model`.
        RuntimeError
            If that happens to another process, or one is lost.
        """
        check_is_fitted(self)
        self._part.save(path, self.estimator)

    def __getstate__(self):
        """Copies of what is not fitted are all that there can be."""
        if hasattr(self, "_part"):
            raise TypeError(
                "A fitted ShardedXMCClassifier is a part of a model, which cannot be pickled. Use "
                "its method save."
            )
        return super().__getstate__()


_TABLES = ("feature_weights_", "label_weights_", "label_biases_")


def _supported(sampler):
    """The sampler as several processes can run it; ValueError if they cannot."""
    if isinstance(sampler, UnionSampler):
        return UnionSampler(_supported(sampler.first), _supported(sampler.second))
    if isinstance(sampler, MIPSSampler):
        if sampler.index not in ("auto", "exact"):
            raise ValueError(
                f"index={sampler.index!r} of {sampler} is not supported by several processes: "
                "theirs is exact. Set index='exact'."
            )
        return MIPSSampler(**sampler.get_params() | {"index": "exact"})
    if type(sampler).refresh is not Sampler.refresh:
        raise ValueError(
            f"The sampler {sampler} looks at the whole label table, of which each process has a "
            "part. Use 'clustered-in-batch+uniform', 'mips+uniform', 'in-batch', 'frequency', "
            "'snm' or 'full'."
        )
    return sampler


def _folder(checkpoint):
    return getattr(checkpoint, "folder", checkpoint)
