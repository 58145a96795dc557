"""What a model of 100 million labels would take on several processes, from what was measured.

    python examples/scale/sharded_plan.py
    python examples/scale/sharded_plan.py --width 1024 --processes 8 16 32

Nothing is trained. The first group of options is the task, the second what `sharded.py` measured,
the third what is assumed of machines.
"""

import argparse

GB = 1e9


def plan(a, n):
    """The numbers of one line, by heading."""
    # A row: weights, what Adagrad remembers of it, and of labels the bias, which has one too.
    tables = 4 * (a.labels * (a.width + 3) + a.features * (a.width + 1)) / n
    memory = tables + a.label_bytes * a.labels + 1e6 * a.base_mb + 16 * a.rows
    payload = 4 * a.batch * (2 * a.width + a.places)
    sent = payload * 2 * (n - 1) / n
    wait = 3 * 2 * (n - 1) * a.hop_us / 1000  # three sums a step, each 2 (n - 1) hops
    compute = a.batch * a.row_us / 1000
    steps = a.rows / a.batch * a.epochs
    out = {
        "processes": f"{n}",
        "tables GB": f"{tables / GB:.1f}",
        "all GB": f"{memory / GB:.1f}",
        "machines": f"{-(-n // max(1, int(a.machine_gb * GB // memory)))}",
        "sent MB/step": f"{sent / 1e6:.2f}",
        "compute ms": f"{compute:.0f}",
    }
    if memory > a.machine_gb * GB:
        out["machines"] = "-"
    for speed in a.gigabits:
        network = 1000 * sent / (speed * GB / 8) + wait
        out[f"{speed:g} GbE ms"] = f"{network:.1f}"
        hours = steps * (compute + network) / 1000 / 3600
        out[f"hours at {speed:g}"] = f"{hours:.0f}"
    return out


def main():
    """Print a line for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    task = parser.add_argument_group("the task")
    task.add_argument("--labels", type=float, default=100e6)
    task.add_argument("--features", type=float, default=5e6)
    task.add_argument("--rows", type=float, default=100e6)
    task.add_argument("--epochs", type=int, default=5)
    task.add_argument("--width", type=int, default=256, help="one hidden layer, all members")
    task.add_argument("--batch", type=int, default=1024)
    task.add_argument("--places", type=int, default=210, help="positives and negatives of a row")
    measured = parser.add_argument_group("measured")
    measured.add_argument("--label-bytes", type=float, default=65, help="a label, in each process")
    measured.add_argument("--base-mb", type=float, default=300, help="the libraries")
    measured.add_argument("--row-us", type=float, default=100, help="CPU of a row in each process")
    assumed = parser.add_argument_group("assumed")
    assumed.add_argument("--machine-gb", type=float, default=58, help="of 64: the rest is the data")
    assumed.add_argument("--gigabits", type=float, nargs="+", default=[10, 25, 100])
    assumed.add_argument("--hop-us", type=float, default=50, help="a message by TCP")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    args = parser.parse_args()
    lines = [plan(args, n) for n in args.processes]
    print("  ".join(lines[0]))
    for line in lines:
        print("  ".join(cell.rjust(len(name)) for name, cell in line.items()))


if __name__ == "__main__":
    main()
