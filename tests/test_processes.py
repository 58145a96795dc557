"""Fits side by side: in threads, in processes started in each way, and what they leave alone.

What one fit alone leaves of the global state is in test_classifier.
"""

import multiprocessing
import os
import queue
import random
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from threadpoolctl import threadpool_info

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc

SAMPLERS = ("clustered-in-batch+uniform", "mips+uniform", "label-embedding", "snm")


@pytest.fixture(scope="module")
def data():
    return make_xmc(300, 400, 40, random_state=0)


def scores_of(sampler, X, Y, seed=0):
    """Scores (n, L) of a new fit."""
    clf = XMCClassifier(
        sampler, hidden_layer_sizes=(16,), n_estimators=1, max_iter=2, n_jobs=1, random_state=seed
    )
    return clf.fit(X, Y).decision_function(X)


def put_scores(out, *args):
    out.put(scores_of(*args))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fits_in_four_threads_have_the_bits_of_fits_alone(data, sampler):
    alone = [scores_of(sampler, *data, seed) for seed in range(4)]
    assert not np.array_equal(alone[0], alone[1])  # the seed does matter
    with ThreadPoolExecutor(4) as pool:
        side_by_side = list(pool.map(lambda seed: scores_of(sampler, *data, seed), range(4)))
    np.testing.assert_array_equal(side_by_side, alone)


def test_one_model_predicts_in_four_threads_while_another_is_fitted(data):
    X, Y = data
    clf = XMCClassifier(hidden_layer_sizes=(16,), max_iter=2, n_jobs=1, random_state=0).fit(X, Y)
    expected, fitted = clf.decision_function(X), scores_of("snm", X, Y)
    with ThreadPoolExecutor(4) as pool:
        fit = pool.submit(scores_of, "snm", X, Y)
        found = list(pool.map(clf.decision_function, [X] * 12))
    for one in found:
        np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(fit.result(), fitted)


def put_rankings(out, X, Y):
    """All that large arrays of a fit and of predictions go through."""
    clf = XMCClassifier(
        hidden_layer_sizes=(64,), max_iter=2, n_jobs=1, random_state=0, neighbor_weight=0.2
    ).fit(X, Y)
    out.put([clf.predict_topk(X)[1], clf.predict_topk(X[:2])[1], clf.decision_function(X[:300])])


def test_a_fork_goes_on_where_its_parent_has_fitted_and_ranked():
    """OpenMP's threads do not survive a fork: no large array may be the work of the caller's."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("the system has no fork")
    X, Y = make_xmc(2000, 3000, 2000, random_state=0)
    put_rankings(expected := queue.SimpleQueue(), X, Y)
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    child = context.Process(target=put_rankings, args=(out, X, Y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    try:
        for one, other in zip(out.get(timeout=120), expected.get(), strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        child.kill()


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_a_process_fits_the_same_bits(data, way):
    """Also a fork after the parent has trained: torch and numba are then in use."""
    if way not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {way}")
    expected = scores_of(SAMPLERS[0], *data)
    context = multiprocessing.get_context(way)
    out = context.Queue()
    child = context.Process(target=put_scores, args=(out, SAMPLERS[0], *data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: of threads at a fork
        child.start()
    try:
        np.testing.assert_array_equal(out.get(timeout=120), expected)
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()


def test_loky_fits_the_same_bits(data):
    expected = [scores_of(SAMPLERS[0], *data, seed) for seed in range(2)]
    with Parallel(2, backend="loky") as parallel:
        found = parallel(delayed(scores_of)(SAMPLERS[0], *data, seed) for seed in range(2))
    np.testing.assert_array_equal(found, expected)


def state():
    """What other code in the process shares with a fit, as comparable values."""
    return {
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "between operations": torch.get_num_interop_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "errors": np.geterr(),
        "pools": sorted((p["filepath"], p["num_threads"]) for p in threadpool_info()),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
    }


@pytest.mark.parametrize("sampler", SAMPLERS[::2])
def test_fits_in_threads_leave_the_state_of_the_process_alone(data, sampler):
    scores_of(sampler, *data)  # what is imported and compiled at first use brings pools with it
    torch.set_default_dtype(torch.float64)
    try:
        before = state()
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda seed: scores_of(sampler, *data, seed), range(2)))
        assert state() == before
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found[0], scores_of(sampler, *data))
