"""Hard negatives by maximum inner product search over the label weights (paper A)."""

from __future__ import annotations

from skxmc.samplers._look_up import LookUpSampler


class MIPSSampler(LookUpSampler):
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
        n_negatives: int | None = None,
        n_candidates: int | None = None,
        skip: int = 0,
        refresh_epochs: int = 2,
        refresh_steps: int | None = None,
        warmup_epochs: int = 0,
        keep: bool = True,
        use_bias: bool = True,
        index: str = "auto",
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

    def _sizes(self, n_labels):
        half = -(-n_labels // 2)
        n = self.n_negatives or min(5, half)
        return n, self.n_candidates or max(n, min(10 * n, half))

    def _vectors(self, network):
        return network.label_weights, network.label_biases if self.use_bias else None
