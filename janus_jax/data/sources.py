"""What the pipeline reads: one line of a config for each data set, and the protocol of a source of
records."""

import errno
from typing import Protocol

# Of a token: longer texts are refused, or cut, before they are encoded; English has about four.
CHARACTERS = 16


def printable(text: str) -> str:
    """`text` as UTF-8 can write it: lone surrogates, and bytes of file names that are no UTF-8, as
    backslash codes."""
    return text.encode("utf-8", "backslashreplace").decode()


def shown(value, most: int = 200) -> str:
    """What a user gave, for a message: on one line, cut where it is longer than `most`."""
    text = str(value)
    more = f"... ({len(text):,} characters)" if len(text) > most else ""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most]) + more


class SourceError(ValueError):
    """A source cannot be used at all. The message names its files, why, and the remedy."""

    exit_code = "data"

    def __init__(self, message: str):
        super().__init__(printable(message))


class RecordError(ValueError):
    """One record cannot be used; training skips and counts it. cause: a few words, the same for all
    records of this fault ("not JSON", "blank caption"); the message names the file, the record, the
    field and the value."""

    exit_code = "data"

    def __init__(self, cause: str, message: str):
        super().__init__(printable(message))
        self.cause = cause

    def __reduce__(self):
        return type(self), (self.cause, str(self))


def refuse_open_files(error: Exception):
    """Raises SourceError where `error` says that no more files may be opened: no record is to blame
    for that."""
    by_number = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
    if by_number or "Too many open files" in str(error):
        raise SourceError(
            f"too many open files ({error}); raise their limit before the command, as with "
            "`ulimit -n 65536`, or use fewer, larger files"
        ) from None


def unreadable(name: str, error: OSError) -> RecordError:
    """What is said of a record whose file cannot be read. name: of the file, for people."""
    refuse_open_files(error)
    cause = "missing file" if isinstance(error, FileNotFoundError) else "not readable"
    why = f"{error.strerror}; check the path, its permissions and the disk"
    return RecordError(cause, f"{name}: {why}")


class Source(Protocol):
    """Random access to records without pixels. Picklable, and safe to read from many threads.

    understanding: {"messages": [messages.Turn, ...]} with one picture or more, or
                   {"document": [str, or None where a picture stands, ...]}, an interleaved one
    generation:    {"captions": [str, ...]} of one picture, and perhaps {"image_ids": int [N]}; edits
                   have "sources", "source_ids", "edit_dropout" too; or {"messages"} that draw
    text:          {"text": str}, or {"messages": [messages.Turn, ...]} without a picture

    Records are shared with the source: do not change them. Reading one that cannot be used raises
    RecordError, or ImageError for its picture. fingerprint and repr are the same on every host and
    in every run.
    """

    fingerprint: str  # changes when what the records hold, or their order, changes

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict: ...

    def __repr__(self) -> str: ...

    def image(self, i: int, k: int = 0):
        """Picture `k` of record `i`: uint8 [H, W, 3] or an RGB `PIL.Image`, at its own size."""

    def where(self, i: int) -> str:
        """The file and record, for people: "captions.jsonl:12"."""
