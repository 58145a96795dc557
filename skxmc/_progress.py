"""Long work outside the epochs says now and then how far it is."""

import time

SECONDS = 5  # between two lines


def telling(blocks, what, n_rows, log=None):
    """The slices of rows in turn; `log(text)` hears every few seconds how many are done."""
    begin = said = time.perf_counter()
    for block in blocks:
        yield block
        now = time.perf_counter()
        if log is not None and now - said > SECONDS and block.stop < n_rows:
            said, left = now, (now - begin) * (n_rows / block.stop - 1)
            log(f"{what}: {block.stop:,} of {n_rows:,} rows, {left:.0f} s left")
