"""Plain text: documents separated by blank lines, or a document each file."""

import numpy as np

from janus_jax.data.formats.files import Files
from janus_jax.data.sources import RecordError

_BLANK = b"\0 \t\r\n\v\f"
_BOM = b"\xef\xbb\xbf"


class TextFiles:
    """Records {"text"} of .txt files in UTF-8: between blank lines, or with `whole` all of a
    file."""

    def __init__(self, path: str, whole: bool = False):
        """Indexes every document, without keeping one. Raises SourceError."""
        self.files = Files(path, (".txt", ".txt.gz"), whole=True)
        self._whole = whole
        empty = "holds blank lines only; remove it"
        self._file, self._start, self._end = self.files.indexed(self._rows, empty)
        self.fingerprint = self.files.fingerprint(len(self))

    def _rows(self, f: int):
        """(first byte, end) of each document of file `f`."""
        with self.files.view(f) as view:
            for start, end in [(0, len(view))] if self._whole else _documents(view):
                if view[start:end].strip(_BLANK + _BOM):
                    yield start, end

    def __len__(self):
        return len(self._start)

    def __getitem__(self, i):
        """The text of record `i`. Raises RecordError."""
        start = int(self._start[i])
        data = self.files.read(int(self._file[i]), start, int(self._end[i]) - start)
        try:
            return {
                "text": data.decode("utf-8")
                .removeprefix("\ufeff")
                .replace("\r\n", "\n")
                .strip("\n")
            }
        except UnicodeDecodeError as error:
            byte = f"byte {data[error.start]:#04x} at offset {start + error.start} of the file"
            raise RecordError(
                "not UTF-8",
                f"{self.where(i)}: {byte} is not UTF-8; convert it with `iconv -t UTF-8`",
            ) from None

    def open(self, ref):
        raise RecordError("no picture", "a text file holds no pictures")

    def where(self, i) -> str:
        f = int(self._file[i])
        return f"{self.files.names[f]}: document {int(i) - int(np.searchsorted(self._file, f))}"

    def __repr__(self):
        return f"TextFiles({self.files!r}, {len(self)} documents, {self.fingerprint})"


def _documents(view):
    """(first byte, end) of what stands between blank lines."""
    start = None
    at = 0
    for line in iter(view.readline, b""):
        blank = not line.strip(_BLANK)
        if blank and start is not None:
            yield start, at
        start = None if blank else at if start is None else start
        at += len(line)
    if start is not None:
        yield start, at
