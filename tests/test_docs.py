"""The documentation: its snippets run, and it lists what is public."""

import doctest
import importlib.util
import inspect
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import sklearn
from sklearn.utils.fixes import parse_version

import skxmc
from skxmc import samplers

DOCS = Path(__file__).resolve().parents[1] / "docs"
NEWEST = parse_version(sklearn.__version__) >= parse_version("1.9")


@pytest.mark.parametrize("page", ["callbacks", "going_on"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_the_guide_shows_is_what_is_printed(page):
    if page == "callbacks" and not NEWEST:
        pytest.skip("callbacks are of scikit-learn 1.9")
    found = doctest.testfile(
        str(DOCS / "guide" / f"{page}.rst"),
        module_relative=False,
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert found.attempted > 5
    assert found.failed == 0


def test_the_tutorial_prints_what_it_shows():
    """Its texts are those of the versions that it was written with."""
    pinned = (DOCS.parent / "constraints.txt").read_text().splitlines()
    for name in ("scikit-learn", "scipy"):
        if f"{name}=={version(name)}" not in pinned:
            pytest.skip(f"{name} {version(name)} is not the one of constraints.txt")
    page = str(DOCS / "guide" / "tutorial.rst")
    plain = {name: value for name, value in os.environ.items() if name != "SCIPY_ARRAY_API"}
    run = subprocess.run(
        [sys.executable, "-m", "doctest", "-o", "NORMALIZE_WHITESPACE", page],
        env=plain,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_api_lists_every_public_class_and_function():
    text = (DOCS / "api.rst").read_text().split()
    modules = [skxmc, *(getattr(skxmc, n) for n in skxmc.__all__)]
    modules += [
        importlib.import_module(f"skxmc.{n}")
        for n in ("distributed", "ensemble", "inspection", "persistence", "presets")
    ]
    names = [
        f"{module.__name__}.{name}"
        for module in modules
        if inspect.ismodule(module)
        for name in module.__all__
        if inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name))
    ]
    assert f"{samplers.__name__}.UniformSampler" in names
    assert [name for name in names if name not in text] == []


def test_the_figure_of_the_front_page_reads_the_tables(tmp_path):
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("front", DOCS / "front.py")
    front = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(front)
    n_labels, table = front.read_table(DOCS / "benchmarks" / "tate" / "table.txt")
    assert n_labels == "16,455"
    assert {"skxmc", "pecos-tree", "popular"} <= set(table)
    assert table["popular"][0] == "17.11"
    front.draw(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 10_000
