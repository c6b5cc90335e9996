"""The picture of benchmarks/table5.py."""

import pathlib


def write(cells: dict, letters: str, names: list[str], path: pathlib.Path):
    """A panel a score, a dot a seed over the interval from the lowest to the highest bound."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(names), 3.6), layout="constrained")
    for number, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), number)
        for place, letter in enumerate(letters):
            c = cells.get(letter, {}).get(name)
            if c:
                bounds = [c["low"], c["high"]]
                axes.plot([place, place], bounds, color="0.7", lw=6, solid_capstyle="butt")
                values = list(c["values"].values())
                axes.plot([place] * len(values), values, "o", color="C0", ms=5)
        chance = [
            c["chance"] for of in cells.values() if (c := of.get(name)) and c["chance"] is not None
        ]
        if chance:
            axes.axhline(chance[0], color="0.4", lw=1, ls="--")
        axes.set_xticks(range(len(letters)), list(letters))
        axes.set_xlim(-0.5, len(letters) - 0.5)
        axes.set_ylim(bottom=0)
        axes.set_title(name, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
