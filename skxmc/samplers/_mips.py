"""Hard negatives by maximum inner product search over the label weights (paper A)."""

import numpy as np

from skxmc.samplers._base import Proposal, Sampler


class MIPSSampler(Sampler):
    """A few hard negatives: labels of high inner product with the row's hidden vector (paper A).

    At each refresh, an index over the label weights is built and asked, for many rows in one call,
    for the highest-scoring labels of each; every visit of a row then draws a few of them anew.
    Few is the point: many hard negatives, too early, make training unstable, and training on them
    alone is sensitive to the refresh interval. Combine with uniform ones: ``"mips+uniform"``.

    Parameters
    ----------
    n_negatives : int or None, default=None
        Hard negatives for each row and visit; None: 5, fewer where there are fewer than 10 labels.
    n_candidates : int or None, default=None
        They are drawn from this many; None: 10 times `n_negatives`, at most half of the labels.
        The paper's code has `n_candidates` = `n_negatives`.
    skip : int, default=0
        Pass over so many of the best labels beside the positives: where annotators miss labels, the
        hardest negatives are often true.
    refresh_epochs : int, default=2
        Rebuild and look up before every so many epochs. (The paper's code does so before each.)
    refresh_steps : int or None, default=None
        Also rebuild after so many steps (batches) within an epoch; the paper's code does so after
        1,000. Only the rows of the steps ahead are looked up.
    warmup_epochs : int, default=0
        No hard negatives before this epoch.
    keep : bool, default=True
        True: the candidates are the best `n_candidates` labels beside the row's positives, so that
        their number is fixed. False: the best `n_candidates` labels are fetched and the positives
        among them dropped, as in the paper's code; there are fewer as the model gets better.
    use_bias : bool, default=True
        Whether the label bias counts in the inner product. (The paper's model has none.)
    index : {"auto", "exact", "faiss", "pynndescent"}, default="auto"
        Which library looks up; see :ref:`choosing an index <index>`.

    Notes
    -----
    Hidden vectors of a look-up are made without dropout; the paper's code looks up each batch with
    dropout active, from an equally stale index.

    References
    ----------
    .. [A] Qaraei and Babbar, "Meta-classifier free negative sampling for extreme multilabel
       classification", Machine Learning, 2023.

    Examples
    --------
    >>> from skxmc.samplers import MIPSSampler, UniformSampler
    >>> MIPSSampler(5, n_candidates=50) + UniformSampler(100)
    UnionSampler(first=MIPSSampler(n_candidates=50, n_negatives=5),
                 second=UniformSampler(n_negatives=100))
    """

    def __init__(
        self,
        n_negatives=None,
        n_candidates=None,
        skip=0,
        refresh_epochs=2,
        refresh_steps=None,
        warmup_epochs=0,
        keep=True,
        use_bias=True,
        index="auto",
    ):
        self.n_negatives = n_negatives
        self.n_candidates = n_candidates
        self.skip = skip
        self.refresh_epochs = refresh_epochs
        self.refresh_steps = refresh_steps
        self.warmup_epochs = warmup_epochs
        self.keep = keep
        self.use_bias = use_bias
        self.index = index

    def begin(self, problem):
        """See :meth:`Sampler.begin`."""
        from skxmc._index import check_index

        super().begin(problem)
        half = -(-problem.n_labels // 2)
        self._n = problem.at_most(self.n_negatives or min(5, half))
        self._n_candidates = problem.at_most(
            self.n_candidates or max(self._n, min(10 * self._n, half))
        )
        if self._n_candidates < self._n:
            raise ValueError(
                f"n_candidates={self.n_candidates} of {self} is less than n_negatives={self._n}, "
                "which are drawn from the candidates. Raise it, or leave it None."
            )
        for name in ("refresh_epochs", "refresh_steps", "warmup_epochs", "skip"):
            value, least = getattr(self, name), 0 if name in ("warmup_epochs", "skip") else 1
            if value is None and name == "refresh_steps":
                continue
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name}={value!r} of {self} must be an integer >= {least}.")
        if self.skip >= (problem.n_columns or problem.n_labels):
            raise ValueError(f"skip={self.skip} of {self} leaves none of the labels. Lower it.")
        check_index(self.index)
        self._candidates = None  # (n_rows, n_candidates) int32 once looked up, -1: none
        return self

    def due(self, epoch, step):
        """At the start of every `refresh_epochs`-th epoch, and every `refresh_steps` within one."""
        since = epoch - self.warmup_epochs
        if since < 0:
            return False
        if step == 0:
            return since % self.refresh_epochs == 0
        return self.refresh_steps is not None and step % self.refresh_steps == 0

    def refresh(self, epoch, step, network, rows):
        """Build the index and look up the rows ahead, thousands in one call."""
        from skxmc._index import drop, make_index

        problem = self.problem_
        if self.refresh_steps is not None:
            rows = rows[: self.refresh_steps * problem.batch_size]
        index = make_index(
            self.index, problem.n_labels, problem.random_state, problem.n_threads, problem.log
        )
        biases = network.label_biases if self.use_bias else None
        index.build(network.label_weights, biases)
        if self._candidates is None:
            self._candidates = np.full((problem.n_rows, self._n_candidates), -1, np.int32)
        for block in np.array_split(rows, -(-len(rows) // 16384)):
            exclude = problem.Y if self.keep else None
            fetch = problem.at_most(self.skip + self._n_candidates)
            found = index.search(network.hidden(block), fetch, exclude, block)
            if not self.keep:
                found = drop(found, problem.Y, block)
            found = found[:, self.skip :]
            self._candidates[block, : found.shape[1]] = found

    def propose(self, rows, rng):
        """A few of each row's candidates: one from each of `n_negatives` strata of their ranks."""
        if self._candidates is None:
            return []
        candidates = self._candidates[rows]  # (B, n_candidates), the valid ones first
        n_valid = (candidates >= 0).sum(1, keepdims=True)  # (B, 1)
        edges = np.arange(self._n + 1) * n_valid // self._n  # (B, n + 1)
        sizes = np.diff(edges)
        at = edges[:, :-1] + (rng.random(sizes.shape) * sizes).astype(np.int64)  # (B, n), distinct
        at = np.where(n_valid > self._n, at, np.arange(self._n))
        return Proposal(np.take_along_axis(candidates, at, 1))
