"""How a fit runs: what the estimator's `fit` and `partial_fit` are made of."""

import time
import warnings
from dataclasses import replace

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import validate_data

from skxmc._callbacks import Tasks
from skxmc._checkpoint import CheckpointFile, encode
from skxmc._choices import choose_fusion, choose_neighbor_weight, choose_tail_bias
from skxmc._ensemble import Whole, begin, spread
from skxmc._fitted import NO_NEIGHBORS
from skxmc._index import ExactIndex, SketchIndex
from skxmc._inputs import (
    HeldOut,
    as_rows,
    check_hidden_sizes,
    find_device,
    rows_on_disk,
    sample_rows,
    take,
)
from skxmc._neighbors import Voters
from skxmc._network import Weights, hidden_vectors
from skxmc._predictor import UNSEEN, Kept
from skxmc._targets import (
    positive_weights,
    refuse_lists,
    select_labels,
    tail_offsets,
    without_rows,
)
from skxmc._threads import count_threads
from skxmc.losses import make_loss
from skxmc.metrics import precision_at_k
from skxmc.samplers import make_sampler

# The fitted attributes that hold an entry for each epoch.
CURVES = (
    "loss_curve_", "hardness_curve_", "epoch_seconds_", "active_fraction_", "validation_scores_",
)  # fmt: skip

_POOR_RECALL = 0.9  # of an approximate search, below which a fit warns
_MEASURED = 512  # rows that it is measured by

# Up to here a copy of the weights after each epoch is kept for Ctrl-C: it is less than what the
# libraries take. The memory of a large model is not doubled for it.
_FEW_BYTES = 2**28


class Fitting:
    """Methods of XMCClassifier between its parameters and its fitted attributes."""

    _holds_interrupts = True  # whether Ctrl-C ends a fit in order

    def _is_fitted(self):
        return hasattr(self, "label_weights_")

    def _validate(self, X, y, reset):
        refuse_lists(y)
        return validate_data(
            self, X, y, accept_sparse="csr", dtype=[np.float32, np.float64], multi_output=True,
            reset=reset,
        )  # fmt: skip

    def _open_checkpoint(self):
        return CheckpointFile(self.checkpoint)

    def _place(self, X, Y, seen):
        """Where the tables of a run are to lie: here, as a whole."""
        return Whole(X.shape[1], len(seen), Y.shape[1])

    def _resolve_neighbor_weight(self, kind, shortlist_size=None):
        """`neighbor_weight`; 0 where they cannot vote, which is an error unless it is "auto"."""
        if not self.neighbor_weight:
            return 0.0
        why = None
        if kind == "classes":
            why = "votes need an indicator y, and y is 1-d"
        elif self.late_fusion is not None:
            why = f"late_fusion={self.late_fusion!r} ranks by embeddings beside the scores already"
        elif shortlist_size is not None:
            why = f"sampler={self.sampler!r} confines rankings to a shortlist"
        if why is None:
            return self.neighbor_weight
        if self.neighbor_weight == "auto":
            return 0.0
        raise ValueError(f"neighbor_weight={self.neighbor_weight}: {why}. Set it to 0 or 'auto'.")

    def _hold_out(self, X, Y, kind, seed, weight):
        """What to train on, and what to judge it by.

        Returns X and Y, of how many rows they are, `HeldOut` or None, and the rows that each member
        passes over, or None.
        """
        n_rows = X.shape[0]
        if not self.early_stopping and self.late_fusion != "auto":
            chooses = "auto" in (self.tail_bias, weight) and kind != "classes"
            passed_over = sample_rows(n_rows, self.n_estimators, seed) if chooses else None
            return X, Y, n_rows, None, passed_over
        trained, held = train_test_split(
            np.arange(n_rows), test_size=self.validation_fraction, random_state=seed
        )
        on_disk, passed_over = rows_on_disk(X), None
        if on_disk is not None:
            X, held = on_disk, np.sort(held)
            held_out, passed_over = HeldOut(X, Y[held], held), [held] * self.n_estimators
            Y = without_rows(Y, held)
        else:
            held_out = HeldOut(as_rows(X[held]), Y[held])
            X, Y = X[trained], Y[trained]
        if not Y.nnz:
            why = "early_stopping=True" if self.early_stopping else "late_fusion='auto'"
            raise ValueError(
                f"{why} leaves no row with a label to train on. Lower "
                f"validation_fraction={self.validation_fraction}."
            )
        return X, Y, len(trained), held_out, passed_over

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
        X = as_rows(X)
        ensemble = begin(
            X, select_labels(Y, seen), counts[seen], n_rows, self._place(X, Y, seen),
            sizes=sizes, residual=self.residual,
            sampler=make_sampler(self.sampler), loss=make_loss(self.loss),
            n_members=self.n_estimators, batch_size=self.batch_size,
            device=device, compute_dtype=self.compute_dtype,
            n_threads=n_threads, seed=seed, log=self._log,
            passed_over=passed_over or [None] * self.n_estimators,
            predicts=passed_over is not None or self.early_stopping,
            start=self._members(sizes, seen, known) if go_on else None,
            n_epochs=n_epochs, learning_rate=self.learning_rate_init, schedule=schedule,
            dropout=self.dropout, positive_weights=None if weights is None else weights[seen],
        )  # fmt: skip
        if self.verbose and device == "cpu":
            from skxmc import _kernels

            if not _kernels.are_compiled():
                self._log("compiles the kernels, once on this machine: about half a minute")
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
            self.active_fraction_ = self.validation_scores_ = None
        for name in CURVES:  # copies: an error leaves those of the fit before
            curve = getattr(self, name)
            setattr(self, name, curve if curve is None else [*curve])
        if self.early_stopping and self.validation_scores_ is None:  # none so far
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
                "search": "exact",  # a sketch for each epoch costs more than it spares
            }

        return Tasks(self, X, y, ensemble.trainers[0].n_epochs, ensemble.n_steps, fitted)

    def _train(self, ensemble, held_out, seen, tasks, interrupt, saved=None):
        """Run the epochs; where rows are held out, go back to the weights of the best.

        `seen` says which labels the trainers' columns are; `saved` is the checkpoint, if any.
        """
        best, weights, since, first = -1.0, None, 0, 0
        n_epochs = ensemble.trainers[0].n_epochs
        last = None  # the weights after the last epoch, for an interrupt in the next
        keeps_last = interrupt.holds and not held_out and ensemble.n_bytes <= _FEW_BYTES
        if saved:
            encode([trainer.sampler.get_state() for trainer in ensemble.trainers], {}, "sampler")
            if saved.epoch:
                best, weights, since, first = self._resume(ensemble, saved)
        for epoch in range(first, n_epochs):
            start = time.perf_counter()
            with tasks.epoch() as tick:
                loss, hardness, active = ensemble.epoch(epoch, tick, interrupt.stop)
            if interrupt.asked and ensemble.n_done < ensemble.n_steps:
                if not epoch:
                    raise KeyboardInterrupt("The fit was interrupted in its first epoch.")
                where = f"in epoch {epoch + 1} of {n_epochs}"
                interrupt.how = f"{where}, {ensemble.go_back(epoch, weights, last, saved)}"
                break
            self.loss_curve_.append(loss)
            self.hardness_curve_.append(hardness)
            if active is not None:
                self.active_fraction_.append(active)
            self.epoch_seconds_.append(time.perf_counter() - start)
            if held_out:
                predictor = ensemble.predictor()
                labels = [predictor.topk(X, Y.shape[0], 1)[0] for X, Y in held_out.parts()]
                score = precision_at_k(held_out.Y, seen[np.concatenate(labels)], k=1)
                self.validation_scores_.append(score)
                since = 0 if score > best else since + 1
                if score > best:
                    best, weights = score, ensemble.checkpoint(weights)
            self._log(self._progress(epoch, n_epochs, ensemble.n_rows))
            if since >= self.n_iter_no_change:
                self._log(f"precision@1 has not risen for {since} epochs: stopped")
                break
            if tasks.stopped:
                self._log("a callback stopped the fit")
                break
            if epoch + 1 == n_epochs:
                break
            if saved and saved.due(epoch + 1):
                saved.save(epoch + 1, self._state(ensemble, best, weights, since))
            if interrupt.asked:
                interrupt.how = f"after epoch {epoch + 1} of {n_epochs}"
                break
            if keeps_last:
                last = ensemble.checkpoint(last)
        self.n_iter_ = len(self.loss_curve_)
        if weights:
            ensemble.restore(weights)
        ensemble.check_weights()

    def _state(self, ensemble, best, weights, since):
        """All that the epochs to come depend on, and the curves so far."""
        return {
            "members": ensemble.get_state(),
            "curves": {name: getattr(self, name) for name in CURVES},
            "best": best,
            "weights": weights and [[vars(part), memory] for part, memory in weights],
            "since": since,
        }

    def _resume(self, ensemble, saved):
        """Go on from the checkpoint; returns what `_train` was at."""
        with saved.naming():
            state = saved.load()
            ensemble.set_state(state["members"])
            for name in CURVES:
                setattr(self, name, state["curves"][name])
            weights = [(Weights(**part), memory) for part, memory in state["weights"] or ()]
        self._log(f"goes on after epoch {saved.epoch}, from {saved.path}")
        return state["best"], weights or None, state["since"], saved.epoch

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
        return {
            "feature_weights_": weights.features,
            "hidden_weights_": weights.hidden,
            "hidden_biases_": weights.hidden_biases,
            "residual_": weights.residual,
            "label_weights_": spread(weights.labels, seen, n_labels, 0),
            "label_biases_": spread(weights.label_biases, seen, n_labels, UNSEEN),
            "label_embeddings_": spread(embeddings, seen, n_labels, 0),
            "shortlist_size_": ensemble.shortlist_size,
            **NO_NEIGHBORS,
            "_kept": Kept(),
        }

    def _choose(self, ensemble, held_out, seen, Y, weight, seed):
        """Choose the tail bias, and what neighbours vote, while the members are at hand.

        By rows held out, or else those that one member has not visited. Returns `Neighbors`, their
        labels the columns `seen`, or None.
        """
        self.tail_bias_ = 0.0 if self.tail_bias == "auto" else self.tail_bias
        n_threads = count_threads(self.n_jobs, ensemble.n_rows, 1_000)
        judges = []
        if "auto" in (self.tail_bias, weight):
            judges = self._judges(ensemble, held_out, Y, n_threads)
        beside = max(1, min(len(judges), n_threads))
        if judges and self.tail_bias == "auto":
            parts = ((who, *part) for who, _, held in judges for part in held.parts())
            self.tail_bias_ = choose_tail_bias(parts, self.tail_offsets_[seen], seen, beside)
            self._log(f"tail bias: {self.tail_bias_}")
        if not weight or (weight == "auto" and not judges):
            return None
        trainers = ensemble.trainers
        voters = Voters.of(
            [trainer.network for trainer in trainers], trainers[0].X, ensemble.Y,
            np.random.default_rng([seed, 2]), n_threads,
        )  # fmt: skip
        if weight == "auto":
            parts = self._judged(judges, trainers, voters, seen)
            weight = choose_neighbor_weight(parts, seen, beside)
            self._log(f"weight of neighbours: {weight}")
        return replace(voters.all(), weight=weight) if weight else None

    def _judges(self, ensemble, held_out, Y, n_threads):
        """Who may judge by which rows: a list of (Predictor, its member or None, HeldOut)."""
        if held_out is not None:
            return [(ensemble.predictor(), None, held_out)]
        n = max(1, n_threads // len(ensemble.trainers))
        judges = []
        for m, trainer in enumerate(ensemble.trainers):
            rows = np.flatnonzero(~trainer.visited)
            if len(rows):
                who = replace(ensemble.predictor(slice(m, m + 1)), n_threads=n)
                judges.append((who, m, HeldOut(take(trainer.X, rows), Y[rows])))
        return judges

    def _judged(self, judges, trainers, voters, seen):
        """Yields (Predictor, Neighbors, X, Y): rows, who ranks them, and who votes on them."""
        for who, m, held in judges:
            labels = who.network.labels
            offsets = who.network.tensor(self.tail_offsets_[seen])
            labels.biases = labels.biases + self.tail_bias_ * offsets
            near = voters.all() if m is None else voters.some(m, trainers[m].visited)
            for X, Y in held.parts():
                yield who, near, X, Y

    def _keep_neighbors(self, neighbors, seen):
        """Keep the rows that vote as fitted attributes."""
        if neighbors is None:
            return
        labels = neighbors.labels
        self.neighbor_weight_ = neighbors.weight
        self.neighbor_axes_ = neighbors.axes.cpu().numpy()
        self.neighbor_vectors_ = neighbors.vectors.cpu().numpy()
        self.neighbor_labels_ = labels.indptr, seen[labels.indices].astype(np.int32)

    def _measure_search(self, X, seed):
        """Say what share of the best labels of some rows of X an approximate search finds."""
        if self.search == "exact":  # no predictor is made for nothing: on a GPU it is a copy
            return
        predictor = self._predictor(X, self.tail_bias_)
        index = predictor.index
        if not (isinstance(index, SketchIndex) and index.approximates):
            return
        rng = np.random.default_rng([seed, 3])
        rows = np.sort(rng.choice(X.shape[0], min(X.shape[0], _MEASURED), replace=False))
        hidden = hidden_vectors(predictor.network, X, rows, predictor.n_threads)
        k, n_threads = min(5, len(self.classes_)), predictor.n_threads
        exact = ExactIndex.topk(index, hidden, k, n_threads=n_threads)[1]
        found = index.topk(hidden, k, n_threads=n_threads)[1]
        recall = (exact[:, :, None] == found[:, None]).any(2).mean()
        text = f"search='approximate' finds {recall:.1%} of the {k} best labels"
        self._log(text)
        if recall < _POOR_RECALL:
            warnings.warn(f"{text}. Set it to 'exact' if that is too little.", stacklevel=5)

    def _choose_fusion(self, held_out):
        """Choose the weight of late fusion by the rows held out, where that is asked for."""
        self.late_fusion_ = self.late_fusion
        if self.late_fusion == "auto":
            n = min(5, len(self.classes_))
            self.late_fusion_ = choose_fusion(
                (self._predictor(X, self.tail_bias_).rankings(X, Y.shape[0], n), Y)
                for X, Y in held_out.parts()
            )
            self._log(f"late fusion: beta {self.late_fusion_}")

    def _parameters(self):
        """What tells this fit from others; names and what they stand for are the same."""
        return self.get_params(deep=False) | {
            "sampler": make_sampler(self.sampler),
            "loss": make_loss(self.loss),
            "hidden_layer_sizes": check_hidden_sizes(self.hidden_layer_sizes),
        }
