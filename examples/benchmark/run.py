"""Compare XMCClassifier with other libraries on one data set: precision, time, memory, pictures.

    python run.py                                            a synthetic problem of 1,000 labels
    python run.py --data train.txt.gz --test-data test.txt   files of the Extreme Classification
                                                             Repository (or svmlight, multilabel)

Each run is a process of its own, in the virtual environment of its library where --venvs has one
(DIR/omikuji, DIR/pecos, DIR/napkinxc, DIR/libmultilabel, DIR/skl); a library that is installed
nowhere is named and left out. All methods run in turn, then all again with another seed. What is
measured is kept in OUTPUT/runs.jsonl: the same command goes on where it was interrupted, and more
methods or repeats join what is there.
"""

import argparse
import ast
import json
import os
import platform
import tempfile
from pathlib import Path

from data import load
from methods import METHODS, find
from processes import execute, python_of
from report import write_report


def parse(arguments):
    """Arguments of the command line; None takes those of this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="training file, text, .gz too")
    add("--test-data", type=Path, help="test file; else a fifth is split off")
    add("--name", help="of the data, for the headings; the default is taken from the file's name")
    add("--idf", action="store_true", help="weigh the features by inverse document frequency")
    add("--labels", type=int, default=1_000, help="of the synthetic problem")
    add("--methods", nargs="*", default=list(METHODS), choices=METHODS, metavar="METHOD",
        help=f"of {', '.join(METHODS)}; the default is all")  # fmt: skip
    add("--skxmc", nargs="*", default=[], type=variant, metavar="NAME:PARAMETERS",
        help="more rows of ours, such as \"wide:{'hidden_layer_sizes': (1024,)}\"")  # fmt: skip
    add("--repeats", type=int, default=2)
    add("--threads", type=int, default=os.cpu_count())
    add("--timeout", type=float, default=3600, help="seconds that a run may take")
    add("--propensity", nargs=2, type=float, default=(0.55, 1.5), metavar=("A", "B"))
    add("--venvs", type=Path, help="folder of the libraries' virtual environments")
    add("--output", type=Path, default=Path("skxmc-results/benchmark"))
    add("--report-only", action="store_true", help="table and pictures of what was measured before")
    return parser.parse_args(arguments)


def variant(text):
    """Name and parameters of a row of ours."""
    name, _, parameters = text.partition(":")
    parameters = ast.literal_eval(parameters)
    if not name or not isinstance(parameters, dict):
        raise ValueError
    return name, parameters


def chosen(args):
    """The rows asked for: name -> (method, parameters)."""
    rows = {name: (name, None) for name in args.methods}
    return rows | {f"skxmc {name}": ("skxmc", parameters) for name, parameters in args.skxmc}


def machine():
    """The machine in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    info = Path("/proc/cpuinfo")
    vectors = " with AVX-512" if info.exists() and "avx512f" in info.read_text() else ""
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores{vectors}, {int(memory)} GB, {system}"


def read(path):
    """The runs so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_done(run, row, repeat, job, timeout):
    """Whether this run answers the job; one that was stopped does unless it now gets more time."""
    return (
        (run["row"], run["repeat"], run["job"]) == (row, repeat, job)
        and not run.get("note", "").startswith("failed")
        and run.get("timeout", timeout) >= timeout
    )


def run_all(args, path):
    """All runs that are not done yet, in turn; returns which rows' libraries are not installed."""
    data = load(args)
    print(data.facts["text"], flush=True)
    if any(run["data"]["checksum"] != data.facts["checksum"] for run in read(path)):
        raise SystemExit(f"{path} holds runs on other data: give another --output")
    rows = chosen(args)
    pythons = {row: python_of(find(*what), args.venvs) for row, what in rows.items()}
    with tempfile.TemporaryDirectory(prefix="skxmc-benchmark-") as folder:
        data.write(Path(folder))
        for repeat in range(args.repeats):
            for row in (row for row in rows if pythons[row]):
                name, options = rows[row]
                job = {"name": name, "options": options, "seed": repeat, "threads": args.threads}
                job = json.loads(json.dumps(job))  # as it is read back
                if any(is_done(run, row, repeat, job, args.timeout) for run in read(path)):
                    continue
                result, top = execute(pythons[row], Path(folder), job, args.timeout)
                scores = {} if top is None else data.measure(top)
                run = {"row": row, "repeat": repeat, "job": job, "machine": machine(),
                       "data": data.facts, **result, **scores}  # fmt: skip
                with open(path, "a") as file:
                    file.write(json.dumps(run) + "\n")
                said = run.get("note") or f"P@1 {run['P@1']:.2f}, {run['fit_seconds']:.1f} s"
                print(f"  repeat {repeat + 1}: {row}: {said}", flush=True)
    return [row for row in rows if pythons[row] is None]


def main(arguments=None):
    """Parse, run, report."""
    args = parse(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "runs.jsonl"
    missing = [] if args.report_only else run_all(args, path)
    write_report(read(path), missing, args.output)


if __name__ == "__main__":
    main()
