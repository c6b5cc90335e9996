"""What the pipeline reads: one line of a config for each data set, and the protocol of a source of records."""

import dataclasses
import errno
from typing import Protocol

KINDS = ("understanding", "text", "generation")


def printable(text: str) -> str:
    """`text` as UTF-8 can write it: lone surrogates, and bytes of file names that are no UTF-8, as backslash codes."""
    return text.encode("utf-8", "backslashreplace").decode()


class SourceError(ValueError):
    """A source cannot be used at all. The message names its files, why, and the remedy."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class RecordError(ValueError):
    """One record cannot be used; training skips and counts it. cause: a few words, the same for all records of
    this fault ("not JSON", "blank caption"); the message names the file, the record, the field and the value."""

    def __init__(self, cause: str, message: str):
        super().__init__(printable(message))
        self.cause = cause

    def __reduce__(self):
        return type(self), (self.cause, str(self))


def refuse_open_files(error: Exception):
    """Raises SourceError where `error` says that no more files may be opened: no record is to blame for that."""
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or "Too many open files" in str(error):
        raise SourceError(
            f"too many open files ({error}); raise their limit before the command, as with `ulimit -n 65536`, or use "
            "fewer, larger files"
        ) from None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One line of a config's `data.datasets`.

    kind: understanding, text or generation. path: a file, a glob, a range {0000..0575}, a folder,
    `tfds:<name>/<config>:<version>@<split>` (`?<data_dir>` at its end), `hf:<owner>/<name>[/<config>]:<split>`,
    `shapes:` or `emoji:`. format: json, folder, webdataset, array_record, tfds, parquet, hf, text (documents between
    blank lines) or text_files (each file a document); empty: told from the path. images: the folder that records
    name pictures in. weight: share of the examples of its kind. steps: (first, end) of the stage's steps in which it
    is drawn, empty for all. stages: those that draw it, empty for all. prompt: for understanding, alternative
    questions to ask about a caption; for generation, templates around it, such as "a photo of {caption}" (any field
    of the record may stand in braces). caption: the field that holds it ("names": all synonyms of a class); empty:
    the usual ones. names: a JSON or TSV file of classes' names. image_ids: a directory that
    `janus_jax.data.tokenize_images` made. min_side: smaller pictures are left out. score, min_score: records whose
    field `score` is below `min_score` are left out.
    """

    kind: str
    path: str
    format: str = ""
    images: str = ""
    weight: float = 1.0
    steps: tuple[int, ...] = ()
    stages: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ()
    caption: str = ""
    names: str = ""
    image_ids: str = ""
    min_side: int = 0
    score: str = ""
    min_score: float = 0.0


class Source(Protocol):
    """Random access to records without pixels. Picklable, and safe to read from many threads.

    understanding: {"messages": [{"role": "user" | "assistant" | "system", "content": str, or parts
                    {"type": "image"} and {"type": "text", "text": str}}, ...]} with one image part or more, or
                    {"document": [str, or None where a picture stands, ...]}, an interleaved document
    generation:    {"captions": [str, ...]}, alternatives for one picture, and perhaps {"image_ids": int [N]}
    text:          {"text": str}, or {"messages": [...]} without an image part
    Records are shared with the source: do not change them. Reading one that cannot be used raises RecordError, or
    ImageError for its picture. fingerprint and repr are the same on every host and in every run.
    """

    fingerprint: str  # changes when what the records hold, or their order, changes

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict: ...

    def __repr__(self) -> str: ...

    def image(self, i: int, k: int = 0):
        """Picture `k` of record `i`: uint8 [H, W, 3] or an RGB `PIL.Image`, at its own size."""

    def where(self, i: int) -> str:
        """The file and record, for people: "captions.jsonl:12"."""
