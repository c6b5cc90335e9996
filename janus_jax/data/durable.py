"""Small files that a host's crash cannot leave cut or empty."""

import os
import pathlib


def write(path: pathlib.Path, content: str | bytes):
    """All of a file or nothing, in place of what was there; when it returns, it is on the disk."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(partial)
        os.replace(partial, path)
    except OSError:
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
