"""A grid search and averaged members on a Dask cluster, where a process is killed meanwhile.

    pip install "skxmc[dask]"
    python examples/scale/dask_search.py

Starts a cluster of processes on this machine, searches over samplers, kills one of the processes
with SIGKILL in the middle of a fit, and compares the scores with those of a search without Dask.
Then it fits members on the cluster and averages them. `--scheduler tcp://host:8786` takes a cluster
that runs already, of any number of machines, and kills nothing.
"""

import argparse
import os
import signal
import threading
import time
from itertools import chain

import joblib
from dask.distributed import Client, LocalCluster
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, train_test_split

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.ensemble import average
from skxmc.metrics import precision_at_k, ranking_scorers

SAMPLERS = ["uniform", "in-batch", "clustered-in-batch+uniform"]
SHOWN = ["P@1", "P@3", "P@5", "nDCG@5"]


def kill_a_busy_worker(client, told):
    """SIGKILL to a process of this machine when the first fit is done: it is in another.

    `told` gets to know which; "over" in it ends the wait.
    """
    seen, pids = set(), client.run(os.getpid)
    while "over" not in told:
        now = client.processing()  # address -> keys of its fits, those in its queue too
        seen.update(*now.values())
        if seen.difference(*now.values()):
            address = max(now, key=lambda address: len(now[address]))
            os.kill(pids[address], signal.SIGKILL)
            told.update(pid=pids[address], n_fits=len(now[address]))
            return
        time.sleep(0.1)


def search_on(client, search, X, Y):
    """Fit a search on the cluster so that no data is lost with a worker."""
    cv = list(search.cv.split(X))  # as arrays, so that they can be scattered too
    client.amm.stop()  # it would drop all copies but one of what is scattered to every worker
    search.set_params(cv=cv)
    with joblib.parallel_config(backend="dask", scatter=[X, Y, *chain(*cv)], verbose=10):
        return search.fit(X, Y)


def members_on(clf, seeds, X, Y):
    """One classifier of members fitted on the cluster."""
    members = [clone(clf).set_params(n_estimators=1, random_state=seed) for seed in seeds]
    with joblib.parallel_config(backend="dask", scatter=[X, Y]):
        return average(joblib.Parallel()(joblib.delayed(m.fit)(X, Y) for m in members))


def main(n_samples=6000, n_labels=500, n_workers=2, max_iter=8, scheduler=None):
    """Search without Dask and with it, fit members, and print what came out."""
    X, Y = make_xmc(n_samples, n_labels=n_labels, random_state=0)
    X, X_test, Y, Y_test = train_test_split(X, Y, random_state=0)
    clf = XMCClassifier(
        hidden_layer_sizes=(64,), n_estimators=1, max_iter=max_iter, top_k=5, n_jobs=1,
        random_state=0,
    )  # fmt: skip
    search = GridSearchCV(
        clf, {"sampler": SAMPLERS}, scoring=ranking_scorers(k=(1, 3, 5)), refit="P@3", cv=KFold(3)
    )
    plain = clone(search).fit(X, Y)

    told = {}
    cluster = scheduler or LocalCluster(n_workers=n_workers, threads_per_worker=1)
    with Client(cluster) as client:
        print(f"dashboard: {client.dashboard_link}")
        killer = threading.Thread(target=kill_a_busy_worker, args=(client, told))
        if not scheduler:
            killer.start()
        start = time.perf_counter()
        search_on(client, search, X, Y)
        seconds = time.perf_counter() - start
        told["over"] = True
        if not scheduler:
            killer.join()
            client.wait_for_workers(n_workers)
            pids = set(client.run(os.getpid).values())
        clf = members_on(search.best_estimator_, range(4), X, Y)
    if not scheduler:
        cluster.close()

    print(f"\n{'sampler':28s}" + "".join(f"{name:>8s}" for name in SHOWN) + "   as without Dask")
    for i, params in enumerate(search.cv_results_["params"]):
        names = [f"mean_test_{name}" for name in SHOWN]
        scores = [search.cv_results_[name][i] for name in names]
        same = all(plain.cv_results_[n][i] == s for n, s in zip(names, scores, strict=True))
        row = "".join(f"{100 * score:8.2f}" for score in scores)
        print(f"{params['sampler']:28s}{row}   {'yes' if same else 'NO'}")
    print(f"search: {seconds:.1f} s")
    if "pid" in told:
        end = "IT STILL RUNS" if told["pid"] in pids else "a new process took its place"
        print(
            f"process {told['pid']} was killed with {told['n_fits']} fits to do: "
            f"they were done all the same, and {end}"
        )
    for name, model in [("one member", search.best_estimator_), ("four, averaged", clf)]:
        score = precision_at_k(Y_test, model.predict_topk(X_test, 3)[0], k=3)
        print(f"P@3 on test rows, {name}: {100 * score:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", dest="n_samples", type=int, default=6000)
    parser.add_argument("--labels", dest="n_labels", type=int, default=500)
    parser.add_argument("--workers", dest="n_workers", type=int, default=2)
    parser.add_argument("--epochs", dest="max_iter", type=int, default=8)
    parser.add_argument("--scheduler", help="address of a cluster that runs already")
    main(**vars(parser.parse_args()))
