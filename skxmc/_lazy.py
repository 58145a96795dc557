"""torch, imported when it is first used: it takes longer to import than all the rest together."""

import importlib
from typing import TYPE_CHECKING


class _Lazy:
    def __init__(self, name):
        self._name, self._module = name, None

    def __getattr__(self, attribute):
        if self._module is None:
            self._module = importlib.import_module(self._name)
        return getattr(self._module, attribute)


if TYPE_CHECKING:
    import torch as torch
else:
    torch = _Lazy("torch")
