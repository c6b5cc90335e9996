"""The table, the picture and the report of benchmarks/table5.py, from what its runs left."""

import json
import pathlib
import statistics

import machine

LETTERS = "ABCDEF"
# Report's half and score -> what the table calls it, and whether more is better.
SCORES = {
    ("understanding", "held_out/overall"): "answers, held out",
    ("understanding", "seen/overall"): "answers, seen",
    ("generation", "overall"): "drawings right",
    ("generation", "detector Fréchet distance"): "detector Fréchet distance",
}


def read(out: pathlib.Path) -> dict:
    """letter -> seed -> half -> its report."""
    found = {letter: {} for letter in LETTERS}
    for path in sorted(out.glob("[A-F]-*/*/report.json")):
        letter, _, seed = path.parts[-3].partition("-")
        report = json.loads(path.read_text("utf-8"))
        found[letter].setdefault(int(seed), {})[path.parts[-2]] = report
    return {letter: seeds for letter, seeds in found.items() if seeds}


def cell(seeds: dict, half: str, score: str) -> dict | None:
    """Mean over seeds, the values, and the smallest and largest bound of their 95 % intervals."""
    found = [
        reports[half]["scores"][score]
        for reports in seeds.values()
        if score in reports.get(half, {}).get("scores", {})
    ]
    if not found:
        return None
    values = [one["value"] for one in found]
    bounds = [one["interval"] or [one["value"]] * 2 for one in found]
    return {
        "mean": statistics.fmean(values),
        "values": values,
        "low": min(low for low, _ in bounds),
        "high": max(high for _, high in bounds),
        "chance": found[0].get("chance"),
    }


def differ(a: dict, b: dict) -> bool:
    return a["low"] > b["high"] or b["low"] > a["high"]


def readings(cells: dict) -> list[str]:
    """What docs/table5.md asks, each answered by its own rule."""
    understood = ("DA", "DB", "CB", "ED", "EC")
    drawn = ("FD", "DA", "DB")
    pairs = [(*pair, 0) for pair in understood] + [(*pair, 2) for pair in drawn]
    names = list(SCORES.values())
    lines = []
    for first, second, score in pairs:
        a, b = (cells.get(letter, {}).get(names[score]) for letter in (first, second))
        if a and b:
            way = "apart" if differ(a, b) else "no difference seen"
            gap = a["mean"] - b["mean"]
            lines.append(f"* {first} against {second}, {names[score]}: {gap:+.3f}, {way}")
    return lines


def markdown(cells: dict, runs: dict, seconds: dict, processor: str) -> str:
    names = list(SCORES.values())
    lines = [
        f"| | {' | '.join(names)} | seeds |",
        f"|---|{'---|' * len(names)}---|",
    ]
    for letter, of in cells.items():
        told = []
        for name in names:
            c = of[name]
            told.append(
                f"**{c['mean']:.3g}** ({', '.join(f'{v:.3g}' for v in c['values'])})" if c else "-"
            )
        lines.append(f"| {letter} | {' | '.join(told)} | {len(runs[letter])} |")
    chance = [
        next((of[name]["chance"] for of in cells.values() if of[name]), None) for name in names
    ]
    lines.append(f"| chance | {' | '.join('-' if c is None else f'{c:.3g}' for c in chance)} | |")
    hours = sum(seconds.values()) / 3600
    return "\n".join([
        f"Mean over seeds (each seed's). {processor}, {hours:.1f} hours in all.", "", *lines, "", *readings(cells), "",
    ])  # fmt: skip


def picture(cells: dict, path: pathlib.Path):
    """A panel a score, a dot a seed over the interval of the reading."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for number, name in enumerate(SCORES.values(), 1):
        axes = figure.add_subplot(1, len(SCORES), number)
        for place, letter in enumerate(LETTERS):
            c = cells.get(letter, {}).get(name)
            if c:
                axes.plot(
                    [place, place], [c["low"], c["high"]], color="0.7", lw=6, solid_capstyle="butt"
                )
                axes.plot([place] * len(c["values"]), c["values"], "o", color="C0", ms=5)
        chance = [
            c["chance"] for of in cells.values() if (c := of.get(name)) and c["chance"] is not None
        ]
        if chance:
            axes.axhline(chance[0], color="0.4", lw=1, ls="--")
        axes.set_xticks(range(len(LETTERS)), LETTERS)
        axes.set_ylim(bottom=0)
        axes.set_title(name, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def write(out: pathlib.Path):
    runs = read(out)
    clock = out / "seconds.json"
    seconds = json.loads(clock.read_text()) if clock.exists() else {}
    cells = {
        letter: {name: cell(seeds, *of) for of, name in SCORES.items()}
        for letter, seeds in runs.items()
    }
    processor = machine.name()
    text = markdown(cells, runs, seconds, processor)
    (out / "table5.md").write_text(text, "utf-8")
    (out / "table5.json").write_text(json.dumps(
        {"machine": processor, "seconds": seconds, "cells": cells}, indent=2
    ), "utf-8")  # fmt: skip
    if cells:
        picture(cells, out / "table5.png")
    print(text)
