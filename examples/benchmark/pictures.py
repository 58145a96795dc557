"""The two pictures, legible in grey: precision against fit time, and who finds rare labels."""

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image  # matplotlib brings it

DPI = 110
METRICS = ("P@1", "P@5", "PSP@5")
# Where a number may stand, in points from its point: there, or on rings around it.
TURNS = np.linspace(0, 2 * np.pi, 12, endpoint=False)
ASIDE = [(0, 0), *((r * np.cos(t), r * np.sin(t)) for r in range(16, 400, 8) for t in TURNS)]
FAR = 10.0  # points of precision@1 behind the best from which a method is named, not drawn


def split(rows):
    """The methods to draw, and the names of those far behind."""
    near = [row for row in rows if row["P@1"] > rows[0]["P@1"] - FAR]
    return near, [row["method"] for row in rows if row not in near]


def is_ours(row):
    """Whether a row is one of ours."""
    return row["last"]["job"]["name"] == "skxmc"


def draw_tradeoff(rows, path):
    """Precision over fit seconds: a number for each method, ours on black."""
    near, far = split(rows)
    figure, axes = plt.subplots(1, 4, figsize=(13, 4.8), layout="constrained",
                                width_ratios=[5, 5, 5, 3])  # fmt: skip
    seconds = [max(row["fit s"], 0.1) for row in near]
    for ax, metric in zip(axes, METRICS, strict=False):
        ax.plot(seconds, [row[metric] for row in near], "k.", markersize=3)
        ax.set(xscale="log", xlabel="fit (s)", title=f"{metric} (%)")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(min(seconds) / 1.6, max(seconds) * 1.6)
        ax.margins(y=0.08)
        ax.grid(alpha=0.3)
    axes[-1].axis("off")
    lines = [f"{number:2d}  {row['method']}" for number, row in enumerate(near, 1)]
    if far:
        lines += ["", f"{FAR:.0f} points behind:", *(f"    {name}" for name in far)]
    axes[-1].text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=8.5)
    figure.canvas.draw()  # only now the axes have their places
    for ax, metric in zip(axes, METRICS, strict=False):
        _number(ax, seconds, [row[metric] for row in near], [is_ours(row) for row in near])
    _save(figure, path)


def _save(figure, path):
    """Grey, which is smaller, and shows how it will be printed."""
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
    with Image.open(path) as image:
        image.convert("L").save(path, optimize=True)


def _number(ax, x, y, black):
    """Write 1, 2, ... at the points, aside where another number stands already."""
    points = ax.transData.transform(np.column_stack([x, y])) * 72 / ax.figure.dpi
    taken = np.empty((0, 2))
    for number, (point, ours) in enumerate(zip(points, black, strict=True), 1):
        away = next(a for a in ASIDE if (np.hypot(*(taken - point - a).T) > 15).all())
        taken = np.vstack([taken, point + away])
        face, ink = ("black", "white") if ours else ("white", "black")
        ax.annotate(
            str(number), (x[number - 1], y[number - 1]), away, textcoords="offset points",
            color=ink, ha="center", va="center", fontsize=8, arrowprops={"arrowstyle": "-"},
            bbox={"boxstyle": "circle,pad=0.2", "facecolor": face},
        )  # fmt: skip


def draw_deciles(rows, bins, path):
    """Per bin of label frequency the share of test positives found; the darker, the fewer."""
    near, _ = split(rows)
    columns = [i for i, share in enumerate(near[0]["found"]) if share is not None]
    shares = [[row["found"][i] for i in columns] for row in near]
    best = [max(column) for column in zip(*shares, strict=True)]
    behind = [[b - share for share, b in zip(row, best, strict=True)] for row in shares]
    figure, ax = plt.subplots(figsize=(11, 1.3 + 0.3 * len(near)), layout="constrained")
    ax.imshow(behind, cmap="Greys", vmin=0, vmax=20, aspect="auto")
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            ax.text(
                x, y, f"{share:.1f}", ha="center", va="center", fontsize=9,
                color="white" if behind[y][x] > 11 else "black",
                weight="bold" if behind[y][x] == 0 else "normal",
            )  # fmt: skip
    ax.set_yticks(range(len(near)), [row["method"] for row in near])
    for tick, row in zip(ax.get_yticklabels(), near, strict=True):
        tick.set_weight("bold" if is_ours(row) else "normal")
    ax.set_xticks(range(len(columns)), [_span(*bins[i]) for i in columns])
    ax.set_xlabel("training rows of the label; each column holds a tenth of the training positives")
    ax.set_title("Test positives among the first 5 (%); bold: the best; darker: behind it")
    ax.title.set_fontsize(10)
    ax.tick_params(length=0)
    _save(figure, path)


def _span(low, high):
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
