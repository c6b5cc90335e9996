"""curves.png: the metrics of a run, one panel a group, stages side by side."""

import itertools
import math
import os

MIX = ("examples_understanding", "examples_text", "examples_generation")  # the order of Table 1's data ratio
PANELS = {  # curves.png: panel: its metrics; a metric named nowhere here gets a panel of its own
    "Loss": "loss text_loss understanding_loss generation_loss",
    "Tokenizer loss": "reconstruction codebook commitment",
    "Tokenizer loss, entropy included": "total entropy",  # total: the loss of such a stage
    "Codes used": "codes_used",
    "Gradient norm": "grad_norm",
    "Learning rate": "learning_rate",
    "Share of the examples": " ".join(MIX),
    "Share of the supervised tokens": "tokens_understanding tokens_text tokens_generation",
    "Examples": "examples truncated",
    "Shares of row and time": "fill data_wait",
}
NOISY = ("Loss", "Tokenizer loss", "Gradient norm")  # these panels get a running mean


def _smooth(values):
    """A running mean over about a thirtieth of the curve, at most 50 points; it starts anew after a NaN."""
    rate = 1 / min(max(len(values) / 30, 1), 50)
    return list(itertools.accumulate(values, lambda m, v: v if math.isnan(m) else m + rate * (v - m)))


def _series(records):
    """{stage: its last step}, {metric: {stage: (steps, values)}}."""
    ends, series = {}, {}
    for record in records:
        stage, step = record["stage"], record["step"]
        ends[stage] = max(step, ends.get(stage, 1))
        for metric in [key for key in record if key not in ("stage", "step", "time")]:
            value = record[metric]
            metric = "total" if metric == "loss" and "reconstruction" in record else metric
            steps, values = series.setdefault(metric, {}).setdefault(stage, ([], []))
            steps.append(step)
            values.append(math.nan if value is None else value)
    return ends, series


def draw(records, path):
    """Writes a PNG of all panels that the records (dicts with stage, step and metrics) have."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    ends, series = _series(records)
    starts = dict(zip(ends, itertools.accumulate(ends.values(), initial=0), strict=False))
    panels = {title: [m for m in names.split() if m in series] for title, names in PANELS.items()}
    panels |= {m: [m] for m in series if not any(m in names for names in panels.values())}
    panels = {title: names for title, names in panels.items() if names}
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(13, 3.1 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2, hspace=0.06, wspace=0.03)
    cell = len(panels) % 2  # of an odd number, the first panel takes a whole row
    for i, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[0, :] if cell and i == 0 else grid[divmod(i + cell, 2)])
        shown = [stage for stage in ends if any(stage in series[m] for m in names)]
        low, high = starts[shown[0]], starts[shown[-1]] + ends[shown[-1]]
        for color, metric in enumerate(names):
            label = (
                metric.removesuffix("_loss")
                .removeprefix("examples_")
                .removeprefix("tokens_")
                .replace("_", " ")
            )
            for stage, (steps, values) in series[metric].items():
                x = [starts[stage] + step for step in steps]
                style = {"color": f"C{color}", "marker": "." if len(x) < 20 else None}
                if title in NOISY:
                    axes.plot(x, values, lw=0.8, alpha=0.3, **style)
                    values = _smooth(values)
                axes.plot(x, values, lw=1.6, label=label, **style)
                label = None  # one entry of the legend for all stages
        everything = [y for m in names for _, ys in series[m].values() for y in ys]
        positive = [y for y in everything if y > 0]
        if title not in (*NOISY, "Learning rate"):
            axes.set_ylim(bottom=None if any(y < 0 for y in everything) else 0)
        elif positive and max(positive) >= 10 * min(positive):
            axes.set_yscale("log")
            axes.set_ylim(bottom=max(min(positive) / 1.2, max(positive) * 1e-4))
            few = max(positive) < 300 * min(positive)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        for stage in shown:
            narrow = ends[stage] < (0.04 if cell and i == 0 else 0.08) * (high - low)
            axes.axvline(starts[stage], color="0.5", lw=1, ls="--")
            place = {"rotation": 90, "y": 0.03} if narrow else {"y": 1.02}
            text = {"fontsize": 9, "color": "0.35", "va": "bottom", "transform": axes.get_xaxis_transform()}
            axes.text(x=starts[stage] + 0.004 * (high - low), s=stage, **text, **place)
        axes.set_xlim(low, high)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=20)
        axes.grid(color="0.9", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            place = {"loc": "lower right", "bbox_to_anchor": (1.01, 1.08), "borderpad": 0}
            axes.legend(frameon=False, fontsize=9, ncols=4, columnspacing=1.2, handlelength=1.4, **place)
        if i >= len(panels) - 2:
            axes.set_xlabel("step", fontsize=10)
    FigureCanvasAgg(figure).print_png(path + ".tmp", metadata={"Software": None})
    os.replace(path + ".tmp", path)
