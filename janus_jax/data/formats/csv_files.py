"""CSV and TSV with a header: rows are indexed once by position, then read when asked for."""

import csv
import io
import logging
import os

from janus_jax.data.formats.files import Files, inside
from janus_jax.data.formats.left_out import is_picture
from janus_jax.data.sources import RecordError, SourceError, shown

_DELIMITERS = ",;\t|"
_BOM = b"\xef\xbb\xbf"
_ICONV = "convert it, a file of Excel's with `iconv -f WINDOWS-1252 -t UTF-8`"
_HEADER = 2**16  # bytes of a first row, at most
_RETURN = "a carriage return stands alone, outside quotes"
_LONGEST = 2**26  # characters of a cell: texts, conversations, pictures in base64


class CsvFiles:
    """A row is a record, the first row of each file its fields; empty cells are not there. Pictures are
    named by path below `images` (default: the folder of the file).

    Cells are separated by what stands most often in the first row, of comma, semicolon, tab and
    bar. Those that hold it, quotes or line breaks stand in quotes, with quotes in them doubled
    (RFC 4180). A file with tabs that does not keep to that is read without quoting, which is said;
    so is one in which a cell would hold tabs and line breaks, the rows behind a lone quote.
    """

    def __init__(self, path: str, images: str = "", number: str = ""):
        """number: the field that holds a number; all others are text. Raises SourceError."""
        self.files = Files(path, (".csv", ".tsv", ".csv.gz", ".tsv.gz"), whole=True)
        self.root = os.path.realpath(images or self.files.base)
        self._number = number
        self._headers = []
        self._forms = []  # of each file its delimiter, and whether cells may stand in quotes
        empty = "has no row below its header; remove it"
        self._file, self._start, self._size, self._line = self.files.indexed(self._index, empty)
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
            cells = next(_cells(io.StringIO(text, newline="\n"), *self._forms[f]))
        except (csv.Error, StopIteration):
            raise RecordError(
                "damaged", f"{self.where(i)}: is no row; was the file changed meanwhile?"
            ) from None
        header = self._headers[f]
        if len(cells) != len(header):
            raise RecordError(
                "cells",
                f"{self.where(i)}: has {len(cells)} cells, the header {len(header)} ({shown(', '.join(header))}); "
                f"put cells that hold {self._forms[f][0]!r} in quotes",
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

    def _index(self, f: int) -> list[tuple]:
        """(first byte, bytes, first line) of each row of file `f`. Raises SourceError."""
        name = self.files.names[f]
        with self.files.view(f) as view:
            start = len(_BOM) if view[:3] == _BOM else 0
            skipped = 0
            if view[start : start + 4].lower() == b"sep=":  # Excel's own first line
                start = view.find(b"\n", start) + 1
                skipped = 1
            delimiter = _delimiter(view, start, "\t" if ".tsv" in name.lower() else ",")
            quoted = True
            try:
                found = list(_spans(view, start, delimiter, quoted))
            except csv.Error as error:
                if delimiter != "\t":
                    raise SourceError(f"{error}; {_mend(str(error))}") from None
                logging.warning("%s: its quotes are part of the texts (%s)", name, error)
                quoted = False
                found = list(_spans(view, start, delimiter, quoted))
        if not found:
            raise SourceError(
                "is empty; needs a header such as image,caption and a row for each picture"
            )
        header = [name.strip() for name in found[0][3]]
        _check_header(header)
        self._headers.append(header)
        self._forms.append((delimiter, quoted))
        return [(at, size, line + skipped) for at, size, line, _ in found[1:]]


def _delimiter(view, start: int, first: str) -> str:
    """What separates the cells of the first row; `first` where there is one alone."""
    line = view[start : start + _HEADER].decode("utf-8", "replace").splitlines()[:1]
    cells = lambda sign: len(next(csv.reader(line, delimiter=sign), ()))
    return max(first + _DELIMITERS, key=cells)


def _cells(lines, delimiter: str, quoted: bool):
    """The cells of each row. Raises csv.Error."""
    if not quoted:
        return (line.rstrip("\r\n").split(delimiter) for line in lines)
    if csv.field_size_limit() < _LONGEST:
        csv.field_size_limit(_LONGEST)  # of the process: threads read at once
    return csv.reader(lines, strict=True, delimiter=delimiter)


def _spans(view, start: int, delimiter: str, quoted: bool):
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
        for cells in _cells(lines(), delimiter, quoted):
            if delimiter == "\t" and any("\t" in cell and "\n" in cell for cell in cells):
                raise csv.Error("a quote takes in the rows behind it")
            if any(map(str.strip, cells)):
                yield begin, at - begin, first, () if named else cells
                named = True
            begin = at
            first = line + 1
    except csv.Error as error:
        what = _RETURN if "new-line" in str(error) else error
        raise csv.Error(f"line {first}: {what}") from None


def _mend(error: str) -> str:
    """What to do about a row that breaks the rules."""
    if _RETURN in error:
        return "where all rows end so, run `tr '\\r' '\\n'` on it, else put that cell in quotes"
    return 'a cell with quotes in it is written "he said ""hi""", mend that line'


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
