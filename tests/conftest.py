"""What the test modules share."""

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")  # doctests that draw open no windows

import pytest
from hypothesis import settings

settings.register_profile("skxmc", deadline=None)  # a first call compiles
settings.load_profile("skxmc")


@pytest.fixture(scope="session")
def data_folder():
    """Folder of the real data sets: SKXMC_DATA, or what lies beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKXMC_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is missing; set SKXMC_DATA to its folder")
    return folder
