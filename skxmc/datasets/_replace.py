"""Files that appear as a whole or not at all."""

import os
import secrets
import shutil
from contextlib import contextmanager, suppress


@contextmanager
def replacing(path):
    """The name of a file to write beside `path`, which takes its place at the end."""
    target = os.path.realpath(os.fsdecode(path))  # write through a link, not over it
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"The folder {folder} does not exist; make it first.")
    temporary = f"{target}.{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        if os.path.isfile(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:  # an interrupt, too, must leave nothing behind
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def sync_folder(folder):
    """Bring the names in a folder to disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
