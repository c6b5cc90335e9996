"""What differs between the configs of two starts of one run: what needs no word, what goes on where
the user says so, and what would be another run. Each field of the schema says which
(config/evaluation.py); what of it matters depends on how far each stage is.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

from janus_jax.checkpoint import evaluated, inspect
from janus_jax.common.files import has_weights, read_json
from janus_jax.common.text import differences
from janus_jax.config.epochs import uncounted
from janus_jax.config.lengths import by_part
from janus_jax.config.optim import BY_PART
from janus_jax.config.schema import Experiment
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.training.changes import Changes
from janus_jax.training.stage_plan import StagePlan


@dataclasses.dataclass
class Progress:
    """How far a stage is. step: of its last checkpoint, None where there is none."""

    done: bool
    step: int | None

    @property
    def begun(self) -> bool:
        return self.done or self.step is not None


def between(
    old: Experiment, new: Experiment, workdir: pathlib.Path, possible: bool = True
) -> Changes:
    """What differs between the config of the last start and this one's.

    Args:
        old, new: the two.
        workdir: of the run.
        possible: whether the new config's values are.
    """
    stages = {name: progress(workdir, name) for name in [*old.stages, *new.stages]}
    found = Changes()
    if old.tokenizer != new.tokenizer:
        found.moved_tokenizer = _knows_tokenizer(new.tokenizer, workdir, stages)
    both = [name for name in old.stages if name in new.stages]
    seen = {line for name in both for line in _reopen(found, old, new, name, stages, workdir)}
    on = lambda name: stages[name].step is not None and not stages[name].done
    going_on = {name: stages[name] for name in both if on(name) or name in found.reopened}
    for mark in ("another run", "accept", "free"):
        parted = (held(_in_parts(a, b), mark) for a, b in ((old, new), (new, old)))
        for line in differences(*parted):
            if line not in seen:
                seen.add(line)
                _sort_in(found, line, mark, old, new, stages, going_on, possible)
    for name, at in going_on.items():
        if old.uses_ids(name) != new.uses_ids(name):
            found.refused.append(
                f"data.datasets.*.image_ids: given to stages.{name} or taken away; its checkpoints "
                "hold the VQ tokenizer or not"
            )
        if possible:
            found.notes += _rates(old, new, name, at.step)
        best = new.checkpoints.best
        if best.startswith("validation_") and (of := _measured(found.asked, name)):
            found.notes.append(
                f"stages.{name}: from step {at.step:,} on {best} measures something else "
                f"({', '.join(of)}); checkpoints.best and evaluation.patience compare it with what it was"
            )
    found.refused += _out_of_order(old, new, stages)
    found.stage = next((n for n in new.stages if not stages[n].done or n in found.reopened), "")
    if found.stage:
        found.step = stages[found.stage].step or 0
    return found


def progress(workdir: pathlib.Path, name: str) -> Progress:
    """How far a stage of the run in a work directory is."""
    steps = inspect.steps(inspect.stage_directory(workdir, name))
    done = has_weights(workdir / name)
    return Progress(done, steps[-1] if steps else None)


def _knows_tokenizer(directory: str, workdir: pathlib.Path, stages: dict[str, Progress]) -> bool:
    """Is the tokenizer in a directory the one that every checkpoint with a position was trained
    with?"""
    paths = [
        inspect.stage_directory(workdir, name) / str(at.step) / inspect.POSITION
        for name, at in stages.items()
    ]
    try:
        known = {read_json(p)["fingerprint"]["tokenizer"] for p in paths if p.is_file()}
        return {Tokenizer.load(directory or workdir).fingerprint} == known
    except (OSError, ValueError, KeyError, TypeError):
        return False  # what is wrong with the file is told where it is read


def _in_parts(one: Experiment, other: Experiment) -> Experiment:
    """The first, with its numbers by part where the other has them so: each part is told."""
    stages = {}
    for name, stage in one.stages.items():
        beside = other.stages.get(name, stage).optim
        fields = {
            field: by_part(getattr(stage.optim, field))
            for field in BY_PART
            if isinstance(getattr(beside, field), dict)
        }
        stages[name] = dataclasses.replace(stage, optim=dataclasses.replace(stage.optim, **fields))
    return dataclasses.replace(one, stages=stages)


def held(config, mark: str, inherited: str = "another run"):
    """A config as plain values, of it the fields of one mark: their own, or that of what they stand
    in."""
    if isinstance(config, dict):
        return dict(_filled(config.items(), mark, lambda _: inherited))
    if not dataclasses.is_dataclass(config):
        return list(config) if isinstance(config, tuple) else config
    marks = {f.name: f.metadata.get("resume", inherited) for f in dataclasses.fields(config)}
    return dict(_filled(vars(config).items(), mark, marks.get))


def _filled(items, mark: str, mark_of) -> Iterator[tuple]:
    """(name, plain value) of what has the mark, or has inside it what has."""
    for name, value in items:
        plain = held(value, mark, mark_of(name))
        nested = isinstance(value, dict) or dataclasses.is_dataclass(value)
        if plain if nested and value else mark == mark_of(name):
            yield name, plain


def _sort_in(found: Changes, line: str, mark: str, old, new, stages, going_on, possible: bool):
    """Enters one line where it belongs."""
    name = next((n for n in stages if line.startswith((f"stages.{n}.", f"stages.{n}:"))), "")
    at = stages.get(name)
    if mark == "free" or (at and not at.begun) or _is_undrawn(line, old, new, going_on):
        found.free.append(line)
    elif line.startswith("tokenizer: ") and found.moved_tokenizer:
        found.free.append(f"{line} (the same file)")
    elif mark == "another run":
        found.refused.append(line)
    elif at and name not in going_on:
        found.asked.append(f"{line} ({name} is done: nothing of it changes any more)")
    elif at and line.startswith(f"stages.{name}.init: "):
        found.asked.append(f"{line} ({name} has begun: its weights are in its checkpoints)")
    elif at and line.startswith(f"stages.{name}.steps: "):
        steps = new.stages[name].steps
        if not possible:
            found.asked.append(line)
        elif _only_longer(old, new, name, at.step):
            found.free.append(line)
        elif steps <= at.step:
            found.asked.append(f"{line} (it has reached step {at.step:,}: it ends there)")
        else:
            found.asked.append(line)
    else:
        found.asked.append(line)


def _is_undrawn(line: str, old: Experiment, new: Experiment, going_on) -> bool:
    """Is the line of a data set that no stage draws which has begun and is not at its end?"""
    names = {*old.data.datasets, *new.data.datasets}
    of = lambda n: line.startswith((f"data.datasets.{n}.", f"data.datasets.{n}:"))
    name = next(filter(of, names), None)
    drawn = any(name in e.draws(stage) for e in (old, new) for stage in going_on)
    return name is not None and not drawn


def _reopen(found: Changes, old, new, name: str, stages: dict, workdir: pathlib.Path) -> list[str]:
    """A stage that is done goes on where it gets more steps, or other patience than it ended by.
    Returns the line that is told with why it cannot."""
    at = stages[name]
    a = old.stages[name].steps
    b = new.stages[name].steps
    if uncounted(new):  # what is wrong with its epochs is told
        return []
    if not at.done:
        return []
    line = f"stages.{name}.steps: {a} -> {b}"
    later = list(new.stages)[list(new.stages).index(name) + 1 :]
    begun = [n for n in later if stages[n].begun]
    patience = new.evaluation.patience
    metric = new.checkpoints.best

    def over() -> bool:
        found_by = evaluated.records(inspect.stage_directory(workdir, name)) if patience else []
        return patience > 0 and evaluated.since_best(found_by, metric) >= patience

    if b <= a:  # or it ended early, and would not by today's patience
        early = patience != old.evaluation.patience and at.step is not None and at.step < b
        if not early or begun or over():
            return []
    if at.step is None:
        found.refused.append(
            f"{line}: {name} is done and its checkpoints are gone, so that it cannot go on; leave "
            f"stages.{name}.steps={a}, or begin with its weights in another --workdir "
            f"(stages.{name}.init={workdir / name})"
        )
    elif begun:
        found.refused.append(
            f"{line}: {name} is done and {begun[0]} has begun after it; leave stages.{name}.steps={a}, or train it "
            f"longer in another --workdir (stages.{name}.init={workdir / name})"
        )
    elif over():
        found.refused.append(
            f"{line}: {metric} got no better in {patience} evaluations before step {at.step:,}; "
            "raise evaluation.patience too, or set it to 0"
        )
    else:
        found.reopened[name] = at.step
        found.notes.append(
            f"stages.{name} was done and goes on from step {at.step:,}; its weights so far are kept "
            f"as {set_aside(workdir, name, at.step)}"
        )
        return []
    return [line]


def set_aside(workdir: pathlib.Path, name: str, step: int) -> pathlib.Path:
    """Where the weights go that a stage had handed on at a step from which it goes on."""
    away = workdir / f"{name}.step{step}"
    count = 0
    while away.exists():
        count += 1
        away = workdir / f"{name}.step{step}.{count}"
    return away


def _measured(asked: list[str], name: str) -> list[str]:
    """The fields among changes by which a stage's validation loss is another's."""
    own = tuple(f"stages.{name}.{field}" for field in ("ratio", "rows", "supervise"))
    of = ("data.datasets.", "template.", "evaluation.holdout", *own)
    return [line.partition(": ")[0] for line in asked if line.startswith(of)]


def _rates_at(experiment: Experiment, name: str, step: int) -> dict[str, float]:
    return StagePlan.of(experiment, name).rates(step)


def _only_longer(old: Experiment, new: Experiment, name: str, step: int) -> bool:
    """Is the stage longer under a schedule that would have come to `step` in the same way?"""
    longer = new.stages[name].steps > old.stages[name].steps
    optim = new.stages[name].optim
    falls_late = optim.schedule == "constant" or optim.decay_steps > 0  # at its end, if at all
    return longer and falls_late and _rates_at(old, name, step) == _rates_at(new, name, step)


def _rates(old: Experiment, new: Experiment, name: str, step: int) -> list[str]:
    """How the learning rates change at once."""
    before, after = (_rates_at(e, name, step) for e in (old, new))
    told = lambda rates, one: (
        f"{rates.get(one, rates['learning_rate']):g}"
    )  # those without their own
    return [
        f"stages.{name}: at step {step:,} the {one.replace('_', ' ')} goes from {told(before, one)} to "
        f"{told(after, one)}"
        for one in sorted({*before, *after})
        if told(before, one) != told(after, one)
    ]


def _out_of_order(old: Experiment, new: Experiment, stages: dict[str, Progress]) -> list[str]:
    """Stages before one that has begun and that did not stand there."""
    names = list(new.stages)
    last = max((i for i, name in enumerate(names) if stages[name].begun), default=0)
    before = list(itertools.takewhile(lambda name: name != names[last], old.stages))
    return [
        f"stages.{name} stands before {names[last]}, which has begun: stages run in their order"
        for name in names[:last]
        if name not in before
    ]
