"""Ranking metrics of extreme classification: numpy and scipy only, and no dense n x L matrix.

Each metric takes the true labels and either scores (dense or sparse) or ranked label columns.
`_inputs` turns the true labels into one sparse indicator, `_ranking` turns scores into the ranking
and the ranking into hits, `_at_k` counts the hits, `_propensities` weighs the labels, and
`_scorers` hands the metrics to scikit-learn.
"""

from ._at_k import (
    label_coverage_at_k,
    ndcg_at_k,
    precision_at_k,
    psndcg_at_k,
    psp_at_k,
    recall_at_k,
)
from ._propensities import propensities
from ._scorers import (
    label_coverage_at_k_scorer,
    ndcg_at_k_scorer,
    precision_at_k_scorer,
    psndcg_at_k_scorer,
    psp_at_k_scorer,
    ranking_scorers,
    recall_at_k_scorer,
)

__all__ = [
    "label_coverage_at_k",
    "label_coverage_at_k_scorer",
    "ndcg_at_k",
    "ndcg_at_k_scorer",
    "precision_at_k",
    "precision_at_k_scorer",
    "propensities",
    "psndcg_at_k",
    "psndcg_at_k_scorer",
    "psp_at_k",
    "psp_at_k_scorer",
    "ranking_scorers",
    "recall_at_k",
    "recall_at_k_scorer",
]
