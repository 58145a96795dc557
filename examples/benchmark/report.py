"""The table of the runs so far: as reStructuredText that reads well in a terminal, and as CSV."""

import csv
from statistics import mean

from methods import METHODS, find
from pictures import draw_deciles, draw_tradeoff

RANKING = ["P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5"]
# Column -> what to take of the runs, how, and digits. Other processes only ever slow a run down:
# of the seconds the least is nearest to the truth.
COLUMNS = {
    **{name: (name, mean, 2) for name in RANKING},
    "spread": ("P@1", lambda values: max(values) - min(values), 2),
    "fit s": ("fit_seconds", min, 1),
    "CPU s": ("fit_cpu_seconds", min, 1),
    "rows/s": ("rows_per_second", max, 0),
    "peak MB": ("peak_mb", max, 0),
    "model MB": ("model_mb", max, 1),
    "runs": ("P@1", len, 0),
}


def summarise(runs):
    """One dict a row with the columns' numbers, best P@1 first; and notes on what has none."""
    rows, notes = [], {}
    for name in dict.fromkeys(run["row"] for run in runs):
        mine = [run for run in runs if run["row"] == name]
        done = [run for run in mine if "P@1" in run]
        if not done:
            notes[name] = mine[-1]["note"]
            continue
        row = {c: how([run[key] for run in done]) for c, (key, how, _) in COLUMNS.items()}
        found = zip(*(run["found"] for run in done), strict=True)
        found = [None if None in values else mean(values) for values in found]
        rows.append({"method": name, "found": found, "last": done[-1], **row})
    return sorted(rows, key=lambda row: -row["P@1"]), notes


def write_report(runs, missing, folder):
    """Print and write the table; draw the pictures."""
    rows, notes = summarise(runs)
    notes |= dict.fromkeys(missing, "not installed")
    text = "\n".join([*_heading(runs), *_table(rows), *_settings(rows, notes), *_versions(rows)])
    print(f"\n{text}")
    (folder / "table.txt").write_text(text + "\n", encoding="utf8")
    with open(folder / "table.csv", "w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", *COLUMNS, "note"])
        writer.writerows([row["method"], *_cells(row), ""] for row in rows)
        writer.writerows([name, *[""] * len(COLUMNS), note] for name, note in notes.items())
    if rows:
        draw_tradeoff(rows, folder / "precision_over_fit_time.png")
        draw_deciles(rows, rows[0]["last"]["data"]["bins"], folder / "precision_over_deciles.png")
    print(f"\nTable, pictures and runs: {folder}")


def _cells(row):
    return [f"{row[column]:.{digits}f}" for column, (_, _, digits) in COLUMNS.items()]


def _heading(runs):
    return [runs[-1]["data"]["text"], ""] if runs else []


def _table(rows):
    if not rows:
        return ["Nothing was measured.", ""]
    lines = [["method", *COLUMNS], *([row["method"], *_cells(row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    texts = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    return [rule, texts[0], rule, *texts[1:], rule, ""]


def _settings(rows, notes):
    jobs = {row["method"]: row["last"]["job"] for row in rows}
    lines = [f"* {name}: {find(j['name'], j['options']).settings}" for name, j in jobs.items()]
    return [*lines, *(f"* {name}: **{note}**" for name, note in notes.items()), ""]


def _versions(rows):
    """Machine and versions, as the runs noted them."""
    if not rows:
        return []
    last = [row["last"] for row in rows]
    packages = {(METHODS[run["job"]["name"]].package, run["version"]) for run in last}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(packages - {(None, None)}))
    machines = "; ".join(sorted({run["machine"] for run in last}))
    threads = "/".join(str(n) for n in sorted({run["job"]["threads"] for run in last}))
    pythons = "/".join(sorted({run["python"] for run in last}))
    return [f"{machines}; {threads} threads; Python {pythons}; {versions}."]
