"""Data sets that a command line adds to a config, or takes out of it:
`--data.add="name=mine kind=understanding path=mine.jsonl"`, `--data.remove=text`."""

import shlex

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import short

ADD = "data.add"
REMOVE = "data.remove"


def overrides_of(flag: str, text: str) -> dict[str, str]:
    """What a flag means as overrides of the config: `data.add.NAME` and its fields, or
    `data.remove.NAME`. Raises UsageError.

    flag: ADD or REMOVE.
    text: what was given; spaces in a value stand in quotes.
    """
    if flag == REMOVE:
        return {f"{REMOVE}.{_name(flag, text, text.strip())}": ""}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--{ADD}={short(text)}: {error}; close the quote") from None
    fields = {}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals:
            raise UsageError(
                f"--{ADD}={short(text)}: {short(word)!r} has no '='; give FIELD=VALUE, and a value with spaces in "
                "quotes, path='my pictures/a.jsonl'"
            )
        if field in fields:
            raise UsageError(f"--{ADD}={short(text)}: gives {short(field)!r} twice; give it once")
        fields[field] = value
    name = _name(flag, text, fields.pop("name", ""))
    return {f"{ADD}.{name}": ""} | {f"data.datasets.{name}.{f}": v for f, v in fields.items()}


def first(overrides: dict[str, str]) -> dict[str, str]:
    """The same, data sets taken out and added before their fields are set."""
    order = lambda key: (not key.startswith(f"{REMOVE}."), not key.startswith(f"{ADD}."))
    return {key: overrides[key] for key in sorted(overrides, key=order)}


def _name(flag: str, text: str, name: str) -> str:
    if not name or "." in name or any(c.isspace() for c in name):
        example = {ADD: '"name=mine kind=understanding path=mine.jsonl"', REMOVE: "mine"}[flag]
        raise UsageError(
            f"--{flag}={short(text)}: names no data set; give a name without dots and spaces, --{flag}={example}"
        )
    return name
