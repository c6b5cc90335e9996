"""Paths as people type them."""

import os
import re
import urllib.parse

from janus_jax.common.text import short

ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]+:/", re.I)  # of two letters or more: C: is a disk
NOT_HERE = (
    "an address, and files are written on this machine only; mount it and give its folder, or "
    "write here and copy"
)


def typed(path: str) -> str:
    """A path as it was typed, `expanded`. Raises ValueError, also where it can be none: it is
    empty, or longer than a system takes."""
    if not path:
        raise ValueError("is empty (a variable that is not set?); write a path, or leave it out")
    if len(path) > 4096 or max(map(len, path.split("/"))) > 255:
        raise ValueError("too long for a path")
    return expanded(path)


def local(path: str) -> str:
    """Where a path to write to lies on this machine. Raises ValueError for an address: a folder
    called `gs:` shall not be made."""
    if re.match(r"\s*file:/", path, re.I):
        return of_uri(path)
    if ADDRESS.match(path):
        raise ValueError(NOT_HERE)
    return path


def of_uri(uri: str) -> str:
    """The path in `file:///home/me/a%20cat.png`. Raises ValueError."""
    host = ""
    rest = uri.strip()[5:]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
    if host.lower() not in ("", "localhost") or not rest:
        raise ValueError(
            f"{short(uri)}: a file URI has three slashes and a whole path, file:///home/me/a.png; "
            f"or give the path alone"
        )
    return urllib.parse.unquote(rest, errors="surrogateescape")


def expanded(path: str) -> str:
    """A path with `~`, `~name` and `$NAME` replaced, as a shell would; also behind the "?" of
    `tfds:name?~/data`. One that exists as it is written stays. Raises ValueError for a variable or
    a user that is not known: nothing shall be made in a folder called `~`."""
    if not re.search(r"[~$]", path) or os.path.lexists(path):
        return path
    head, mark, tail = path.partition("?")
    out = _home(head) + mark + (_home(tail) if mark else "")
    out = os.path.expandvars(out)
    if unknown := re.search(r"\$(\w+|\{\w+\})", out):
        name = unknown[1].strip("{}")
        raise ValueError(f"the variable {name[:60]} is not set; set it, or write the path")
    return out


def _home(path: str) -> str:
    out = os.path.expanduser(path)
    if out.startswith("~") and not os.path.lexists(out):
        name = re.match(r"~[^/]*", out)[0]
        raise ValueError(f"no home directory of {name[:60]} is known; write the path")
    return out
