"""Annif backend "skxmc": TF-IDF as a CSR matrix into XMCClassifier, top k for a whole batch.

Annif looks its backends up in a table of its own package. To add this one without changing Annif,
have it load its settings from this file, with this folder on the path:

    PYTHONPATH=examples/annif ANNIF_CONFIG=skxmc_backend.Config annif train my-project corpus.tsv
"""

import os.path
from ast import literal_eval
from itertools import chain

import annif.backend
import annif.default_config
import annif.util
import joblib
import numpy as np
import scipy.sparse as sp
from annif.backend.backend import AnnifLearningBackend
from annif.backend.mixins import TfidfVectorizerMixin
from annif.exception import ConfigurationException, NotInitializedException, NotSupportedException
from annif.suggestion import SubjectSuggestion, SuggestionBatch
from scipy.special import expit

from skxmc import XMCClassifier


class SkxmcBackend(TfidfVectorizerMixin, AnnifLearningBackend):
    """Extreme multi-label classification by skxmc.

    Settings of a project: limit, min_df, ngram, and any parameter of XMCClassifier, written as in
    Python: ``hidden_layer_sizes=(512,)``, ``sampler=mips+uniform``, ``random_state=0``.
    """

    name = "skxmc"

    MODEL_FILE = "skxmc-model.joblib"

    DEFAULT_PARAMETERS = {"min_df": 1, "ngram": 1}  # noqa: RUF012  (Annif's convention)

    _model = _subjects = None

    def initialize(self, parallel=False):
        """Load the vectorizer, and the classifier with the subjects that it knows, once."""
        self.initialize_vectorizer()
        if self._model is None:
            path = os.path.join(self.datadir, self.MODEL_FILE)
            if not os.path.exists(path):
                raise NotInitializedException(f"model {path} not found", backend_id=self.backend_id)
            self.debug(f"loading model from {path}")
            self._model, self._subjects = joblib.load(path)

    def _train(self, corpus, params, jobs=0):
        if corpus == "cached":
            raise NotSupportedException("skxmc keeps no training data to reuse.")
        if corpus.is_empty():
            raise NotSupportedException("Cannot train skxmc project with no documents")
        settings = {
            "min_df": int(params["min_df"]),
            "tokenizer": self.project.analyzer.tokenize_words,
            "ngram_range": (1, int(params["ngram"])),
        }
        X, Y = self._matrices(corpus, lambda texts: self.create_vectorizer(texts, settings))
        subjects = np.unique(Y.indices)  # (n_labels,): the others of the vocabulary cost nothing
        parameters = self._classifier_parameters(params)
        if jobs:
            parameters["n_jobs"] = jobs
        self._fit(XMCClassifier(**parameters), "fit", X, Y, subjects)

    def _learn(self, corpus, params):
        self.initialize()
        X, Y = self._matrices(corpus, self.vectorizer.transform)
        new = np.setdiff1d(Y.indices, self._subjects)
        if len(new):
            self.warning(f"{len(new)} subjects are new since training; train again to suggest them")
        # A copy: where learning fails, the model in memory is still that of the file.
        model, subjects = joblib.load(os.path.join(self.datadir, self.MODEL_FILE))
        model.set_params(**self._classifier_parameters(params))
        self._fit(model, "partial_fit", X, Y, subjects)

    def _suggest_batch(self, documents, params):
        X = self.vectorizer.transform([doc.text for doc in documents])
        labels, scores = self._model.predict_topk(X, k=int(params["limit"]))  # (n, limit) both
        if self._model.late_fusion_ is None:  # else they are in [0, 1]
            scores = expit(scores)
        return SuggestionBatch.from_sequence(
            [
                map(SubjectSuggestion, self._subjects[row], row_scores) if n_words else []
                for n_words, row, row_scores in zip(np.diff(X.indptr), labels, scores, strict=True)
            ],
            self.project.subjects,
        )

    def _matrices(self, corpus, vectorize):
        """TF-IDF (n, n_words) and subjects (n, n_subjects), CSR, from one pass over a corpus."""
        rows = []

        def texts():
            for doc in corpus.documents:
                rows.append(list(doc.subject_set))
                yield doc.text

        X = vectorize(texts())
        indptr = np.cumsum([0, *map(len, rows)])
        indices = np.fromiter(chain.from_iterable(rows), np.int64, indptr[-1])
        shape = len(rows), len(self.project.subjects)
        return X, sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape)

    def _classifier_parameters(self, params):
        """The settings that are XMCClassifier's, from the text that a configuration file holds."""
        names = XMCClassifier().get_params(deep=False)
        return {name: _value(params[name]) for name in names if name in params}

    def _fit(self, model, method, X, Y, subjects):
        """Fit on the documents that have both words and subjects, then save."""
        Y = Y[:, subjects]
        use = np.flatnonzero((np.diff(X.indptr) > 0) & (np.diff(Y.indptr) > 0))
        if not len(use):
            raise NotSupportedException(
                f"none of {X.shape[0]} documents has both known words and known subjects",
                backend_id=self.backend_id,
            )
        self.info(f"{method}: {len(use)} documents, {X.shape[1]} words, {len(subjects)} subjects")
        try:
            getattr(model, method)(X[use], Y[use])
        except ValueError as error:  # names the parameter that skxmc refuses
            raise ConfigurationException(str(error), backend_id=self.backend_id) from error
        fitted = model, subjects
        annif.util.atomic_save(fitted, self.datadir, self.MODEL_FILE, method=joblib.dump)
        self._model, self._subjects = fitted


def _value(text):
    """The Python value of a setting; text that is none stays text, as in ``sampler=uniform``."""
    try:
        return literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError):
        return text


annif.backend._backend_fns[SkxmcBackend.name] = lambda: SkxmcBackend


class Config(annif.default_config.Config):
    """Annif's settings for its command line; naming them has this file imported."""


class ProductionConfig(annif.default_config.ProductionConfig):
    """Annif's settings for a server, which loads the projects when it starts."""
