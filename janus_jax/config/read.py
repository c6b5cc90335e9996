"""A config file and `--config.path=value` overrides, read into the dataclasses of schema.py.

A config file defines `get_config() -> ConfigDict`, or `get_config(target: str = "")` and TARGETS, a
dict whose keys are chips ("h100:64"; "" is any), sizes of the model ("7b") or both ("7b:h100:64"):
`configs/stage2.py:h100:64`. With an argument `given` it hears of the overrides, such as the weights
to begin with, and can follow them. `read` turns it and the overrides into frozen dataclasses;
everything unknown, of a wrong type or impossible is collected and reported at once, before anything
compiles.
"""

import ast
import dataclasses
import importlib.util
import inspect
import pathlib
import re
import types
import typing

from janus_jax.common.paths import expanded
from janus_jax.common.text import near
from janus_jax.config.schema import ByPart, ConfigError, Experiment

# Fields in which `~` is replaced.
PATHS = ("path", "images", "names", "image_ids", "holdout", "init", "tokenizer", "options")
GONE = {"on_change": "--accept_changes of the command goes on with other data"}  # field -> instead


def read(
    path: str, overrides: dict[str, str] | None = None, target: str = ""
) -> tuple[Experiment, list[str]]:
    """The config in a file with `overrides` (dotted path -> text) applied, and what is wrong with
    those: an override that cannot be applied is left out. Raises ConfigError when the file itself
    does not fit.

    path: the file, perhaps with `:` and one of its targets
    target: chips, for a path that names none: `configs/pro_stage2.py:7b` with "h100:64" is read as
      `7b:h100:64`; chips that the file does not list change nothing
    """
    name, colon, named = str(path).partition(".py:")
    file = pathlib.Path(name + ".py" if colon else name)
    if not file.is_file():
        known = [str(p) for p in sorted(pathlib.Path("configs").glob("*.py"))]
        raise ConfigError(f"--config={path}: no such file" + near(str(file), known))
    spec = importlib.util.spec_from_file_location("janus_jax_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config={path}: defines no get_config(); see configs/quickstart.py")
    takes = set(inspect.signature(module.get_config).parameters)
    hears = {"given": dict(overrides or {})} if "given" in takes else {}
    takes -= {"given"}
    targets = getattr(module, "TARGETS", {})
    if colon and not takes:
        raise ConfigError(f"--config={path}: {file} has no targets; leave out ':{named}'")
    if colon and not (named and named in targets):
        known = [key for key in targets if key]
        raise ConfigError(f"--config={path}: {file} has no target {named!r}{near(named, known)}")
    if not takes:
        return resolve(module.get_config(**hears).to_dict(), overrides or {})
    combined = f"{named}:{target}" if named else target
    chosen = combined if combined in targets else named
    if not chosen and targets and "" not in targets:
        raise ConfigError(f"--config={path}: name one of its targets: {file}:{', :'.join(targets)}")
    return resolve(module.get_config(chosen, **hears).to_dict(), overrides or {})


def resolve(values: dict, overrides: dict[str, str]) -> tuple[Experiment, list[str]]:
    """`read` for a plain nested dict."""
    wrong, problems = [], []
    written = {key: _batch_size(values, key) for key in overrides if key.endswith(".batch_size")}
    # A number for all parts first, then those of single ones.
    for key, text in sorted(overrides.items(), key=lambda given: given[0].count(".")):
        if key.startswith(("data.add.", "data.remove.")):
            _line(values, *key.split(".", 2)[1:], wrong)
        else:
            _override(values, Experiment, key.split("."), text, key, wrong)
    for key, size in written.items():
        if key.replace("batch_size", "rows.count") not in overrides:
            _rows_follow(values, key, size)
    built = build(Experiment, values, "", problems)
    if problems:
        raise ConfigError.of(problems + wrong)
    return built, wrong


def _line(values: dict, what: str, name: str, problems: list[str]):
    """Adds a data set, whose fields other overrides set, or removes one."""
    lines = values.setdefault("data", {}).setdefault("datasets", {})
    if what == "add" and name in lines:
        more = f"set its fields: --config.data.datasets.{name}.FIELD=VALUE"
        problems.append(f"--data.add: there is a data set {name!r} already; {more}")
    elif what == "add":
        lines[name] = {}
    elif lines.pop(name, None) is None:
        problems.append(f"--data.remove={name}: there is no such data set{near(name, lines)}")


def _batch_size(values: dict, key: str):
    """What the file says at `stages.NAME.batch_size`, or None where that is no whole number."""
    name = key.removeprefix("stages.").removesuffix(".batch_size")
    try:
        size = values["stages"][name]["batch_size"]
    except (KeyError, TypeError):
        return None
    return size if type(size) is int and size > 0 else None


def _rows_follow(values: dict, key: str, before: int | None):
    """A batch_size given on the command line takes the file's rows with it: as many more or fewer
    examples are as many more or fewer rows. `rows.count` beside it says otherwise."""
    after = _batch_size(values, key)
    stage = values["stages"][key.split(".")[1]] if before and after else {}
    rows = stage.get("rows")
    if isinstance(rows, dict) and type(rows.get("count")) is int:
        rows["count"] = max(1, round(rows["count"] * after / before))


def _instead(name: str, known) -> str:
    """The end of a message about a field that is not there."""
    return f"; {GONE[name]}" if name in GONE else near(name, known)


def inner_type(kind):
    """The section inside `X | None` or `float | dict`, else the type itself."""
    inside = typing.get_args(kind) if isinstance(kind, types.UnionType) else ()
    section = lambda k: dataclasses.is_dataclass(k) or typing.get_origin(k) is dict
    return next(filter(section, inside), kind)


def _override(values: dict, kind, keys: list[str], text: str, key: str, problems: list[str]):
    """Sets one value in the nested dict, read as the schema's type for it."""
    name = keys[0]
    kind = inner_type(kind)
    if typing.get_origin(kind) is dict:
        of = typing.get_args(kind)[1]
        # Numbers of a task may be named here first; which there are is the task's to say.
        fields = dict.fromkeys(values if dataclasses.is_dataclass(of) else [*values, name], of)
    else:
        fields = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    of = fields.get(name)
    if name not in fields:
        more = f'; --data.add="name={name} ..." adds it' if key.startswith("data.datasets.") else ""
        more = more if typing.get_origin(kind) is dict else ""
        problems.append(f"--config.{key}: there is no {name!r} here{_instead(name, fields)}{more}")
    elif len(keys) > 1:
        given = values.get(name)
        if not isinstance(given, dict) and (given is None or of == ByPart):
            values[name] = {} if given is None else {"default": given}
        _override(values[name], of, keys[1:], text, key, problems)
    elif dataclasses.is_dataclass(inner_type(of)) or typing.get_origin(of) is dict:
        inner = values[name] if isinstance(values.get(name), dict) else {}
        problems.append(
            f"--config.{key}={text}: this is a section; set one of its fields: {', '.join(inner)}"
        )
    else:
        value = _literal(of, text)
        before = len(problems)
        build(of, value, f"--config.{key}", problems)
        if len(problems) == before:
            values[name] = value


def _literal(kind, text: str):
    """Text from the command line as a Python value where the type is not text. Of several texts a
    comma without a space is between two: "a cat,a dog, asleep" are two."""
    if kind is str:
        return text
    if kind == tuple[str, ...] and not text.startswith(("(", "[")):
        return tuple(part for part in re.split(r",(?!\s)", text) if part)
    if kind in (float, ByPart) and text.strip("+-").lower() in ("nan", "inf", "infinity"):
        return float(text)  # refused as a number, with its name
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def build(kind, value, path: str, problems: list[str]):
    """A value of type `kind` from plain data; problems of form are appended, with the field's
    path."""
    if isinstance(kind, types.UnionType):  # what the value is, else the first
        inside = typing.get_args(kind)
        kind = next((k for k in inside if isinstance(value, typing.get_origin(k) or k)), inside[0])
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, path, problems)
    if origin is dict:
        if not isinstance(value, dict):
            problems.append(f"{path} is {value!r}: must be a section, a name for each of its parts")
            return {}
        return {
            k: build(typing.get_args(kind)[1], v, f"{path}.{k}", problems) for k, v in value.items()
        }
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(build(typing.get_args(kind)[0], v, path, problems) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is tuple or not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = "a tuple" if origin is tuple else {"str": "text", "int": "a whole number", "float": "a number"}.get(
            kind.__name__, f"a {kind.__name__}"
        )  # fmt: skip
        problems.append(f"{path} is {value!r}: must be {wanted}")
    return value


def _build_dataclass(kind, value, path: str, problems: list[str]):
    dot = f"{path}." if path else ""
    if not isinstance(value, dict):
        problems.append(
            f"{path} is {value!r}: must be a section with {', '.join(typing.get_type_hints(kind))}"
        )
        return None
    hints = typing.get_type_hints(kind)
    problems += [
        f"{dot}{name}: unknown field{_instead(name, hints)}" for name in value if name not in hints
    ]
    built = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            optional = types.NoneType in typing.get_args(hints[field.name])
            if not (optional and value[field.name] is None):
                read = build(hints[field.name], value[field.name], dot + field.name, problems)
                if field.name in PATHS:
                    read = _expanded(read, dot + field.name, problems)
                built[field.name] = read
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{dot}{field.name}: missing; it has no default")
            built[field.name] = None
    return kind(**built)


def _expanded(value, path: str, problems: list[str]):
    """A path, or several, as `paths.expanded` gives it; what is no text is left."""
    if isinstance(value, dict):
        return {name: _expanded(part, f"{path}.{name}", problems) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_expanded(part, path, problems) for part in value)
    try:
        return expanded(value) if isinstance(value, str) else value
    except ValueError as error:
        problems.append(f"{path} is {value!r}: {error}")
        return value
