"""Pictures that stay in their file until they are looked at: benchmarks hold up to 17 GB of them.

Each has `name`, for messages, and `read()`, the bytes of a picture file: what
`data.image_parts.open_picture` takes.
"""

import ast
import base64
import binascii
import contextlib
import csv
import dataclasses
import io
import sys

from janus_jax.common.text import short
from janus_jax.data.formats.parquet import Parquet
from janus_jax.data.image_files import header


@contextlib.contextmanager
def long_cells():
    """A cell of a TSV file may hold a whole picture: the csv module's limit, which is the process's,
    is lifted for a while."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


@dataclasses.dataclass(frozen=True)
class TsvPicture:
    """One picture of a cell of a TSV file, in base64.

    Args:
        file: the path of the TSV file.
        start, size: where the row lies in it, in bytes.
        column: the cell's number in the row.
        number: the picture's in the cell.
        name: what messages call it.
        content: the same for cells that hold the same.
    """

    file: str
    start: int
    size: int
    column: int
    number: int
    name: str
    content: str

    def read(self) -> bytes:
        """Raises ValueError where it is not base64."""
        with open(self.file, "rb") as opened:
            opened.seek(self.start)
            row = opened.read(self.size).decode("utf-8-sig")
        with long_cells():
            cell = next(csv.reader(io.StringIO(row, newline=""), delimiter="\t"))[self.column]
        return from_base64(cell_pictures(cell)[self.number])


@dataclasses.dataclass(frozen=True)
class ParquetPicture:
    """One picture of a cell of a parquet file.

    Args:
        parquet: the opened files.
        row: the row's number.
        column: the cell's name in `parquet[row]`.
        number: the picture's in the cell, where the cell is a list.
        name: what messages call it.
    """

    parquet: Parquet
    row: int
    column: str
    number: int
    name: str

    def read(self) -> bytes:
        """Raises ValueError or OSError where there is none."""
        cell = self.parquet[self.row][self.column]
        cell = cell[self.number] if isinstance(cell, list) else cell
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        found = cell if isinstance(cell, bytes) else self.parquet.open(cell)
        if isinstance(found, bytes):
            return found
        with open(found, "rb") as opened:
            return opened.read()


def same_picture(picture) -> str:
    """What is the same for rows that show the same picture, as far as their file says it."""
    return str(getattr(picture, "content", picture))


def cell_pictures(cell: str) -> list[str]:
    """The pictures of a cell: one, or the Python list of several that pandas writes. Raises
    ValueError."""
    if not cell.startswith("["):
        return [cell]
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"begins with [ and is no list of strings: {short(cell, 60)}")
    return found


def from_base64(text: str) -> bytes:
    """Raises ValueError."""
    text = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"is not base64 ({error}): {short(text, 60)}") from None


def unreadable(picture) -> str:
    """Why a stored picture, or a path, cannot be opened as a picture, by its head; empty where it
    can."""
    try:
        header(picture if isinstance(picture, str) else picture.read())
    except FileNotFoundError:
        return "there is no such file"
    except Exception as error:  # Pillow and pyarrow have several kinds for damaged files
        why = "" if isinstance(error, ValueError) else "is no picture that can be read: "
        return why + short(str(error))
    return ""
