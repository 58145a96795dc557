"""What a fit needs of a GPU's memory, told before it begins, and what would fit instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from skxmc._lazy import torch

# Scores that exist at a time where a step goes over blocks of all labels. On a CPU they are to stay
# in its caches; a GPU is to be busy.
_CELLS = {"cpu": 2**18, "cuda": 2**25}

_FLOAT = 4  # bytes
_SHARED = 2_000  # labels in a shortlist, about


def block_size(n_rows: int, width: int, device: torch.device) -> int:
    """Labels in a block, of which there are (B, size) scores and (size, width) gradients."""
    return max(1, _CELLS[device.type] // max(n_rows, width))


@dataclass(frozen=True)
class Need:
    """A fit in numbers, of which its memory on a device follows: exact for all that is large."""

    device: str
    n_features: int
    n_labels: int
    sizes: tuple[int, ...]  # of the hidden layers
    n_members: int
    batch_size: int
    n_entries: int  # of a row of X
    dense: bool  # X
    all_labels: bool  # each step scores them all ...
    by_blocks: bool  # ... a block at a time
    predicts: bool  # while the members are there, of which it takes a merged copy

    def parts(self) -> tuple[int, int, int]:
        """Bytes of the weights, of what Adagrad remembers, and of a step, about."""
        f, n_labels, b = self.n_features, self.n_labels, self.batch_size
        first, last = self.sizes[0], self.sizes[-1]
        middle = sum(m * n for m, n in zip(self.sizes, self.sizes[1:], strict=False))
        weights = f * first + n_labels * (last + 1) + middle
        remembered = f + 2 * n_labels + middle
        gradients = f * first if self.dense else b * self.n_entries * first  # of the features
        columns = n_labels if self.all_labels else min(n_labels, _SHARED)
        if self.by_blocks:
            columns = min(columns, block_size(b, last, torch.device(self.device)))
        step = 3 * gradients + 8 * b * columns + 3 * columns * last
        weights *= self.n_members * (2 if self.predicts else 1)
        return _FLOAT * weights, _FLOAT * self.n_members * remembered, _FLOAT * step

    def smaller(self, free: int) -> list[str]:
        """Parameters that would fit, as they are written in Python; most of each."""

        def widths(last):
            return tuple(max(1, size * last // self.sizes[-1]) for size in self.sizes)

        choices = {
            "hidden_layer_sizes": (self.sizes[-1], lambda n: {"sizes": widths(n)}),
            "n_estimators": (self.n_members, lambda n: {"n_members": n}),
            "batch_size": (self.batch_size, lambda n: {"batch_size": n}),
        }
        out = []
        for name, (most, change) in choices.items():
            low, high = 0, most  # low fits, high does not
            while high - low > 1:
                n = (low + high) // 2
                fits = sum(replace(self, **change(n)).parts()) <= free
                low, high = (n, high) if fits else (low, n)
            if low:
                out.append(f"{name}={widths(low) if name == 'hidden_layer_sizes' else low}")
        return out

    def check(self) -> None:
        """MemoryError where the device has less than the fit needs."""
        if torch.device(self.device).type == "cuda":
            free = free_bytes(self.device)
            if sum(self.parts()) > free:
                raise MemoryError(self.explain(free))

    def explaining(self) -> AbstractContextManager[None]:
        """Let what the device has no memory for be a MemoryError that says what would fit."""
        return _explaining(self.device, self.explain)

    def explain(self, free: int) -> str:
        """Needs, what there is, and what would fit."""
        weights, remembered, step = map(as_text, self.parts())
        text = (
            f"device={self.device!r} has {as_text(free)} free for this fit, which needs about "
            f"{as_text(sum(self.parts()))}: {weights} for the weights"
            f"{' (twice, to predict held-out rows)' if self.predicts else ''}, {remembered} for "
            f"the optimiser and {step} for a step. "
        )
        if sum(self.parts()) <= free:
            less = f"batch_size={max(1, self.batch_size // 2)}"
            return f"{text}That is near: try {less}, or device='cpu'."
        choices = self.smaller(free)
        if not choices:
            return f"{text}Not even one hidden unit would fit: use device='cpu'."
        return f"{text}What would fit: {', or '.join(choices)}; or use device='cpu'."


def explaining_prediction(device: torch.device, n_bytes: int) -> AbstractContextManager[None]:
    """The same where a fitted model predicts, whose weights have so many bytes."""
    return _explaining(
        device,
        lambda free: (
            f"device={str(device)!r} has {as_text(free)} free for this model, which needs "
            f"{as_text(n_bytes)} for its weights, and about 1 GB for a block of scores. Predict on "
            "the CPU: clf.set_params(device='cpu')."
        ),
    )


@contextmanager
def _explaining(device: str | torch.device, explain: Callable[[int], str]) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        # What this process holds is taken to be the work's own.
        free = free_bytes(device) + torch.cuda.memory_allocated(device)
        raise MemoryError(explain(free)) from error


def free_bytes(device: str | torch.device) -> int:
    """Bytes that torch could allocate: of the device's own, and of those that it keeps unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def as_text(n_bytes: int) -> str:
    """1.5 GB."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
