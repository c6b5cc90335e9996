"""Paths as people type them."""

import os
import re


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
