"""Write a negative sampler and a loss, use both beside the package's own, and search their
parameters.

    python own_sampler.py       half a minute
"""

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.model_selection import GridSearchCV, train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.losses import Loss
from skxmc.metrics import precision_at_k
from skxmc.samplers import InBatchSampler, Proposal, Sampler, UniformSampler


# [sampler]
class LookAlikeSampler(Sampler):
    """Labels that resemble the row's own: before training, those that occur with them; then, those
    whose weight vectors point the same way.
    """

    def __init__(self, n_negatives=5, n_look_alikes=20, refresh_epochs=2):
        self.n_negatives = n_negatives
        self.n_look_alikes = n_look_alikes
        self.refresh_epochs = refresh_epochs

    def begin(self, problem):
        """Start from how often labels occur together."""
        super().begin(problem)  # checks n_negatives, keeps self.problem_
        indptr, indices = problem.Y.indptr, problem.Y.indices
        shape = (problem.n_rows, problem.n_labels)
        Y = sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=shape)
        self._keep_best((Y.T @ Y).toarray())
        return self

    def due(self, epoch, step):
        """Every few epochs, before the first step."""
        return step == 0 and epoch > 0 and epoch % self.refresh_epochs == 0

    def refresh(self, epoch, step, network, rows):
        """Compare the labels' weight vectors as they are now."""
        directions = torch.nn.functional.normalize(network.label_weights)
        self._keep_best((directions @ directions.T).cpu().numpy())

    def propose(self, rows, rng):
        """Draw a label of the row, and one of those that resemble it, `n_negatives` times."""
        Y = self.problem_.Y
        counts = Y.indptr[rows + 1] - Y.indptr[rows]
        shape = len(rows), self.n_negatives
        at = Y.indptr[rows, None] + (rng.random(shape) * counts[:, None]).astype(np.int64)
        own = Y.indices[np.minimum(at, len(Y.indices) - 1)]  # one of the row's labels
        labels = self._look_alikes[own, rng.integers(self._look_alikes.shape[1], size=shape)]
        labels[counts == 0] = -1  # -1: none
        return Proposal(labels)

    def _keep_best(self, similarity):
        np.fill_diagonal(similarity, -np.inf)
        n = self.problem_.at_most(self.n_look_alikes)
        self._look_alikes = np.argsort(-similarity, axis=1, kind="stable")[:, :n].astype(np.int32)
        # [end of sampler]


# [loss]
class FocalLoss(Loss):
    """Logistic loss that passes over what is already right, by the power `gamma`."""

    def __init__(self, gamma=1.0):
        self.gamma = gamma

    def forward(self, scores, targets, weights):
        """Sum over the batch."""
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scores, targets, reduction="none"
        )
        return (weights * (1 - torch.exp(-loss)) ** self.gamma * loss).sum()
        # [end of loss]


def main(n_samples=8000, n_labels=1000):
    """Print precision of samplers, of losses, and what a search over a parameter finds."""
    X, Y = make_xmc(n_samples, 8000, n_labels, random_state=0)
    X, X_test, Y, Y_test = train_test_split(X, Y, random_state=0)
    small = {"hidden_layer_sizes": (64,), "max_iter": 6, "n_jobs": 1, "random_state": 0}

    print(f"{'sampler':<34}{'loss':<8}{'P@1':>7}{'P@5':>7}")
    both = InBatchSampler() + UniformSampler()
    for name, sampler, loss in (
        ("uniform", "uniform", "bce"),
        ("look-alike + uniform", LookAlikeSampler() + UniformSampler(), "bce"),
        ("in-batch + uniform", both, "bce"),
        ("look-alike + in-batch + uniform", LookAlikeSampler() + both, "bce"),
        ("in-batch + uniform", both, FocalLoss()),
    ):
        clf = XMCClassifier(sampler, loss, **small).fit(X, Y)
        labels, _ = clf.predict_topk(X_test, k=5)
        precision = [100 * precision_at_k(Y_test, labels, k=k) for k in (1, 5)]
        loss = "focal" if isinstance(loss, FocalLoss) else loss
        print(f"{name:<34}{loss:<8}" + "".join(f"{p:7.2f}" for p in precision))

    # [search]
    clf = XMCClassifier(LookAlikeSampler() + UniformSampler(), **small)
    search = GridSearchCV(clf, {"sampler__first__n_negatives": [1, 5, 20]}, cv=2).fit(X, Y)
    # [end of search]
    print()
    for parameters, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        print(f"{parameters}  P@1 {100 * score:.2f}")


if __name__ == "__main__":
    main()
