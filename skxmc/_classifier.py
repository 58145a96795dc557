"""XMCClassifier: parameters, targets, fit, and prediction in scikit-learn's terms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skxmc._callbacks import CallbackSupportMixin
from skxmc._checkpoint import Checkpoint
from skxmc._fitted import Fitted
from skxmc._fitting import Fitting
from skxmc._inputs import rate_factors
from skxmc._interrupt import Interrupt, all_or_nothing
from skxmc._prediction import as_csr, probabilities
from skxmc._products import DTYPES
from skxmc._targets import count_epochs, count_labels, encode_targets
from skxmc._typing import MatrixLike
from skxmc.losses import Loss
from skxmc.metrics import precision_at_k
from skxmc.samplers import Sampler


class XMCClassifier(Fitting, Fitted, CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Extreme multi-label classifier: a neural network over thousands to millions of labels.

    A multi-layer perceptron over sparse (TF-IDF) or dense (embedding) rows, with one weight vector
    for each label. A training step scores a row's positives and a few negatives, which the
    `sampler` proposes; its cost does not grow with the number of labels.

    Parameters
    ----------
    sampler : str or Sampler, default="clustered-in-batch+uniform"
        Who proposes negatives: names from ``skxmc.samplers.SAMPLERS`` joined by ``+``, or an object
        such as ``MIPSSampler(5) + UniformSampler(400)``. The default is the labels of the other
        rows in the batch, which are alike, so that these are hard, and uniform ones. "mips+uniform"
        is paper A [A]_.
    loss : str or Loss, default="bce"
        What a shortlist of scores costs: a name from ``skxmc.losses.LOSSES``, or an object.
    hidden_layer_sizes : tuple of int, default=(512,)
        Widths of the hidden layers, at least one. The last is the width of the label vectors.
    n_estimators : int, default=2
        Members: networks of this shape that are trained side by side, each on its own, and whose
        scores are averaged. Fitted, they are one network of `n_estimators` times the width. Two
        members of half the width cost what one network does, and rank better; on as many threads
        as members, the same seed gives the same bits.
    max_iter : int or None, default=None
        Epochs: how often each row is visited. None: as many as `learning_rate` has factors; or 8,
        10 below 4,000 rows, or 4 where there are more and on average 32 of a label, labels without
        any aside.
    batch_size : int or None, default=None
        Rows in a step. None: a 64th of the rows, between 8 and 128, or 256 where `max_iter` None
        would mean 4.
    positive_weight : {None, "propensity", "class-balanced"}, float or array-like, default=0.5
        How much a positive of each label weighs in the loss, scaled to mean 1: None, all alike;
        "propensity", ``2 / p - 1`` with p of :func:`skxmc.metrics.propensities` [P]_; a float, that
        power of it, such as 0.5; "class-balanced", ``(1 - 0.9) / (1 - 0.9 ** frequency)``; or a
        number for each label.
    tail_bias : float or "auto", default="auto"
        Added to the ranking scores, times ``log(2 / p - 1)`` of each label: buys PSP@k for P@k, or
        below 0 the reverse. It takes effect at prediction, without a new fit, in what ranks:
        `predict_topk`, `score`, and `decision_function` with `top_k`. "auto": of -0.75, -0.5 ... 1
        that of the highest mean P@1, P@3 and P@5 on rows held out, or else for each member on a
        twentieth of the rows, which it does not train on; the one nearest to 0 that is as good
        within a standard error. 0 for a 1-d y and below 1,000 rows.
    residual : bool, default=False
        End the hidden layers with a residual block, ``z = v + ReLU(R v + r)``, R of spectral norm 1
        and the identity at the start (paper C [C]_).
    learning_rate : {"cooldown", "linear", "constant"} or array-like, default="cooldown"
        How the step size moves: "cooldown", from a third of `max_iter` epochs on in a line to 0 at
        their end [H]_; "linear", so from the first step on; "constant"; or a factor for each epoch,
        (max_iter,), such as 1, 1, 1, 0.5, 0.5, 0.25.
    learning_rate_init : float, default=0.1
        Step size of Adagrad at the start.
    dropout : float in [0, 1), default=0.4
        Share of the hidden units that a training step leaves out: blocks of up to 32, the same for
        all its rows [G]_, so that it takes less time the more it leaves out.
    late_fusion : float in [0, 1], "auto" or None, default=None
        Rank by the sum of the classifier (weight `late_fusion`) and of the cosine between a row and
        the labels' embeddings (weight ``1 - late_fusion``), each over the row's highest: below 1,
        PSP@k rises, at 0.5 at hardly any cost in P@k (paper C [C]_). Embeddings are the mean hidden
        vectors of the labels' rows, mapped where the sampler is "label-embedding". "auto": the
        weight of highest mean P@1, P@3 and P@5 on `validation_fraction` of the rows, which are held
        out. `predict_topk`, `decision_function` with `top_k`, and `score` of an indicator y rank
        so; dense scores, probabilities and `predict` remain the classifier's.
    neighbor_weight : float in [0, 1) or "auto", default="auto"
        Rank by ``(1 - neighbor_weight) * sigmoid(score) + neighbor_weight * vote``, where 32
        training rows vote with their labels: those whose hidden vectors point most nearly the way
        of the row's, the nearer the more [K]_. "auto": of 0, 0.05 ... 0.4 the weight of the highest
        mean P@1, P@3 and P@5 on the rows by which `tail_bias` is chosen; 0 for a 1-d y, below 1,000
        rows, with `late_fusion`, and with the sampler "label-embedding". It takes effect in the
        methods that `tail_bias` does; dense scores, probabilities and `predict` remain the
        network's. The model then holds up to 192 numbers and the labels of each training row, of
        131,072 at most. `partial_fit` keeps no rows.
    search : {"exact", "approximate"}, default="exact"
        How the best labels are found. "exact" scores all. "approximate" scores all by a sketch of
        their vectors, which has a quarter of the numbers, and the best ``0.6 * sqrt(n_labels)`` of
        them exactly, or 16 `k` where that is more: it finds 98 to 99.9 % of the exact five best, in
        0.4 to 0.7 of the time where no neighbours vote (:doc:`/scale`). It may be switched at any
        time. `fit` measures what it finds on 512 of its rows, says so at `verbose`, and warns where
        it is below 90 %. Of fewer than 16,384 labels, or 256 hidden units, where more than a 64th
        of all labels would be scored exactly, with the sampler "label-embedding", and on a GPU, the
        search is exact.
    top_k : int or None, default=None
        What `decision_function` and `predict_proba` return: None for dense arrays (n, n_labels);
        k for a `csr_array` that holds the k best labels of each row.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the rows, watch precision@1 on them, stop when it has not
        risen for `n_iter_no_change` epochs, and keep the weights of the best epoch.
    validation_fraction : float in (0, 1), default=0.1
    n_iter_no_change : int, default=3
    warm_start : bool, default=False
        Whether `fit` of a fitted estimator goes on from its weights, for `max_iter` more epochs, on
        rows of the same features and labels, old rows or new.
    checkpoint : str, os.PathLike, Checkpoint or None, default=None
        Folder, or a :class:`skxmc.Checkpoint`: `fit` writes there how far it is, at the end of each
        epoch, and one that was killed or interrupted goes on from there if it is called again, with
        one thread to the same bits. A fit that ends empties the folder. None: nothing is written.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1" ..., or "auto": a GPU where torch finds one, else the CPU.
    compute_dtype : {"float32", "bfloat16"}, default="float32"
        What the matrix products of training multiply; their sums, the weights, what Adagrad
        remembers, and all predictions are float32. "bfloat16" is for GPUs, and for CPUs with
        instructions for it (AVX512-BF16): on AMD's Zen 5 fits took 0.8 to 0.9 of the time.
    n_jobs : int or None, default=None
        Threads. None: all cores where the data is large enough to gain (10,000 rows), else one;
        -1: all cores. One thread gives the same bits at each run with the same `random_state`.
        Several train side by side without locks, and their results differ in the last digits.
    random_state : int, RandomState instance or None, default=None
        Seeds the initial weights, the order of rows, dropout and sampling.
    verbose : int, default=0
        1: print a line an epoch, and every five seconds how far look-ups and predictions are.

    Attributes
    ----------
    classes_ : ndarray of shape (n_labels,)
        The columns of an indicator y, or the distinct classes of a 1-d y.
    feature_weights_ : ndarray of shape (n_features, H0), float32
        H0, H1, ... H are `n_estimators` times the `hidden_layer_sizes`: the members side by side.
    hidden_weights_ : list of ndarray of shape (H0, H1), (H1, H2), ...
    hidden_biases_ : list of ndarray of shape (H0,), (H1,), ...
    label_weights_ : ndarray of shape (n_labels, H), float32
    label_biases_ : ndarray of shape (n_labels,), float32
    label_counts_ : ndarray of shape (n_labels,), int64
        How many training rows carry each label; of `partial_fit` all so far.
    n_samples_seen_ : int
        Training rows; of `partial_fit` all so far.
    tail_offsets_ : ndarray of shape (n_labels,), float32
        ``log(2 / p - 1)`` of each label, by its training frequency.
    residual_ : tuple of ndarray of shape (H, H) and (H,), or None
        R and r of the residual block.
    label_embeddings_ : ndarray of shape (n_labels, H), float32, or None
        Unit vectors, zeros for labels without a training row; None where prediction needs none.
    tail_bias_ : float
        What `tail_bias` was in `fit`, or what "auto" chose.
    late_fusion_ : float or None
        The weight of the classifier that `predict_topk` uses.
    neighbor_weight_ : float
        The weight of the votes that `predict_topk` uses; 0 where no rows are kept. Set it to 0, and
        the network ranks alone, in less time, and files and copies have no rows.
    neighbor_axes_ : ndarray of shape (H, D), float32, or None
        The axes along which hidden vectors are compared, D at most 192 or as many as members; after
        :func:`skxmc.ensemble.average` the sum of theirs.
    neighbor_vectors_ : ndarray of shape (n_kept, D), float32, or None
        Unit vectors: the training rows along these axes.
    neighbor_labels_ : tuple of ndarray of shape (n_kept + 1,) and (n_entries,), or None
        The labels of these rows, as columns of y: ``indptr`` and ``indices`` of a CSR matrix.
    shortlist_size_ : int or None
        Scores count for so many labels of nearest embeddings, at least 100; None: for all.
    loss_curve_ : list of float
        Mean training loss of a row, an entry an epoch.
    hardness_curve_ : list of float
        What negatives there were to learn from: the sizes of d loss / d score of a row's negatives,
        summed, mean over the rows, an entry an epoch. For "bce" that is how many labels the network
        believes in of those that the sampler proposed and that are wrong.
    epoch_seconds_ : list of float
        Wall seconds of each epoch's training, index look-ups included, held-out scoring not.
    active_fraction_ : list of float or None
        For losses with a margin, the share of negatives inside it, which have a gradient, an entry
        an epoch; None for other losses.
    validation_scores_ : list of float or None
        Precision@1 on the held-out rows, an entry an epoch; None without `early_stopping`.
    n_iter_ : int
        Epochs trained, those of earlier calls of `partial_fit` and of a warm start included.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, where X had feature names

    See Also
    --------
    skxmc.samplers : The negative samplers.
    skxmc.metrics : Precision@k, its propensity-scored form, and scorers for model selection.

    Notes
    -----
    Labels without a training row keep their columns, with a constant score of -1e30: they are never
    ranked before a trained label. Rows without features or labels are trained and predicted.

    References
    ----------
    .. [A] Qaraei and Babbar, "Meta-classifier free negative sampling for extreme multilabel
       classification", Machine Learning, 2023.
    .. [C] Mishra et al., "Light-weight deep extreme multilabel classification", IJCNN 2023.
    .. [G] Graham, Reizenstein and Robinson, "Efficient batchwise dropout training using
       submatrices", arXiv:1502.02478, 2015.
    .. [H] Hägele et al., "Scaling laws and compute-optimal training beyond fixed training
       durations", NeurIPS 2024.
    .. [K] Khandelwal et al., "Generalization through memorization: nearest neighbor language
       models", ICLR 2020; of labels, Wang et al., "Retrieval-augmented encoders for extreme
       multi-label text classification", arXiv:2502.10615, 2025.
    .. [P] Qaraei et al., "Convex surrogates for unbiased loss functions in extreme classification
       with missing labels", WWW 2021.

    Examples
    --------
    >>> from sklearn.model_selection import train_test_split
    >>> from skxmc import XMCClassifier
    >>> from skxmc.datasets import make_xmc
    >>> from skxmc.metrics import precision_at_k
    >>> X, Y = make_xmc(n_samples=2000, n_labels=200, n_features=2000, random_state=0)
    >>> X, X_test, Y, Y_test = train_test_split(X, Y, random_state=0)
    >>> clf = XMCClassifier(hidden_layer_sizes=(64,), random_state=0).fit(X, Y)
    >>> labels, scores = clf.predict_topk(X_test, k=5)
    >>> labels.shape, scores.dtype
    ((500, 5), dtype('float32'))
    >>> precision_at_k(Y_test, labels, k=1) > 0.5
    True
    """

    _parameter_constraints = {  # noqa: RUF012  (scikit-learn's convention)
        "sampler": [str, Sampler],
        "loss": [str, Loss],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "positive_weight": [
            StrOptions({"propensity", "class-balanced"}),
            Interval(Real, 0, None, closed="left"),
            "array-like",
            None,
        ],
        "tail_bias": [Interval(Real, None, None, closed="neither"), StrOptions({"auto"})],
        "residual": ["boolean"],
        "learning_rate": [StrOptions({"cooldown", "linear", "constant"}), "array-like"],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "late_fusion": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"}), None],
        "neighbor_weight": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "search": [StrOptions({"exact", "approximate"})],
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "checkpoint": [str, os.PathLike, Checkpoint, None],
        "device": [str],
        "compute_dtype": [StrOptions(set(DTYPES))],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    classes_: NDArray[Any]

    def __init__(
        self,
        sampler: str | Sampler = "clustered-in-batch+uniform",
        loss: str | Loss = "bce",
        *,
        hidden_layer_sizes: int | Sequence[int] | NDArray[np.integer] = (512,),
        n_estimators: int = 2,
        max_iter: int | None = None,
        batch_size: int | None = None,
        positive_weight: Literal["propensity", "class-balanced"] | float | ArrayLike | None = 0.5,
        tail_bias: float | Literal["auto"] = "auto",
        residual: bool = False,
        learning_rate: Literal["cooldown", "linear", "constant"] | ArrayLike = "cooldown",
        learning_rate_init: float = 0.1,
        dropout: float = 0.4,
        late_fusion: float | Literal["auto"] | None = None,
        neighbor_weight: float | Literal["auto"] = "auto",
        search: Literal["exact", "approximate"] = "exact",
        top_k: int | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 3,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        device: str = "auto",
        compute_dtype: Literal["float32", "bfloat16"] = "float32",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.sampler = sampler
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_estimators = n_estimators
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.positive_weight = positive_weight
        self.tail_bias = tail_bias
        self.residual = residual
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.dropout = dropout
        self.late_fusion = late_fusion
        self.neighbor_weight = neighbor_weight
        self.search = search
        self.top_k = top_k
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.device = device
        self.compute_dtype = compute_dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # -- fit -------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(self, X: MatrixLike, y: MatrixLike) -> Self:
        """Train on rows X and their labels y.

        Ctrl-C ends the fit early and in order: unless that was in the first epoch, the estimator is
        then fitted with what it had learnt, which the KeyboardInterrupt tells. After any other
        error it is what it was before.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Sparse TF-IDF or counts in any format, or dense embeddings. float32 is used as it is,
            other dtypes are converted. Rows of unit length suit the default learning rate.
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            A binary indicator, or 1-d classes: one label a row.

        Returns
        -------
        XMCClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or y hold NaN or infinity, y is not a binary indicator or has no label at all, the
            numbers of rows differ, a parameter or the sampler's name is invalid, or the sampler
            asks for more negatives than there are labels, or `checkpoint` holds a file of another
            fit. Nothing is trained then. If training diverges.
        MemoryError
            If the memory of a GPU does not suffice: before any work, where that can be foreseen.
            The message says what would fit.
        OSError
            If the folder of `checkpoint` cannot be written to.
        """
        go_on = self.warm_start and self._is_fitted()
        X, y = self._validate(X, y, reset=not go_on)
        Y, classes, kind = encode_targets(y, self.classes_ if go_on else None)
        weight = self._resolve_neighbor_weight(kind)
        n_epochs = count_epochs(self.max_iter, self.learning_rate, Y)
        factors = rate_factors(self.learning_rate, n_epochs)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        saved = None
        if self.checkpoint is not None:
            saved = self._open_checkpoint()
            seed = saved.check(self._parameters(), self.random_state, n_epochs, seed, X, Y)
        rows, Y, n_rows, held_out, passed_over = self._hold_out(X, Y, kind, seed, weight)
        counts = count_labels(Y)
        ensemble, seen = self._begin(
            rows, Y, counts, n_rows, seed, factors, n_epochs, go_on, passed_over
        )
        weight = self._resolve_neighbor_weight(kind, ensemble.shortlist_size)
        self.classes_, self._kind = (self.classes_ if go_on else classes), kind
        tasks = self._start(ensemble, seen, X, y, go_on)
        with Interrupt(self._holds_interrupts) as interrupt:
            watched = held_out if self.early_stopping else None
            self._train(ensemble, watched, seen, tasks, interrupt, saved)
            neighbors = self._choose(ensemble, held_out, seen, Y, weight, seed)
            self._store(ensemble, seen)
            self._keep_neighbors(neighbors, seen)
            self._choose_fusion(held_out)
            self._measure_search(ensemble.trainers[0].X, seed)
        tasks.end()
        if saved and interrupt.how is None:
            saved.remove()
        interrupt.end(saved)
        return self

    def _holds_no_rows_out(self):
        """Whether there is a `partial_fit`."""
        if self.early_stopping or self.late_fusion == "auto":
            raise AttributeError(
                "partial_fit holds no rows out: set early_stopping=False and late_fusion to a "
                f"number or None. Got early_stopping={self.early_stopping} and "
                f"late_fusion={self.late_fusion!r}."
            )
        return True

    @available_if(_holds_no_rows_out)
    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def partial_fit(self, X: MatrixLike, y: MatrixLike, classes: ArrayLike | None = None) -> Self:
        """Train on some rows of a stream: visit each once, from the weights of the call before.

        Each call copies the model, looks up hard negatives anew and clusters its rows, so give it
        thousands of rows or more. The learning rate stays at `learning_rate_init`, `tail_bias`
        "auto" at 0 (or at what `fit` chose), and the weights and offsets of `positive_weight` and
        `tail_bias` follow the label frequencies of all rows so far.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)
            As in `fit`. An indicator has a column for every label of the stream.
        classes : array-like of shape (n_labels,), default=None
            All classes of the stream; needed in the first call where y is 1-d.

        Returns
        -------
        XMCClassifier

        Raises
        ------
        ValueError
            As in `fit`; or if `classes` is missing, or differs from the first call's.
        AttributeError
            If `early_stopping` or ``late_fusion="auto"`` would hold rows out.
        """
        go_on = self._is_fitted()
        X, y = self._validate(X, y, reset=not go_on)
        if classes is not None:
            classes = np.unique(classes)
        if go_on:
            if classes is not None and not np.array_equal(classes, self.classes_):
                raise ValueError("classes are not those of the first call to partial_fit.")
            classes = self.classes_
        elif classes is None and y.ndim == 1:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        Y, columns, kind = encode_targets(y, classes)
        counts = count_labels(Y)
        if not go_on and not Y.nnz:
            raise ValueError("y has no label at all: every entry is 0. Begin with rows that do.")
        n_rows, n_before = X.shape[0], 0
        if go_on:
            counts, n_rows = counts + self.label_counts_, n_rows + self.n_samples_seen_
            n_before = self.n_iter_
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if n_before:  # the same seed, but another stream of numbers for each call
            seed = int(np.random.SeedSequence([seed, n_before]).generate_state(1)[0] >> 1)
        ensemble, seen = self._begin(X, Y, counts, n_rows, seed, "constant", 1, go_on)
        self.classes_, self._kind = (columns if classes is None else classes), kind
        self.tail_bias_ = getattr(self, "tail_bias_", 0.0)
        if self.tail_bias != "auto":
            self.tail_bias_ = self.tail_bias
        tasks = self._start(ensemble, seen, X, y, go_on)
        with Interrupt() as interrupt:
            self._train(ensemble, None, seen, tasks, interrupt)
            self._store(ensemble, seen)
        self.late_fusion_ = self.late_fusion
        tasks.end()
        interrupt.end()
        return self

    # -- predict ---------------------------------------------------------------------------------

    def predict_topk(self, X: MatrixLike, k: int = 5) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Rank the k best labels of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        k : int, default=5
            At most the number of labels are returned.

        Returns
        -------
        labels : ndarray of shape (n_samples, min(k, n_labels))
            Entries of `classes_`, best first; ties go to the one that stands first in `classes_`.
        scores : ndarray of shape (n_samples, min(k, n_labels)), float32
            The logits of these labels, as in `decision_function`; with `late_fusion` the sums;
            where neighbours vote, the log odds of the mixture.

        Raises
        ------
        ValueError
            If k is not a positive integer, or X has NaN, infinity or another number of features.
        """
        X = self._check(X)
        labels, scores = self._rank(X, k)
        return self.classes_[labels], scores

    def decision_function(self, X: MatrixLike) -> NDArray[np.float32] | sp.csr_array:
        """Logits of the labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_labels) or (n_samples,), float32, or csr_array
            With `top_k=None` dense; for a 1-d y of two classes the difference of their logits,
            (n_samples,). With `top_k=k` a csr_array (n_samples, n_labels) that holds the logits of
            the k best labels of each row: an absent label ranks behind them.
        """
        X = self._check(X)
        if self.top_k is not None:
            labels, ranked = self._rank(X, self.top_k)
            return as_csr(labels, ranked, len(self.classes_))
        scores = np.empty((X.shape[0], len(self.classes_)), np.float32)
        for block, part in self._predictor(X).dense(X):
            scores[block] = part
        if self._kind == "classes" and len(self.classes_) == 2:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict_proba(self, X: MatrixLike) -> NDArray[np.float32] | sp.csr_array:
        """Probabilities of the labels.

        For an indicator y each label's own (the sigmoid of its logit); for a 1-d y a distribution
        over the classes (softmax).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_labels), float32, or csr_array
            With `top_k=k`, a csr_array that holds the k best labels of each row.
        """
        X = self._check(X)
        if self.top_k is None:
            out = np.empty((X.shape[0], len(self.classes_)), np.float32)
            for block, scores in self._predictor(X).dense(X):
                out[block] = probabilities(scores, self._kind)
            return out
        labels, scores = self._rank(X, self.top_k, plain=True)
        if self._kind != "classes":
            return as_csr(labels, probabilities(scores, self._kind), len(self.classes_))
        for block, every in self._predictor(X).dense(X):  # softmax needs them all
            scores[block] -= logsumexp(every, axis=1, keepdims=True)
        return as_csr(labels, np.exp(scores), len(self.classes_))

    def predict(self, X: MatrixLike) -> NDArray[Any] | sp.csr_array:
        """Predict the labels of a probability above one half, or the best class for a 1-d y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray or csr_array of shape (n_samples, n_labels), int64, or ndarray of shape (n_samples,)
            In the container of the y of `fit`: sparse, dense or 1-d.
        """
        X = self._check(X)
        if self._kind == "classes":
            return self.classes_[self._rank(X, 1, plain=True)[0][:, 0]]
        parts = [sp.csr_array(part > 0, dtype=np.int64) for _, part in self._predictor(X).dense(X)]
        out = sp.vstack([sp.csr_array((0, len(self.classes_)), dtype=np.int64), *parts], "csr")
        return out if self._kind == "sparse" else out.toarray()

    def score(self, X: MatrixLike, y: MatrixLike) -> float:
        """Precision@1: the share of rows whose best label is one of theirs.

        For a 1-d y this is accuracy.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : {array-like, sparse matrix} of shape (n_samples, n_labels) or (n_samples,)

        Returns
        -------
        float
        """
        check_is_fitted(self)
        if self._kind == "classes":
            return float(np.mean(np.asarray(self.predict(X)) == np.asarray(y)))
        X = self._check(X)
        return precision_at_k(y, self._rank(X, 1)[0], k=1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags
