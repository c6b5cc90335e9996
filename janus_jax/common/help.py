"""What --help says of a command."""

import shutil
import textwrap

TYPES = {"int": "NUMBER", "float": "NUMBER"}  # what absl calls a flag's type -> as it is shown


def help_text(command, values) -> str:
    """About, flags with type and default, and an example.

    command: a cli.Command.
    values: the absl FlagValues in which the command has defined its flags.
    """
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    lines = [*_wrapped(command.about, width), "", f"usage: {command.name} [--flag=value ...]", ""]
    for name in values:
        flag = values[name]
        lines += [_shape(flag), *_wrapped(_about(flag), width, 6 * " ")]
    if command.fields is not None:
        about = (
            'A data set is added by --data.add="name=mine kind=understanding path=mine.jsonl", and taken out by '
            "--data.remove=NAME; both may be repeated. Any field of the config can be set: --config.FIELD=VALUE. The "
            "fields:"
        )
        lines += ["", *_wrapped(about, width)]
        for line in command.fields():
            lines += textwrap.wrap(
                line, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
            )
    return "\n".join([*lines, "", "example:", f"  {command.example}"])


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    out = []
    for paragraph in text.split("\n"):
        out += textwrap.wrap(
            paragraph,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        ) or [""]
    return out


def _shape(flag) -> str:
    """The flag as it is typed."""
    if flag.boolean:
        return f"  --[no]{flag.name}"
    choices = getattr(flag.parser, "enum_values", None)
    value = "|".join(choices) if choices else TYPES.get(flag.flag_type(), "TEXT")
    return f"  --{flag.name}={value}"


def _about(flag) -> str:
    """What the flag is for, whether it must be given, and what it is if it is not."""
    text = flag.help.partition(";\n    repeat this option")[0]  # absl's own words
    if getattr(flag.parser, "enum_values", None):
        text = text.partition(">: ")[2] or text
    if flag.flag_type().startswith("multi"):
        text += " May be repeated."
    if any("must have a value" in validator.message for validator in flag.validators):
        return f"{text} Required."
    if flag.default in (None, "", []):
        return text
    default = str(flag.default).lower() if flag.boolean else flag.default
    return f"{text} Default: {default}."
