"""Data: synthetic problems that look like real ones, and the field's text files."""

from skxmc.datasets._files import load_xmc_file
from skxmc.datasets._make import make_xmc
from skxmc.datasets._save import save_xmc_file

__all__ = ["load_xmc_file", "make_xmc", "save_xmc_file"]
