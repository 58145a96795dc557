"""The examples that the guide quotes run, and print what the guide says they show."""

import importlib.util
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone

from skxmc._ends import Rows
from skxmc.samplers import Problem

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
GUIDE = EXAMPLES.parent / "docs" / "guide" / "extending.rst"


@pytest.fixture(scope="module")
def own_sampler():
    spec = importlib.util.spec_from_file_location("own_sampler", EXAMPLES / "own_sampler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_prints_a_precision_for_each_sampler_loss_and_parameter(own_sampler, capsys):
    own_sampler.main(n_samples=800, n_labels=60)
    printed = capsys.readouterr().out
    rows = re.findall(r"^(.*\S) +(bce|focal) +([\d.]+) +([\d.]+)$", printed, re.MULTILINE)
    assert len(rows) == 5
    assert sum("look-alike" in name for name, *_ in rows) == 2
    for _, _, p1, p5 in rows:
        # The most frequent label of this data is right in 22 of 100 rows.
        assert 40 < float(p1) < 95
        assert 20 < float(p5) < float(p1)
    found = re.findall(r"n_negatives\': (\d+)}  P@1 ([\d.]+)$", printed, re.MULTILINE)
    assert [n for n, _ in found] == ["1", "5", "20"]
    assert all(40 < float(p1) < 95 for _, p1 in found)
    assert len({p1 for _, p1 in found}) > 1


def test_the_sampler_of_the_example_proposes_labels_that_occur_together(own_sampler):
    """Labels 0 to 3 occur in pairs, and labels 4 to 7; the last row has none."""
    Y = np.zeros((13, 8), np.float32)
    for i, pair in enumerate(itertools.combinations(range(4), 2)):
        Y[i, list(pair)] = Y[6 + i, np.array(pair) + 4] = 1
    Y = sp.csr_array(Y)
    counts = np.bincount(Y.indices, minlength=8)
    sampler = clone(own_sampler.LookAlikeSampler(4, n_look_alikes=3))
    sampler.begin(Problem(Rows.of(Y, values=False), counts))
    labels = sampler.propose(np.arange(13), np.random.default_rng(0)).labels
    assert labels.shape == (13, 4)
    assert labels.dtype == np.int32
    assert set(labels[:6].ravel().tolist()) == {0, 1, 2, 3}
    assert set(labels[6:12].ravel().tolist()) == {4, 5, 6, 7}
    assert (labels[12] == -1).all()


def test_the_guide_quotes_parts_that_exist(own_sampler):
    text = (EXAMPLES / "own_sampler.py").read_text()
    marks = re.findall(r":(?:start-after|end-before): (# .*)", GUIDE.read_text())
    assert len(marks) == 6
    assert all(text.count(mark) == 1 for mark in marks)


def test_the_tail_bias_example_prints_what_auto_chose_and_draws(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    options = ["--rows", "2000", "--labels", "100", "--epochs", "3", "--jobs", "1"]
    importlib.import_module("tail_bias").main([*options, "--output", str(tmp_path)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = [line for line in lines if re.fullmatch(r"-?[\d.]+", (line or [""])[0])]
    assert [float(row[0]) for row in table] == [-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1]
    assert sum(row[-1] == "auto" for row in table) == 1
    scores = np.array([row[1:7] for row in table], float)
    assert scores.min() > 0
    assert scores.max() <= 100
    assert scores[-1, 5] > scores[0, 5]  # PSP@5
    assert (tmp_path / "tail_bias.png").stat().st_size > 10_000
