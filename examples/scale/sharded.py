"""One model on 1, 2 and 4 processes: memory of each, bytes that they exchange, time and quality.

    python examples/scale/sharded.py --labels 1000000 --features 100000 --width 256 --rows 20000
    python examples/scale/sharded.py --data FOLDER --epochs 5 --width 128

The first makes a problem whose last row carries every label that no other row has, so that all
labels are trained. The second takes X_train.npz, Y_train.npz, X_test.npz and Y_test.npz of
scipy.sparse.save_npz from FOLDER. Either is written to disk once, and mapped by all processes.

Columns: what a process takes of its own memory at most (RssAnon, which is without mapped files),
and what of that was there before the fit; what a step exchanges, by a formula and as counted; what
each process sends of it in a ring, by 2 (n - 1) / n, and as the system counts on the loopback
device, other programs included; the time of a step, and the CPU time of a row in each process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc, open_csr, save_csr
from skxmc.distributed import ShardedXMCClassifier
from skxmc.metrics import precision_at_k
from skxmc.samplers import Sampler, make_sampler

COLUMNS = {  # heading: key, format
    "processes": ("processes", "{}"),
    "peak MB": ("peak_mb", "{:,.0f}"),
    "before MB": ("before_mb", "{:,.0f}"),
    "tables MB": ("tables_mb", "{:,.0f}"),
    "KB/step": ("formula_kb", "{:,.0f}"),
    "counted": ("counted_kb", "{:,.0f}"),
    "sent KB/step": ("ring_kb", "{:,.0f}"),
    "on lo": ("lo_kb", "{:,.0f}"),
    "ms/step": ("step_ms", "{:.1f}"),
    "CPU us/row": ("cpu_us", "{:.0f}"),
    "P@1": ("p1", "{:.2f}"),
    "P@3": ("p3", "{:.2f}"),
    "P@5": ("p5", "{:.2f}"),
}
MB = 2**20


class Counting(Sampler):
    """A sampler that counts the places of its shortlists."""

    places = []  # noqa: RUF012  (of the process: a fit trains a copy)

    def __init__(self, sampler):
        self.sampler = sampler

    def begin(self, problem):
        """Both begin."""
        super().begin(problem)
        self._inner = self.sampler.begin(problem)
        return self

    def start_epoch(self, epoch, n_epochs):
        """As the sampler."""
        self._inner.start_epoch(epoch, n_epochs)

    def order_rows(self, epoch, network, rng):
        """As the sampler."""
        return self._inner.order_rows(epoch, network, rng)

    def propose(self, rows, rng):
        """As the sampler; each row's positives come before what it proposes."""
        proposals = self._inner.propose(rows, rng)
        Y = self.problem_.Y
        positives = min(256, int((Y.indptr[rows + 1] - Y.indptr[rows]).max()))
        parts = proposals if isinstance(proposals, list) else [proposals]
        own = sum(a.labels.shape[1] for a in parts if a.labels.ndim == 2)
        common = [a.labels for a in parts if a.labels.ndim == 1]
        shared = len(np.unique(np.concatenate(common))) if common else 0
        self.places.append((len(rows), positives + own + shared))
        return proposals


def own_memory():
    """MB of a process's own memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def loopback():
    """Bytes that this machine has sent to itself."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


class Peak(threading.Thread):
    """Looks at the memory every 10 ms."""

    def __init__(self):
        super().__init__(daemon=True)
        self.mb = 0.0

    def run(self):
        """Until the process ends."""
        while True:
            self.mb = max(self.mb, own_memory())
            time.sleep(0.01)


def worker(job):
    """Fit and predict as one of the processes; process 0 prints what it took."""
    folder = Path(job["folder"])
    parameters = {
        "hidden_layer_sizes": (job["width"],), "n_estimators": 1, "max_iter": job["epochs"],
        "batch_size": job["batch"], "tail_bias": 0.0, "n_jobs": 1, "device": "cpu",
        "random_state": 0,
    }  # fmt: skip
    small = make_xmc(300, 500, 50, random_state=0)
    clf = ShardedXMCClassifier(XMCClassifier(job["sampler"], **parameters)).fit(*small)
    X, Y = open_csr(folder / "X_train"), open_csr(folder / "Y_train")
    before, sent, cpu = own_memory(), loopback(), time.process_time()
    peak = Peak()
    peak.start()
    sampler = Counting(make_sampler(job["sampler"]))
    clf = ShardedXMCClassifier(XMCClassifier(sampler, **parameters)).fit(X, Y)
    mb, sent, cpu = peak.mb, loopback() - sent, time.process_time() - cpu
    found = clf.predict_topk(open_csr(folder / "X_test"), k=5)[0]
    n, places = clf.n_processes_, np.array(Counting.places)  # rows, and places of each
    ring = 2 * (n - 1) / n
    formula = 0.0
    if n > 1:
        formula = 4 * (places[:, 0] * (2 * job["width"] + places[:, 1])).mean()
    rows = sum(span[1] - span[0] for span in (clf.label_range_, clf.feature_range_))
    mine = {
        "processes": n, "peak_mb": mb, "before_mb": before,
        "tables_mb": 4 * job["width"] * rows / MB, "formula_kb": formula / 1024,
        "counted_kb": clf.n_bytes_exchanged_ / len(places) / 1024,
        "ring_kb": ring * clf.n_bytes_exchanged_ / len(places) / 1024,
        "lo_kb": sent / n / len(places) / 1024,
        "step_ms": 1000 * sum(clf.epoch_seconds_) / len(places),
        "cpu_us": 1e6 * cpu / places[:, 0].sum(),
    }  # fmt: skip
    Y_test = open_csr(folder / "Y_test")
    mine |= {f"p{k}": 100 * precision_at_k(Y_test, found, k=k) for k in (1, 3, 5)}
    (folder / f"result-{n}-{os.environ['RANK']}.json").write_text(json.dumps(mine))


def make_data(args):
    """X and Y to train and to test."""
    if args.data:
        return {
            name: sp.csr_array(sp.load_npz(Path(args.data) / f"{name}.npz")).astype(np.float32)
            for name in ("X_train", "Y_train", "X_test", "Y_test")
        }
    n_test = 2000
    X, Y = make_xmc(args.rows + n_test, args.features, args.labels, random_state=0)
    Y_train = Y[:-n_test]
    counts = np.bincount(Y_train.indices, minlength=args.labels)
    missing = sp.csr_array((counts == 0)[None, :].astype(np.float32))
    Y_train = sp.vstack([Y_train[:-1], missing], "csr").astype(np.float32)
    return {
        "X_train": X[:-n_test],
        "Y_train": Y_train,
        "X_test": X[-n_test:],
        "Y_test": Y[-n_test:],
    }


def main():
    """Print a line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--data")
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sampler", default="uniform")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        worker(json.loads(args.job))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, matrix in make_data(args).items():
            save_csr(Path(folder) / name, matrix)
        print("  ".join(COLUMNS), flush=True)
        for n in args.processes:
            job = json.dumps({**vars(args), "folder": folder})
            subprocess.run(
                [
                    sys.executable, "-m", "torch.distributed.run", "--standalone",
                    "--nproc-per-node", str(n), __file__, "--job", job,
                ],
                check=True, env={"OMP_NUM_THREADS": "1", **os.environ},
            )  # fmt: skip
            parts = [json.loads(p.read_text()) for p in Path(folder).glob(f"result-{n}-*.json")]
            worst = {key: max(part[key] for part in parts) for key in parts[0]}
            cells = [form.format(worst[key]) for key, form in COLUMNS.values()]
            pairs = zip(COLUMNS, cells, strict=True)
            print("  ".join(cell.rjust(len(name)) for name, cell in pairs), flush=True)


if __name__ == "__main__":
    main()
