"""The programs in examples/experiments run, and print and draw what they promise."""

import csv
import importlib
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from skxmc.datasets import make_xmc, save_xmc_file

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "experiments"
TINY = ["--rows", "800", "--labels", "120", "--width", "8"]


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a program; returns the rows of its table, which it also prints, as dicts."""
    monkeypatch.syspath_prepend(FOLDER)
    get_reusable_executor().shutdown()  # workers of a test before know an older path

    def run(name, *options):
        importlib.import_module(name).main([*TINY, *options, "--output", str(tmp_path)])
        printed = capsys.readouterr().out
        with (tmp_path / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            assert " ".join(" ".join(row.values()).split()) in " ".join(printed.split())
        shades = np.unique(matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3])
        assert len(shades) > 10  # not blank
        return rows

    return run


def percentages(rows, columns):
    values = np.array([[float(row[c]) for c in columns] for row in rows])
    assert values.min() >= 0
    assert values.max() <= 100
    return values


SCORES = ["P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5"]


def test_hard_negatives(run, tmp_path):
    rows = run(
        "hard_negatives", "--total", "30", "--hard", "30", "5", "--intervals", "0.5", "2",
        "--epochs", "3",
    )  # fmt: skip
    assert [(row["negatives"], row["look-up"]) for row in rows] == [
        ("30 hard", "0.5"), ("30 hard", "2"),
        ("5 hard + 25 uniform", "0.5"), ("5 hard + 25 uniform", "2"),
    ]  # fmt: skip
    values = percentages(rows, ["final P@1", "best", "worst drop"])
    assert (values[:, 0] <= values[:, 1]).all()
    with (tmp_path / "hard_negatives_spread.csv").open() as file:
        spread = [float(row["spread"]) for row in csv.DictReader(file)]
    final = values[:, 0].reshape(2, 2)
    np.testing.assert_allclose(spread, np.ptp(final, axis=1), atol=0.011)


def test_negative_mining(run):
    rows = run("negative_mining", "--pools", "10", "40", "--kept", "1", "20", "--epochs", "1")
    tried = [(row["loss"], row["pool"], row["kept"]) for row in rows]
    one_loss = [("10", "1"), ("10", "10"), ("40", "1"), ("40", "20"), ("40", "40")]
    assert tried == [(loss, *pair) for loss in ("bce", "hinge") for pair in one_loss]
    percentages(rows, SCORES)


def test_everything_on_a_file_two_at_a_time(run, tmp_path):
    X, Y = make_xmc(800, 800, 120, random_state=0)
    save_xmc_file(tmp_path / "train.txt", X, Y)
    rows = run(
        "everything", "--samplers", "in-batch", "snm+in-batch", "--losses", "bce", "owl",
        "--budget", "0.3", "--data", str(tmp_path / "train.txt"), "--jobs", "2",
    )  # fmt: skip
    assert [(row["sampler"], row["loss"]) for row in rows] == [
        ("in-batch", "bce"), ("in-batch", "owl"), ("snm+in-batch", "bce"), ("snm+in-batch", "owl"),
    ]  # fmt: skip
    percentages(rows, SCORES)
    assert all(int(row["epochs"]) >= 2 and float(row["CPU s"]) > 0 for row in rows)


def test_label_embeddings(run, tmp_path):
    betas = ["1", "0.5", "0"]
    rows = run("label_embeddings", "--epochs", "4", "--cycles", "1", "3", "--betas", *betas)
    names = ["mips+uniform", "mips+in-batch+uniform", "label-embedding", "label-embedding+others"]
    assert [(row["negatives"], row["cycles"]) for row in rows] == [
        *((name, "-") for name in names[:2]),
        *((name, cycles) for name in names[2:] for cycles in "13"),
        ("label-embedding+residual", "3"),
    ]
    values = percentages(rows, SCORES)
    with (tmp_path / "label_embeddings_fusion.csv").open() as file:
        fused = list(csv.DictReader(file))
    assert [(row["late fusion"], row["beta"]) for row in fused] == [
        (name, beta) for name in names[1:] for beta in betas
    ]
    np.testing.assert_array_equal(percentages(fused[::3], SCORES), values[[1, 3, 5]])  # beta 1
    # 800 features and 120 labels, 8 wide, and biases; fusion and shortlists, an embedding a label.
    sizes = [float(row["MB"]) for row in (rows[0], rows[-1], *fused[:2])]
    exact = 800 * 8 + 8 + 120 * 9 + np.array([0, 8 * 9 + 120 * 8, 0, 120 * 8])
    np.testing.assert_allclose(sizes, 4e-6 * exact, atol=0.0051)
