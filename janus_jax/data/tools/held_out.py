"""What is held out of training, among the records that `check` looks at."""

import dataclasses

from janus_jax.config.held_out import holdout_of
from janus_jax.config.schema import Experiment
from janus_jax.data.holdout import part_of
from janus_jax.data.sources import SourceError

SUFFIX = ".holdout"  # of the name of a data set: what is held out of it, where that lies elsewhere


def with_held_out(lines: dict, sources: dict) -> tuple[dict, dict]:
    """Lines and opened sources by name, with those that are held out by their path beside them."""
    apart = {name: s.held_out for name, s in sources.items() if hasattr(s, "held_out")}
    more = {
        name + SUFFIX: dataclasses.replace(lines[name], path=lines[name].holdout, holdout="")
        for name in apart
    }
    return lines | more, sources | {name + SUFFIX: s for name, s in apart.items()}


def numbers(experiment: Experiment, surveys: dict, sources: dict) -> dict[str, set[int]]:
    """The numbers of the records that are held out of each data set by their share, by name.

    surveys: survey.Survey by name.
    sources: by name, as `with_held_out` gives them.
    """
    out = {}
    for name in surveys:
        if name.endswith(SUFFIX) or name not in sources:
            continue
        asked = holdout_of(experiment, name)
        if isinstance(asked, str) or not asked:
            continue
        try:
            part = part_of(experiment, name, sources[name], held_out=True)
        except SourceError:  # too few records: a dry run tells it
            continue
        out[name] = {part.index(i) for i in range(len(part))}
    return out


def trained(surveys: dict, apart: dict[str, set[int]]) -> dict:
    """The surveys of what is trained on, by name: without `apart`, as `numbers` gives it."""
    out = dict(surveys)
    for name, held in apart.items():
        found = surveys[name]
        good = [record for record in found.good if record.index not in held]
        bad = [line for line in found.bad if line["record"] not in held]
        left = {"good": good, "bad": bad, "looked": len(good) + len(bad)}
        out[name] = dataclasses.replace(found, total=found.total - len(held), **left)
    return out


def leaks(experiment: Experiment, surveys: dict, sources: dict, apart: dict) -> list[str]:
    """A line for each data set whose held-out records show pictures, or say texts, that are trained
    on too.

    surveys: survey.Survey by name.
    sources: by name, as `with_held_out` gives them.
    apart: as `numbers` gives it.
    """
    drawn = {name for stage in experiment.stages for name in experiment.draws(stage)}
    known = {}
    held = {}
    for name, found in surveys.items():
        of = name.removesuffix(SUFFIX)
        for record in found.good if of in drawn else ():
            where = sources[name].where(record.index)
            if of != name or record.index in apart.get(name, ()):
                held.setdefault(of, []).append((where, _content(record)))
            else:
                known |= dict.fromkeys(_content(record), f"{where} of {name}")
    out = []
    for name, records in held.items():
        again = [(where, known[x]) for where, content in records for x in content if x in known]
        count = len(dict(again))
        if count:
            where, copy = again[0]
            out.append(
                f"data.datasets.{name}.holdout: of {len(records)} held-out records {count} show what is "
                f"trained on too, such as {where}, which is {copy}; their loss will look better than "
                "it is: remove the copies, or hold out a file without them"
            )
    return out


def _content(record) -> list[bytes]:
    """Hashes of what a survey.Record shows: its pictures, or, where it has none, its text."""
    return record.pixels or [record.words]
