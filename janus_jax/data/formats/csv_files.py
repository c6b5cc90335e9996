"""CSV and TSV with a header: rows are indexed once by position, then read when asked for."""

import array
import csv
import io
import logging
import os

import numpy as np

from janus_jax.data.formats.files import Files, inside, refuse
from janus_jax.data.formats.left_out import is_picture
from janus_jax.data.sources import RecordError, SourceError, shown

_DELIMITERS = ",;\t|"
_BOM = b"\xef\xbb\xbf"
_ICONV = "convert it, a file of Excel's with `iconv -f WINDOWS-1252 -t UTF-8`"
_LONGEST = 2**26  # characters of a cell: texts, conversations, pictures in base64


class CsvFiles:
    """A row is a record, the first row of each file its fields; empty cells are not there. Pictures are
    named by path below `images` (default: the folder of the file).

    Cells are separated by what stands most often in the first row, of comma, semicolon, tab and
    bar. Those that hold it, quotes or line breaks stand in quotes, with quotes in them doubled
    (RFC 4180). A file with tabs that does not keep to that is read without quoting, which is said.
    """

    def __init__(self, path: str, images: str = "", number: str = ""):
        """number: the field that holds a number; all others are text. Raises SourceError."""
        self.files = Files(path, (".csv", ".tsv", ".csv.gz", ".tsv.gz"), whole=True)
        self.root = os.path.realpath(images or self.files.base)
        self._number = number
        columns = [array.array("q") for _ in range(4)]
        problems = []
        self._headers = []
        self._forms = []
        for f, name in enumerate(self.files.names):
            before = len(columns[0])
            try:
                self._index(f, columns)
            except SourceError as error:
                problems.append(f"{name}: {error}")
            else:
                if len(columns[0]) == before:
                    problems.append(f"{name}: has no row below its header; remove it")
        refuse(path, problems)
        self._file, self._start, self._size, self._line = (np.array(c, np.int64) for c in columns)
        self.fingerprint = self.files.fingerprint(len(self))

    def __len__(self):
        return len(self._start)

    def __getitem__(self, i):
        """The fields of row `i`. Raises RecordError."""
        f = int(self._file[i])
        data = self.files.read(f, int(self._start[i]), int(self._size[i]))
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte {data[error.start]:#04x} at offset {int(self._start[i]) + error.start} of the file"
            raise RecordError(
                "not UTF-8", f"{self.where(i)}: {byte} is not UTF-8; {_ICONV}"
            ) from None
        try:
            cells = next(_rows(io.StringIO(text, newline=""), self._forms[f]))
        except (csv.Error, StopIteration):
            raise RecordError(
                "damaged", f"{self.where(i)}: is no row; was the file changed meanwhile?"
            ) from None
        header = self._headers[f]
        if len(cells) != len(header):
            raise RecordError(
                "cells",
                f"{self.where(i)}: has {len(cells)} cells, the header {len(header)} ({shown(', '.join(header))}); "
                f"put cells that hold {self._forms[f]['delimiter']!r} in quotes",
            )
        record = {name: cell for name, cell in zip(header, cells) if name and cell != ""}
        if self._number in record:
            record[self._number] = _number(record[self._number])
        return record

    def open(self, ref: str) -> str:
        """The path of a picture named by a row. Raises RecordError."""
        return inside(self.root, ref)

    def where(self, i) -> str:
        return f"{self.files.names[int(self._file[i])]}:{self._line[i]}"

    def __repr__(self):
        return f"CsvFiles({self.files!r}, {len(self)} rows, {self.fingerprint})"

    def _index(self, f: int, columns):
        """Appends file, start, size and first line of each row of file `f`. Raises SourceError."""
        with self.files.view(f) as view:
            head = view[:1024]
            if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise SourceError("is UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`")
            start = len(_BOM) if head.startswith(_BOM) else 0
            skipped = 0
            if head[start : start + 4].lower() == b"sep=":  # Excel's own first line
                start = view.find(b"\n", start) + 1
                skipped = 1
            tabs = ".tsv" in self.files.names[f].lower()
            form = {"delimiter": _delimiter(view, start, "\t" if tabs else ",")}
            try:
                found = list(_spans(view, start, form))
            except csv.Error as error:
                if form["delimiter"] != "\t":
                    raise SourceError(
                        f'{error}; a cell with quotes in it is written "he said ""hi""", mend that line'
                    ) from None
                logging.warning(
                    "%s: its quotes are part of the texts (%s)", self.files.names[f], error
                )
                form["quoting"] = csv.QUOTE_NONE
                found = list(_spans(view, start, form))
        if not found:
            raise SourceError(
                "is empty; needs a header such as image,caption and a row for each picture"
            )
        header = [name.strip() for name in found[0][3]]
        _check_header(header)
        self._headers.append(header)
        self._forms.append(form)
        for at, size, line, _ in found[1:]:
            for column, value in zip(columns, (f, at, size, line + skipped)):
                column.append(value)


def _delimiter(view, start: int, first: str) -> str:
    """What separates the cells of the first row; `first` where there is one alone."""
    end = view.find(b"\n", start)
    line = view[start : len(view) if end < 0 else end].decode("utf-8", "replace")
    cells = lambda sign: len(next(csv.reader([line], delimiter=sign), ()))
    return max(first + _DELIMITERS, key=cells)


def _rows(lines, form: dict):
    """The cells of each row. Raises csv.Error."""
    if csv.field_size_limit() < _LONGEST:
        csv.field_size_limit(_LONGEST)  # of the process: threads read at once
    return csv.reader(lines, strict=True, **form)


def _spans(view, start: int, form: dict):
    """(first byte, bytes, line from 1, cells) of every row that is not blank; the cells of the first
    alone are kept. Raises csv.Error that names the line."""
    at = start
    line = 0

    def lines():
        nonlocal at, line
        view.seek(start)
        for data in iter(view.readline, b""):
            at += len(data)
            line += 1
            yield data.decode("utf-8", "surrogateescape")

    begin = start
    first = 1
    named = False
    try:
        for cells in _rows(lines(), form):
            if any(map(str.strip, cells)):
                yield begin, at - begin, first, () if named else cells
                named = True
            begin = at
            first = line + 1
    except csv.Error as error:
        raise csv.Error(f"line {first}: {error}") from None


def _check_header(header: list[str]):
    """Raises SourceError for a first row that names no fields."""
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise SourceError(f"its header names {', '.join(twice)} twice; rename one")
    try:
        "".join(header).encode()
    except UnicodeEncodeError:
        raise SourceError(f"its header is not UTF-8; {_ICONV}") from None
    data = next((n for n in header if is_picture(n.split("#")[0]) or "://" in n), "")
    if data or not any(header):
        raise SourceError(
            f"its first row is no header ({shown(', '.join(header))}); needs one that names the fields, such as "
            f"image,caption"
        )


def _number(cell: str):
    try:
        return float(cell)
    except ValueError:
        return cell  # who asked for the number says that it is none
