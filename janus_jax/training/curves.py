"""curves.png: the metrics of a run, one panel a group, stages side by side."""

import itertools
import json
import math
import os
import pathlib

from janus_jax.common import files

MIX = (
    "examples_understanding",
    "examples_text",
    "examples_generation",
)  # the order of Table 1's data ratio
PROBES = "probes/"  # begins the names of what probes.py finds, in some steps only
PARTS = {"Gradient norm": "grad_norm/", "Learning rate": "learning_rate/"}  # panel: begins names
PANELS = {  # curves.png: panel: its metrics; a metric named nowhere here gets a panel of its own
    "Loss": "loss text_loss understanding_loss generation_loss",
    "Validation loss": "validation_loss validation_text_loss validation_understanding_loss "
    "validation_generation_loss",
    "Tokenizer loss, validation": "validation_reconstruction validation_total",
    "Tokenizer loss": "reconstruction codebook commitment",
    "Tokenizer loss, entropy included": "total entropy",  # total: the loss of such a stage
    "Codes used": "codes_used",
    "Chosen over rejected": "accuracy understanding_accuracy text_accuracy generation_accuracy",
    "Reward margin": "margin understanding_margin text_margin generation_margin",
    "Learning rate": "learning_rate",
    "Share of the examples": " ".join(MIX),
    "Share of the supervised tokens": "tokens_understanding tokens_text tokens_generation",
    "Examples": "examples truncated",
    "Tokens per second": "tokens_per_second",
    "Shares of row, time and peak": "fill data_wait mfu",
    "Gradient norm": "grad_norm",  # the whole's, and, of each part, PARTS...
}
UNDRAWN = (  # follow from others, or hardly move: for metrics.jsonl and TensorBoard
    "images_per_second", "step_seconds", "data_seconds", "compute_seconds", "tflops", "device_memory_gb",
    "process_memory_gb", "evaluation_seconds", "positions_understanding", "positions_text", "positions_generation",
)  # fmt: skip
NOISY = (
    "Loss",
    "Tokenizer loss",
    "Gradient norm",
    "Gradient norm by part",
)  # these panels get a running mean, and leave out zeros (nothing of that kind in the step)
LABELS = {"mfu": "MFU", "grad_norm": "the whole"}
MANY = 5  # a panel with more metrics takes a whole row


def _smooth(values):
    """A running mean over about a thirtieth of the curve, at most 50 points; it starts anew after a
    NaN."""
    rate = 1 / min(max(len(values) / 30, 1), 50)
    return list(
        itertools.accumulate(values, lambda m, v: v if math.isnan(m) else m + rate * (v - m))
    )


def _series(records):
    """{stage: its last step}, {metric: {stage: (steps, values)}}."""
    ends = {}
    series = {}
    for record in records:
        stage = record["stage"]
        step = record["step"]
        ends[stage] = max(step, ends.get(stage, 1))
        for metric, value in record.items():
            if metric in ("stage", "step", "time", *UNDRAWN) or metric.startswith(PROBES):
                continue
            if "reconstruction" in record and metric in ("loss", "validation_loss"):
                metric = metric.replace("loss", "total")
            steps, values = series.setdefault(metric, {}).setdefault(stage, ([], []))
            steps.append(step)
            values.append(math.nan if value is None else value)
    return ends, series


def _label(metric):
    for prefix in ("examples_", "tokens_", "validation_", *PARTS.values()):
        metric = metric.removeprefix(prefix)
    return LABELS.get(metric, metric.removesuffix("_loss").replace("_", " "))


def _panels(series):
    """{title: its metrics}, and the titles that take a whole row: the last ones, which have many
    metrics, and the first, where an odd number is left."""
    panels = {title: [m for m in names.split() if m in series] for title, names in PANELS.items()}
    for title, prefix in PARTS.items():
        panels[title] += [m for m in series if m.startswith(prefix)]
    panels |= {m: [m] for m in series if not any(m in names for names in panels.values())}
    panels = {title: names for title, names in panels.items() if names}
    panels = dict(sorted(panels.items(), key=lambda panel: len(panel[1]) > MANY))
    wide = [title for title, names in panels.items() if len(names) > MANY]
    return panels, wide + list(panels)[: (len(panels) - len(wide)) % 2]


def plot(records, path):
    """Writes a PNG of all panels that the records (dicts with stage, step and metrics) have."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    ends, series = _series(records)
    starts = dict(zip(ends, itertools.accumulate(ends.values(), initial=0), strict=False))
    panels, whole_rows = _panels(series)
    rows = (len(panels) + len(whole_rows)) // 2
    figure = Figure(figsize=(13, 3.1 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2, hspace=0.06, wspace=0.03)
    cell = 0
    for title, names in panels.items():
        wide = title in whole_rows
        axes = figure.add_subplot(grid[cell // 2, :] if wide else grid[divmod(cell, 2)])
        cell += 1 + wide
        _lines(axes, title, names, series, starts)
        _scale(axes, title, [y for m in names for _, ys in series[m].values() for y in ys])
        shown = [stage for stage in ends if any(stage in series[m] for m in names)]
        _stages(axes, {stage: (starts[stage], ends[stage]) for stage in shown}, wide)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=20)
        axes.grid(color="0.9", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            place = {"loc": "lower right", "bbox_to_anchor": (1.01, 1.08), "borderpad": 0}
            longest = max(len(_label(name)) for name in names)
            place["ncols"] = MANY if wide else 66 // (longest + 4) or 1  # beside the title
            axes.legend(frameon=False, fontsize=9, columnspacing=1.2, handlelength=1.4, **place)
        if cell > 2 * rows - 2:
            axes.set_xlabel("step", fontsize=10)
    canvas = FigureCanvasAgg(figure)
    files.write(
        pathlib.Path(path), lambda file: canvas.print_png(file, metadata={"Software": None})
    )


def _lines(axes, title, names, series, starts):
    """The curves of a panel's metrics, stage after stage along the steps."""
    for number, metric in enumerate(names):
        label = _label(metric)
        for stage, (steps, values) in series[metric].items():
            x = [starts[stage] + step for step in steps]
            color = "0.15" if metric == "grad_norm" else f"C{number}"
            style = {"color": color, "marker": "." if len(x) < 20 else None}
            if title in NOISY:
                values = [y or math.nan for y in values]
                if len(names) <= MANY:
                    axes.plot(x, values, lw=0.8, alpha=0.3, **style)
                values = _smooth(values)
            axes.plot(x, values, lw=1.6, label=label, **style)
            label = None  # one entry of the legend for all stages


def _scale(axes, title, values):
    """The vertical axis of a panel that shows these values."""
    from matplotlib.ticker import LogLocator, NullLocator

    positive = [y for y in values if y > 0]
    if title not in (*NOISY, "Validation loss", "Learning rate"):
        axes.set_ylim(bottom=None if any(y < 0 for y in values) else 0)
    elif positive and max(positive) >= 10 * min(positive):
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(min(positive) / 1.2, max(positive) * 1e-4))
        few = max(positive) < 300 * min(positive)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _stages(axes, spans, wide):
    """Where each stage of a panel begins. spans: stage -> (its first step, how many it has)."""
    low = min(start for start, _ in spans.values())
    high = max(start + count for start, count in spans.values())
    text = {"fontsize": 9, "color": "0.35", "va": "bottom", "transform": axes.get_xaxis_transform()}
    for stage, (start, count) in spans.items():
        narrow = count < (0.04 if wide else 0.08) * (high - low)
        axes.axvline(start, color="0.5", lw=1, ls="--")
        place = {"rotation": 90, "y": 0.03} if narrow else {"y": 1.02}
        axes.text(x=start + 0.004 * (high - low), s=stage, **text, **place)
    axes.set_xlim(low, high)


def read_records(path):
    """[(line, record)] of metrics.jsonl; a line that a killed run left half-written is passed
    over."""
    found = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file.read().split("\n"):
                try:
                    record = json.loads(line)
                    record["stage"], record["step"]
                    found.append((line, record))
                except (ValueError, TypeError, KeyError):
                    continue
    return found
