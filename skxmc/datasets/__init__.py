"""Data: synthetic problems that look like real ones, the field's text files, and large matrices."""

from skxmc.datasets._disk import CSRWriter, open_csr, save_csr
from skxmc.datasets._files import convert_xmc_file, load_xmc_file
from skxmc.datasets._make import make_xmc
from skxmc.datasets._save import save_xmc_file

__all__ = [
    "CSRWriter",
    "convert_xmc_file",
    "load_xmc_file",
    "make_xmc",
    "open_csr",
    "save_csr",
    "save_xmc_file",
]
