"""JSON lines that are added while a job goes on, and read again after a kill."""

import json
import os
import pathlib
from collections.abc import Iterator

from janus_jax.common import files


class Log:
    """Lines added to a file, in a `with`. One that a kill has cut short is taken out first."""

    def __init__(self, path: pathlib.Path):
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                files.write(path, whole)
        self.out = open(path, "ab")  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.out.close()

    def add(self, values: list):
        """Adds a line for each value; when it returns, they are on the disk."""
        self.out.write("".join(f"{json.dumps(value)}\n" for value in values).encode())
        self.out.flush()
        os.fsync(self.out.fileno())


def whole_lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of a file, without one at its end that a kill has cut short."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):
                yield number, line
