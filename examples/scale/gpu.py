"""Training against all labels on a GPU: samples a second, share of its peak, memory, and P@1.

    python examples/scale/gpu.py
    python examples/scale/gpu.py --labels 41000 --batch 4096 --tflops 312
    python examples/scale/gpu.py --device cpu --labels 500 --width 16 --batch 32 --steps 8

For each number of labels and each compute_dtype, a network of one member is fitted with the sampler
"full" for two epochs, the second of which is timed. A sample costs 6 x labels x width operations:
its scores, and the gradients of its hidden vector and of the labels. The peak is that of the data
sheet, for dense matrices; --tflops gives another. At last a small problem is fitted on the CPU and
on the device, and the P@1 of both is printed.
"""

import argparse
import time

import numpy as np
import scipy.sparse as sp
import torch

from skxmc import XMCClassifier
from skxmc.datasets import make_xmc
from skxmc.metrics import precision_at_k

# TFLOP/s by data sheet, dense, without TF32, which skxmc does not turn on.
PEAKS = {
    "H200": {"bfloat16": 989, "float32": 67},
    "H100": {"bfloat16": 989, "float32": 67},
    "A100": {"bfloat16": 312, "float32": 19.5},
    "L40S": {"bfloat16": 362, "float32": 91.6},
    "RTX 4090": {"bfloat16": 165, "float32": 82.6},
}


def make_rows(n_rows, n_labels, n_features=50_000, n_words=40):
    """Rows whose words mean nothing, and as many labels each as it takes for all to have a row."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, n_features, (n_rows, n_words))
    values = np.full(words.size, 1 / np.sqrt(n_words), np.float32)
    X = sp.csr_array((values, words.ravel(), np.arange(n_rows + 1) * n_words), (n_rows, n_features))
    X.sum_duplicates()
    each = -(-n_labels // n_rows)
    labels = np.resize(rng.permutation(n_labels), (n_rows, each))
    ones = np.ones(labels.size, np.float32)
    Y = sp.csr_array((ones, labels.ravel(), np.arange(n_rows + 1) * each), (n_rows, n_labels))
    Y.sum_duplicates()
    Y.data[:] = 1
    return X, Y


def peak(device, dtype):
    """TFLOP/s of the device, None where it is not in the table."""
    if device == "cpu":
        return None
    name = torch.cuda.get_device_name(device)
    return next((values[dtype] for key, values in PEAKS.items() if key in name), None)


def measure(options, n_labels, dtype):
    """Fit, and print a line."""
    cuda = options.device != "cpu"
    X, Y = make_rows(options.batch * options.steps, n_labels)
    clf = XMCClassifier(
        "full", hidden_layer_sizes=(options.width,), n_estimators=1, max_iter=2, tail_bias=0.0,
        batch_size=options.batch, device=options.device, compute_dtype=dtype, random_state=0,
        n_jobs=1,
    )  # fmt: skip
    if cuda:
        torch.cuda.reset_peak_memory_stats(options.device)
    try:
        clf.fit(X, Y)
    except MemoryError as error:
        print(f"{n_labels:9,}  {dtype:8}  {error}")
        return
    rate = X.shape[0] / clf.epoch_seconds_[1]
    tflops = rate * 6 * n_labels * options.width / 1e12
    most = options.tflops or peak(options.device, dtype)
    share = f"{tflops / most:6.1%}" if most else "     ?"
    memory = torch.cuda.max_memory_allocated(options.device) / 1e9 if cuda else float("nan")
    print(
        f"{n_labels:9,}  {dtype:8}  {rate:11,.0f} samples/s  {tflops:8.3f} TFLOP/s  {share} of "
        f"peak  {memory:6.1f} GB",
        flush=True,
    )


def compare(options):
    """P@1 of one small problem on the CPU and on the device."""
    X, Y = make_xmc(4000, 2000, 200, random_state=0)
    for device, dtype in dict.fromkeys(
        [("cpu", "float32"), *((options.device, dtype) for dtype in options.dtypes)]
    ):
        clf = XMCClassifier(
            "full", hidden_layer_sizes=(64,), max_iter=5, tail_bias=0.0, device=device,
            compute_dtype=dtype, random_state=0, n_jobs=1,
        )  # fmt: skip
        start = time.perf_counter()
        clf.fit(X[:3000], Y[:3000])
        seconds = time.perf_counter() - start
        score = precision_at_k(Y[3000:], clf.predict_topk(X[3000:], 1)[0], k=1)
        print(f"{device:6}  {dtype:8}  P@1 {100 * score:.1f}  fit {seconds:.1f} s", flush=True)


def main(arguments=None):
    """Measure and compare, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--labels", type=int, nargs="+", default=[41_000, 670_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1024, help="rows in a step")
    parser.add_argument("--steps", type=int, default=50, help="in an epoch")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--tflops", type=float, help="peak of the device, in place of the table's")
    options = parser.parse_args(arguments)
    name = "CPU" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    print(f"{name}, torch {torch.__version__}, width {options.width}, batch {options.batch}")
    for n_labels in options.labels:
        for dtype in options.dtypes:
            measure(options, n_labels, dtype)
    compare(options)


if __name__ == "__main__":
    main()
