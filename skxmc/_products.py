"""Matrix products in float32, or of bfloat16 numbers with sums in float32.

No setting of torch is changed: what is rounded is seen in the code, and lasts for one product.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path

from skxmc._lazy import torch

DTYPES = ("float32", "bfloat16")
_STEP = 32  # sizes of which oneDNN multiplies multiples only: it compiles code for each shape


@functools.cache
def uses_onednn() -> bool:
    """Whether float32 products on this CPU may be those of oneDNN instead of MKL, torch's choice.

    On a processor of AMD with AVX-512 (Zen 5) MKL reaches half of what oneDNN does. The processor
    decides, and no stopwatch: equal calls give equal bits.
    """
    cpu_info = Path("/proc/cpuinfo")
    a, b = torch.arange(12.0).view(3, 4), torch.arange(20.0).view(4, 5)
    try:
        maker = cpu_info.read_text() if cpu_info.exists() else platform.processor()
        if "AuthenticAMD" not in maker or "AVX512" not in torch.backends.cpu.get_cpu_capability():
            return False
        return torch.equal(_onednn(a, b), a @ b)
    except (AttributeError, OSError, RuntimeError):
        return False


def _onednn(a, b):
    return _linear()(a, b.T, None, "none", [], "")


@functools.cache
def _linear():
    """Its function, which is not a public one: AttributeError where there is none."""
    try:
        return torch.ops.mkldnn._linear_pointwise.default
    except AttributeError:
        return torch.ops.onednn._linear_pointwise.default  # as torch may come to name it


def _is_plain(a, b):
    """Whether their product is torch's usual one."""
    if a.dtype != torch.float32:
        return False
    if a.device.type != "cpu" or not uses_onednn():
        return True
    return any(size == 0 or size % _STEP for size in (*a.shape, b.shape[1]))


def padded(n: int, device: torch.device, dtype: str) -> int:
    """How many rows a table of n rows is given for oneDNN's products, the last of them zeros.

    Of bfloat16, too, it is oneDNN that makes them on a CPU, whatever their shape.
    """
    if device.type != "cpu" or (dtype == "float32" and not uses_onednn()):
        return n
    return -(-n // _STEP) * _STEP


def widened(matrix: torch.Tensor, n: int) -> torch.Tensor:
    """The matrix with columns of zeros behind it, n in all; itself if it has as many."""
    width = matrix.shape[1]
    if n == width:
        return matrix
    out = matrix.new_empty(len(matrix), n)
    out[:, :width], out[:, width:] = matrix, 0
    return out


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(n, k) x (k, m) -> (n, m) float32, without a gradient of its own.

    Of bfloat16 the processor sums in float32; a GPU returns these sums as they are, a CPU rounds
    them to bfloat16 once, which is all that it has.
    """
    if _is_plain(a, b):
        return a @ b
    if a.dtype == torch.float32:
        return _onednn(a, b)
    if a.device.type == "cuda" and hasattr(torch.ops.aten.mm, "dtype"):  # torch 2.8
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


def add_product(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Add their product to `out`, (n, m) float32."""
    return out.addmm_(a, b) if _is_plain(a, b) else out.add_(product(a, b))


def shifted_product(
    bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    """Their product + bias, to `out`; columns that the bias has no number for are left out."""
    if _is_plain(a, b):
        return torch.addmm(bias, a, b[:, : len(bias)], out=out)
    return torch.add(product(a, b)[:, : len(bias)], bias, out=out)


def affine(bias: torch.Tensor, x: torch.Tensor, matrix: torch.Tensor, dtype: str) -> torch.Tensor:
    """Return x @ matrix + bias, with a gradient: float32 but for what is multiplied."""
    if dtype == "float32":
        return torch.addmm(bias, x, matrix)
    dtype = getattr(torch, dtype)
    return (x.to(dtype) @ matrix.to(dtype)).float() + bias
