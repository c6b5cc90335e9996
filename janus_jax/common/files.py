"""Small files that a host's crash cannot leave cut or empty."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import BinaryIO

WEIGHTS_FILE = "model.safetensors"  # of a weights directory
ADAPTER_FILE = "adapter.safetensors"  # in its place where an adapter is handed on


def has_weights(directory: pathlib.Path) -> bool:
    """Whether a weights directory or an adapter is there: of a stage, whether it is done."""
    return any((directory / name).is_file() for name in (WEIGHTS_FILE, ADAPTER_FILE))


def write(path: pathlib.Path, content: str | bytes | Callable[[BinaryIO], None]):
    """All of a file or nothing, in place of what was there; when it returns, it is on the disk.
    An OSError names it.

    content: what it shall hold, or a function that writes it into an open file.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        # On a disk that is gone this fails too; the first error says why.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: pathlib.Path):
    """A file's bytes, or a directory's names, are on the disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: pathlib.Path) -> dict:
    """Raises FileNotFoundError where there is no such file, ValueError naming it where it holds no
    JSON object."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for who writes to it
            raise OSError("no regular file")
        values = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds a {type(values).__name__}, expected a JSON object")
    return values
