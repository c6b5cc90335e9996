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


def leaks(experiment: Experiment, surveys: dict, sources: dict) -> list[str]:
    """A line for each data set whose held-out records show pictures, or say texts, that are trained
    on too.

    surveys: survey.Survey by name.
    sources: by name, as `with_held_out` gives them.
    """
    apart = {name for name in surveys if name.endswith(SUFFIX)}
    numbers = {name: _numbers(experiment, name, sources.get(name)) for name in {*surveys} - apart}
    if not apart and not any(numbers.values()):
        return []
    trained = {}
    held = {}
    for name, found in surveys.items():
        for record in found.good:
            where = sources[name].where(record.index)
            if name in apart or record.index in numbers[name]:
                held.setdefault(name.removesuffix(SUFFIX), []).append((where, _content(record)))
            else:
                trained |= dict.fromkeys(_content(record), f"{where} of {name}")
    out = []
    for name, records in held.items():
        known = [(where, trained[x]) for where, content in records for x in content if x in trained]
        count = len(dict(known))
        if count:
            where, copy = known[0]
            out.append(
                f"data.datasets.{name}.holdout: of {len(records)} held-out records {count} show what is "
                f"trained on too, such as {where}, which is {copy}; their loss will look better than "
                "it is: remove the copies, or hold out a file without them"
            )
    return out


def _numbers(experiment: Experiment, name: str, source) -> set[int]:
    """The numbers of the records of a source that are held out."""
    asked = holdout_of(experiment, name)
    if source is None or isinstance(asked, str) or not asked:
        return set()
    try:
        part = part_of(experiment, name, source, held_out=True)
    except SourceError:  # too few records: a dry run tells it
        return set()
    return {part.index(i) for i in range(len(part))}


def _content(record) -> list[bytes]:
    """Hashes of what a survey.Record shows: its pictures, or, where it has none, its text."""
    return record.pixels or [record.words]
