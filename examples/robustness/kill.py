"""Kill training at random moments, start it again, and compare the weights bit for bit.

    python kill.py [--kills 60] [--seed 0]      about two minutes on two cores; no data needed

Each setting is fitted once without a break, and then in processes that are killed (SIGKILL, no
clean-up), in turns a random time after the fit began, and some milliseconds after it began to write
its checkpoint. The last may go on to the end. Settings take turns until there were enough kills.
Prints a table, and fails if one bit differs.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a fork does not take over the threads of its parent

import numpy as np

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.samplers import Proposal, Sampler, StochasticNegativeMining, UniformSampler


class RecentSampler(Sampler):
    """A sampler of one's own with state of its own: labels drawn in this epoch and those before."""

    def begin(self, problem):
        """Nothing is recent yet."""
        super().begin(problem)
        self._rng = np.random.default_rng(problem.random_state)
        self._recent = np.zeros(0, np.int32)
        return self

    def start_epoch(self, epoch, n_epochs):
        """Draw some more."""
        drawn = self._rng.choice(self.problem_.n_labels, 20, replace=False).astype(np.int32)
        self._recent = np.unique(np.concatenate([drawn, self._recent[:20]]))

    def propose(self, rows, rng):
        """Those of all late epochs."""
        return Proposal(self._recent)


FAST = {"hidden_layer_sizes": (32,), "max_iter": 6, "batch_size": 32, "n_jobs": 1}
SETTINGS = {
    "clustered-in-batch+uniform, 2 members": {},
    "mips+uniform, early stopping": {"sampler": "mips+uniform", "early_stopping": True},
    "label-embedding, residual, fusion": {
        "sampler": "label-embedding", "residual": True, "late_fusion": 0.5, "n_estimators": 1,
    },
    "snm geometric, constant rate": {
        "sampler": StochasticNegativeMining(schedule="geometric"), "learning_rate": "constant",
    },
    "frequency+in-batch, 3 members": {"sampler": "frequency+in-batch", "n_estimators": 3},
    "full, two hidden layers": {"sampler": "full", "hidden_layer_sizes": (32, 16)},
    "own+uniform, no seed": {"sampler": RecentSampler() + UniformSampler(50)},
}  # fmt: skip
MOST = 6  # kills of one fit
ARRAYS = ("feature_weights_", "label_weights_", "label_biases_", "label_embeddings_",
          "hidden_weights_", "hidden_biases_", "residual_", "_memory")  # fmt: skip


def bits(clf):
    """Hash of every weight, of the loss of each epoch, and of what was chosen on held-out rows."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        value = getattr(clf, name)
        for array in value if isinstance(value, (list, tuple)) else [value]:
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    digest.update(repr((clf.loss_curve_, clf.validation_scores_, clf.tail_bias_)).encode())
    return digest.hexdigest()


def fit(name, folder=None):
    """Bits of the fit of a setting, and its seconds."""
    X, Y = make_xmc(1000, 10_000, 200, random_state=0)
    clf = XMCClassifier(**{**FAST, "random_state": 0, **SETTINGS[name]}, checkpoint=folder)
    if name.endswith("no seed") and folder and list(Path(folder).glob("*.npz")):
        clf.set_params(random_state=None)  # the seed that the first process drew holds
    elif name.endswith("no seed"):
        clf.set_params(random_state=np.random.RandomState(0))
    start = time.perf_counter()
    clf.fit(X, Y)
    return bits(clf), time.perf_counter() - start


def train(name, folder, pipe):
    """What a child does."""
    pipe.send("begin")
    pipe.send(fit(name, folder))


def run(context, name, folder, delay=None, as_it_writes=False):
    """Bits and seconds of a child that ends, or None if it was killed.

    That is `delay` seconds after the fit began, or, `as_it_writes`, after it began to write a file.
    """
    here, there = context.Pipe()
    child = context.Process(target=train, args=(name, folder, there))
    child.start()
    there.close()
    try:
        here.recv()  # "begin"
        while as_it_writes and not here.poll() and not list(Path(folder).glob("*.tmp")):
            pass
        if delay is not None and not here.poll(delay):
            child.kill()
            return None
        return here.recv()
    finally:
        child.join()
        here.close()


def main():
    """Kill until there is enough."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    context = multiprocessing.get_context("fork")  # of a process that has imported and compiled
    table = {name: dict.fromkeys(("kills", "writing", "empty", "ended"), 0) for name in SETTINGS}
    whole = {name: fit(name) for name in SETTINGS}
    with tempfile.TemporaryDirectory() as root:
        wrong, kills = 0, 0
        while kills < options.kills:
            name = min(table, key=lambda name: table[name]["kills"])
            row, (expected, seconds) = table[name], whole[name]
            folder, found = Path(root, "broken"), None
            for attempt in range(MOST):
                writes = attempt % 2 == 1
                delay = moments.uniform(0, 0.01 if writes else seconds)
                found = run(context, name, str(folder), delay, writes)
                if found is not None:
                    break
                left = [path.suffix for path in folder.glob("*")]
                kills += 1
                row["kills"] += 1
                row["writing"] += ".tmp" in left
                row["empty"] += ".npz" not in left
            found = found or run(context, name, str(folder))
            row["ended"] += 1
            wrong += found[0] != expected
            assert not list(folder.glob("*")), "a fit that ended leaves its folder empty"
            print(f"{kills} kills, {wrong} wrong", file=sys.stderr, flush=True)
    print(
        f"{'setting':40} {'kills':>6} {'as it wrote':>12} {'before epoch 2':>15} {'fits ended':>11}"
    )
    for name, row in table.items():
        print(f"{name:40} {row['kills']:6} {row['writing']:12} {row['empty']:15} {row['ended']:11}")
    ended = sum(row["ended"] for row in table.values())
    print(f"{kills} kills; {ended - wrong} of {ended} fits ended with the bits of an unbroken one")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
