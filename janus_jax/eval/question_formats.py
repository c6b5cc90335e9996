"""The forms that files of questions come in, each read as rows.

TSV as VLMEvalKit writes it (open-compass/VLMEvalKit, vlmeval/dataset/image_base.py): `image` holds
base64, a Python list of it, or, where it is at most 64 characters long, the `index` of another row
whose picture this row shares. Parquet as lmms-eval reads it (EvolvingLMMs-Lab/lmms-eval,
lmms_eval/tasks/*/utils.py): pictures are structs of bytes and path, or lists of them. JSON and
JSON lines as the benchmarks' authors publish them, told apart by content.
"""

import csv
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import short
from janus_jax.data.formats.parquet import Parquet
from janus_jax.eval.stored_pictures import ParquetPicture, TsvPicture, cell_pictures, long_cells

SHARED = 64  # characters: an `image` of a TSV file that is this short is the index of a row
_PICTURES = ("image", *(f"image_{number}" for number in range(1, 8)))  # columns of parquet


@dataclasses.dataclass(frozen=True)
class Row:
    """One question, as its file has it.

    Args:
        where: its place, for messages.
        fields: its cells by the file's names, without those that are empty. "file" is the file's
            name, where it is JSON.
        pictures: paths and stored pictures.
    """

    where: str
    fields: dict
    pictures: tuple = ()


def json_value(path: str):
    """What a JSON file holds. Raises UsageError."""
    try:
        return json.loads(pathlib.Path(path).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; check the path") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); get it again") from None


def tsv_rows(file: str, problems: list[str]) -> list[Row]:
    """The rows of a TSV file; their pictures are read from it again. Raises UsageError."""
    try:
        with long_cells():
            rows, own = _cells(file, problems)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file}: cannot be read as TSV ({error}); get it again") from None
    out = []
    for row in rows:
        shares = row.fields.pop("image", None)
        if shares is not None and shares not in own:
            problems.append(
                f"{row.where}: image {shares!r} is too short for a picture, and no row with a "
                f"picture has this index"
            )
        out.append(
            row if shares is None else dataclasses.replace(row, pictures=own.get(shares, ()))
        )
    return out


def _cells(file: str, problems: list[str]) -> tuple[list[Row], dict[str, tuple]]:
    """The rows, with `image` where it names another row; pictures by index."""
    end = 0

    def lines(opened):
        nonlocal end
        for line in opened:
            first = end == 0
            end += len(line)
            yield line.decode("utf-8-sig" if first else "utf-8")

    rows = []
    own = {}
    with open(file, "rb") as opened:
        reader = csv.reader(lines(opened), delimiter="\t")
        head = next(reader, [])
        begin = end
        for number, cells in enumerate(reader, 1):
            where = f"{pathlib.Path(file).name}: row {number}"
            if cells and len(cells) != len(head):
                problems.append(f"{where}: {len(cells)} cells, the head has {len(head)}")
            fields = {name: cell for name, cell in zip(head, cells) if cell != ""}
            pictures = ()
            if len(fields.get("image", "")) > SHARED:
                place = (file, begin, end - begin, head.index("image"))
                pictures = _in_cell(fields.pop("image"), place, f"{where}: image")
                own[fields.get("index")] = pictures
            rows += [Row(where, fields, pictures)] if cells else []
            begin = end
    return rows, own


def _in_cell(cell: str, place: tuple, name: str) -> tuple:
    try:
        count = len(cell_pictures(cell))
    except ValueError:
        count = 1  # reading it will say why
    content = hashlib.blake2b(cell.encode(), digest_size=16).hexdigest()
    return tuple(TsvPicture(*place, number, name, content) for number in range(count))


def parquet_rows(file: str, problems: list[str]) -> Iterator[Row]:
    """The rows of a parquet file. Raises SourceError, RecordError, or ImportError without
    pyarrow."""
    parquet = Parquet(file)
    for number in range(len(parquet)):
        fields = {k: v for k, v in parquet[number].items() if v is not None and v != ""}
        pictures = []
        where = parquet.where(number)
        for column in _PICTURES:
            cell = fields.pop(column, None)
            if isinstance(cell, dict) and not any(cell.values()):
                cell = None
            count = len(cell) if isinstance(cell, list) else int(cell is not None)
            pictures += [
                ParquetPicture(parquet, number, column, k, f"{where}: {column}")
                for k in range(count)
            ]
        yield Row(where, fields, tuple(pictures))


def json_rows(file: str, problems: list[str]) -> Iterator[Row]:
    """A list of objects, perhaps under "questions"; objects by their index; or one object a line.
    Raises UsageError."""
    if _has_lines(file):
        yield from _objects(file, _lines(file, problems), "line")
        return
    found = json_value(file)
    if isinstance(found, dict):
        found = found.get("questions", found)
    if isinstance(found, dict) and all(isinstance(value, dict) for value in found.values()):
        found = [{"index": key, **value} for key, value in found.items()]
    yield from _objects(file, enumerate(found if isinstance(found, list) else [found], 1), "record")


def _has_lines(file: str) -> bool:
    with open(file, encoding="utf-8-sig", errors="replace") as opened:
        first = opened.readline()
        second = opened.readline().strip()
    try:
        return isinstance(json.loads(first), dict) and second.startswith("{")
    except ValueError:
        return False


def _lines(file: str, problems: list[str]) -> list[tuple[int, object]]:
    out = []
    with open(file, "rb") as opened:
        for number, line in enumerate(opened, 1):
            try:
                text = line.decode("utf-8-sig").strip()
                out += [(number, json.loads(text))] if text else []
            except ValueError as error:
                problems.append(f"{pathlib.Path(file).name}: line {number}: not JSON ({error})")
    return out


def _objects(file: str, objects: Iterable[tuple[int, object]], what: str) -> Iterator[Row]:
    name = pathlib.Path(file).name
    for number, found in objects:
        where = f"{name}: {what} {number}"
        if not isinstance(found, dict):
            raise UsageError(f"{where}: is {short(repr(found), 60)}, needs an object with fields")
        yield Row(where, {"file": name} | {k: v for k, v in found.items() if v not in (None, "")})


READERS = {
    ".tsv": tsv_rows, ".parquet": parquet_rows, ".jsonl": json_rows, ".json": json_rows,
}  # fmt: skip
