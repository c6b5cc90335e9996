"""What a stage will make of its data sets: shares of tokens, how full its rows are, how long an epoch is."""

import numpy as np

from janus_jax.batch import TASKS
from janus_jax.data.lanes import AHEAD
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.packing import choose

STEPS = 40  # that are simulated of each phase of a stage
LANES = 16  # rows of a simulated step: each row is packed by itself


def forecast(lines: dict, surveys: dict, stage, seed: int) -> list[dict]:
    """For each phase of a stage, what its steps hold by simulated packing of the surveyed lengths.

    lines: name -> Dataset of those that the stage draws; surveys: name -> Survey; stage: an experiment.Stage. Raises
    SourceError as `Mixture` does.
    """
    sizes = {name: _sizes(surveys[name], stage.rows) for name in lines}
    entries = [Entry(name, line.kind, sizes[name], line.weight, line.steps) for name, line in lines.items()]
    mixture = Mixture(entries, vars(stage.ratio), seed, LANES, stage.steps)
    ends = [*mixture.changes[1:], stage.steps]
    return [
        _phase(mixture, phase, first, end, stage, surveys)
        for phase, (first, end) in enumerate(zip(mixture.changes, ends))
    ]


def _sizes(survey, rows) -> list[tuple]:
    """(tokens, pictures, images, tokens of text, to be predicted) of each usable record in this stage's rows."""
    out = [(min(sum(r.tokens), rows.length), *r.slots, r.tokens[0], r.predicted) for r in survey.good]
    return [x for x in out if x[1] <= rows.pictures and x[2] <= rows.images]


def _phase(mixture: Mixture, phase: int, first: int, end: int, stage, surveys: dict) -> dict:
    rows, drawn, used = stage.rows, {entry.name: [] for entry in mixture.entries}, 0
    for lane in range(LANES):
        kinds, since, waiting = [0] * 3, [0] * len(mixture.entries), []
        for _ in range(STEPS):
            while sum(size[0] for _, size in waiting) < AHEAD * rows.length:
                entry = mixture.choose(lane, phase, kinds, since)
                source = mixture.entries[entry].source
                position = lane + LANES * since[entry]
                waiting.append((entry, source[mixture.index(entry, position)]))
                kinds[TASKS.index(mixture.entries[entry].kind)] += 1
                since[entry] += 1
            picks = choose([size[:3] for _, size in waiting], rows.length, rows.pictures, rows.images)
            for i in reversed(picks):
                entry, size = waiting.pop(i)
                drawn[mixture.entries[entry].name].append(size)
                used += size[0]
    per_step = {name: len(of) / (LANES * STEPS) * rows.count for name, of in drawn.items()}
    sums = {name: np.array(of).reshape(-1, 5).sum(axis=0) for name, of in drawn.items()}
    total, asked = sum(sums.values()), mixture.asked(first)
    shares = {
        name: {
            "kind": mixture.entries[i].kind, "examples_asked": asked[name],
            "examples": len(drawn[name]) / max(sum(map(len, drawn.values())), 1), "tokens": float(s[0] / total[0]),
            "text": float(s[3] / max(total[3], 1)), "predicted": float(s[4] / max(total[4], 1)),
            "examples_a_step": per_step[name], **_epoch(surveys[name], per_step[name], end - first, rows.count),
        }
        for i, (name, s) in enumerate(sums.items())
        if name in asked
    }  # fmt: skip
    return {
        "steps": [first, end], "full": used / (LANES * STEPS * rows.length), "examples_a_step": sum(per_step.values()),
        "asked_a_step": stage.batch_size, "datasets": shares,
    }  # fmt: skip


def _epoch(survey, a_step: float, steps: int, count: int) -> dict:
    """How far the usable records of a whole data set go."""
    usable = survey.total * len(survey.good) / max(survey.looked, 1)
    steps_an_epoch = usable / a_step if a_step else None
    return {
        "rows_an_epoch": steps_an_epoch and steps_an_epoch * count,
        "steps_an_epoch": steps_an_epoch, "epochs": steps / steps_an_epoch if steps_an_epoch else 0.0,
    }  # fmt: skip


def lines(name: str, phases: list[dict], rows) -> list[str]:
    """A forecast for the terminal."""
    out = []
    for p in phases:
        first, end = p["steps"]
        out.append(
            f"{name}, steps {first:,} to {end:,}: rows of {rows.length:,} are {p['full']:.1%} full; {rows.count:,} of "
            f"them hold {p['examples_a_step']:,.0f} examples (batch_size says {p['asked_a_step']:,})"
        )
        columns = " examples   asked  tokens    text predicted  rows an epoch   epochs"
        width = max(14, *(len(name) for name in p["datasets"]))
        out.append(f"  {'share of':<{width + 14}} {columns}")
        by_kind = {}
        for data, s in p["datasets"].items():
            epoch = f"{s['rows_an_epoch']:>14,.0f}" if s["rows_an_epoch"] else f"{'-':>14}"
            out.append(f"  {data:<{width}} {s['kind']:<13} {_shares(s)} {epoch} {s['epochs']:>8.2f}")
            total = by_kind.setdefault(s["kind"], dict.fromkeys(_SHARES, 0.0))
            for key in _SHARES:
                total[key] += s[key]
        out += [f"  {'all':<{width}} {kind:<13} {_shares(s)}" for kind, s in by_kind.items()]
    return out


_SHARES = ("examples", "examples_asked", "tokens", "text", "predicted")


def _shares(s: dict) -> str:
    widths = (9, 7, 7, 7, 9)
    return " ".join(f"{s[key]:>{w}.1%}" for key, w in zip(_SHARES, widths))
