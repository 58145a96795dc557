"""Does the cost of a row grow with the number of labels? Time and memory from 10,000 to 1,000,000.

    python examples/benchmark/scale.py --labels 10000 100000 1000000 --sampler uniform mips+uniform

Fits one epoch of synthetic problems that differ in their labels alone, each in a process of its
own with one thread, and prints a table; OUTPUT holds it as `scale.txt`, with `scale.png`, time and
memory over labels.

Samplers that propose the batch's own labels need `--seen-only`: else the last row carries every
label that no other row has, so that all labels are trained, and these samplers would propose them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.metrics import precision_at_k
from skxmc.samplers import Sampler, make_sampler

COLUMNS = {  # heading: key, format
    "sampler": ("sampler", "{}"),
    "labels": ("labels", "{:,}"),
    "features": ("features", "{:,}"),
    "train us/row": ("train_us", "{:.0f}"),
    "look-up us/row": ("look_up_us", "{:.0f}"),
    "peak MB": ("peak_mb", "{:,.0f}"),
    "model MB": ("model_mb", "{:,.0f}"),
    "peak/model": ("ratio", "{:.2f}"),
    "P@1": ("p1", "{:.1f}"),
    "frequent": ("baseline", "{:.1f}"),
    "predict rows/s": ("predict", "{:,.0f}"),
}


class Watched(Sampler):
    """A sampler that notes the CPU seconds at each step, and those of its look-ups."""

    steps, look_ups = [], []  # of the process: a fit trains a copy

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
        """As the sampler, timed: it may cluster."""
        return self._timed(self._inner.order_rows, epoch, network, rng)

    def due(self, epoch, step):
        """As the sampler."""
        return self._inner.due(epoch, step)

    def refresh(self, epoch, step, network, rows):
        """As the sampler, timed."""
        self._timed(self._inner.refresh, epoch, step, network, rows)

    def propose(self, rows, rng):
        """As the sampler."""
        self.steps.append(time.process_time())
        return self._inner.propose(rows, rng)

    def _timed(self, call, *arguments):
        start = time.process_time()
        out = call(*arguments)
        self.look_ups.append(time.process_time() - start)
        return out


def memory_mb(name):
    """VmRSS or VmHWM of this process; where there is no /proc, not a number."""
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return float("nan")


def measure(job):
    """Fit and predict one problem; what it took."""
    parameters = {
        "hidden_layer_sizes": (job["width"],), "n_estimators": job["members"], "max_iter": 1,
        "batch_size": 128, "tail_bias": 0.0, "n_jobs": 1, "device": "cpu", "random_state": 0,
    }  # fmt: skip
    X, Y = make_xmc(300, 500, 1000, random_state=0)
    small = XMCClassifier(job["sampler"], **parameters).fit(X, Y)  # compiles
    small.predict_topk(X)
    n_test = 2000
    X, Y = make_xmc(job["rows"] + n_test, job["features"], job["labels"], random_state=0)
    X, X_test, Y, Y_test = X[:-n_test], X[-n_test:], Y[:-n_test], Y[-n_test:]
    counts = np.bincount(Y.indices, minlength=job["labels"])
    if not job["seen_only"]:
        missing = sp.csr_array((counts == 0)[None, :].astype(np.float32))
        Y = sp.vstack([Y[:-1], missing], "csr")
    n_labels = int((np.bincount(Y.indices, minlength=job["labels"]) > 0).sum())
    before = memory_mb("VmRSS")
    watched = Watched(make_sampler(job["sampler"]))
    clf = XMCClassifier(watched, **parameters).fit(X, Y)
    peak = memory_mb("VmHWM") - before
    start = time.process_time()
    labels, _ = clf.predict_topk(X_test, k=5)
    seconds = time.process_time() - start
    # Steps of one member; the first tenth finds caches cold.
    steps = np.array(Watched.steps[: len(Watched.steps) // job["members"]])
    steps = steps[len(steps) // 10 :]
    model = clf.feature_weights_.nbytes + clf.label_weights_.nbytes
    return {
        **job,
        "labels": n_labels,
        "train_us": 1e6 * (steps[-1] - steps[0]) / (len(steps) - 1) / 128,
        "look_up_us": 1e6 * sum(Watched.look_ups) / job["members"] / job["rows"],
        "peak_mb": peak,
        "model_mb": model / 2**20,
        "ratio": peak * 2**20 / model,
        "p1": 100 * precision_at_k(Y_test, labels, k=1),
        "baseline": 100 * precision_at_k(Y_test, np.full((n_test, 1), counts.argmax()), k=1),
        "predict": n_test / seconds,
    }


def table(results):
    """The results as lines of text."""
    rows = [[form.format(r[key]) for key, form in COLUMNS.values()] for r in results]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [list(COLUMNS), *rows]
    )


def draw(results, path):
    """Time of a row and memory over labels, on log axes, told apart in grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = iter(["-o", "--s", "-.^", ":D"])
    for sampler in dict.fromkeys(r["sampler"] for r in results):
        mine = [r for r in results if r["sampler"] == sampler]
        x, style = [r["labels"] for r in mine], next(styles)
        left.plot(x, [r["train_us"] for r in mine], style, color="0.1", label=sampler)
        if any(r["look_up_us"] > 1 for r in mine):
            y = [r["look_up_us"] for r in mine]
            left.plot(x, y, style, color="0.6", label=f"{sampler}: look-up")
        right.plot(x, [r["peak_mb"] for r in mine], style, color="0.1", label=f"{sampler}: peak")
    models = {r["labels"]: r["model_mb"] for r in results}
    right.plot(
        list(models), list(models.values()), "-", color="0.6", lw=4, alpha=0.6, label="model"
    )
    left.set(xscale="log", yscale="log", xlabel="labels", ylabel="CPU microseconds a row")
    right.set(xscale="log", yscale="log", xlabel="labels", ylabel="MB")
    low, high = left.get_ylim()
    left.set_ylim(min(low, high / 10), high * 1.5)  # a decade at least: flat shall look flat
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def main():
    """See the top."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=100_000, help="training rows, one epoch")
    parser.add_argument("--width", type=int, default=256, help="of a member")
    parser.add_argument("--members", type=int, default=1, help="n_estimators")
    parser.add_argument("--sampler", nargs="+", default=["uniform"])
    parser.add_argument("--seen-only", action="store_true", help="leave labels without a row out")
    parser.add_argument("--output", type=Path, default=Path("skxmc-scale"))
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    if not args.seen_only and any("in-batch" in name for name in args.sampler):
        parser.error("in-batch samplers need --seen-only")
    args.output.mkdir(parents=True, exist_ok=True)
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    results = []
    for sampler in args.sampler:
        for labels in args.labels:
            names = ("features", "rows", "width", "members", "seen_only")
            job = {"sampler": sampler, "labels": labels, **{n: vars(args)[n] for n in names}}
            done = subprocess.run(
                [sys.executable, __file__, "--one", json.dumps(job)],
                stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **threads},
            )  # fmt: skip
            results.append(json.loads(done.stdout.splitlines()[-1]))
            text = table(results)
            print(text.splitlines()[-1] if len(results) > 1 else text, flush=True)
    (args.output / "scale.txt").write_text(table(results) + "\n")
    draw(results, args.output / "scale.png")


if __name__ == "__main__":
    main()
