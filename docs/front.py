"""The front page's figure, drawn from the tables of docs/benchmarks."""

import re
from pathlib import Path

HERE = Path(__file__).parent
DATA = ["stackexchange4", "tate", "tibkat"]
METHODS = ["skxmc", "skxmc quick", "pecos-tree", "omikuji-parabel", "napkinxc-plt"]  # ours on top
COLUMNS = ["P@1", "PSP@5", "CPU s"]


def read_table(path):
    """The number of labels of a data set as text, and {method: [text of COLUMNS]} of its table."""
    lines = path.read_text().splitlines()
    n_labels = lines[0].split(" features, ")[1].split(" labels")[0]
    edges = [i for i, line in enumerate(lines) if line.startswith("====")]
    spans = [slice(*match.span()) for match in re.finditer("=+", lines[edges[0]])]
    header, *rows = (
        [lines[i][span].strip() for span in spans]
        for i in (edges[0] + 1, *range(edges[1] + 1, edges[2]))
    )
    places = [header.index(name) for name in COLUMNS]
    return n_labels, {row[0]: [row[place] for place in places] for row in rows}


def draw(path):
    """A dot for each method: a row of axes for each of COLUMNS, a column for each data set."""
    from matplotlib.figure import Figure

    tables = [read_table(HERE / "benchmarks" / data / "table.txt") for data in DATA]
    methods = [name for name in METHODS if all(name in table for _, table in tables)]
    places = range(len(methods))[::-1]
    colors = ["tab:blue" if name.startswith("skxmc") else "0.5" for name in methods]
    figure = Figure(figsize=(9, 1.1 + 0.72 * len(methods)), layout="constrained")
    axes = figure.subplots(len(COLUMNS), len(DATA), sharey=True)
    for data, (n_labels, table), column in zip(DATA, tables, axes.T, strict=True):
        column[0].set_title(f"{data}, {n_labels} labels", fontsize=10)
        for j, (ax, name) in enumerate(zip(column, COLUMNS, strict=True)):
            texts = [table[method][j] for method in methods]
            values = [float(text) for text in texts]
            low, high = min(values), max(values)
            ax.hlines(places, 0, 2 * high, color="0.9", linewidth=1, zorder=0)
            ax.scatter(values, places, color=colors)
            for place, value, text in zip(places, values, texts, strict=True):
                ax.annotate(text, (value, place), (7, 0), textcoords="offset points",
                            va="center", fontsize=8)  # fmt: skip
            margin = high - low
            ax.set(xlim=(low - margin / 4, high + margin / 2), ylim=(-0.6, len(methods) - 0.4))
            ax.set_xlabel(name if name.endswith("s") else f"{name} (%)", fontsize=9)
            ax.set_yticks(places, methods)
            ax.tick_params(labelsize=8, length=0)
            ax.spines[["top", "right", "left"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
