"""What a config file may say: the schema, its checks, and `--config.path=value` overrides.

A config file defines `get_config() -> ConfigDict`, or `get_config(target: str = "")` and TARGETS, a dict by
hardware ("h100:64"; "" is any) of mesh, rows and remat: `configs/stage2.py:h100:64`. `read` turns it and the
overrides into frozen dataclasses; everything unknown, of a wrong type or impossible is collected and reported at
once, before anything compiles.
"""

import ast
import dataclasses
import difflib
import importlib.util
import inspect
import pathlib
import types
import typing

from janus_jax.data.pipeline import Rows
from janus_jax.data.processor import Template
from janus_jax.data.sources import Dataset
from janus_jax.guard import Spikes
from janus_jax.model import config as model_config
from janus_jax.optim import Optim


class ConfigError(ValueError):
    """All that is wrong with a config, one line each."""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Examples drawn of each kind (Table 1's data ratio)."""

    understanding: float
    text: float
    generation: float


@dataclasses.dataclass(frozen=True)
class Stage:
    """One column of Table 1 and of Figure 3.

    trainable: the flames, children of the model. init: weights directories; each may hold some children, later
    ones win, `previous` is the stage before in this config, and what none holds starts at random. batch_size:
    examples a step, the paper's number; rows: the shape that holds them. supervise: `all` text or `answers`.
    accumulate: microbatches that a step's rows are cut into, one after the other, for memory.
    """

    trainable: tuple[str, ...]
    init: tuple[str, ...]
    steps: int
    batch_size: int
    rows: Rows
    ratio: Ratio
    supervise: str
    optim: Optim
    condition_dropout: float = 0.1
    first_sentence: float = 0.25
    accumulate: int = 1
    checkpoint_every: int = 1000
    log_every: int = 20
    spikes: Spikes = dataclasses.field(default_factory=Spikes)


@dataclasses.dataclass(frozen=True)
class TokenizerStage:
    """Stage 0, the VQ tokenizer's own training: pictures a step, steps, and the weights of the commitment loss
    (LlamaGen: 0.25) and of the entropy loss (LlamaGen: 0; without it a small tokenizer trained from nothing
    falls onto two or three codes)."""

    steps: int
    batch_size: int
    optim: Optim
    commitment: float = 0.25
    entropy: float = 0.0
    checkpoint_every: int = 200
    log_every: int = 50
    spikes: Spikes = dataclasses.field(default_factory=Spikes)


@dataclasses.dataclass(frozen=True)
class Data:
    """datasets: a line each, by name. workers: processes a host that read, decode and pack, 0 for the training one
    itself; the batches are the same. max_bad_fraction: of a data set's records, above which training stops.
    on_change: `refuse` or `accept` a checkpoint whose data was another (see data/position.py)."""

    datasets: dict[str, Dataset]
    workers: int = 0
    max_bad_fraction: float = 0.01
    on_change: str = "refuse"

    def of(self, stage: str) -> dict[str, Dataset]:
        """The lines that a stage draws, perhaps with weight 0."""
        return {name: d for name, d in self.datasets.items() if not d.stages or stage in d.stages}


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices along each axis; one may be -1, the devices left."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """After the last stage: `count` drawings a task (or in all) and as many questions an answer (or in all),
    sampled at this guidance and temperature; 0 for none."""

    count: int = 0
    cfg_scale: float = 5.0
    temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """How many of a stage's latest checkpoints stay (at least 2: one may be damaged), and those whose step
    `keep_every` divides, for good; 0 for none."""

    keep: int = 2
    keep_every: int = 0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config file, resolved. tokenizer: a directory with tokenizer.json, or empty to learn a byte-level BPE
    from the data. stage0: the VQ tokenizer's own training, or absent. wandb: the Weights & Biases project to log to
    as well, or empty. profile: how many steps of each stage to trace, 0 for none."""

    model: model_config.JanusConfig
    template: Template
    data: Data
    stages: dict[str, Stage]
    tokenizer: str = ""
    mesh: Mesh = Mesh()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    stage0: TokenizerStage | None = None
    seed: int = 0
    wandb: str = ""
    profile: int = 0


def split_flags(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Takes `--config.a.b=value` (or `--config.a.b value`) out of the arguments: (the rest, overrides)."""
    rest, overrides, words = [], {}, iter(argv)
    for word in words:
        if word.startswith("--config."):
            key, equals, value = word.removeprefix("--config.").partition("=")
            overrides[key] = value if equals else next(words, "")
        else:
            rest.append(word)
    return rest, overrides


def read(
    path: str, overrides: dict[str, str] | None = None, target: str = ""
) -> tuple[Experiment, list[str]]:
    """The config in a file with `overrides` (dotted path -> text) applied, and what is wrong with those: an
    override that cannot be applied is left out. Raises ConfigError when the file itself does not fit.

    path: the file, perhaps with `:` and one of its targets. target: the one meant where the path names none; a
    file that does not list it gives its default.
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
    takes, targets = inspect.signature(module.get_config).parameters, getattr(module, "TARGETS", {})
    if colon and not takes:
        raise ConfigError(f"--config={path}: {file} has no targets; leave out ':{named}'")
    if colon and not (named and named in targets):
        known = [key for key in targets if key]
        raise ConfigError(f"--config={path}: {file} has no target {named!r}{near(named, known)}")
    chosen = (named if colon else target if target in targets else "",) if takes else ()
    return resolve(module.get_config(*chosen).to_dict(), overrides or {})


def resolve(values: dict, overrides: dict[str, str]) -> tuple[Experiment, list[str]]:
    """`read` for a plain nested dict."""
    wrong, problems = [], []
    for key, text in overrides.items():
        _override(values, Experiment, key.split("."), text, key, wrong)
    built = _build(Experiment, values, "", problems)
    if problems:
        raise ConfigError(listed(problems + wrong))
    return built, wrong


def listed(problems: list[str]) -> str:
    """All problems as one message; what two checks found alike is told once."""
    problems = list(dict.fromkeys(problems))
    return f"{len(problems)} problem(s) in the config:\n" + "\n".join(f"  - {p}" for p in problems)


def near(name: str, known) -> str:
    """The end of a message about a name that is not known: the nearest one, or all."""
    found = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {found[0]!r}?" if found else f"; known: {', '.join(known)}"


def _inner(kind):
    """The dataclass inside `X | None`, else the type itself."""
    if isinstance(kind, types.UnionType):
        return next(k for k in typing.get_args(kind) if k is not types.NoneType)
    return kind


def _override(values: dict, kind, keys: list[str], text: str, key: str, problems: list[str]):
    """Sets one value in the nested dict, read as the schema's type for it."""
    name, kind = keys[0], _inner(kind)
    if typing.get_origin(kind) is dict:
        fields = dict.fromkeys(values, typing.get_args(kind)[1])
    else:
        fields = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    if name not in fields:
        problems.append(f"--config.{key}: there is no {name!r} here" + near(name, fields))
    elif len(keys) > 1:
        if values.get(name) is None:
            values[name] = {}
        _override(values[name], fields[name], keys[1:], text, key, problems)
    elif dataclasses.is_dataclass(_inner(fields[name])) or typing.get_origin(fields[name]) is dict:
        inner = values[name] if isinstance(values.get(name), dict) else {}
        problems.append(
            f"--config.{key}={text}: this is a section; set one of its fields: {', '.join(inner)}"
        )
    else:
        value, before = _literal(fields[name], text), len(problems)
        _build(fields[name], value, f"--config.{key}", problems)
        if len(problems) == before:
            values[name] = value


def _literal(kind, text: str):
    """Text from the command line as a Python value where the type is not text."""
    if kind is str:
        return text
    if kind == tuple[str, ...] and not text.startswith(("(", "[")):
        return tuple(part for part in text.split(",") if part)
    if kind is float and text.strip("+-").lower() in ("nan", "inf", "infinity"):
        return float(text)  # refused as a number, with its name
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _build(kind, value, path: str, problems: list[str]):
    """A value of type `kind` from plain data; problems of form are appended, with the field's path."""
    kind, origin = _inner(kind), typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, path, problems)
    if origin is dict:
        if not isinstance(value, dict):
            problems.append(f"{path} is {value!r}: must be a section, a name for each of its parts")
            return {}
        return {k: _build(typing.get_args(kind)[1], v, f"{path}.{k}", problems) for k, v in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_build(typing.get_args(kind)[0], v, path, problems) for v in value)
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
    problems += [f"{dot}{name}: unknown field{near(name, hints)}" for name in value if name not in hints]
    built = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            optional = hints[field.name] != _inner(hints[field.name])
            if not (optional and value[field.name] is None):
                built[field.name] = _build(hints[field.name], value[field.name], dot + field.name, problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{dot}{field.name}: missing; it has no default")
            built[field.name] = None
    return kind(**built)
