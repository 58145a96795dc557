"""XMCClassifier: parameters, targets, fit, and prediction in scikit-learn's terms."""

import time
from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from skxmc._ends import Rows
from skxmc._network import Network, Weights
from skxmc._prediction import as_csr, dense_scores, probabilities, rank
from skxmc._targets import encode_targets, positive_weights, refuse_lists
from skxmc._threads import count_threads
from skxmc._training import Trainer
from skxmc.losses import Loss, make_loss
from skxmc.metrics import precision_at_k
from skxmc.samplers import Problem, Sampler, make_sampler

# Score of a label that training has not seen: behind every trained one whatever the scale of X,
# and far enough from the end of float32 to be summed.
UNSEEN = -1e30


class XMCClassifier(ClassifierMixin, BaseEstimator):
    """Extreme multi-label classifier: a neural network over thousands to millions of labels.

    A multi-layer perceptron over sparse (TF-IDF) or dense (embedding) rows, with one weight vector
    for each label. A training step scores a row's positives and a few negatives, which the
    `sampler` proposes; its cost does not grow with the number of labels.

    Parameters
    ----------
    sampler : str or Sampler, default="mips+in-batch+uniform"
        Who proposes negatives: names from ``skxmc.samplers.SAMPLERS`` joined by ``+``, or an object
        such as ``MIPSSampler(5) + UniformSampler(400)``. The default is "mips+uniform", which is
        paper A [A]_, and the other rows' labels, without which frequent labels are negatives too
        seldom.
    loss : str or Loss, default="bce"
        What a shortlist of scores costs: a name from ``skxmc.losses.LOSSES``, or an object.
    hidden_layer_sizes : tuple of int, default=(512,)
        Widths of the hidden layers, at least one. The last is the width of the label vectors.
    max_iter : int, default=10
        Epochs: how often each row is visited.
    batch_size : int or None, default=None
        Rows in a step. None: 64, fewer where there are fewer than 4,096 rows.
    positive_weight : {None, "propensity", "class-balanced"} or array-like, default=None
        How much a positive of each label weighs in the loss, scaled to mean 1: None, all alike;
        "propensity", ``2 / p - 1`` with p of :func:`skxmc.metrics.propensities`, which buys
        PSP@k for P@k [P]_; "class-balanced", ``(1 - 0.9) / (1 - 0.9 ** frequency)``; or a number
        for each label.
    learning_rate_init : float, default=0.1
        Step size of Adagrad at the start; it falls linearly to 0 at the end of `max_iter` epochs.
    dropout : float in [0, 1), default=0.3
        Share of the hidden units that a training step leaves out.
    top_k : int or None, default=None
        What `decision_function` and `predict_proba` return: None for dense arrays (n, n_labels);
        k for a `csr_array` that holds the k best labels of each row.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the rows, watch precision@1 on them, stop when it has not
        risen for `n_iter_no_change` epochs, and keep the weights of the best epoch.
    validation_fraction : float in (0, 1), default=0.1
    n_iter_no_change : int, default=3
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
    feature_weights_ : ndarray of shape (n_features, hidden_layer_sizes[0]), float32
    hidden_weights_ : list of ndarray of shape (hidden_layer_sizes[i], hidden_layer_sizes[i + 1])
    hidden_biases_ : list of ndarray of shape (hidden_layer_sizes[i],)
    label_weights_ : ndarray of shape (n_labels, hidden_layer_sizes[-1]), float32
    label_biases_ : ndarray of shape (n_labels,), float32
    loss_curve_ : list of float
        Mean training loss of a row, an entry an epoch.
    epoch_seconds_ : list of float
        Wall seconds of each epoch's training, index look-ups included, held-out scoring not.
    active_fraction_ : list of float or None
        For losses with a margin, the share of negatives inside it, which have a gradient, an entry
        an epoch; None for other losses.
    validation_scores_ : list of float or None
        Precision@1 on the held-out rows, an entry an epoch; None without `early_stopping`.
    n_iter_ : int
        Epochs trained.
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
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "positive_weight": [
            StrOptions({"propensity", "class-balanced"}),
            "array-like",
            None,
        ],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "top_k": [Interval(Integral, 1, None, closed="left"), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
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
        sampler="mips+in-batch+uniform",
        loss="bce",
        *,
        hidden_layer_sizes=(512,),
        max_iter=10,
        batch_size=None,
        positive_weight=None,
        learning_rate_init=0.1,
        dropout=0.3,
        top_k=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=3,
        device="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.sampler = sampler
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.positive_weight = positive_weight
        self.learning_rate_init = learning_rate_init
        self.dropout = dropout
        self.top_k = top_k
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
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
        refuse_lists(y)
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=[np.float32, np.float64], multi_output=True
        )
        Y, self.classes_, self._kind = encode_targets(y)
        sizes = _hidden_sizes(self.hidden_layer_sizes)
        sampler = clone(make_sampler(self.sampler), safe=False)
        loss = clone(make_loss(self.loss), safe=False)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))

        held_out = None
        if self.early_stopping:
            X, X_held, Y, Y_held = train_test_split(
                X, Y, test_size=self.validation_fraction, random_state=seed
            )
            if not Y.nnz:
                raise ValueError("early_stopping=True leaves no row with a label to train on.")
            held_out = X_held, Y_held
        # A label without a row is no use as a negative either: train on those that have one.
        seen = np.flatnonzero(np.bincount(Y.indices, minlength=Y.shape[1]))
        weights = positive_weights(self.positive_weight, Y)
        weights = None if weights is None else weights[seen]
        trainer = self._make_trainer(X, Y[:, seen], sizes, sampler, loss, weights, seed)
        weights = self._train(trainer, held_out, seen)
        self._store(weights, seen)
        return self

    def _make_trainer(self, X, Y, sizes, sampler, loss, positive_weights, seed):
        """All that a run needs; the sampler finds what is wrong with its parameters first."""
        device = _device(self.device)
        n_rows, n_labels = Y.shape
        counts = np.bincount(Y.indices, minlength=n_labels)
        problem = Problem(
            Y=Rows.of(Y, values=False),
            label_counts=counts,
            n_columns=len(self.classes_),
            batch_size=self.batch_size or int(np.clip(n_rows // 64, 8, 64)),
            random_state=seed,
            # A GPU is busy with one stream of batches.
            n_threads=1 if device != "cpu" else count_threads(self.n_jobs, n_rows, 10_000),
            log=self._log,
        )
        sampler, loss = sampler.begin(problem), loss.begin(problem)
        log_odds = np.log((counts + 0.5) / (n_rows - counts + 0.5))
        weights = Weights.initial(X.shape[1], sizes, log_odds, np.random.default_rng(seed))
        return Trainer(
            Network(weights, device), _as_rows(X), problem, sampler, loss,
            n_epochs=self.max_iter, learning_rate=self.learning_rate_init, dropout=self.dropout,
            positive_weights=positive_weights,
        )  # fmt: skip

    def _train(self, trainer, held_out, seen):
        """Run the epochs; returns the weights of the last, or of the best where rows are held out.

        `seen` says which labels the trainer's columns are.
        """
        self.loss_curve_, self.epoch_seconds_ = [], []
        self.active_fraction_ = [] if trainer.loss.reports_active else None
        self.validation_scores_ = [] if held_out else None
        best, best_weights, since = -1.0, None, 0
        for epoch in range(self.max_iter):
            start = time.perf_counter()
            loss, active = trainer.epoch(epoch)
            self.loss_curve_.append(loss)
            if active is not None:
                self.active_fraction_.append(active)
            self.epoch_seconds_.append(time.perf_counter() - start)
            if held_out:
                X_held, Y_held = _as_rows(held_out[0]), held_out[1]
                labels, _ = rank(trainer.network, X_held, Y_held.shape[0], 1, trainer.n_threads)
                score = precision_at_k(Y_held, seen[labels], k=1)
                self.validation_scores_.append(score)
                since = 0 if score > best else since + 1
                if score > best:
                    best, best_weights = score, trainer.network.weights().copy()
            self._log(self._progress(epoch, trainer.n_rows))
            if since >= self.n_iter_no_change:
                self._log(f"precision@1 has not risen for {since} epochs: stopped")
                break
        self.n_iter_ = epoch + 1
        return best_weights or trainer.network.weights()

    def _progress(self, epoch, n_rows):
        seconds = self.epoch_seconds_[-1]
        held = f"  held-out P@1 {self.validation_scores_[-1]:.4f}" if self.early_stopping else ""
        active = f"  active {self.active_fraction_[-1]:.1%}" if self.active_fraction_ else ""
        return (
            f"epoch {epoch + 1:3d}/{self.max_iter}  loss {self.loss_curve_[-1]:8.4f}{active}{held}"
            f"  {seconds:6.1f} s  {n_rows / seconds:9,.0f} rows/s"
        )

    def _log(self, text):
        if self.verbose:
            print(f"[XMCClassifier] {text}", flush=True)

    def _store(self, weights, seen):
        """Keep the weights as fitted attributes, with a row for each label, seen or not."""
        self.feature_weights_ = weights.features
        self.hidden_weights_, self.hidden_biases_ = weights.hidden, weights.hidden_biases
        self.label_weights_, self.label_biases_ = weights.labels, weights.label_biases
        n_labels = len(self.classes_)
        if len(seen) < n_labels:
            self.label_weights_ = np.zeros((n_labels, weights.labels.shape[1]), np.float32)
            self.label_weights_[seen] = weights.labels
            self.label_biases_ = np.full(n_labels, UNSEEN, np.float32)
            self.label_biases_[seen] = weights.label_biases

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
            The logits of these labels, as in `decision_function`.

        Raises
        ------
        ValueError
            If k is not a positive integer, or X has NaN, infinity or another number of features.
        """
        network, X = self._prepare(X)
        labels, scores = self._rank(network, X, k)
        return self.classes_[labels], scores

    def _rank(self, network, X, k):
        if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k={k!r} must be an integer of at least 1.")
        return rank(network, X, X.shape[0], min(int(k), len(self.classes_)), self._threads(X))

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
        network, X = self._prepare(X)
        if self.top_k is not None:
            return as_csr(*self._rank(network, X, self.top_k), len(self.classes_))
        scores = np.empty((X.shape[0], len(self.classes_)), np.float32)
        for block, part in dense_scores(network, X, self._threads(X)):
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
        network, X = self._prepare(X)
        if self.top_k is None:
            out = np.empty((X.shape[0], len(self.classes_)), np.float32)
            for block, scores in dense_scores(network, X, self._threads(X)):
                out[block] = probabilities(scores, self._kind)
            return out
        labels, scores = self._rank(network, X, self.top_k)
        if self._kind != "classes":
            return as_csr(labels, probabilities(scores, self._kind), len(self.classes_))
        for block, every in dense_scores(network, X, self._threads(X)):  # softmax needs them all
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
        network, X = self._prepare(X)
        if self._kind == "classes":
            return self.classes_[self._rank(network, X, 1)[0][:, 0]]
        parts = [
            sp.csr_array(part > 0, dtype=np.int64)
            for _, part in dense_scores(network, X, self._threads(X))
        ]
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
        network, X = self._prepare(X)
        return precision_at_k(y, self._rank(network, X, 1)[0], k=1)

    def _prepare(self, X):
        """The fitted network, and X as it takes it."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float32, np.float64], reset=False)
        weights = Weights(
            self.feature_weights_, self.hidden_weights_, self.hidden_biases_,
            self.label_weights_, self.label_biases_,
        )  # fmt: skip
        return Network(weights, _device(self.device)), _as_rows(X)

    def _threads(self, X):
        return count_threads(self.n_jobs, X.shape[0], 1_000)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags


def _as_rows(X):
    """Sparse X in the form of the kernels, dense X as float32; the user's X stays as it is."""
    if not sp.issparse(X):
        return np.asarray(X, dtype=np.float32)
    if not X.has_canonical_format:  # the order of a sum shows in its last bits
        X = X.copy()
        X.sum_duplicates()
    return Rows.of(X)


def _hidden_sizes(sizes):
    sizes = tuple(np.atleast_1d(sizes).tolist())
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(
            f"hidden_layer_sizes={sizes!r} must hold one or more positive integers, e.g. (512,)."
        )
    return sizes


_DEVICES = "'auto', 'cpu', 'cuda' or 'cuda:1'."


def _device(name):
    """The torch device of a name; "auto" takes a GPU where there is one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is unknown: {_DEVICES}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name!r} is not supported: {_DEVICES}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}: torch finds no GPU here. Use device='auto' or 'cpu'.")
    return name
