"""What a command writes: tried before the work, and never in place of something earlier."""

import errno
import os
import pathlib
import tempfile

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError


def require_writable(folder, flag: str):
    """Tries to write into a folder, or, where it is not there, into the nearest one above it; makes
    nothing. Raises UsageError that names `flag` ("--out")."""
    folder = pathlib.Path(folder)
    above = folder
    try:
        if "\0" in str(folder):
            raise ValueError("a path holds no NUL")
        while not above.exists() and above != above.parent:
            above = above.parent
        if not above.is_dir():
            number = errno.EEXIST if above == folder else errno.ENOTDIR
            raise OSError(number, os.strerror(number))
        with tempfile.TemporaryFile(dir=above):
            pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{flag}={folder}: {why}; name a directory that this user can write into"
        ) from None


def replace(path, content: str | bytes) -> str:
    """Writes a file as `files.write` does, its folder too. What was there and says something else
    is kept as NAME.1.SUFFIX, or the next number that is free.

    Returns how that is said to people, empty where nothing was there.
    """
    path = pathlib.Path(path)
    content = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe: it stays what it is
        path.write_bytes(content)
        return ""
    kept = ""
    if path.exists() and path.read_bytes() != content:
        earlier = free(path, ".")
        path.rename(earlier)
        kept = f"the earlier {path.name} is kept as {earlier.name}"
    files.write(path, content)
    return kept


def free(path: pathlib.Path, mark: str, number: int = 1) -> pathlib.Path:
    """The first of NAME`mark``number`.SUFFIX and those with the next numbers that is not there."""
    while (found := path.with_name(f"{path.stem}{mark}{number}{path.suffix}")).exists():
        number += 1
    return found
