"""What the commands about data share: data sets from flags or a config, and their frame."""

import dataclasses
import pathlib

from janus_jax.common import cli, exit_codes, outputs
from janus_jax.common.text import parameters
from janus_jax.config import fields
from janus_jax.config.read import PATHS
from janus_jax.config.schema import FORMS, KINDS, Dataset
from janus_jax.data import catalog

UNUSABLE = exit_codes.DATA
SIDE = 384  # pixels of a drawn preset's pictures, where no config says it


class CommandError(exit_codes.UsageError):
    """Flags that contradict each other or cannot be followed; the message names them."""


def define_flags(into, unread: tuple[str, ...] = ()):
    """--config, --dataset, and a flag for each field of a `Dataset` line that says what it is, in
    absl's `into`. unread: fields that the command does not read."""
    from absl import flags

    path = cli.Definer(into).path
    path("config", None, "A file with get_config(); its data.datasets are read.")
    flags.DEFINE_string("dataset", "", "Of a config: this data set only.", flag_values=into)
    about = parameters(Dataset)
    for field in dataclasses.fields(Dataset):
        if field.name in unread:
            continue
        text = f"Without a config: {about[field.name]}"
        if field.name in ("kind", "form"):
            known = {"kind": KINDS, "form": FORMS}[field.name]
            flags.DEFINE_enum(field.name, "", ("", *known), text, flag_values=into)
        elif field.name == "prompt":
            flags.DEFINE_multi_string("prompt", [], text, flag_values=into)
        elif field.name in ("weight", "steps", "stages", "holdout", "edit_dropout"):
            continue  # of a stage, not of a data set
        elif field.name in PATHS:
            path(field.name, None, text)
        else:
            define = {
                str: flags.DEFINE_string,
                int: flags.DEFINE_integer,
                float: flags.DEFINE_float,
                bool: flags.DEFINE_bool,
            }[field.type]
            default = "" if field.default is dataclasses.MISSING else field.default
            define(field.name, default, text, flag_values=into)


def chosen(f, overrides: dict[str, str], unread: tuple[str, ...] = ()):
    """(data sets by name, experiment or None) that the parsed flags `f` name. unread: as in
    define_flags; a flag of this name is the command's own. Raises CommandError, ConfigError."""
    own = [
        field.name
        for field in dataclasses.fields(Dataset)
        if field.name not in unread and field.name in f and f[field.name].present
    ]
    if not f.config:
        if overrides or f.dataset:
            raise CommandError(
                "--dataset, --data.add, --data.remove and --config.field=... are about a config; give it as "
                "--config=FILE"
            )
        if not (f.path and f.kind):
            raise CommandError(
                "give --config=FILE, or --path=... and --kind=understanding, text or generation"
            )
        values = {name: getattr(f, name) for name in own}
        values |= {"prompt": tuple(f.prompt)} if "prompt" in own else {}
        return {"data": Dataset(**values)}, None
    if own:
        raise CommandError(
            f"--{', --'.join(own)}: a config describes its data sets itself; leave out one of the "
            f"two"
        )
    from janus_jax.common.text import near
    from janus_jax.config.epochs import epoch_problems
    from janus_jax.config.read import read
    from janus_jax.config.schema import ConfigError

    experiment, wrong = read(f.config, overrides)
    wrong += epoch_problems(experiment)
    lines = experiment.data.datasets
    if f.dataset and f.dataset not in lines:
        wrong.append(
            f"--dataset={f.dataset}: the config has no such data set{near(f.dataset, lines)}"
        )
    if wrong:
        raise ConfigError.of(wrong)
    return {name: line for name, line in lines.items() if f.dataset in ("", name)}, experiment


def open_line(line: Dataset, experiment, bare: bool = False):
    """The source of a data set. bare: see catalog.open_dataset. Raises SourceError."""
    side = experiment.model.generation_encoder.image_size if experiment else SIDE
    return catalog.open_dataset(line, side, experiment.seed if experiment else 0, bare=bare)


def writable(out) -> pathlib.Path:
    """The directory --out, made where it is not there. Raises CommandError unless this user can
    write into it."""
    out = pathlib.Path(out)
    try:
        outputs.require_writable(out, "--out")
    except exit_codes.UsageError as error:
        raise CommandError(str(error)) from None
    out.mkdir(parents=True, exist_ok=True)
    return out


def command(name: str, about: str, example: str, define, unread=()) -> cli.Command:
    """A command about data sets: the flags that `define` defines, and those that say which data
    sets are meant.

    name: as it is typed.
    about: what it does.
    example: a command line that works.
    define: defines the command's own flags in absl's FlagValues.
    unread: fields of a data set that the command does not read.
    """

    def define_all(into):
        define_flags(into, unread)
        define(into)

    return cli.Command(name, about, example, define_all, fields.field_lines)


def start(found: cli.Command, main, argv: list[str]) -> int:
    """Runs a command about data sets: `main(flags, overrides)` gives the exit code."""
    cli.log_to_stderr("info", bare=True)  # what data sets leave out, and which files are copies
    return cli.run(found, main, argv)
