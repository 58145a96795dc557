"""XMCClassifier: parameters, targets, fit, and prediction in scikit-learn's terms."""

import time
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from skxmc._callbacks import CallbackSupportMixin, Tasks
from skxmc._choices import choose_fusion, choose_tail_bias
from skxmc._ensemble import begin
from skxmc._index import ExactIndex
from skxmc._inputs import (
    as_rows,
    check_hidden_sizes,
    find_device,
    rate_factors,
    sample_rows,
    take,
)
from skxmc._network import Network, Weights
from skxmc._prediction import as_csr, probabilities
from skxmc._predictor import UNSEEN, Kept, Predictor
from skxmc._targets import encode_targets, positive_weights, refuse_lists, tail_offsets
from skxmc._threads import count_threads
from skxmc.losses import Loss, make_loss
from skxmc.metrics import precision_at_k
from skxmc.samplers import Sampler, make_sampler


class XMCClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator):
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
    max_iter : int, default=10
        Epochs: how often each row is visited.
    batch_size : int or None, default=None
        Rows in a step. None: 128, fewer where there are fewer than 8,192 rows.
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
    learning_rate : {"linear", "constant"} or array-like of shape (max_iter,), default="linear"
        How the step size moves: "linear", to 0 at the end of `max_iter` epochs; "constant"; or a
        factor for each epoch, such as 1, 1, 1, 0.5, 0.5, 0.25.
    learning_rate_init : float, default=0.1
        Step size of Adagrad at the start.
    dropout : float in [0, 1), default=0.5
        Share of the hidden units that a training step leaves out.
    late_fusion : float in [0, 1], "auto" or None, default=None
        Rank by the sum of the classifier (weight `late_fusion`) and of the cosine between a row and
        the labels' embeddings (weight ``1 - late_fusion``), each over the row's highest: below 1,
        PSP@k rises, at 0.5 at hardly any cost in P@k (paper C [C]_). Embeddings are the mean hidden
        vectors of the labels' rows, mapped where the sampler is "label-embedding". "auto": the
        weight of highest mean P@1, P@3 and P@5 on `validation_fraction` of the rows, which are held
        out. `predict_topk`, `decision_function` with `top_k`, and `score` of an indicator y rank
        so; dense scores, probabilities and `predict` remain the classifier's.
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
    device : str, default="auto"
        "cpu", "cuda", "cuda:1" ..., or "auto": a GPU where torch finds one, else the CPU.
    n_jobs : int or None, default=None
        Threads. None: all cores where the data is large enough to gain (10,000 rows), else one;
        -1: all cores. One thread gives the same bits at each run with the same `random_state`.
        Several train side by side without locks, and their results differ in the last digits.
    random_state : int, RandomState instance or None, default=None
        Seeds the initial weights, the order of rows, dropout and sampling.
    verbose : int, default=0
        1: print a line an epoch.

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
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "positive_weight": [
            StrOptions({"propensity", "class-balanced"}),
            Interval(Real, 0, None, closed="left"),
            "array-like",
            None,
        ],
        "tail_bias": [Interval(Real, None, None, closed="neither"), StrOptions({"auto"})],
        "residual": ["boolean"],
        "learning_rate": [StrOptions({"linear", "constant"}), "array-like"],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "late_fusion": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"}), None],
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        sampler="clustered-in-batch+uniform",
        loss="bce",
        *,
        hidden_layer_sizes=(512,),
        n_estimators=2,
        max_iter=10,
        batch_size=None,
        positive_weight=0.5,
        tail_bias="auto",
        residual=False,
        learning_rate="linear",
        learning_rate_init=0.1,
        dropout=0.5,
        late_fusion=None,
        top_k=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=3,
        warm_start=False,
        device="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
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
        self.top_k = top_k
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # -- fit -------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Train on rows X and their labels y.

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
            asks for more negatives than there are labels. Nothing is trained then.
        """
        go_on = self.warm_start and self._is_fitted()
        X, y = self._validate(X, y, reset=not go_on)
        Y, classes, kind = encode_targets(y, self.classes_ if go_on else None)
        factors = rate_factors(self.learning_rate, self.max_iter)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        held_out, passed_over, rows = None, None, X
        if self.early_stopping or self.late_fusion == "auto":
            rows, X_held, Y, Y_held = train_test_split(
                X, Y, test_size=self.validation_fraction, random_state=seed
            )
            if not Y.nnz:
                why = "early_stopping=True" if self.early_stopping else "late_fusion='auto'"
                raise ValueError(
                    f"{why} leaves no row with a label to train on. Lower "
                    f"validation_fraction={self.validation_fraction}."
                )
            held_out = as_rows(X_held), Y_held
        elif self.tail_bias == "auto" and kind != "classes":
            passed_over = sample_rows(X.shape[0], self.n_estimators, seed)
        counts = np.bincount(Y.indices, minlength=Y.shape[1])
        ensemble, seen = self._begin(
            rows, Y, counts, rows.shape[0], seed, factors, self.max_iter, go_on, passed_over
        )
        self.classes_, self._kind = (self.classes_ if go_on else classes), kind
        tasks = self._start(ensemble, seen, X, y, go_on)
        self._train(ensemble, held_out if self.early_stopping else None, seen, tasks)
        self._choose_tail_bias(ensemble, held_out, seen, Y)
        self._store(ensemble, seen)
        self._choose_fusion(held_out)
        tasks.end()
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None):
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
            As in `fit`; if `classes` is missing, or differs from the first call's; or if
            `early_stopping` or `late_fusion="auto"` would hold rows out.
        """
        if self.early_stopping or self.late_fusion == "auto":
            raise ValueError(
                "partial_fit holds no rows out: set early_stopping=False and late_fusion to a "
                f"number or None. Got early_stopping={self.early_stopping} and "
                f"late_fusion={self.late_fusion!r}."
            )
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
        counts = np.bincount(Y.indices, minlength=Y.shape[1])
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
        self._train(ensemble, None, seen, tasks)
        self._store(ensemble, seen)
        self.late_fusion_ = self.late_fusion
        tasks.end()
        return self

    def _is_fitted(self):
        return hasattr(self, "label_weights_")

    def _validate(self, X, y, reset):
        refuse_lists(y)
        return validate_data(
            self, X, y, accept_sparse="csr", dtype=[np.float32, np.float64], multi_output=True,
            reset=reset,
        )  # fmt: skip

    def _begin(self, X, Y, counts, n_rows, seed, schedule, n_epochs, go_on, passed_over=None):
        """An ensemble ready to train on X and Y, and which labels its columns are.

        A label without a row is no use as a negative either: train on those that have one.
        `counts` (L,) of labels and `n_rows` include the rows trained before.
        """
        sizes, device = check_hidden_sizes(self.hidden_layer_sizes), find_device(self.device)
        known = self.label_biases_ > UNSEEN if go_on else np.zeros(len(counts), bool)
        seen = np.flatnonzero(known | (counts > 0))
        weights = positive_weights(self.positive_weight, counts, n_rows)
        # A GPU is busy with one stream of batches.
        n_threads = 1 if device != "cpu" else count_threads(self.n_jobs, X.shape[0], 10_000)
        ensemble = begin(
            as_rows(X), Y[:, seen], counts[seen], n_rows, len(counts),
            sizes=sizes, residual=self.residual,
            sampler=make_sampler(self.sampler), loss=make_loss(self.loss),
            n_members=self.n_estimators, batch_size=self.batch_size,
            device=device, n_threads=n_threads, seed=seed, log=self._log,
            passed_over=passed_over or [None] * self.n_estimators,
            start=self._members(sizes, seen, known) if go_on else None,
            n_epochs=n_epochs, learning_rate=self.learning_rate_init, schedule=schedule,
            dropout=self.dropout, positive_weights=None if weights is None else weights[seen],
        )  # fmt: skip
        self.label_counts_, self.n_samples_seen_ = counts, n_rows
        self.tail_offsets_ = tail_offsets(counts, n_rows)
        return ensemble, seen

    def _members(self, sizes, seen, known):
        """The members of the fitted network, to train on: see `start` of `begin`."""
        n = self.n_estimators
        wide = self._weights(self.label_biases_)
        found = tuple(len(b) for b in self.hidden_biases_), self.residual_ is not None
        if found != (tuple(n * size for size in sizes), self.residual):
            raise ValueError(
                f"The fitted network has hidden layers of {found[0]} units for all members, and "
                f"residual={found[1]}; n_estimators={n}, hidden_layer_sizes={sizes} and "
                f"residual={self.residual} ask for another. Set them back, or fit a clone."
            )
        rows = seen[known[seen]]
        start = []
        for m, part in enumerate(wide.split(n)):
            part = replace(
                part, labels=part.labels[rows] * np.float32(n),
                label_biases=part.label_biases[rows],
            )  # fmt: skip
            features, labels, biases, *dense = (array[m] for array in self._memory)
            start.append((part, [features, labels[seen], biases[seen], *dense], known[seen]))
        return start

    def _start(self, ensemble, seen, X, y, go_on):
        """Begin the curves, or go on with them; the callbacks, if any, hear that a fit begins."""
        if not go_on:
            self.loss_curve_, self.hardness_curve_, self.epoch_seconds_ = [], [], []
            self.active_fraction_ = [] if ensemble.reports_active else None
            self.validation_scores_ = [] if self.early_stopping else None
        if self.early_stopping and self.validation_scores_ is None:  # from now on
            self.validation_scores_ = []
        if ensemble.reports_active and self.active_fraction_ is None:
            self.active_fraction_ = []

        def fitted():
            embeddings = self._embeddings(ensemble)
            weights = ensemble.network().weights()
            return {
                "tail_bias_": 0.0 if self.tail_bias == "auto" else self.tail_bias,
                "late_fusion_": None if self.late_fusion == "auto" else self.late_fusion,
                **self._attributes(ensemble, weights, seen, embeddings),
            }

        return Tasks(self, X, y, ensemble.trainers[0].n_epochs, ensemble.n_steps, fitted)

    def _train(self, ensemble, held_out, seen, tasks):
        """Run the epochs; where rows are held out, go back to the weights of the best.

        `seen` says which labels the trainers' columns are.
        """
        best, checkpoint, since = -1.0, None, 0
        n_epochs = ensemble.trainers[0].n_epochs
        for epoch in range(n_epochs):
            start = time.perf_counter()
            with tasks.epoch() as tick:
                loss, hardness, active = ensemble.epoch(epoch, tick)
            self.loss_curve_.append(loss)
            self.hardness_curve_.append(hardness)
            if active is not None:
                self.active_fraction_.append(active)
            self.epoch_seconds_.append(time.perf_counter() - start)
            if held_out:
                X_held, Y_held = held_out
                labels, _ = ensemble.predictor().topk(X_held, Y_held.shape[0], 1)
                score = precision_at_k(Y_held, seen[labels], k=1)
                self.validation_scores_.append(score)
                since = 0 if score > best else since + 1
                if score > best:
                    checkpoint = None  # room for the next
                    best, checkpoint = score, ensemble.checkpoint()
            self._log(self._progress(epoch, n_epochs, ensemble.n_rows))
            if since >= self.n_iter_no_change:
                self._log(f"precision@1 has not risen for {since} epochs: stopped")
                break
            if tasks.stopped:
                self._log("a callback stopped the fit")
                break
        self.n_iter_ = len(self.loss_curve_)
        if checkpoint:
            ensemble.restore(checkpoint)

    def _progress(self, epoch, n_epochs, n_rows):
        seconds = self.epoch_seconds_[-1]
        held = f"  held-out P@1 {self.validation_scores_[-1]:.4f}" if self.early_stopping else ""
        active = f"  active {self.active_fraction_[-1]:.1%}" if self.active_fraction_ else ""
        return (
            f"epoch {epoch + 1:3d}/{n_epochs}  loss {self.loss_curve_[-1]:8.4f}{active}{held}"
            f"  {seconds:6.1f} s  {n_rows / seconds:9,.0f} rows/s"
        )

    def _log(self, text):
        if self.verbose:
            print(f"[XMCClassifier] {text}", flush=True)

    def _store(self, ensemble, seen):
        """Keep what predicts, and what Adagrad remembers, as fitted attributes."""
        self._memory = ensemble.memory(seen, len(self.classes_))
        embeddings = self._embeddings(ensemble)
        weights = ensemble.finish(seen)
        for name, value in self._attributes(ensemble, weights, seen, embeddings).items():
            setattr(self, name, value)

    def _embeddings(self, ensemble):
        if self.late_fusion is None and ensemble.shortlist_size is None:
            return None
        return ensemble.embeddings()

    def _attributes(self, ensemble, weights, seen, embeddings):
        """The fitted attributes that predict, with a row for each label, seen or not."""
        n_labels = len(self.classes_)

        def spread(array, fill):
            if array is None or len(array) == n_labels:
                return array
            out = np.full((n_labels, *array.shape[1:]), fill, np.float32)
            out[seen] = array
            return out

        return {
            "feature_weights_": weights.features,
            "hidden_weights_": weights.hidden,
            "hidden_biases_": weights.hidden_biases,
            "residual_": weights.residual,
            "label_weights_": spread(weights.labels, 0),
            "label_biases_": spread(weights.label_biases, UNSEEN),
            "label_embeddings_": spread(embeddings, 0),
            "shortlist_size_": ensemble.shortlist_size,
            "_kept": Kept(),
        }

    def _choose_tail_bias(self, ensemble, held_out, seen, Y):
        """Choose the tail bias by rows held out, or that one member has not visited."""
        self.tail_bias_ = 0.0 if self.tail_bias == "auto" else self.tail_bias
        if self.tail_bias != "auto":
            return
        if held_out is not None:
            held_out = [(ensemble.predictor(), *held_out)]
        else:
            held_out = [
                (ensemble.predictor(slice(m, m + 1)), take(trainer.X, rows), Y[rows])
                for m, trainer in enumerate(ensemble.trainers)
                if len(rows := np.flatnonzero(~trainer.visited))
            ]
        if held_out:
            self.tail_bias_ = choose_tail_bias(held_out, self.tail_offsets_[seen], seen)
            self._log(f"tail bias: {self.tail_bias_}")

    def _choose_fusion(self, held_out):
        """Choose the weight of late fusion by the rows held out, where that is asked for."""
        self.late_fusion_ = self.late_fusion
        if self.late_fusion == "auto":
            X, Y = held_out
            n = min(5, len(self.classes_))
            rankings = self._predictor(X, self.tail_bias_).rankings(X, Y.shape[0], n)
            self.late_fusion_ = choose_fusion(rankings, Y)
            self._log(f"late fusion: beta {self.late_fusion_}")

    # -- predict ---------------------------------------------------------------------------------

    def predict_topk(self, X, k=5):
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
            The logits of these labels, as in `decision_function`; with `late_fusion` the sums.

        Raises
        ------
        ValueError
            If k is not a positive integer, or X has NaN, infinity or another number of features.
        """
        X = self._check(X)
        labels, scores = self._rank(X, k)
        return self.classes_[labels], scores

    def _rank(self, X, k, plain=False):
        """Rank by what is there to rank by; `plain`: by the classifier's scores alone."""
        if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k={k!r} must be an integer of at least 1.")
        k = min(int(k), len(self.classes_))
        if plain:
            return self._predictor(X).topk(X, X.shape[0], k)
        bias = self.tail_bias_ if self.tail_bias == "auto" else self.tail_bias
        return self._predictor(X, bias).topk(X, X.shape[0], k, self.late_fusion_)

    def decision_function(self, X):
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
            return as_csr(*self._rank(X, self.top_k), len(self.classes_))
        scores = np.empty((X.shape[0], len(self.classes_)), np.float32)
        for block, part in self._predictor(X).dense(X):
            scores[block] = part
        if self._kind == "classes" and len(self.classes_) == 2:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict_proba(self, X):
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

    def predict(self, X):
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

    def score(self, X, y):
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

    def _check(self, X):
        """X as the network takes it."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float32, np.float64], reset=False)
        return as_rows(X)

    def _predictor(self, X, tail_bias=0.0):
        parts = (
            self.feature_weights_, *self.hidden_weights_, *self.hidden_biases_, self.label_weights_,
            self.label_biases_, self.residual_, self.label_embeddings_, tail_bias, self.device,
        )  # fmt: skip
        predictor = self._kept.get(parts, lambda: self._make_predictor(tail_bias))
        return replace(predictor, n_threads=count_threads(self.n_jobs, X.shape[0], 1_000))

    def _make_predictor(self, tail_bias):
        biases = self.label_biases_
        if tail_bias:
            biases = biases + np.float32(tail_bias) * self.tail_offsets_
        network = Network(self._weights(biases), find_device(self.device))
        labels = network.labels
        return Predictor(
            network,
            self.label_biases_ > UNSEEN,
            1,
            self.label_embeddings_,
            self.shortlist_size_,
            ExactIndex().build(labels.weights, labels.biases),
        )

    def _weights(self, biases):
        return Weights(
            self.feature_weights_, self.hidden_weights_, self.hidden_biases_,
            self.label_weights_, biases, self.residual_,
        )  # fmt: skip

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags
