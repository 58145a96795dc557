"""Matrix products in float32, or of bfloat16 numbers with sums in float32.

No setting of torch is changed: what is rounded is seen in the code, and lasts for one product.
"""

from __future__ import annotations

from skxmc._lazy import torch

DTYPES = ("float32", "bfloat16")


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(n, k) x (k, m) -> (n, m) float32, without a gradient of its own.

    Of bfloat16 the processor sums in float32; a GPU returns these sums as they are, a CPU rounds
    them to bfloat16 once, which is all that it has.
    """
    if a.dtype == torch.float32:
        return a @ b
    if a.device.type == "cuda" and hasattr(torch.ops.aten.mm, "dtype"):  # torch 2.8
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


def affine(bias: torch.Tensor, x: torch.Tensor, matrix: torch.Tensor, dtype: str) -> torch.Tensor:
    """Return x @ matrix + bias, with a gradient: float32 but for what is multiplied."""
    if dtype == "float32":
        return torch.addmm(bias, x, matrix)
    dtype = getattr(torch, dtype)
    return (x.to(dtype) @ matrix.to(dtype)).float() + bias
