"""The data that all methods get alike, and the metrics that all are measured by."""

import zlib

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.model_selection import train_test_split

from skxmc.datasets import load_xmc_file, make_xmc, save_xmc_file
from skxmc.metrics import precision_at_k, propensities, psp_at_k

N_BINS = 10


class Data:
    """Rows of unit length; training labels without a row left out; test labels complete."""

    def __init__(self, X, Y, X_test, Y_test, name, A, B, idf=False):
        weigh = TfidfTransformer(use_idf=idf).fit(X)  # to unit length in any case
        self.X, self.X_test = (weigh.transform(part).astype(np.float32) for part in (X, X_test))
        self.frequency = np.bincount(Y.indices, minlength=Y.shape[1])
        self.seen = np.flatnonzero(self.frequency)  # columns that the methods get
        self.Y, self.Y_test = Y[:, self.seen], Y_test
        self.propensities = propensities(Y, A, B)
        self.bins = bins_of(self.frequency)
        self.facts = {
            "name": name,
            "text": f"{name}: {X.shape[0]:,} training and {X_test.shape[0]:,} test rows, "
            f"{X.shape[1]:,} features, {Y.shape[1]:,} labels ({len(self.seen):,} with a training "
            f"row), {Y.nnz / Y.shape[0]:.1f} a row; propensities A={A}, B={B}"
            + (", features weighed by idf" if idf else ""),
            "checksum": sum(zlib.crc32(part) for part in (self.X.data, self.X.indices, Y.indices)),
            "bins": [_span(self.frequency[self.bins == i]) for i in range(N_BINS)],
        }

    def write(self, folder):
        """The files that the runs read."""
        for name, matrix in (("X_train", self.X), ("Y_train", self.Y), ("X_test", self.X_test)):
            # Some peers know only matrices, and only 32-bit indices and values.
            matrix = sp.csr_matrix(matrix, dtype=np.float32)
            matrix.indices, matrix.indptr = (
                part.astype(np.int32) for part in (matrix.indices, matrix.indptr)
            )
            sp.save_npz(folder / f"{name}.npz", matrix, compressed=False)
        save_xmc_file(folder / "train.txt", self.X, self.Y)

    def measure(self, top):
        """The metrics in percent of ranked columns of `seen`."""
        labels = np.where(top >= 0, self.seen[top], -1)
        p = self.propensities
        scores = {f"P@{k}": precision_at_k(self.Y_test, labels, k=k) for k in (1, 3, 5)}
        for k in (1, 3, 5):
            scores[f"PSP@{k}"] = psp_at_k(self.Y_test, labels, k=k, propensities=p)
        scores = {name: 100 * float(value) for name, value in scores.items()}
        return {**scores, "found": self._found(labels)}

    def _found(self, labels):
        """Per bin the percentage of the test positives that are among the ranked labels."""
        rows, columns = np.nonzero(labels >= 0)
        ranked = sp.csr_array(
            (np.ones(len(rows)), (rows, labels[rows, columns])), shape=self.Y_test.shape
        )
        hits = self.Y_test.multiply(ranked).sum(axis=0)  # (L,)
        positives = self.Y_test.sum(axis=0)
        in_bin = self.bins >= 0
        hits, positives = (
            np.bincount(self.bins[in_bin], values[in_bin], N_BINS) for values in (hits, positives)
        )
        return [float(100 * h / n) if n else None for h, n in zip(hits, positives, strict=True)]


def bins_of(frequency):
    """Bin of each label: sorted by frequency, each bin a tenth of the training positives.

    Tenths of the labels would tell less: the rarer half of them makes a few percent of what there
    is to find, and the most frequent tenth nearly all. Labels without a row are in no bin (-1).
    """
    order = np.argsort(frequency, kind="stable")
    middle = np.cumsum(frequency[order]) - frequency[order] / 2
    bins = np.empty(len(frequency), dtype=np.int64)
    bins[order] = np.minimum(N_BINS * middle // max(frequency.sum(), 1), N_BINS - 1)
    bins[frequency == 0] = -1
    return bins


def _span(frequencies):
    """The least and the greatest, as JSON knows numbers."""
    return [int(frequencies.min()), int(frequencies.max())] if len(frequencies) else None


def load(args):
    """The data set that the command line asks for."""
    if args.data is None:
        X, Y = make_xmc(20 * args.labels, 10 * args.labels, args.labels, random_state=0)
        name, parts = f"make_xmc, {args.labels} labels", None
    else:
        X, Y = load_xmc_file(args.data)
        name, parts = args.name or args.data.name.split(".")[0].removesuffix("_train"), None
        if args.test_data is not None:
            shape = {"n_features": X.shape[1], "n_labels": Y.shape[1]}
            parts = X, Y, *load_xmc_file(args.test_data, **shape)
    if parts is None:
        X, X_test, Y, Y_test = train_test_split(X, Y, test_size=0.2, random_state=0)
        parts = X, Y, X_test, Y_test
    return Data(*parts, name, *args.propensity, idf=args.idf)
