"""The frame of all commands: flags, --help, and an error as one line with the exit code that it
means.

A command is a function `main(flags, overrides)` that returns its exit code (None is 0), beside a
function that defines its flags. Nothing heavy is imported here, so that the first line of output
comes at once.
"""

import functools
import importlib
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from janus_jax.common import dataset_flags, exit_codes, streams
from janus_jax.common.help import help_text
from janus_jax.common.paths import expanded, local, typed
from janus_jax.common.text import bounded, near, short, version

HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull")


class Command(NamedTuple):
    """name: as it is typed, `python -m janus_jax.main`.
    about: what it does, in a line or a few.
    example: a command line that works.
    define: defines its flags in the absl FlagValues that it is given.
    fields: gives the lines of --help about the fields of a config; None for a command without
        overrides.
    """

    name: str
    about: str
    example: str
    define: Callable
    fields: Callable[[], list[str]] | None = None


class Definer:
    """Defines flags in an absl FlagValues: `define.text(name, default, about, required=True)`.

    Those of `path`, `output` (a path that is written to, never an address) and `pictures` (which
    may be data URIs) come with `~` and `$NAME` replaced.
    """

    def __init__(self, into):
        from absl import flags

        class Picture(flags.ArgumentParser):
            def parse(self, argument):
                return expanded(argument)

        class Path(flags.ArgumentParser):
            def parse(self, argument):
                return typed(argument)

        class Output(flags.ArgumentParser):
            def parse(self, argument):
                return local(typed(argument))

        def bound(function, *first):
            return functools.partial(function, *first, flag_values=into)

        self.path = bound(flags.DEFINE, Path())
        self.output = bound(flags.DEFINE, Output())
        self.pictures = bound(flags.DEFINE_multi, Picture(), flags.ArgumentSerializer())
        self.text = bound(flags.DEFINE_string)
        self.texts = bound(flags.DEFINE_multi_string)
        self.whole = bound(flags.DEFINE_integer)
        self.number = bound(flags.DEFINE_float)
        self.switch = bound(flags.DEFINE_bool)
        self.choice = bound(flags.DEFINE_enum)

    def base(self):
        """--base, beside a flag that names weights."""
        about = "Of an adapter (LoRA), the weights that it was trained on, where they have moved."
        self.path("base", None, about)


def run(command: Command, main: Callable, argv: list[str]) -> int:
    """Runs a command; its exit code. What a user can mend is one line on stderr.

    main: called with the parsed flags and the overrides of the config, {dotted path: text}.
    argv: the words after the command's name.
    """
    flags, overrides = parse(command, argv)
    try:
        code = main(flags, overrides) or exit_codes.DONE
        if code == exit_codes.DONE and (error := streams.lost()):
            raise error
        return code
    except KeyboardInterrupt:
        return stopped()
    except Exception as error:
        return failed(error)


def parse(command: Command, argv: list[str]):
    """(absl FlagValues, overrides of the config). Ends the process where they ask for help or
    cannot be followed."""
    from absl import flags

    streams.secure()
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags are read behind a word that no flag took too
    overrides = {}
    command.define(values)
    for name in values:
        _once(values[name])
    if any(word in HELP for word in argv):
        print(help_text(command, values))
        sys.exit(exit_codes.DONE)
    try:
        if command.fields is not None:
            argv, overrides = split_flags(argv)
        # absl looks for the nearest flag by recursion
        if long := next((w for w in argv if w.startswith("-") and len(w.split("=")[0]) > 99), ""):
            raise exit_codes.UsageError(f"there is no flag {short(long.partition('=')[0])}")
        if rest := values([command.name, *argv])[1:]:
            raise flags.Error(_left_over(rest, values))
    except flags.UnrecognizedFlagError as error:
        text = f"there is no flag --{error.flagname}{near(error.flagname, values)}"
        sys.exit(report(exit_codes.UsageError(f"{text}; --help lists the flags")))
    except (flags.Error, exit_codes.UsageError) as error:
        sys.exit(report(exit_codes.UsageError(f"{error}; --help lists the flags")))
    return values, overrides


def _once(flag):
    """Lets a flag of one value be given again only with the same: which was meant is not known."""
    from absl import flags

    parse = flag.parse

    def again(argument):
        before = flag.value
        parse(argument)
        if flag.present > 1 and flag.value != before:
            both = f"{short(before, 80)} and {short(flag.value, 80)}"
            raise flags.IllegalFlagValueError(f"--{flag.name} is given twice, {both}; give it once")

    if not isinstance(flag, flags.MultiFlag):
        flag.parse = again


def _left_over(rest: list[str], values) -> str:
    """What is said of the words that no flag took."""
    shown = " ".join(rest[:20]) + (f" and {len(rest) - 20:,} more" if len(rest) > 20 else "")
    told = f"unknown arguments: {short(shown)}"
    name = rest[0].lstrip("-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}").partition("=")[0]
    if name in values or name.startswith("config."):
        return f"{told}; a flag begins with two plain dashes: --{short(name, 60)}=..."
    how = 'quote a value that holds spaces, --flag="two words"; write a flag anew for each value'
    return f"{told}; no flag took them: {how}"


def split_flags(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Takes `--config.a.b=value` (or `--config.a.b value`, or one dash), `--data.add` and
    `--data.remove` out of the arguments: (the rest, overrides). Of a field that is given twice the
    last counts, and it is said. Raises UsageError where the value is missing."""
    rest = []
    overrides = {}
    words = iter(argv)
    for word in words:
        flag = word.partition("=")[0].lstrip("-")
        lines = word.startswith("-") and flag in (dataset_flags.ADD, dataset_flags.REMOVE)
        if lines or word.startswith(("--config.", "-config.")):
            key, equals, value = word.lstrip("-").removeprefix("config.").partition("=")
            value = value if equals else next(words, "--")
            if not equals and value.startswith("--"):
                raise exit_codes.UsageError(f"--{flag} has no value: --{flag}=VALUE")
            more = dataset_flags.overrides_of(flag, value) if lines else {key: value}
            if flag == dataset_flags.ADD and (twice := next(iter(more))) in overrides:
                name = short(twice.removeprefix(f"{flag}."))
                raise exit_codes.UsageError(f"--{flag} is given twice for {name}; give it once")
            for key, text in more.items():
                if (
                    overrides.get(key, text) != text
                ):  # as a script's own fields and what it is given
                    print(
                        f"--config.{key} is given twice: {short(text, 80)}, the last, counts",
                        file=sys.stderr,
                    )
                overrides[key] = text
        else:
            rest.append(word)
    return rest, dataset_flags.first(overrides)


def report(error: BaseException, plain: tuple = (FileNotFoundError, ImportError)) -> int:
    """Prints what ends a command, and gives its exit code.

    plain: errors that are one line though they have no code of their own; all others come with a
        stack trace, since they are a fault of the program.
    """
    code = exit_codes.of_error(error)
    with suppress(OSError, ValueError):  # where stderr is gone, the code still tells
        if code == exit_codes.FAULT and not isinstance(error, plain):
            traceback.print_exception(error)
        else:
            text = bounded(f"{type(error).__name__}: {error}")
            print(text, file=sys.stderr, flush=True)
    return code


def failed(error: Exception) -> int:
    """`report` for a command all whose input stands in its flags, and in files that they name."""
    code = report(error, (ValueError, OSError, ImportError))
    asked = code == exit_codes.FAULT and isinstance(error, ValueError | FileNotFoundError)
    return exit_codes.USAGE if asked else code


def stopped() -> int:
    """Ctrl-C ends a command."""
    print("\nstopped", file=sys.stderr)
    return exit_codes.INTERRUPTED


def log_to_stderr(level: str, bare: bool = False):
    """Notes of absl and of Python's logging go to stderr, those of at least this level ("info",
    "warning", "error"). A crash in C prints the Python stack.

    bare: without time, file and line before each note.
    """
    import faulthandler
    from logging import Formatter

    from absl import flags, logging

    if not flags.FLAGS.is_parsed():
        # absl's own, which no command of ours reads: they keep their defaults
        flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    logging.set_verbosity(level)
    if bare:
        logging.get_absl_handler().setFormatter(Formatter("%(message)s"))
    with suppress(OSError, ValueError, AttributeError):  # a stderr without a descriptor
        faulthandler.enable()


# Commands of commands


class Entry(NamedTuple):
    """target: "module:function", which is called with the words after the subcommand's name and
    returns an exit code.
    about: a line.
    example: a command line that works.
    words: that come before those of the command line.
    """

    target: str
    about: str
    example: str
    words: tuple[str, ...] = ()


def dispatch(program: str, about: str, entries: dict[str, Entry], argv: list[str]) -> int:
    """Runs the subcommand that the first word names.

    program: as it is typed.
    about: what it is, for --help.
    entries: the subcommands by name.
    argv: the words after the program's name.
    """
    streams.secure()
    if argv[:1] == ["help"] and argv[1:]:
        argv = [*argv[1:], "--help"]
    if argv[:1] in ([], ["help"], *([word] for word in HELP)):
        width = max(map(len, entries)) + 2
        lines = [
            f"{about}\n\nusage: {program} COMMAND [--flag=value ...]; {program} COMMAND --help\n"
        ]
        for name, entry in entries.items():
            lines.append(f"  {name:{width}}{entry.about}\n  {'':{width}}  {entry.example}")
        print("\n".join(lines))
        return exit_codes.DONE if argv else exit_codes.USAGE
    if argv == ["--version"]:
        print(f"janus_jax {version()}")
        return exit_codes.DONE
    if argv[0] not in entries:
        text = (
            f"there is no command {short(argv[0])!r}{near(argv[0], entries)}; {program} --help "
            f"lists all"
        )
        return report(exit_codes.UsageError(text))
    entry = entries[argv[0]]
    module, _, function = entry.target.partition(":")
    try:
        found = importlib.import_module(module)
    except KeyboardInterrupt:
        return stopped()
    except Exception as error:  # a package that is not there, a variable of JAX's that it refuses
        return failed(error)
    return getattr(found, function)([*entry.words, *argv[1:]])
