r"""Train on data several times larger than the memory, from disk; and in memory, to compare.

    python examples/scale/out_of_memory.py --gb 2.5 --limit 1

Makes a problem of long rows on disk, block by block. A first process reads it into memory, fits and
predicts. A second one does so from the disk, by `open_csr`, under a limit set from outside:
RLIMIT_DATA for its own memory; and for the data that the system keeps in memory, this process
watches both together and makes the system drop the data's pages near LIMIT. (Linux; for files that
are yours.) Both begin with nothing of the data in memory.

Where systemd runs it can hold the limit, a harder one, with `--unlimited` here:

    systemd-run --user --scope -p MemoryMax=1G -p MemorySwapMax=0 \
        python examples/scale/out_of_memory.py --only disk --unlimited
"""

import argparse
import ctypes
import json
import mmap
import os
import resource
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


def run(job):
    """Fit and predict; what it took."""
    folder, peak = Path(job["folder"]), [0.0]
    parameters = {
        "hidden_layer_sizes": (job["width"],), "n_estimators": 1, "max_iter": job["epochs"],
        "n_jobs": job["jobs"], "batch_size": 128, "random_state": 0, "device": "cpu",
    }  # fmt: skip
    if job["limit"]:
        resource.setrlimit(resource.RLIMIT_DATA, (int(job["limit"] * 2**30),) * 2)

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
    start, cpu = time.perf_counter(), time.process_time()
    clf = XMCClassifier(job["sampler"], verbose=job["verbose"], **parameters).fit(X, Y)
    fit_seconds, fit_cpu = time.perf_counter() - start, time.process_time() - cpu
    fit_peak = peak[-1]
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
        "p1": 100 * precision_at_k(Y_test, labels, k=1),
    }


class PageCache:
    """The data's pages that are in memory: which, since when, and how to make the system drop some.

    Stands in for a control group: what came first goes first.
    """

    _PIDFD_OPEN, _PROCESS_MADVISE, _PAGEOUT = 434, 440, 21  # of Linux, on all machines
    _CHUNK = 128 * 1024  # bytes, dropped as one
    _MOST_RANGES = 1024  # of a call

    def __init__(self, folder):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.files, self.tick = {}, 0
        for path in sorted(folder.rglob("*.bin")):
            with open(path, "rb") as file:
                view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            n = -(-len(view) // self._CHUNK)
            self.files[str(path.resolve())] = view, np.zeros(n, np.int64)  # since when, 0: is not

    def look(self):
        """MB of the files that are in memory, mapped or not."""
        total, self.tick = 0, self.tick + 1
        for view, since in self.files.values():
            pages = np.zeros(len(since) * (self._CHUNK // mmap.PAGESIZE), np.uint8)
            start = np.frombuffer(view, np.uint8).ctypes.data
            self.libc.mincore(
                ctypes.c_void_p(start),
                ctypes.c_size_t(len(view)),
                ctypes.c_void_p(pages.ctypes.data),
            )
            pages = (pages & 1).reshape(len(since), -1).any(axis=1)
            since[:] = np.where(pages, np.where(since, since, self.tick), 0)
            total += int(pages.sum()) * self._CHUNK
        return total / MB

    def drop(self, n_mb=np.inf, pid=None):
        """Make the system drop so much: from the process's maps, and then from its own memory."""
        since = np.concatenate([since for _, since in self.files.values()])
        order = np.argsort(np.where(since, since, np.inf), kind="stable")
        due = np.zeros(len(since), bool)
        due[order[: int(min(n_mb * MB / self._CHUNK + 1, np.count_nonzero(since)))]] = True
        ends = np.cumsum([len(since) for _, since in self.files.values()])
        chunks = dict(zip(self.files, np.split(due, ends[:-1]), strict=True))
        chunks = {
            path: (np.flatnonzero(part) * self._CHUNK).tolist() for path, part in chunks.items()
        }
        ranges = []
        for path, (begin, end) in self._addresses(pid).items() if pid else ():
            ranges += [(begin + at, min(self._CHUNK, end - begin - at)) for at in chunks[path]]
        for start in range(0, len(ranges), self._MOST_RANGES):
            self._page_out(pid, ranges[start : start + self._MOST_RANGES])
        for path, starts in chunks.items():
            with open(path, "rb") as file:
                if pid is None:
                    os.fsync(file.fileno())
                for at in starts:
                    os.posix_fadvise(file.fileno(), at, self._CHUNK, os.POSIX_FADV_DONTNEED)

    def _addresses(self, pid):
        """Where a process has mapped the files."""
        found = {}
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            parts = line.split(maxsplit=5)
            if parts[-1] in self.files:
                found[parts[-1]] = tuple(int(at, 16) for at in parts[0].split("-"))
        return found

    def _page_out(self, pid, ranges):
        vector = (ctypes.c_size_t * (2 * len(ranges)))(*(n for pair in ranges for n in pair))
        descriptor = self.libc.syscall(self._PIDFD_OPEN, pid, 0)
        self.libc.syscall(
            self._PROCESS_MADVISE, descriptor, vector, ctypes.c_size_t(len(ranges)),
            self._PAGEOUT, ctypes.c_uint(0),
        )  # fmt: skip
        os.close(descriptor)


def start(job, limit, cache):
    """Run a job in a process of its own; its results, and what was seen from outside."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--one", json.dumps(job)], stdout=subprocess.PIPE, text=True
    )
    most = 0.0
    while process.poll() is None:
        time.sleep(0.2)
        try:
            used = memory(process.pid) + cache.look()
            most = max(most, used)
            if limit and used > 0.8 * 1024 * limit:
                cache.drop(used - 0.7 * 1024 * limit, process.pid)
        except (FileNotFoundError, StopIteration, ProcessLookupError):  # it has just ended
            break
    lines = process.communicate()[0].splitlines()
    if lines[:-1]:
        print(*lines[:-1], sep="\n")
    if process.returncode:
        sys.exit(f"The process of {job['how']} failed.")
    return {**json.loads(lines[-1]), "most": most}


def main():
    """See the top."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("skxmc-out-of-memory"))
    parser.add_argument("--gb", type=float, default=2.5, help="size of X on disk")
    parser.add_argument("--limit", type=float, default=1.0, help="GB of memory, data included")
    parser.add_argument("--unlimited", action="store_true", help="set no limit")
    parser.add_argument("--only", choices=["memory", "disk"], help="one of the two alone")
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
    print("        read s  fit s  CPU s  predict s  libraries MB  fit MB  most MB   P@1")
    cache = PageCache(args.folder)
    for how in ["memory", "disk"] if args.only is None else [args.only]:
        limit = 0 if args.unlimited or how == "memory" else args.limit
        job = {"how": how, "folder": str(args.folder), "limit": limit}
        job |= {n: vars(args)[n] for n in ("epochs", "width", "jobs", "sampler", "verbose")}
        if not args.unlimited:
            cache.look()
            cache.drop()
        print(
            "{how:6}  {read:6.1f}  {fit:5.0f}  {fit_cpu:5.0f}  {predict:9.1f}  {before:12.0f}  "
            "{fit_mb:6.0f}  {most:7.0f}  {p1:4.1f}".format(**start(job, limit, cache)),
            flush=True,
        )


if __name__ == "__main__":
    main()
