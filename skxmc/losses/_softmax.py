"""Softmax over a shortlist, corrected for how its negatives were drawn."""

from __future__ import annotations

from skxmc._lazy import torch
from skxmc.losses._base import Loss


class SampledSoftmax(Loss):
    """Softmax cross-entropy over positives and sampled negatives, averaged over the positives.

    With `log_q`, the log of a negative's expected count is subtracted from its score, so that the
    sampled sum stands for that over all labels. What samplers propose without knowing its count
    (MIPS) enters as it is: each stands for itself. Importance weights of negatives play no part.

    Parameters
    ----------
    log_q : bool, default=True

    References
    ----------
    .. [1] Bengio and Senecal, "Adaptive importance sampling to accelerate training of a neural
       probabilistic language model", IEEE Transactions on Neural Networks, 2008.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> clf = XMCClassifier(loss="softmax", sampler="uniform")
    """

    uses_log_expected = True
    over_negatives = "logsumexp"
    _decoupled = False

    def __init__(self, log_q: bool = True):
        self.log_q = log_q

    def forward(
        self,
        scores: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        log_expected: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean over the positives of ``log(sum exp) - score``, summed over the rows."""
        counts = weights > 0
        positive = counts & (targets > 0)
        s = scores
        if self.log_q and log_expected is not None:
            s = torch.where(targets > 0, scores, scores - log_expected)
        low = torch.finfo(s.dtype).min
        negatives = s.masked_fill(positive | ~counts, low).logsumexp(1, keepdim=True)  # (B, 1)
        if self._decoupled:
            normalizer = torch.logaddexp(scores, negatives)  # (B, m): the positive + negatives
        else:
            positives = scores.masked_fill(~positive, low).logsumexp(1, keepdim=True)
            normalizer = torch.logaddexp(positives, negatives)  # (B, 1)
        each = (weights * (normalizer - scores)).masked_fill(~positive, 0.0)
        return (each.sum(1) / positive.sum(1).clamp(min=1)).sum()


class DecoupledSoftmax(SampledSoftmax):
    """For each positive, softmax over that positive and the negatives; averaged over positives.

    Positives do not compete with each other, as they do in the plain softmax.

    Parameters
    ----------
    log_q : bool, default=True
        See `SampledSoftmax`.

    References
    ----------
    .. [1] Gupta et al., "Dual-encoders for extreme multi-label classification", ICLR 2024.

    Examples
    --------
    >>> from skxmc import XMCClassifier
    >>> clf = XMCClassifier(loss="decoupled-softmax")
    """

    _decoupled = True
