"""Words for people: lists, tables, sizes, the nearest name."""

import difflib
import inspect
import math
import numbers
import re


def listed(problems: list[str]) -> str:
    """The first 20 problems, one a line, and how many more there are."""
    more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
    return "\n  " + "\n  ".join(problems[:20]) + more


def near(name: str, known) -> str:
    """The end of a message about a name that is not known: the nearest one, or all; empty where
    nothing is known."""
    if not known:
        return ""
    found = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {found[0]!r}?" if found else f"; known: {', '.join(known)}"


def short(text, most: int = 200) -> str:
    """What a user gave, for a message: `most` characters at most, from its beginning and its end,
    and how many it has."""
    text = str(text)
    if len(text) <= most:
        return text
    told = f" ... ({len(text):,} characters) ... "
    room = max(most - len(told), 2)
    return text[: room - room // 3] + told + text[-(room // 3) :]


def bounded(message: str) -> str:
    """A message without what only a user's own input can make long: words above 200 characters,
    lines above 700 and lines beyond the 60th are shortened."""
    lines = message.split("\n")
    more = [f"... and {len(lines) - 60:,} more lines"] if len(lines) > 60 else []
    cut = (re.sub(r"\S{201,}", lambda word: short(word[0]), line) for line in lines[:60])
    return "\n".join([*(line if len(line) <= 700 else short(line, 500) for line in cut), *more])


def differences(old: dict, new: dict, path: str = "") -> list[str]:
    """Lines "field: old -> new" for every field in which two plain dicts differ, in the order of
    `old`. What only one of them has is "nothing" in the other, and "there" where it is a dict,
    which would be long."""
    out = []
    for key in [*old, *(key for key in new if key not in old)]:
        a = old.get(key)
        b = new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out += differences(a, b, f"{path}{key}.")
        elif a != b or (key in old) != (key in new):
            out.append(f"{path}{key}: {_brief(old, key)} -> {_brief(new, key)}")
    return out


def _brief(values: dict, key) -> str:
    if key not in values:
        return "nothing"
    return "there" if isinstance(values[key], dict) else repr(values[key])


def size(n: float) -> str:
    """Bytes, three digits, powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.{max(0, 2 - int(math.log10(n / scale)))}f} {unit}"
    return f"{n:.0f} B"


def version() -> str:
    """This package's version."""
    from importlib import metadata  # slow to import

    try:
        return metadata.version("janus_jax")
    except metadata.PackageNotFoundError:
        return "not installed, run from its source"


def table(headers, rows) -> str:
    """An aligned text table; numbers stand to the right, floats as 0.00, None as a dash."""
    columns = []
    for header, *cells in zip(headers, *rows, strict=True):
        text = ["-" if c is None else str(c) if not _is_float(c) else f"{c:.2f}" for c in cells]
        width = max(map(len, (header, *text)))
        right = cells and all(isinstance(c, numbers.Real | None) for c in cells)
        align = str.rjust if right else str.ljust
        columns.append([align(t, width) for t in (header, "-" * width, *text)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _is_float(cell):
    return isinstance(cell, numbers.Real) and not isinstance(cell, numbers.Integral)


def parameters(documented) -> dict[str, str]:
    """What the "Args:" of a docstring say of each parameter, on one line: for --help."""
    out = {}
    name = ""
    for line in inspect.getdoc(documented).partition("Args:\n")[2].splitlines():
        if not line.startswith("     "):
            name, _, line = line.strip().partition(": ")
        out[name] = f"{out.get(name, '')} {line.strip()}".strip()
    return out
