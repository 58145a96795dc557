"""scikit-learn's own checks, over the default settings and over every sampler; none is skipped.

One of them, `check_array_api_input`, runs only where SCIPY_ARRAY_API=1 was set before scipy was
imported: tests/conftest.py or the command line must set it, and then a skip is a failure.
"""

import importlib.util
import os
from unittest import SkipTest

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from skxmc import XMCClassifier
from skxmc.samplers import SAMPLERS, MIPSSampler, UniformSampler

SMALL = {"hidden_layer_sizes": (16,), "batch_size": 32, "learning_rate_init": 0.5, "dropout": 0.1}

SUMS = [
    "full",
    "uniform",
    "frequency",
    "in-batch+uniform",
    "clustered-in-batch+uniform",
    "mips",
    "mips+uniform",
    "snm",
    # One label is what the checks with one class have to offer.
    MIPSSampler(1, keep=False) + UniformSampler(1, shared=False, importance=0.5),
]

ESTIMATORS = [
    XMCClassifier(),
    *(XMCClassifier(sampler, **SMALL) for sampler in SUMS),
    XMCClassifier(early_stopping=True, **{**SMALL, "hidden_layer_sizes": (16, 8)}),
    XMCClassifier("label-embedding", residual=True, late_fusion=0.5, **SMALL),
    XMCClassifier(search="approximate", **SMALL),
]


@parametrize_with_checks(ESTIMATORS)
def test_estimator_passes_the_check(estimator, check):
    try:
        check(estimator)
    except SkipTest as skip:
        if os.environ.get("SCIPY_ARRAY_API") == "1":
            pytest.fail(f"scikit-learn skipped this check: {skip}")
        raise


def test_every_named_sampler_is_checked():
    samplers = [a.sampler for a in ESTIMATORS if isinstance(a.sampler, str)]
    named = {name for sampler in samplers for name in sampler.split("+")}
    assert named == set(SAMPLERS)


def test_pandas_is_installed_so_that_no_check_is_skipped_for_want_of_it():
    assert importlib.util.find_spec("pandas") is not None


@pytest.mark.parametrize(
    "name",
    [
        "check_classifiers_multilabel_output_format_decision_function",
        "check_classifiers_multilabel_output_format_predict_proba",
        "check_estimator_sparse_array",
        "check_methods_subset_invariance",
    ],
)
def test_the_tags_let_the_checks_that_matter_run(name):
    names = {check.func.__name__ for _, check in estimator_checks_generator(XMCClassifier())}
    assert name in names
