"""The benchmark command on a tiny problem: ours, a scikit-learn peer, and one that is absent.

Peers other than scikit-learn need environments of their own, so that no test runs them.
"""

import csv
import importlib
import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

# The oldest matplotlib and today's pyparsing do not agree.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "benchmark"
PICTURES = ("precision_over_fit_time.png", "precision_over_deciles.png")
RANKING = ("P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5")
SMALL = "{'max_iter': 2, 'hidden_layer_sizes': (8,)}"


@pytest.fixture(scope="module")
def parts():
    """The modules of the command, which are no package: it runs as a script."""
    names = ("data", "libraries", "methods", "pictures", "processes", "ranking", "report", "run")
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def command(parts, tmp_path_factory):
    """The command with all runs into one folder; returns what it prints."""
    output = tmp_path_factory.mktemp("benchmark")

    def run(*arguments):
        arguments = ["--output", output, "--labels", "12", "--threads", "1", *arguments]
        with redirect_stdout(StringIO()) as printed:
            parts.run.main(list(map(str, arguments)))
        return printed.getvalue()

    return run, output


@pytest.fixture(scope="module")
def first(parts, command):
    """Two methods that are installed and one that is not, once each."""
    run, output = command
    parts.methods.METHODS["absent"] = parts.methods.Method("none", None, "absent", "no_such_module")
    methods = ("sklearn-ovr", "popular", "absent")
    return run("--methods", *methods, "--skxmc", f"small:{SMALL}", "--repeats", "1"), output


def read_table(output):
    with open(output / "table.csv", encoding="utf8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_the_table_has_a_row_of_numbers_for_each_method(first):
    printed, output = first
    table = read_table(output)
    assert set(table) == {"sklearn-ovr", "popular", "absent", "skxmc small"}
    for name in ("sklearn-ovr", "popular", "skxmc small"):
        row = {
            key: float(value) for key, value in table[name].items() if key not in ("method", "note")
        }
        assert all(0 < row[metric] <= 100 for metric in RANKING), name
        assert row["runs"] == 1
        assert row["spread"] == 0
        assert row["rows/s"] > 0
        assert 10 < row["peak MB"] < 10_000
        assert name in printed
    assert float(table["skxmc small"]["fit s"]) > 0
    assert float(table["skxmc small"]["CPU s"]) > 0


def test_a_library_that_is_not_installed_is_named_and_no_crash(first):
    printed, output = first
    assert read_table(output)["absent"]["note"] == "not installed"
    assert "absent: **not installed**" in printed


def test_the_printed_table_is_the_one_in_the_file_with_machine_and_versions(first):
    printed, output = first
    text = (output / "table.txt").read_text(encoding="utf8")
    assert text in printed
    assert "skxmc 0." in text
    assert "scikit-learn" in text
    assert "cores" in text
    rules = [line for line in text.splitlines() if line.startswith("===")]
    assert len(rules) == 3
    assert len(set(rules)) == 1


def test_the_pictures_are_there(first):
    _, output = first
    for name in PICTURES:
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_measured_stays_and_only_what_is_missing_runs(command, first):
    run, output = command
    before = (output / "runs.jsonl").read_text(encoding="utf8")
    printed = run("--methods", "popular", "--repeats", "2")
    after = (output / "runs.jsonl").read_text(encoding="utf8")
    assert after.startswith(before)
    added = [json.loads(line) for line in after[len(before) :].splitlines()]
    assert [(run["row"], run["repeat"]) for run in added] == [("popular", 1)]
    assert "repeat 1" not in printed
    table = read_table(output)
    assert (table["popular"]["runs"], table["sklearn-ovr"]["runs"]) == ("2", "1")

    for name in PICTURES:
        (output / name).unlink()
    run("--report-only")
    assert read_table(output).keys() - {"absent"} == table.keys() - {"absent"}
    assert (output / PICTURES[0]).exists()
    assert (output / "runs.jsonl").read_text(encoding="utf8") == after


def test_a_run_that_takes_too_long_is_stopped_and_noted(command, tmp_path):
    run, _ = command
    late = ["--methods", "popular", "--repeats", "1", "--timeout", "0", "--output", tmp_path]
    assert "popular: **stopped after 0 s**" in run(*late)
    assert read_table(tmp_path)["popular"]["note"] == "stopped after 0 s"


# -- the parts -------------------------------------------------------------------------------------


def test_bins_hold_a_tenth_of_the_positives_each(parts):
    frequency = np.array([0, 5, 1, 90, 4, 0, 100] + [1] * 790 + [10])
    bins = parts.data.bins_of(frequency)
    assert (bins[frequency == 0] == -1).all()
    order = np.argsort(frequency[frequency > 0], kind="stable")
    assert (np.diff(bins[frequency > 0][order]) >= 0).all()
    held = np.bincount(bins[bins >= 0], frequency[bins >= 0])
    assert len(held) == 10
    assert held.sum() == 1000
    assert (abs(held - 100) <= 11).all()


def test_labels_without_a_training_row_keep_their_columns(parts):
    Y = sp.csr_array(np.array([[0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]], dtype=np.float32))
    Y_test = sp.csr_array(np.array([[1, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float32))
    X, X_test = sp.csr_array(np.eye(3)), sp.csr_array(np.eye(3)[:2])
    problem = parts.data.Data(X, Y, X_test, Y_test, "tiny", 0.55, 1.5)
    assert problem.Y.shape == (3, 2)
    scores = problem.measure(np.array([[0, 1, -1, -1, -1], [1, -1, -1, -1, -1]]))
    assert scores["P@1"] == 100
    assert scores["P@3"] == pytest.approx(100 / 3)
    assert [share for share in scores["found"] if share is not None] == [100, 100]


def test_rankings_of_dense_sparse_and_listed_scores_agree(parts):
    ranking = parts.ranking
    scores = np.random.default_rng(0).permutation(28).reshape(4, 7) + 1.0
    expected = np.argsort(-scores, axis=1)[:, :5]
    assert (ranking.best_of_dense(scores) == expected).all()
    assert (ranking.best_of_sparse(sp.csr_matrix(scores)) == expected).all()
    assert (ranking.best_of_lists(expected.tolist()) == expected).all()
    few = ranking.best_of_sparse(sp.csr_matrix([[0.0, -2.0, -1.0]]))
    assert few.tolist() == [[2, 1, -1, -1, -1]]
    assert ranking.best_of_dense(np.array([[1.0, 2.0]])).tolist() == [[1, 0]]
