"""What the commands about data share: data sets from flags or a config, exit codes.

Reading a config imports its schema and with it JAX (no device is touched); data sets given by flags need neither.
"""

import dataclasses
import os
import pathlib
import sys
from logging import Formatter

from janus_jax.data import catalog
from janus_jax.data.sources import KINDS, Dataset, SourceError

UNUSABLE = 3  # exit code: the data
SIDE = 384  # pixels of a drawn preset's pictures, where no config says it


class CommandError(ValueError):
    """Flags that contradict each other or cannot be followed; the message names them."""


def define_flags(into):
    """--config, --dataset, and a flag for each field of a `Dataset` line that says what it is, in absl's `into`."""
    from absl import flags

    flags.DEFINE_string(
        "config", "", "A file with get_config(); its data.datasets are read.", flag_values=into
    )
    flags.DEFINE_string("dataset", "", "Of a config: this data set only.", flag_values=into)
    for field in dataclasses.fields(Dataset):
        about = f"Without a config: `{field.name}` of data.sources.Dataset."
        if field.name == "kind":
            flags.DEFINE_enum("kind", "", ("", *KINDS), about, flag_values=into)
        elif field.name == "prompt":
            flags.DEFINE_multi_string("prompt", [], about + " May be repeated.", flag_values=into)
        elif field.name not in ("weight", "steps", "stages"):  # of a mixture, not of a data set
            define = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}[
                field.type
            ]
            default = "" if field.default is dataclasses.MISSING else field.default
            define(field.name, default, about, flag_values=into)


def chosen(f, overrides: dict[str, str]):
    """(data sets by name, experiment or None) that the parsed flags `f` name. Raises CommandError, ConfigError."""
    own = [field.name for field in dataclasses.fields(Dataset) if field.name in f and f[field.name].present]
    if not f.config:
        if overrides or f.dataset:
            raise CommandError("--dataset and --config.field=... change a config; give it as --config=FILE")
        if not (f.path and f.kind):
            raise CommandError(
                "give --config=FILE, or --path=... and --kind=understanding, text or generation"
            )
        values = {name: getattr(f, name) for name in own} | {"prompt": tuple(f.prompt)}
        return {"data": Dataset(**values)}, None
    if own:
        raise CommandError(
            f"--{', --'.join(own)}: a config describes its data sets itself; leave out one of the two"
        )
    from janus_jax.experiment import ConfigError, listed, near, read

    experiment, wrong = read(f.config, overrides)
    lines = experiment.data.datasets
    if f.dataset and f.dataset not in lines:
        wrong.append(f"--dataset={f.dataset}: the config has no such data set{near(f.dataset, lines)}")
    if wrong:
        raise ConfigError(listed(wrong))
    return {name: line for name, line in lines.items() if f.dataset in ("", name)}, experiment


def opened(line: Dataset, experiment):
    """The source of a data set. Raises SourceError."""
    side = experiment.model.generation_encoder.image_size if experiment else SIDE
    return catalog.open_dataset(line, side, experiment.seed if experiment else 0)


def writable(out) -> pathlib.Path:
    """The directory --out, made where it is not there. Raises CommandError unless this user can write into it."""
    out, why = pathlib.Path(out), "Permission denied"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if os.access(out, os.R_OK | os.W_OK | os.X_OK):
            return out
    except OSError as error:
        why = error.strerror
    raise CommandError(f"--out={out}: {why}; name a directory that this user can write into")


def start(main, define):
    """Runs a command: `define(flags)` defines its own flags, `main(flags, overrides)` gives the exit code. 2: the
    flags or the config; 3: the data; 1: anything else that a user can mend, as one message and no trace."""
    from absl import app, flags, logging

    define_flags(flags.FLAGS)
    define(flags.FLAGS)
    argv, overrides = list(sys.argv), {}
    if any(word.startswith("--config.") for word in argv):
        from janus_jax.experiment import split_flags

        argv, overrides = split_flags(argv)

    def run(rest):
        logging.set_verbosity(logging.INFO)  # what data sets leave out, and which files are copies
        logging.get_absl_handler().setFormatter(Formatter("%(message)s"))
        try:
            if rest[1:]:
                raise CommandError(f"unknown arguments {rest[1:]}; --help lists the flags")
            sys.exit(main(flags.FLAGS, overrides))
        except (ValueError, OSError, ImportError) as error:
            # ConfigError by name: its module needs JAX, and is not there where no config is read.
            usage = isinstance(error, CommandError) or type(error).__name__ == "ConfigError"
            _end(2 if usage else UNUSABLE if isinstance(error, SourceError) else 1, error)
        except KeyboardInterrupt:
            sys.exit("\nstopped")

    app.run(run, argv=argv, flags_parser=_parse)


def _parse(argv):
    from absl import flags

    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _end(2, CommandError(f"{error}; --help lists the flags"))


def _end(code: int, error: Exception):
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(code)
