"""Counts of right answers by picture, and the percents that they make."""

import collections
from collections.abc import Mapping

from janus_jax.eval.benchmark import Record


def by_picture(records: list[Record], marks: list[dict]) -> list[dict[str, float]]:
    """The counts of each picture with its questions: facts["picture"], or the record alone. They
    are "unread", what nothing was read from, and, of all and of each category, asked and right."""
    pictures = collections.defaultdict(collections.Counter)
    for record, found in zip(records, marks, strict=True):
        unit = pictures[record.facts.get("picture", record.index)]
        unit["unread"] += found["read"] == ""
        count_right(unit, record.category, found["right"])
    return [dict(unit) for unit in pictures.values()]


def count_right(unit: collections.Counter, category: str, right: float):
    """Adds a question to the counts of all and of its category."""
    for name in ("all", f"of {category}") if category else ("all",):
        unit[f"{name}/asked"] += 1
        unit[f"{name}/right"] += right


def percents(sums: Mapping[str, float]) -> dict[str, float]:
    """What counts of `by_picture` make: "accuracy", "unread", and each category's accuracy by its
    name."""
    out = {
        "accuracy": 100 * sums["all/right"] / sums["all/asked"],
        "unread": 100 * sums["unread"] / sums["all/asked"],
    }
    return out | of_categories(sums)


def of_categories(sums: Mapping[str, float]) -> dict[str, float]:
    """category -> percent right."""
    found = [name for name in sums if name.startswith("of ") and name.endswith("/asked")]
    return {
        name[3:-6]: 100 * sums[f"{name[:-6]}/right"] / sums[name]
        for name in sorted(found)
        if sums[name]
    }
