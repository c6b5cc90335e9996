"""What a stage will make of its data sets: shares of tokens, how full its rows are, how many of their
places for pictures stay empty, how long an epoch is."""

import dataclasses
import math

import numpy as np

from janus_jax.config.epochs import epochs_of, steps_until
from janus_jax.config.steps import ENDLESS
from janus_jax.data.kept import kinds_kept
from janus_jax.data.kept_stats import asked_of
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.packing import choose
from janus_jax.data.row_stream import AHEAD
from janus_jax.model.batch import TASKS

STREAMS = 8  # rows of a simulated step: each row is packed by itself
# simulated steps of a phase, those before what waits has its lasting make-up not counted
WARM = 20
STEPS = 120
SPARE = 1.2  # room for pictures over what rows hold on average, at the least
LOSS = 0.01  # of how full rows are, for less room


def forecast(name: str, lines: dict, surveys: dict, stage, seed: int) -> list[dict]:
    """For each phase of a stage, what its steps hold by simulated packing of the surveyed lengths.

    name: the stage's.
    lines: Dataset by name, of those that it draws.
    surveys: Survey by name.
    stage: the config.schema.Stage.
    seed: of the config.

    Raises SourceError as `Mixture` does.
    """
    entries = [
        Entry(
            key,
            line.kind,
            [part for r in surveys[key].good for part in r.examples[name]],
            line.weight,
            line.steps,
        )
        for key, line in lines.items()
    ]
    wanted = epochs_of(stage.steps)
    phases = _phases(entries, stage, surveys, seed, ENDLESS if wanted else stage.steps)
    if not wanted:
        return phases
    count, of = wanted
    each = {p["steps"][0]: p["datasets"].get(of, {}).get("steps_an_epoch") for p in phases}
    steps = steps_until(count, {first: 1 / n if n else 0.0 for first, n in each.items()})
    return _phases(entries, stage, surveys, seed, steps or ENDLESS)


def _phases(entries: list[Entry], stage, surveys: dict, seed: int, steps: int) -> list[dict]:
    mixture = Mixture(entries, vars(stage.ratio), seed, STREAMS, steps)
    ends = [*mixture.changes[1:], steps]
    return [
        _phase(mixture, phase, first, end, stage, surveys)
        for phase, (first, end) in enumerate(zip(mixture.changes, ends))
    ]


def _phase(mixture: Mixture, phase: int, first: int, end: int, stage, surveys: dict) -> dict:
    entries = mixture.entries
    count = stage.rows.count
    simulated = STREAMS * STEPS
    kinds = kinds_kept(stage.options.get("keep", ""))
    drawn = [[] for _ in entries]
    placed = list(_placed(mixture, phase, stage.rows))
    for entry, example in placed:
        if entries[entry].kind in kinds:
            drawn[entry].append((example.tokens, example.text, example.predicted))
    sums = [np.array(sizes).reshape(-1, 3).sum(axis=0) for sizes in drawn]
    tokens, text, predicted = np.maximum(sum(sums), 1)
    examples = sum(map(len, drawn))
    asked = asked_of(kinds, mixture, first)
    datasets = {}
    for e, of, s in zip(entries, drawn, sums):
        if e.name not in asked:
            continue
        a_step = len(of) / simulated * count
        datasets[e.name] = {
            "kind": e.kind,
            "examples_asked": asked[e.name],
            "examples": len(of) / examples,
            "tokens": float(s[0] / tokens),
            "text": float(s[1] / text),
            "predicted": float(s[2] / predicted),
            "examples_a_step": a_step,
            **_epoch(surveys[e.name], len(e.source), a_step, end - first, count),
        }
    return {
        "steps": [first, end],
        "full": float(tokens / (simulated * stage.rows.length)),
        "examples_a_step": examples / simulated * count,
        "asked_a_step": stage.batch_size,
        "kept": list(kinds),
        "pictures": _pictures(mixture, phase, stage.rows, [example for _, example in placed]),
        "datasets": datasets,
    }


def _pictures(mixture: Mixture, phase: int, rows, examples: list) -> dict:
    """Of each kind of picture, those to understand first: how many a row has `room` for and how many
    it holds; and the least room (`fewer`) with which rows are nearly as full (`full`)."""
    room = rows.understanding_images, rows.generation_images
    counts = np.array([(example.pictures, example.images) for example in examples]).reshape(-1, 2)
    holds = counts.sum(0) / (STREAMS * STEPS)
    most = counts.max(0, initial=0)  # of one example
    least = [max(math.ceil(SPARE * n), int(m), 1) for n, m in zip(holds, most)]
    tried = [(least[0] + i, least[1] + j) for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
    fewer = {tuple(map(min, one, room)) for one in tried} - {room}
    told = {"room": list(room), "holds": holds.tolist()}
    enough = _full(examples, rows) - LOSS
    for see, draw in sorted(fewer, key=sum):
        small = dataclasses.replace(rows, understanding_images=see, generation_images=draw)
        full = _full((example for _, example in _placed(mixture, phase, small)), rows)
        if full >= enough:
            return told | {"fewer": [see, draw], "full": full}
    return told


def _full(examples, rows) -> float:
    return sum(example.tokens for example in examples) / (STREAMS * STEPS * rows.length)


def _placed(mixture: Mixture, phase: int, rows):
    """(number of the entry, Example) of all that the simulated rows hold."""
    for stream in range(STREAMS):
        yield from _stream(mixture, phase, stream, rows)


def _stream(mixture: Mixture, phase: int, stream: int, rows):
    """(number of the entry, Example) of all that STEPS rows of one stream hold, as
    `row_stream.RowStream` fills them."""
    rng = np.random.default_rng(stream)
    waiting = []
    kinds = [0] * 3
    drawn_this_phase = [0] * len(mixture.entries)
    for step in range(WARM + STEPS):
        while sum(example.tokens for _, example in waiting) < AHEAD * rows.length:
            entry = mixture.choose(stream, phase, kinds, drawn_this_phase)
            source = mixture.entries[entry].source
            waiting.append((entry, source[rng.integers(len(source))]))
            kinds[TASKS.index(mixture.entries[entry].kind)] += 1
            drawn_this_phase[entry] += 1
        picks = choose(
            [example[:3] for _, example in waiting],
            rows.length,
            (rows.understanding_images, rows.generation_images),
        )
        taken = [waiting.pop(i) for i in reversed(picks)]
        if step >= WARM:
            yield from taken


def _epoch(survey, examples: int, a_step: float, steps: int, count: int) -> dict:
    """How far the usable records of a whole data set go. rows_an_epoch: rows, of all data sets
    together, until this one has been drawn once.

    survey: of the records that were looked at.
    examples: what those make.
    a_step: examples a step.
    steps: of the phase.
    count: rows a step.
    """
    usable = survey.total * examples / max(survey.looked, 1)
    steps_an_epoch = usable / a_step if a_step else None
    return {
        "rows_an_epoch": steps_an_epoch and steps_an_epoch * count,
        "steps_an_epoch": steps_an_epoch,
        "epochs": steps / steps_an_epoch if steps_an_epoch else 0.0,
    }


def forecast_lines(name: str, phases: list[dict], rows) -> list[str]:
    """A forecast for the terminal."""
    out = []
    for p in phases:
        first, end = p["steps"]
        out.append(
            f"{name}, steps {first:,} to {end:,}: rows of {rows.length:,} are {p['full']:.1%} "
            f"full; {rows.count:,} of "
            f"them hold {p['examples_a_step']:,.0f} examples (batch_size says "
            f"{p['asked_a_step']:,})"
        )
        if len(p["kept"]) < len(TASKS):
            out.append(
                f"  of {' and '.join(p['kept'])} alone: the stage's `keep` takes out the others"
            )
        else:  # the room of others is that of the experiment that they are compared with
            out += _picture_lines(p["pictures"])
        columns = " examples   asked  tokens    text predicted  rows an epoch   epochs"
        width = max(14, *(len(name) for name in p["datasets"]))
        out.append(f"  {'share of':<{width + 14}} {columns}")
        by_kind = {}
        for data, s in p["datasets"].items():
            epoch = f"{s['rows_an_epoch']:>14,.0f}" if s["rows_an_epoch"] else f"{'-':>14}"
            out.append(
                f"  {data:<{width}} {s['kind']:<13} {_shares(s)} {epoch} {s['epochs']:>8.2f}"
            )
            total = by_kind.setdefault(s["kind"], dict.fromkeys(_SHARES, 0.0))
            for key in _SHARES:
                total[key] += s[key]
        out += [f"  {'all':<{width}} {kind:<13} {_shares(s)}" for kind, s in by_kind.items()]
    return out


def _picture_lines(p: dict) -> list[str]:
    (see, draw), (seen, drawn) = p["room"], p["holds"]
    out = [
        f"  a row has room for {see} pictures to understand and {draw} to draw, and holds {seen:.1f} "
        f"and {drawn:.1f}"
    ]
    if "fewer" in p:
        see, draw = p["fewer"]
        out.append(
            f"  with rows.understanding_images={see} and rows.generation_images={draw} rows would be "
            f"{p['full']:.1%} full: several devices compute every place, filled or not"
        )
    return out


_SHARES = ("examples", "examples_asked", "tokens", "text", "predicted")


def _shares(s: dict) -> str:
    widths = (9, 7, 7, 7, 9)
    return " ".join(f"{s[key]:>{w}.1%}" for key, w in zip(_SHARES, widths))
