"""JSON lists and JSON lines, told by content: records are indexed once by position, then read when
asked for."""

import itertools
import json
import os
import re

import numpy as np

from janus_jax.data.formats.files import Files, inside
from janus_jax.data.formats.left_out import is_picture
from janus_jax.data.sources import RecordError, SourceError, shown

ENDINGS = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_GAPS = b"\0 \t\r\n"  # between records; crashed writers leave NULs
_BOM = b"\xef\xbb\xbf"
_BETWEEN = re.compile(rb"[\0\s]*,?[\0\s]*")
# A key with a value; inside a string the closing quote would have a backslash before it.
_PICTURED = re.compile(
    rb'"(?:images?|file_name)"\s*:\s*+(?!null|\[\s*\]|"")|"type"\s*:\s*"image(?:_url)?"'
)
# bytes of a list that are decoded at a time; of one record of it, at most
_WINDOW = 2**20
_LONGEST = 2**26
_TRIED = 20  # lines of which one must be JSON


class JsonFiles:
    """Records are JSON objects; pictures are named by path below `images` (default: the folder of
    the file)."""

    def __init__(self, path: str, images: str = ""):
        """Indexes every record, without keeping one. Raises SourceError."""
        self.files = Files(path, ENDINGS, whole=True)
        self.root = os.path.realpath(images or self.files.base)
        self._list = []  # of each file, whether it is one list
        empty = "is empty; needs a JSON list of records, or one record a line"
        self._file, self._start, self._size, self._number = self.files.indexed(self._rows, empty)
        self.fingerprint = self.files.fingerprint(len(self))

    def __len__(self):
        return len(self._start)

    def __getitem__(self, i):
        """The fields of record `i`. Raises RecordError."""
        data = self.files.read(int(self._file[i]), int(self._start[i]), int(self._size[i]))
        try:
            record = json.loads(data.strip(_GAPS).decode("utf-8"), strict=False)
        except UnicodeDecodeError as error:
            offset = int(self._start[i]) + len(data) - len(data.lstrip(_GAPS)) + error.start
            byte = f"byte {error.object[error.start]:#04x} at offset {offset} of the file"
            raise RecordError(
                "not UTF-8",
                f"{self.where(i)}: {byte} is not UTF-8; convert it with `iconv -t UTF-8`",
            ) from None
        except (ValueError, RecursionError) as error:
            raise RecordError(
                "not JSON", f"{self.where(i)}: is not JSON ({error}): {data[:40]!r}"
            ) from None
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise RecordError(
                "not an object", f"{self.where(i)}: is a {kind}, needs an object with fields"
            )
        return record

    def open(self, ref: str) -> str:
        """The path of a picture named by a record. Raises RecordError."""
        return inside(self.root, ref)

    def where(self, i) -> str:
        f = int(self._file[i])
        return f"{self.files.names[f]}{': record ' if self._list[f] else ':'}{self._number[i]}"

    def pictured(self) -> np.ndarray:
        """int8 [records]: 1 where a record names a picture (told from its bytes), 0 where not, -1
        where broken."""
        return np.fromiter(map(self._pictured, range(len(self))), np.int8, len(self))

    def _pictured(self, i) -> int:
        if _PICTURED.search(
            self.files.read(int(self._file[i]), int(self._start[i]), int(self._size[i]))
        ):
            return 1
        try:
            self[i]
        except RecordError:
            return -1
        return 0

    def __repr__(self):
        return f"JsonFiles({self.files!r}, {len(self)} records, {self.fingerprint})"

    def _rows(self, f: int):
        """(start, size, number of the line or in the list) of each record of file `f`."""
        with self.files.view(f) as view:
            head = view[:1024]
            start = len(_BOM) if head.startswith(_BOM) else 0
            self._list.append(head[start:].lstrip(_GAPS).startswith(b"["))
            if self._list[-1]:
                yield from _list(view, view.find(b"[") + 1)
            else:
                _require_json(view, start)
                yield from _lines(view, start)


def _lines(view, start: int):
    """(start, size, line number from 1) of every line that is not blank."""
    number = 0
    while start < len(view):
        number += 1
        end = view.find(b"\n", start)
        end = len(view) if end < 0 else end
        if view[start:end].strip(_GAPS):
            yield start, end - start, number
        start = end + 1


def _require_json(view, start: int):
    """Raises SourceError unless one of the first lines is JSON: then the others are broken
    records."""
    first = None
    found = list(itertools.islice(_lines(view, start), _TRIED))
    for at, size, _ in found:
        try:
            value = json.loads(view[at : at + size].strip(_GAPS), strict=False)
        except (ValueError, RecursionError) as error:
            first = first or error
            continue
        if isinstance(value, dict):
            if len(found) == 1:
                _refuse_table(value)
            return
        first = first or f"line is a {type(value).__name__}, needs an object"
    if first:
        remedy = "check the file"
        if view[:23] == b"version https://git-lfs":
            remedy = "run `git lfs pull`"
        elif view[start : start + 1024].lstrip(_GAPS).startswith(b"{"):
            remedy = (
                "write each record on a line of its own, as with `jq -c . FILE > records.jsonl`"
            )
        raise SourceError(
            f"is neither a JSON list nor one record a line ({first}; begins with {view[:40]!r}); "
            f"{remedy}"
        )


def _refuse_table(whole: dict):
    """Raises SourceError where the only record is a whole table: by the names of pictures, or by
    columns, as pandas writes it."""
    names = shown(", ".join(whole))
    if whole and all(map(is_picture, whole)):
        raise SourceError(
            f"is one object with a field for each picture ({names}); write a record for each, as with `jq -c "
            "'to_entries[] | {image: .key, caption: .value}' FILE > records.jsonl`"
        )
    columns = list(whole.values()) if "texts" not in whole else []
    numbered = all(isinstance(c, dict) and all(map(str.isdigit, c)) for c in columns)
    is_plain = lambda x: isinstance(x, str | int | float | None)
    listed = all(isinstance(c, list) and all(map(is_plain, c)) for c in columns)
    lengths = set(map(len, columns)) if numbered or listed else set()
    if len(columns) > 1 and len(lengths) == 1 and max(lengths) > 1:
        raise SourceError(
            f"is one object with a field for each column ({names}); write a record for each row, as with pandas' "
            "df.to_json(path, orient='records', lines=True)"
        )


def _list(view, at: int):
    """(start, size, number from 0) of every item of a JSON list whose items begin at `at`. Raises
    SourceError.

    Latin-1 keeps a character a byte, so the decoder's positions are the file's; JSON's own signs
    are ASCII.
    """
    decode = json.JSONDecoder(strict=False).raw_decode
    base = at
    text = ""
    number = 0
    while True:
        at = _BETWEEN.match(view, at).end()
        if view[at : at + 1] == b"]":
            if view[at + 1 : at + 1 + _WINDOW].strip(_GAPS):
                raise SourceError(
                    f"goes on after the list ends at byte {at}; make it one list, or JSON lines"
                )
            return
        window = 0  # bytes decoded from `at` on; at first what is left of the last window
        while True:
            try:
                end = base + decode(text, at - base)[1]
                why = "the list is not closed"
                if end < base + len(text):
                    break
            except (ValueError, RecursionError) as error:
                why = error
            if window and (at + window >= len(view) or window >= _LONGEST):
                raise SourceError(
                    f"is not JSON: record {number}, at byte {at}: {why}; mend or cut the list"
                )
            window = 2 * window or _WINDOW
            base = at
            text = view[at : at + window].decode("latin-1")
        yield at, end - at, number
        at = end
        number = number + 1
