"""No field of the schema is dead."""

import ast
import dataclasses
import typing

from support.configs import ROOT

from janus_jax.config import schema as experiment


def schema(kind=experiment.Experiment):
    """Every dataclass of the schema, from the outermost in."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        for inner in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(inner):
                yield from schema(inner)


def test_every_field_of_the_schema_is_read_somewhere():
    """By name, as an attribute, outside of the schema and its checks."""
    read = set()
    for path in ROOT.rglob("*.py"):
        if path.parent.name != "config":
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    read.add(node.attr)
    kinds = set(schema()) - {experiment.Ratio}  # by its kinds' names, as a dict
    assert len(kinds) >= 13
    dead = {
        f"{kind.__name__}.{f.name}"
        for kind in kinds
        for f in dataclasses.fields(kind)
        if f.name not in read
    }
    assert dead == set()
