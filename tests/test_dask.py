"""Searches and members on a Dask cluster of several processes, one of which is killed."""

import os
import signal
from itertools import chain

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.ensemble import average
from skxmc.metrics import ranking_scorers

distributed = pytest.importorskip("distributed", reason="needs distributed: skxmc[dask]")

CLF = XMCClassifier(
    hidden_layer_sizes=(16,), n_estimators=1, max_iter=2, batch_size=32, top_k=5, n_jobs=1,
    random_state=0,
)  # fmt: skip
GRID = {"sampler": ["uniform", "in-batch"]}


@pytest.fixture(scope="module")
def data():
    return make_xmc(400, 300, 40, random_state=0)


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.amm.stop()
        yield client


def test_a_search_outlives_a_killed_worker_and_finds_what_it_finds_without_dask(
    client, data, tmp_path, capfd
):
    X, Y = data
    cv = list(KFold(3).split(X))
    here, mark = os.getpid(), str(tmp_path / "killed")

    def kill_once(clf, X, y):
        """End the first process, beside this one, that comes to score."""
        if os.getpid() != here:
            try:
                with open(mark, "x") as file:
                    file.write(str(os.getpid()))
            except FileExistsError:
                return 0.0
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.0

    scorers = ranking_scorers(k=(1, 3))
    search = GridSearchCV(CLF, GRID, scoring=scorers, refit="P@3", cv=cv, error_score="raise")
    expected = clone(search).fit(X, Y)
    pids = set(client.run(os.getpid).values())
    assert len(pids) == 2
    search.set_params(scoring={**scorers, "killed": kill_once})
    with joblib.parallel_config(backend="dask", scatter=[X, Y, *chain(*cv)], verbose=10):
        search.fit(X, Y)
    assert "Done   6 out of   6" in "".join(capfd.readouterr())
    with open(mark) as file:
        killed = int(file.read())
    assert killed in pids
    client.wait_for_workers(2, timeout=30)
    assert killed not in client.run(os.getpid).values()
    for name, values in expected.cv_results_.items():
        if "_test_" in name:
            np.testing.assert_array_equal(search.cv_results_[name], values, err_msg=name)
    assert search.best_params_ == expected.best_params_
    np.testing.assert_array_equal(
        search.best_estimator_.label_weights_, expected.best_estimator_.label_weights_
    )


def test_members_fitted_on_workers_are_those_fitted_here(client, data):
    X, Y = data
    members = [clone(CLF).set_params(random_state=seed) for seed in range(3)]
    with joblib.parallel_config(backend="dask", scatter=[X, Y]):
        fitted = joblib.Parallel()(joblib.delayed(clf.fit)(X, Y) for clf in members)
    assert not any(hasattr(clf, "label_weights_") for clf in members)  # fitted elsewhere
    there, here = average(fitted), average([clf.fit(X, Y) for clf in members])
    np.testing.assert_array_equal(there.label_weights_, here.label_weights_)
    np.testing.assert_array_equal(there.feature_weights_, here.feature_weights_)
    there.partial_fit(X, Y)  # on arrays that came over the wire
    here.partial_fit(X, Y)
    np.testing.assert_array_equal(there.label_weights_, here.label_weights_)
