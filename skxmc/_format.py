"""In what form fitted estimators are stored: its number, and the refusal of a newer one."""

from functools import cache
from importlib.metadata import version

#: Raised when what a fitted estimator stores changes in a way that older code would misread.
FORMAT = 2


@cache
def own_version():
    """The version of skxmc."""
    return version("skxmc")


def refuse_newer(form, written_by, source):
    """Raise where `source`, a file or a pickle, has a form that this version does not know."""
    if form > FORMAT:
        raise ValueError(
            f"{source} was written by skxmc {written_by} with format {form}; this skxmc "
            f"{own_version()} reads up to {FORMAT}. Update skxmc."
        )
