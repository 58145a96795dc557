"""Runs in processes of their own: find the Python, start it, watch its time and memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORKER = Path(__file__).with_name("worker.py")


def python_of(method, environments):
    """The Python that has the method's library, in its own environment or in ours, or None."""
    own = [environments / method.environment] if environments and method.environment else []
    # No resolve(): a virtual environment's Python is a link, and knows itself by the link's name.
    for python in [*(folder.absolute() / "bin" / "python" for folder in own), Path(sys.executable)]:
        if method.module is None:
            return sys.executable
        look = f"import importlib.util as u, sys; sys.exit(u.find_spec({method.module!r}) is None)"
        if python.exists() and subprocess.run([python, "-c", look], check=False).returncode == 0:
            return python
    return None


def execute(python, data, job, timeout):
    """What the run measured and its ranked columns; or why there is nothing, and None."""
    with tempfile.TemporaryDirectory(dir=data) as folder:
        folder = Path(folder)
        with open(folder / "log.txt", "w+b") as log:
            process = subprocess.Popen(
                [python, WORKER, data, folder, json.dumps(job)],
                stdout=log, stderr=log, env=_environment(job["threads"]), start_new_session=True,
            )  # fmt: skip
            try:
                peak = _watch(process, folder / "top.npy", time.monotonic() + timeout)
            finally:
                if process.poll() is None:  # too slow, or the benchmark was interrupted
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if peak is None:
                return {"note": f"stopped after {timeout:,.0f} s", "timeout": timeout}, None
            if process.returncode:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                return {"note": "failed: " + (lines or [f"code {process.returncode}"])[-1]}, None
        result = json.loads((folder / "run.json").read_text())
        result["peak_mb"] = max(result["peak_mb"], peak)
        return result, np.load(folder / "top.npy")


def _environment(threads):
    """The environment variables, with a limit on the threads of every numerical library."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    return {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in names}}


def _watch(process, until, deadline):
    """Peak memory in MB of the process and its children until a file is there; None: too slow."""
    peak = 0.0
    while process.poll() is None:
        if time.monotonic() > deadline:
            return None
        if not until.exists():
            peak = max(peak, sum(map(_memory, _family(process.pid))))
        time.sleep(0.1)
    return peak


def _family(pid):
    """A process and all its descendants; only itself where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return [pid]
    return [pid, *(member for child in text.split() for member in _family(int(child)))]


def _memory(pid):
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has just ended
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
