"""CPU microseconds a row that each part of a training step takes, and what the machine could do.

python examples/benchmark/step.py --data train.txt --width 512
"""

import argparse
import time

import numpy as np
import torch

from skxmc import XMCClassifier, _training
from skxmc._network import Network
from skxmc._products import product
from skxmc.datasets import load_xmc_file, make_xmc
from skxmc.losses import BinaryCrossEntropy
from skxmc.samplers import UnionSampler

PARTS = [
    (UnionSampler, "propose"),
    (_training, "make_shortlist"),
    (Network, "embed"),
    (Network, "forward"),
    (Network, "scores"),
    (BinaryCrossEntropy, "value_and_gradient"),
    (Network, "update_labels"),
    (Network, "update_features"),
    (_training._Worker, "step_middle"),
    (_training.Trainer, "step"),
]


class Done(Exception):
    """Enough steps have been measured."""


def timed(function, seconds):
    """The function, its CPU seconds appended at each call."""

    def run(*args, **kwargs):
        start = time.thread_time()
        out = function(*args, **kwargs)
        seconds.append(time.thread_time() - start)
        return out

    return run


def least(function, n=30):
    """The least CPU seconds of some calls: others' work only slows a call."""
    seconds = []
    for _ in range(n):
        timed(function, seconds)()
    return min(seconds)


def measure(X, y, width, batch_size, n_steps):
    """Part -> median CPU seconds a step; the first steps, which compile, are left out."""
    seconds = {name: [] for _, name in PARTS}
    before = {(owner, name): getattr(owner, name) for owner, name in PARTS}
    for (owner, name), function in before.items():
        setattr(owner, name, timed(function, seconds[name]))
    whole = _training.Trainer.step

    def step(*args):
        if len(seconds["step"]) == n_steps:
            raise Done
        return whole(*args)

    _training.Trainer.step = step
    clf = XMCClassifier(
        hidden_layer_sizes=(width,), n_estimators=1, batch_size=batch_size, max_iter=1000,
        tail_bias=0.0, n_jobs=1, device="cpu", random_state=0,
    )  # fmt: skip
    try:
        clf.fit(X, y)
    except Done:
        pass
    finally:
        for (owner, name), function in before.items():
            setattr(owner, name, function)
    return {name: float(np.median(a[len(a) // 5 :])) for name, a in seconds.items()}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a file of the Extreme Classification Repository's format")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    if args.data:
        X, y = load_xmc_file(args.data)
    else:
        X, y = make_xmc(n_samples=20_000, n_features=20_000, n_labels=2000, random_state=0)
    parts = measure(X, y, args.width, args.batch_size, args.steps)
    for name, seconds in parts.items():
        share = seconds / parts["step"]
        print(f"{name:20} {1e6 * seconds / args.batch_size:8.2f} us a row {share:6.1%}")

    torch.set_num_threads(1)
    hidden, table = torch.randn(args.batch_size, args.width), torch.randn(1024, args.width)
    flops = 2 * hidden.numel() * len(table) / least(lambda: product(hidden, table.T))
    memory = torch.zeros(64_000_000)
    speed = 4 * memory.numel() / least(memory.sum, 5)
    print(f"matrix product {flops / 1e9:.0f} GFLOP/s, memory read {speed / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
