"""One run in a process of its own, in the environment of the method: fit, predict, measure.

    PYTHON worker.py DATA FOLDER JOB    DATA holds X_train.npz, Y_train.npz, X_test.npz, train.txt;
                                        JOB is JSON: name, options, seed, threads

Writes FOLDER/top.npy, the ranked columns, and FOLDER/run.json, what it took.
"""

import json
import os
import platform
import resource
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from methods import find


def cpu_seconds():
    """Of this process, its threads, and its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mb():
    """Peak memory of this process: what `getrusage` tells includes that of the parent."""
    status = Path("/proc/self/status")  # Linux; elsewhere the parent's look from outside has to do
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def timed(call, *arguments):
    """Result, wall seconds and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    result = call(*arguments)
    return result, time.perf_counter() - wall, cpu_seconds() - cpu


def main(data, folder, job):
    """Run the job; see above."""
    warnings.simplefilter("ignore")  # of liblinear, that it did not converge
    job, data, folder = json.loads(job), Path(data), Path(folder)
    os.chdir(folder)
    X, Y, X_test = (sp.load_npz(data / f"{n}.npz") for n in ("X_train", "Y_train", "X_test"))
    method = find(job["name"], job["options"])
    model = method.make(job["seed"], job["threads"])
    _, fit_wall, fit_cpu = timed(model.fit, X, Y, data)
    top, predict_wall, predict_cpu = timed(model.predict_topk, X_test)
    peak = peak_mb()  # before the model is copied
    np.save(folder / "top.npy", np.asarray(top, dtype=np.int64))
    saved = folder / "saved"
    saved.mkdir()
    model.save(saved)
    results = {
        "fit_seconds": fit_wall,
        "fit_cpu_seconds": fit_cpu,
        "predict_seconds": predict_wall,
        "predict_cpu_seconds": predict_cpu,
        "rows_per_second": X_test.shape[0] / predict_wall,
        "peak_mb": peak,
        "model_mb": sum(f.stat().st_size for f in saved.rglob("*") if f.is_file()) / 2**20,
        "python": platform.python_version(),
        "version": version(method.package) if method.package else None,
    }
    (folder / "run.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
