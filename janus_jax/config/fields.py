"""The fields of a config as lines of text, for --help."""

import dataclasses
import typing

from janus_jax.config.read import inner_type
from janus_jax.config.schema import ByPart, Experiment

WORDS = {
    str: "TEXT",
    int: "NUMBER",
    float: "NUMBER",
    bool: "True|False",
    float | str: "NUMBER|TEXT",
    int | str: "NUMBER|TEXT",
}


def field_lines() -> list[str]:
    """A line for each section of a config: its fields, each with its type and default."""
    out = []
    _section(Experiment, "", out)
    return out


def _section(kind, path: str, out: list[str]):
    """Appends the line of a section, and those of the sections in it."""
    hints = typing.get_type_hints(kind)
    fields = []
    inner = []
    for field in dataclasses.fields(kind):
        of = inner_type(hints[field.name])
        if hints[field.name] == ByPart:
            fields.append(f"{field.name}[.<part>]=NUMBER{_default(field)}")
            continue
        prefix = f"{path}{field.name}."
        if typing.get_origin(of) is dict:  # a name for each of its parts
            of = typing.get_args(of)[1]
            prefix = f"{prefix}<name>."
            if typing.get_origin(of) is dict:
                fields.append(f"{field.name}.<name>.<size>={_word(typing.get_args(of)[1])}")
                continue
            if not dataclasses.is_dataclass(of):
                fields.append(f"{field.name}.<name>={_word(of)}")
                continue
        if dataclasses.is_dataclass(of):
            inner.append((of, prefix))
        else:
            fields.append(f"{field.name}={_word(of)}{_default(field)}")
    if fields:
        out.append(f"{path}  {'; '.join(fields)}" if path else "; ".join(fields))
    for of, prefix in inner:
        _section(of, prefix, out)


def _word(kind) -> str:
    if typing.get_origin(kind) is tuple:
        return f"{WORDS[typing.get_args(kind)[0]]},..."
    return WORDS[kind]


def _default(field) -> str:
    if field.default is dataclasses.MISSING:
        return ""
    if isinstance(field.default, tuple):
        return f" ({','.join(map(str, field.default)) or 'none'})"
    if isinstance(field.default, str) and len(field.default) > 20:
        return f" ({field.default[:20]!r}...)"
    return f" ({field.default!r})"
