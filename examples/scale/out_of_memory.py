r"""Train on data several times larger than the memory, from disk; and in memory, to compare.

    sudo python examples/scale/out_of_memory.py --gb 2.5 --limit 1 --pairs 3

Makes a problem of long rows on disk, block by block. In turns, a process reads it into memory, fits
and predicts; and another does so from the disk, by `open_csr`, in a control group whose memory the
kernel limits: that of the process together with the pages of files that it keeps for it. Both begin
with nothing of the data in memory. Linux; a group takes the rights of root. Without them, systemd
may make it, with `--limit 0` here:

    systemd-run --user --scope -p MemoryMax=1G -p MemorySwapMax=0 \
        python examples/scale/out_of_memory.py --only disk --limit 0
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from skxmc import XMCClassifier
from skxmc.datasets import CSRWriter, open_csr
from skxmc.metrics import precision_at_k

MB = 2**20
N_FEATURES, N_LABELS, OWN_WORDS = 50_000, 2_000, 30
BLOCK = 10_000  # rows made at a time


def make_block(n_rows, words, rng):
    """Rows of some 400 words: a tenth speak of the row's two labels, the rest is Zipf's law."""
    labels = np.minimum(np.expm1(rng.random((n_rows, 2)) * np.log(N_LABELS + 1)), N_LABELS - 1)
    labels = labels.astype(np.int32)  # (n, 2)
    about = words[labels[:, rng.integers(0, 2, 40)], rng.integers(0, OWN_WORDS, (n_rows, 40))]
    noise = np.minimum(np.expm1(rng.random((n_rows, 460)) * np.log(N_FEATURES)), N_FEATURES - 1)
    columns = np.concatenate([about, noise.astype(np.int32)], axis=1)  # (n, 500)
    rows = np.repeat(np.arange(n_rows, dtype=np.int32), columns.shape[1])
    X = sp.coo_array(
        (np.ones(columns.size, np.float32), (rows, columns.ravel())), (n_rows, N_FEATURES)
    ).tocsr()
    X.data = 1 + np.log(X.data)
    X.data /= np.repeat(np.sqrt(np.add.reduceat(X.data**2, X.indptr[:-1])), np.diff(X.indptr))
    rows = np.repeat(np.arange(n_rows, dtype=np.int32), 2)
    Y = sp.coo_array((np.ones(labels.size, np.float32), (rows, labels.ravel()))).tocsr()
    Y.resize(n_rows, N_LABELS)
    Y.data[:] = 1
    return X, Y


def make_data(folder, n_bytes):
    """Write X and Y of about so many bytes, and 5,000 rows to test."""
    rng = np.random.default_rng(0)
    words = rng.permutation(N_FEATURES - 500).astype(np.int32)[: OWN_WORDS * 1000] + 500
    words = rng.choice(words, (N_LABELS, OWN_WORDS))
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("test", "train"):
        with CSRWriter(folder / f"X_{part}") as X, CSRWriter(folder / f"Y_{part}") as Y:
            written = 0
            while written < (1 if part == "test" else n_bytes):
                block = make_block(BLOCK // (2 if part == "test" else 1), words, rng)
                X.append(block[0])
                Y.append(block[1])
                written += 8 * block[0].nnz


def memory(pid="self"):
    """MB of a process's own memory; files that it has mapped are not in it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def disk_gb():
    """What this process has had read from the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes")) / 2**30


def run(job):
    """Fit and predict; what it took."""
    folder, peak = Path(job["folder"]), [0.0]
    parameters = {
        "hidden_layer_sizes": (job["width"],), "n_estimators": 1, "max_iter": job["epochs"],
        "n_jobs": job["jobs"], "batch_size": 128, "random_state": 0, "device": "cpu",
    }  # fmt: skip

    def watch():
        while True:
            peak.append(max(memory(), peak.pop()))
            time.sleep(0.02)

    def load(name):
        matrix = open_csr(folder / name)
        if job["how"] == "disk":
            return matrix
        return matrix.copy()

    X_test, Y_test = load("X_test"), load("Y_test")
    small = XMCClassifier(job["sampler"], **parameters).fit(X_test[:500], Y_test[:500])
    XMCClassifier(job["sampler"], **parameters).fit(*map(load, ("X_test", "Y_test")))  # compiles
    small.predict_topk(X_test)
    before = memory()
    start = time.perf_counter()
    X, Y = load("X_train"), load("Y_train")
    read = time.perf_counter() - start
    threading.Thread(target=watch, daemon=True).start()
    start, cpu, gb = time.perf_counter(), time.process_time(), disk_gb()
    clf = XMCClassifier(job["sampler"], verbose=job["verbose"], **parameters).fit(X, Y)
    fit_seconds, fit_cpu = time.perf_counter() - start, time.process_time() - cpu
    fit_peak, fit_gb = peak[-1], disk_gb() - gb
    start = time.perf_counter()
    labels, _ = clf.predict_topk(X, k=5)  # of all training rows, for the time
    predict_seconds = time.perf_counter() - start
    labels, _ = clf.predict_topk(X_test, k=5)
    return {
        "how": job["how"],
        "read": read,
        "fit": fit_seconds,
        "fit_cpu": fit_cpu,
        "predict": predict_seconds,
        "before": before,
        "fit_mb": fit_peak - before,
        "fit_gb": fit_gb,
        "p1": 100 * precision_at_k(Y_test, labels, k=1),
    }


CGROUPS = {  # of the two versions: limits, the most so far
    "/sys/fs/cgroup/memory": (
        ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
        "memory.max_usage_in_bytes",
    ),
    "/sys/fs/cgroup": (["memory.max", "memory.swap.max"], "memory.peak"),
}


class ControlGroup:
    """A group of processes whose memory the kernel counts, page cache included, and may limit."""

    def __init__(self, n_gb):
        found = [at for at in CGROUPS if Path(at, "cgroup.procs").exists()]
        if not found:
            sys.exit("No control groups here; pass --limit 0.")
        limits, self._peak = CGROUPS[found[0]]
        self.path = Path(found[0], f"skxmc-{os.getpid()}")
        try:
            self.path.mkdir()
            for name in limits if n_gb else ():
                swap = "swap" in name  # of version 2: beside the memory; memsw is both
                if (self.path / name).exists():
                    (self.path / name).write_text("0" if swap else str(int(n_gb * 2**30)))
        except OSError as error:
            sys.exit(f"{error}. A control group takes the rights of root; see --help for others.")

    def join(self):
        """Put this process into it."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def close(self):
        """Remove it; returns the most MB that it held."""
        most = int((self.path / self._peak).read_text()) / MB
        self.path.rmdir()
        return most


def drop(folder):
    """Make the system forget what it holds of the files in memory."""
    for path in folder.rglob("*.bin"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start(job, limit, grouped):
    """Run a job in a process of its own; its results, and the most that its group held."""
    drop(Path(job["folder"]))
    group = ControlGroup(limit) if grouped else None
    process = subprocess.Popen(
        [sys.executable, __file__, "--one", json.dumps(job)],
        stdout=subprocess.PIPE, text=True, preexec_fn=group and group.join,
    )  # fmt: skip
    lines = process.communicate()[0].splitlines()
    drop(Path(job["folder"]))
    most = group.close() if group else float("nan")
    if lines[:-1]:
        print(*lines[:-1], sep="\n")
    if process.returncode:
        sys.exit(f"The process of {job['how']} ended with {process.returncode}.")
    return {**json.loads(lines[-1]), "most": most}


def main():
    """See the top."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("skxmc-out-of-memory"))
    parser.add_argument("--gb", type=float, default=2.5, help="size of X on disk")
    parser.add_argument("--limit", type=float, default=1.0, help="GB of memory; 0: none set here")
    parser.add_argument("--only", choices=["memory", "disk"], help="one of the two alone")
    parser.add_argument("--pairs", type=int, default=1, help="how often to run the two")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=1, help="threads")
    parser.add_argument("--sampler", default="uniform")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(args.one)))
        return
    if not (args.folder / "Y_train" / "header.json").exists():
        make_data(args.folder, args.gb * 2**30)
    X = open_csr(args.folder / "X_train")
    print(f"{X.shape[0]:,} rows of {X.nnz / X.shape[0]:.0f} features, {8 * X.nnz / 2**30:.2f} GB")
    del X
    print(
        "        read s  fit s  CPU s  from disk GB  predict s  libraries MB  fit MB  most MB   P@1"
    )
    ratios = []
    for _ in range(args.pairs):
        found = {}
        for how in ["memory", "disk"] if args.only is None else [args.only]:
            job = {"how": how, "folder": str(args.folder)}
            job |= {n: vars(args)[n] for n in ("epochs", "width", "jobs", "sampler", "verbose")}
            limit = args.limit if how == "disk" else 0
            found[how] = start(job, limit, grouped=args.limit)
            print(
                "{how:6}  {read:6.1f}  {fit:5.1f}  {fit_cpu:5.1f}  {fit_gb:12.1f}  {predict:9.1f}  "
                "{before:12.0f}  {fit_mb:6.0f}  {most:7.0f}  {p1:4.1f}".format(**found[how]),
                flush=True,
            )
        if args.only is None:
            ratios.append(
                [found["disk"][n] / found["memory"][n] for n in ("fit", "fit_cpu", "predict")]
            )
    if ratios:
        ratios = np.median(ratios, axis=0)
        print("disk / memory, medians: fit {:.2f}  CPU {:.2f}  predict {:.2f}".format(*ratios))


if __name__ == "__main__":
    main()
