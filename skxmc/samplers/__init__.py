"""Negative samplers: who proposes the labels that a row is trained against.

A sampler proposes labels for a batch of rows; it knows nothing of positives, targets or losses
(the training loop puts the positives in front and masks accidental hits, for every sampler).
Samplers are scikit-learn parameter objects: ``a + b`` composes two, their parameters are searched
as ``sampler__n_negatives`` or, in a sum, ``sampler__first__n_negatives``, and each has a name for
``XMCClassifier(sampler="mips+uniform")``. A sampler never changes in ``fit``: the run trains with
a clone of it, whose state dies with the run.
"""

from functools import reduce
from operator import add

from skxmc.samplers._base import Problem, Proposal, Sampler, UnionSampler
from skxmc.samplers._clustered import ClusteredInBatchSampler
from skxmc.samplers._label_embedding import LabelEmbeddingSampler
from skxmc.samplers._mips import MIPSSampler
from skxmc.samplers._random import FrequencySampler, FullSampler, InBatchSampler, UniformSampler
from skxmc.samplers._snm import StochasticNegativeMining

__all__ = [
    "SAMPLERS",
    "ClusteredInBatchSampler",
    "FrequencySampler",
    "FullSampler",
    "InBatchSampler",
    "LabelEmbeddingSampler",
    "MIPSSampler",
    "Problem",
    "Proposal",
    "Sampler",
    "StochasticNegativeMining",
    "UniformSampler",
    "UnionSampler",
    "make_sampler",
]

#: The names that a string may use, joined by ``+``.
SAMPLERS = {
    "full": FullSampler,
    "uniform": UniformSampler,
    "frequency": FrequencySampler,
    "in-batch": InBatchSampler,
    "clustered-in-batch": ClusteredInBatchSampler,
    "mips": MIPSSampler,
    "label-embedding": LabelEmbeddingSampler,
    "snm": StochasticNegativeMining,
}


def make_sampler(sampler: str | Sampler) -> Sampler:
    """The sampler that a name or a sum of names stands for; an object is returned as it is.

    Parameters
    ----------
    sampler : str or Sampler
        Names from ``SAMPLERS`` joined by ``+``, or any object with `propose`.

    Returns
    -------
    Sampler

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> from skxmc.samplers import make_sampler
    >>> make_sampler("mips+uniform")
    UnionSampler(first=MIPSSampler(), second=UniformSampler())
    """
    if not isinstance(sampler, str):
        return sampler
    names = [name.strip() for name in sampler.split("+")]
    for name in names:
        if name not in SAMPLERS:
            raise ValueError(
                f"sampler={sampler!r} names the unknown sampler {name!r}. Known are "
                f"{', '.join(map(repr, SAMPLERS))}, and sums of them such as 'mips+uniform'."
            )
    return reduce(add, (SAMPLERS[name]() for name in names))
