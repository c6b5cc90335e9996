"""`janus-jax probes`: what the probes of some runs found over training, in one picture.

From the `metrics.jsonl` of runs whose stages had the option `probe_every`: the cosine between the
gradients of understanding and generation, and the norms of both, a line a run; and the cosine by
layer and step, a panel a run.
"""

import io
import pathlib

import numpy as np

from janus_jax.common import cli, outputs
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import near
from janus_jax.training.curves import PROBES, read_records

TITLES = {
    "cosine": "Cosine between the gradients of understanding and generation",
    "norm_understanding": "Norm of understanding's gradient",
    "norm_generation": "Norm of generation's gradient",
}


def read_run(directory: str, stage: str = "") -> list[dict]:
    """The records of a run that hold probes, each with `at`, its step counted on over the stages
    that are asked for: `stage` alone, or all. Raises UsageError where there are none."""
    path = pathlib.Path(directory, "metrics.jsonl")
    if not path.is_file():
        raise UsageError(f"--run={directory}: no {path.name} in it; name the --workdir of a run")
    records = [record for _, record in read_records(path)]
    stages = list(dict.fromkeys(record["stage"] for record in records))
    if stage and stage not in stages:
        raise UsageError(f"--stage={stage}: not among the stages of {path}{near(stage, stages)}")
    out = []
    begin = 0
    for name in [stage] if stage else stages:
        of_stage = [record for record in records if record["stage"] == name]
        probed = [r for r in of_stage if any(key.startswith(PROBES) for key in r)]
        out += [record | {"at": begin + record["step"]} for record in probed]
        begin += max(record["step"] for record in of_stage)
    if not out:
        raise UsageError(
            f"--run={directory}: {path.name} holds no probes; train a stage with "
            f"--config.stages.NAME.options.probe_every=100"
        )
    return out


def values_of(records: list[dict], metric: str) -> tuple[list[int], list[float]]:
    """(steps, values) of those records that have one."""
    found = [(r["at"], r[PROBES + metric]) for r in records if r.get(PROBES + metric) is not None]
    return [at for at, _ in found], [value for _, value in found]


def by_layer(records: list[dict], metric: str) -> tuple[list[int], np.ndarray]:
    """(steps, values float64 [steps, layers]) of those records that have the metric."""
    prefix = f"{PROBES}{metric}/"
    found = [record for record in records if any(key.startswith(prefix) for key in record)]
    names = sorted({key for record in found for key in record if key.startswith(prefix)})
    values = [[record.get(name, np.nan) for name in names] for record in found]
    return [r["at"] for r in found], np.array(values, np.float64).reshape(len(found), len(names))


def probe_picture(runs: dict[str, list[dict]]) -> bytes:
    """A PNG. runs: label -> what `read_run` gives."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    layers = {label: by_layer(records, "cosine") for label, records in runs.items()}
    layers = {label: found for label, found in layers.items() if found[0]}
    rows = 2 + -(-len(layers) // 2)
    figure = Figure(figsize=(13, 3.4 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    places = (grid[0, :], grid[1, 0], grid[1, 1])
    for place, metric in zip(places, TITLES, strict=True):
        _lines(figure.add_subplot(place), metric, runs)
    largest = max((np.nanmax(np.abs(values)) for _, values in layers.values()), default=1.0)
    for number, (label, (steps, values)) in enumerate(layers.items()):
        axes = figure.add_subplot(grid[2 + number // 2, number % 2])
        figure.colorbar(_layers(axes, label, steps, values, largest), ax=axes)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _lines(axes, metric: str, runs: dict[str, list[dict]]):
    """A line a run, in the same colours in each panel; the first names them all."""
    for label, records in runs.items():
        steps, values = values_of(records, metric)
        mark = "." if len(steps) < 50 else None
        axes.plot(steps, values, marker=mark, label=label if steps else f"{label} (none)")
    if metric == "cosine":
        axes.axhline(0, color="0.4", lw=1)
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.set_yscale("log")
    axes.set_title(TITLES[metric], loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("step")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(color="0.9", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _layers(axes, label: str, steps: list[int], values: np.ndarray, largest: float):
    """A run's cosines by layer, upwards, and step: red where the tasks pull apart."""
    from matplotlib.ticker import MaxNLocator

    shown = axes.imshow(
        values.T, aspect="auto", origin="lower", interpolation="nearest", cmap="RdBu",
        vmin=-largest, vmax=largest,
    )  # fmt: skip
    ticks = range(0, len(steps), max(len(steps) // 6, 1))
    axes.set_xticks(ticks, [f"{steps[i]:,}" for i in ticks])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{label}: cosine by layer", loc="left", fontsize=11, fontweight="bold")
    axes.set(xlabel="step", ylabel="layer")
    return shown


def shortest_labels(directories: list[str]) -> list[str]:
    """As few of the last parts of each path as tell them apart."""
    parts = [pathlib.Path(directory).absolute().parts for directory in directories]
    for count in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    raise UsageError(f"--run={directories[0]}: a run is named twice; name it once")


def define_flags(into):
    """The command's flags, in absl's `into`."""
    define = cli.Definer(into)
    define.pictures("run", [], "The --workdir of a run; again for each other.")
    define.text("stage", "", "Its name; else all stages, one after the other.")
    define.output("out", "probes.png", "The picture.")


COMMAND = cli.Command(
    "janus-jax probes",
    "Plots what the probes of some runs found: cosine and norms of the tasks' gradients.",
    "janus-jax probes --run=runs/table5/A --run=runs/table5/D --out=probes.png",
    define_flags,
)


def probes_command(f, _) -> None:
    """The command."""
    if not f.run:
        raise UsageError("--run is missing: name the --workdir of a run, again for each other")
    outputs.require_writable(pathlib.Path(f.out).parent, "--out")
    runs = {
        label: read_run(directory, f.stage)
        for label, directory in zip(shortest_labels(f.run), f.run, strict=True)
    }
    kept = outputs.replace(f.out, probe_picture(runs))
    print(f"{f.out}: {', '.join(f'{k} ({len(r)} steps)' for k, r in runs.items())}")
    if kept:
        print(kept)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `janus-jax probes`."""
    return cli.run(COMMAND, probes_command, argv)
