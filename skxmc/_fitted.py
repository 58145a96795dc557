"""A fitted estimator as its predictions, pickles and files see it."""

from dataclasses import replace

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from skxmc._device_memory import explaining_prediction
from skxmc._format import FORMAT, own_version, refuse_newer
from skxmc._index import ExactIndex, Sketch, SketchIndex
from skxmc._inputs import as_rows, check_k, find_device
from skxmc._neighbors import Neighbors
from skxmc._network import Network, Weights
from skxmc._predictor import UNSEEN, Kept, Predictor
from skxmc._threads import count_threads

NO_NEIGHBORS = {
    "neighbor_weight_": 0.0, "neighbor_axes_": None, "neighbor_vectors_": None,
    "neighbor_labels_": None,
}  # fmt: skip


class Fitted:
    """Methods of XMCClassifier between its fitted attributes and what it predicts."""

    def _check(self, X):
        """X as the network takes it."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float32, np.float64], reset=False)
        return as_rows(X)

    def _predictor(self, X, tail_bias=0.0):
        parts = (
            self.feature_weights_, *self.hidden_weights_, *self.hidden_biases_, self.label_weights_,
            self.label_biases_, self.residual_, self.label_embeddings_, tail_bias, self.device,
            self.neighbor_weight_, self.neighbor_vectors_, self.search,
        )  # fmt: skip
        predictor = self._kept.get("predictor", parts, lambda: self._make_predictor(tail_bias))
        n_threads = count_threads(self.n_jobs, X.shape[0], 1_000)
        return replace(predictor, n_threads=n_threads, log=self._log if self.verbose else None)

    def _make_predictor(self, tail_bias):
        biases = self.label_biases_
        if tail_bias:
            biases = biases + np.float32(tail_bias) * self.tail_offsets_
        device, n_bytes = find_device(self.device), self.label_weights_.nbytes
        with explaining_prediction(device, n_bytes + self.feature_weights_.nbytes):
            network = Network(self._weights(biases), device)
        return Predictor(
            network,
            self.label_biases_ > UNSEEN,
            1,
            self.label_embeddings_,
            self.shortlist_size_,
            self._label_index(network),
            self._neighbors(network),
        )

    def _label_index(self, network):
        """What finds the best labels."""
        labels = network.labels
        if self.search == "exact":
            return ExactIndex().build(labels.weights, labels.biases)
        if self.search != "approximate":
            raise ValueError(
                f"search={self.search!r} is unknown: set it to 'exact' or 'approximate'."
            )
        sketch, confined = None, self.shortlist_size_ is not None
        if network.device.type == "cpu" and Sketch.pays(*labels.weights.shape) and not confined:
            n_threads = count_threads(self.n_jobs, len(labels.weights), 10_000)
            sketch = self._kept.get(
                "sketch", (self.label_weights_,), lambda: Sketch(labels.weights, n_threads)
            )
        return SketchIndex(sketch).build(labels.weights, labels.biases)

    def _neighbors(self, network):
        """The rows that vote, or None."""
        if not self.neighbor_weight_:
            return None
        if self.neighbor_vectors_ is None:
            raise ValueError(
                f"neighbor_weight_={self.neighbor_weight_}, but no rows are kept to vote: set it "
                "to 0, or fit anew with neighbor_weight above 0."
            )
        arrays = self.neighbor_axes_, self.neighbor_vectors_, *self.neighbor_labels_
        neighbors = self._kept.get(
            "neighbors",
            (*arrays, self.device),
            lambda: Neighbors.load(network, *arrays, len(self.classes_)),
        )
        return replace(neighbors, weight=self.neighbor_weight_)

    def _rank(self, X, k, plain=False):
        """Rank by what is there to rank by; `plain`: by the classifier's scores alone."""
        k = min(check_k(k), len(self.classes_))
        if plain:
            return replace(self._predictor(X), neighbors=None).topk(X, X.shape[0], k)
        bias = self.tail_bias_ if self.tail_bias == "auto" else self.tail_bias
        return self._predictor(X, bias).topk(X, X.shape[0], k, self.late_fusion_)

    def _weights(self, biases):
        return Weights(
            self.feature_weights_, self.hidden_weights_, self.hidden_biases_,
            self.label_weights_, biases, self.residual_,
        )  # fmt: skip

    def __getstate__(self):
        """What pickle, joblib and skops store: all but what predictions make anew."""
        state = {**super().__getstate__(), "_skxmc_format": FORMAT, "_skxmc_version": own_version()}
        state.pop("_kept", None)
        if not state.get("neighbor_weight_", True):  # rows that do not vote stay here
            state |= NO_NEIGHBORS
        return state

    def __setstate__(self, state):
        """Refuse what a newer skxmc has stored in a form that this one does not know."""
        state = dict(state)
        form, written_by = state.pop("_skxmc_format", 1), state.pop("_skxmc_version", None)
        refuse_newer(form, written_by, "The pickled XMCClassifier")
        older = {"compute_dtype": "float32", "neighbor_weight": 0.0, "search": "exact"}
        state = older | state
        if "_kind" in state:
            state = {**NO_NEIGHBORS, **state}
            self._kept = Kept()
        super().__setstate__(state)
