"""What a sampler is, what it is told and what it returns; and the sum of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator


@dataclass(frozen=True)
class Problem:
    """What a sampler may know of the training data.

    Attributes
    ----------
    Y : Rows
        The label lists, CSR: ``Y.indptr`` (n + 1,) int64, ``Y.indices`` (nnz,) int32.
    label_counts : ndarray of shape (n_labels,), int64
        How many rows carry each label. Labels without a training row take no part.
    n_columns : int or None
        Number of labels of the user's y, those without a training row included.
    batch_size : int
        Rows in a step.
    random_state : int
        A seed for what is built once a run; each batch brings a generator of its own.
    n_threads : int
        How many threads a refresh may use.
    log : callable
        ``log(text)`` prints at ``verbose``.
    """

    Y: Any
    label_counts: np.ndarray
    n_columns: int | None = None
    batch_size: int = 256
    random_state: int = 0
    n_threads: int = 1
    log: Any = print

    @property
    def n_rows(self) -> int:
        """Number of training rows."""
        return len(self.Y.indptr) - 1

    @property
    def n_labels(self) -> int:
        """Number of labels with a training row."""
        return len(self.label_counts)

    def at_most(self, n: int) -> int:
        """Clip to the number of labels with a training row: a fold may have fewer than y.

        Parameters
        ----------
        n : int

        Returns
        -------
        int
        """
        return min(n, self.n_labels)


@dataclass(frozen=True)
class Proposal:
    """Labels proposed for a batch of B rows.

    Attributes
    ----------
    labels : ndarray of shape (m,) or (B, m), int32
        (m,): distinct labels, the same for all rows, which is much the cheaper; (B, m): for each
        row its own, -1 where there is none.
    weight : float or ndarray of shape (m,)
        Weight of these labels in the loss.
    log_expected : float or ndarray of shape (m,)
        Log of the chance that a label is among those proposed to a row; NaN: unknown.
    keep : int or None
        Of these labels, only the `keep` highest-scoring for each row count (after positives are
        dropped): they are scored without a gradient first. None: all of them.
    """

    labels: np.ndarray
    weight: Any = 1.0
    log_expected: Any = np.nan
    keep: int | None = None


class Sampler(BaseEstimator):
    """Base of all samplers: override :meth:`propose`, and the others where there is a need.

    A sampler is a parameter object: its constructor stores, and :meth:`begin` is called on a clone,
    which lives for one run and may keep state.

    Examples
    --------
    A sampler that proposes the same most frequent labels to every row:

    >>> import numpy as np
    >>> from skxmc.samplers import Proposal, Sampler, UniformSampler
    >>> class HeadSampler(Sampler):
    ...     def __init__(self, n_negatives=10):
    ...         self.n_negatives = n_negatives
    ...     def propose(self, rows, rng):
    ...         head = np.argsort(-self.problem_.label_counts)[:self.n_negatives]
    ...         return Proposal(head.astype(np.int32))
    >>> HeadSampler(5) + UniformSampler(100)
    UnionSampler(first=HeadSampler(n_negatives=5),
                 second=UniformSampler(n_negatives=100))
    """

    def begin(self, problem: Problem) -> Sampler:
        """Prepare for a run on this problem, before any work is done; called on a clone.

        Parameters
        ----------
        problem : Problem

        Returns
        -------
        Sampler
            Itself.

        Raises
        ------
        ValueError
            If the sampler asks for more labels than there are.
        """
        self.problem_ = problem
        most = problem.n_columns or problem.n_labels
        for name in ("n_negatives", "n_candidates", "pool_size"):
            value = getattr(self, name, None)
            if value is None:
                continue
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} of {self} must be a positive integer or None.")
            if value > most:
                raise ValueError(
                    f"{name}={value} of {self} is more than the {most} labels of y. "
                    f"Ask for fewer, or leave {name}=None to have it chosen by their number."
                )
        return self

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Move a schedule on, before an epoch begins.

        Parameters
        ----------
        epoch, n_epochs : int
            Counted from 0, and how many there will be at most.
        """

    def order_rows(self, epoch: int, network: Any, rng: np.random.Generator) -> np.ndarray | None:
        """The order in which an epoch visits the rows, batch after batch.

        Parameters
        ----------
        epoch : int
        network : object
            As in :meth:`refresh`.
        rng : numpy.random.Generator

        Returns
        -------
        ndarray of shape (n_rows,), int64, or None
            Each row once; None: the training loop shuffles.
        """
        return None

    def due(self, epoch: int, step: int) -> bool:
        """Whether :meth:`refresh` is to be called before this step of this epoch.

        Parameters
        ----------
        epoch, step : int
            Both from 0; steps are counted within the epoch.

        Returns
        -------
        bool
        """
        return False

    def refresh(self, epoch: int, step: int, network: Any, rows: np.ndarray) -> None:
        """Rebuild what has gone stale, where :meth:`due` said so.

        Parameters
        ----------
        epoch, step : int
        network : object
            Offers ``hidden(rows)``, (len(rows), H), ``sketch(rows)``, the hidden vectors of a
            quarter of the units and at least 128, which take that much less time, and
            ``label_weights`` (L, H) and ``label_biases`` (L,): float32 tensors.
        rows : ndarray, int64
            The rows still to be visited in this epoch, in order.
        """

    @property
    def shortlist_size(self) -> int | None:
        """To how many labels of nearest embedding a prediction must keep; None: to none.

        A sampler that proposes only a row's neighbours leaves the scores of all others untrained.
        """
        return None

    def embed_labels(self, centroids: np.ndarray) -> np.ndarray:
        """Where labels lie among the rows' hidden vectors, for late fusion at prediction.

        Parameters
        ----------
        centroids : ndarray of shape (L, H), float32
            The mean hidden vector of each label's rows.

        Returns
        -------
        ndarray of shape (L, H), float32
            The centroids, unless a sampler knows better. Only their directions count.
        """
        return centroids

    def propose(self, rows: np.ndarray, rng: np.random.Generator) -> Proposal | list[Proposal]:
        """Propose labels for these rows of the training data.

        Parameters
        ----------
        rows : ndarray of shape (B,), int64
        rng : numpy.random.Generator

        Returns
        -------
        Proposal, or a list of them
        """
        raise NotImplementedError

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps of a run: all that `begin` and the methods after it have stored.

        Override both this and :meth:`set_state` where that is more than a checkpoint can hold.

        Returns
        -------
        dict
            By name: None, numbers, strings, arrays, csr arrays, numpy Generators, and lists,
            tuples and dicts of these. Here, the attributes that are neither parameters nor
            `problem_`.
        """
        own = {"problem_", *self.get_params(deep=False)}
        return {name: value for name, value in vars(self).items() if name not in own}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from such a state; called after :meth:`begin`, and before an epoch begins.

        Parameters
        ----------
        state : dict
            What :meth:`get_state` returned.
        """
        self.__dict__.update(state)

    def __add__(self, other):
        if not hasattr(other, "propose"):
            return NotImplemented
        return UnionSampler(self, other)


def check_integers(sampler, least, *names, optional=()):
    """Raise where one of these parameters is no integer of at least `least`; some may be None."""
    for name in names:
        value = getattr(sampler, name)
        if value is None and name in optional:
            continue
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r} of {sampler} must be an integer >= {least}.")


def check_schedule(sampler):
    """Raise where `schedule` is unknown."""
    if sampler.schedule not in (None, "linear", "geometric"):
        raise ValueError(f"schedule={sampler.schedule!r} must be None, 'linear' or 'geometric'.")


def on_the_way(schedule, first, last, epoch, n_epochs):
    """Where a number is that a "linear" or "geometric" schedule moves over the epochs."""
    done = epoch / (n_epochs - 1)
    if schedule == "linear":
        return first + done * (last - first)
    return first * (last / first) ** done


def draw_size(problem, n, default=200):
    """How many labels a random draw takes: n, or `default`, or half of them where they are few."""
    return problem.at_most(n or min(default, -(-problem.n_labels // 2)))


def draw_uniform(rng, n_labels, n, n_rows=None):
    """Draw without replacement, (n,) int32; or with it, once for each row, (n_rows, n) int32."""
    if n_rows is None:
        from skxmc import _shortlist_kernels

        return _shortlist_kernels.draw_distinct(n_labels, rng.random(n))
    return rng.integers(0, n_labels, (n_rows, n)).astype(np.int32)


class UnionSampler(Sampler):
    """The proposals of two samplers together; ``first + second`` builds it.

    Parameters
    ----------
    first, second : Sampler

    Examples
    --------
    >>> from skxmc.samplers import MIPSSampler, UniformSampler
    >>> both = MIPSSampler(5) + UniformSampler(100)
    >>> both.set_params(first__n_negatives=10)
    UnionSampler(first=MIPSSampler(n_negatives=10),
                 second=UniformSampler(n_negatives=100))
    """

    def __init__(self, first: Sampler, second: Sampler):
        self.first = first
        self.second = second

    def begin(self, problem: Problem) -> Sampler:
        """See :meth:`Sampler.begin`."""
        self.first.begin(problem)
        self.second.begin(problem)
        return self

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Move both parts' schedules on."""
        self.first.start_epoch(epoch, n_epochs)
        self.second.start_epoch(epoch, n_epochs)

    def order_rows(self, epoch: int, network: Any, rng: np.random.Generator) -> np.ndarray | None:
        """The order of the first part that has one."""
        order = self.first.order_rows(epoch, network, rng)
        return self.second.order_rows(epoch, network, rng) if order is None else order

    def due(self, epoch: int, step: int) -> bool:
        """Whether either part is due."""
        return self.first.due(epoch, step) or self.second.due(epoch, step)

    def refresh(self, epoch: int, step: int, network: Any, rows: np.ndarray) -> None:
        """Refresh the parts that are due."""
        for part in (self.first, self.second):
            if part.due(epoch, step):
                part.refresh(epoch, step, network, rows)

    @property
    def shortlist_size(self) -> int | None:
        """None where either part trains beyond its shortlist."""
        first, second = self.first.shortlist_size, self.second.shortlist_size
        return None if first is None or second is None else max(first, second)

    def embed_labels(self, centroids: np.ndarray) -> np.ndarray:
        """One part's way after the other's; most have none."""
        return self.second.embed_labels(self.first.embed_labels(centroids))

    def get_state(self) -> dict[str, Any]:
        """Both parts' states."""
        return {"first": self.first.get_state(), "second": self.second.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """See :meth:`Sampler.set_state`."""
        self.first.set_state(state["first"])
        self.second.set_state(state["second"])

    def propose(self, rows: np.ndarray, rng: np.random.Generator) -> Proposal | list[Proposal]:
        """Both parts' proposals."""
        out = []
        for part in (self.first, self.second):
            proposal = part.propose(rows, rng)
            out += [proposal] if isinstance(proposal, Proposal) else proposal
        return out
