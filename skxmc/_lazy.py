"""torch, imported when it is first used: it takes longer to import than all the rest together."""

import importlib
from typing import TYPE_CHECKING


class _Lazy:
    def __getattr__(self, attribute):
        module = importlib.import_module("torch")
        self.__dict__ = vars(module)  # so that what it has is found without this call
        return getattr(module, attribute)


if TYPE_CHECKING:
    import torch as torch
else:
    torch = _Lazy()
