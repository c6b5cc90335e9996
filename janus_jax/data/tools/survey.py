"""Reads records as training would and keeps what `check` tells of them: sizes, lengths, hashes,
what is unusable."""

import collections
import concurrent.futures
import dataclasses
from typing import NamedTuple

import numpy as np

from janus_jax.data.image_files import header
from janus_jax.data.sources import SourceError
from janus_jax.data.tools import duplicates
from janus_jax.model import batch as bt


class Example(NamedTuple):
    """What a stage makes of a record.

    tokens: in all.
    pictures, images: how many to understand, and to generate.
    text: tokens of text.
    predicted: tokens to be predicted.
    cut: whether its text was too long for a row.
    """

    tokens: int
    pictures: int
    images: int
    text: int
    predicted: int
    cut: bool


@dataclasses.dataclass(slots=True)
class Record:
    """One usable record.

    index: its number.
    sizes: (width, height) of each picture.
    files: the type and mode of each picture's file, "JPEG RGB".
    pixels: a hash of each picture.
    words: a hash of its text.
    examples: what each stage makes of it, by the stage's name: one, or the parts of a text that
        goes on from row to row.
    notes: how it was understood where it does not say so itself.
    unread: the names of its fields that nothing read.
    """

    index: int
    sizes: list
    files: list
    pixels: list
    words: bytes
    examples: dict[str, list[Example]]
    notes: list[str] = dataclasses.field(default_factory=list)
    unread: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Survey:
    """What a data set holds.

    name, kind, path: the data set's.
    total: its records.
    looked: how many were read.
    good, bad: what came of them, in order.
    closed: why it could not be opened, or empty.
    stopped: whether Ctrl-C ended the reading.
    """

    name: str
    kind: str
    path: str
    total: int = 0
    looked: int = 0
    good: list[Record] = dataclasses.field(default_factory=list)
    bad: list[dict] = dataclasses.field(default_factory=list)
    closed: str = ""
    stopped: bool = False

    def causes(self) -> dict[str, int]:
        """Unusable records by cause, the most frequent first."""
        return dict(collections.Counter(line["cause"] for line in self.bad).most_common())

    def counted(self, name: str) -> dict[str, int]:
        """Of the usable records' "notes" or "unread": how many have each, the most frequent
        first."""
        found = (word for record in self.good for word in getattr(record, name))
        return dict(collections.Counter(found).most_common())


def sample(total: int, records: int, seed: int = 0) -> np.ndarray:
    """Indices of `records` of `total` (0: all), drawn without replacement, in order."""
    if not 0 < records < total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, records, replace=False, shuffle=False))


def survey(name: str, line, source, encoders: dict, records: int, threads: int, progress) -> Survey:
    """Reads records of a source in threads; one that a stage cannot use is bad. Ctrl-C ends it with
    what has been read.

    name, line: of the data set, as in a config.
    source: its records.
    encoders: example_encoder.ExampleEncoder by stage.
    records: how many to read, drawn at random; 0: all.
    threads: that read and decode.
    progress: a common.progress.Progress.
    """
    out = Survey(name, line.kind, line.path, total=len(source))
    indices = sample(out.total, records)
    out.looked = len(indices)
    read = lambda i: _read(source, int(i), line, encoders)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        try:
            for begin in range(0, len(indices), 64 * threads):  # a bounded number of results waits
                for found in pool.map(read, indices[begin : begin + 64 * threads]):
                    (out.good if isinstance(found, Record) else out.bad).append(found)
                    progress(1, f", {len(out.bad):,} unusable" if out.bad else "")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            out.stopped = True
            out.looked = len(out.good) + len(out.bad)
    return out


def bad(error: Exception, source, i: int) -> dict:
    """What is written of a record that cannot be used."""
    cause = getattr(error, "cause", "") or "cannot be encoded"
    return {"record": int(i), "where": source.where(int(i)), "cause": cause, "message": str(error)}


def count_pictures(kind: str, record: dict) -> int:
    if kind == "understanding" and "document" in record:
        return sum(part is None for part in record["document"])
    if "messages" in record and kind != "text":
        return sum(turn.count_pictures for turn in record["messages"])
    return int(kind == "generation") + record.get("sources", 0)


def words(record: dict) -> str:
    """All that a record says, for people."""
    if "captions" in record:
        return " | ".join(record["captions"])
    if "text" in record:
        return record["text"]
    if "document" in record:
        return " ".join("[picture]" if part is None else part for part in record["document"])
    said = [
        f"{turn.role.capitalize()}: {' '.join(turn.texts).strip()}" for turn in record["messages"]
    ]
    return "\n".join(said)


def _read(source, i: int, line, encoders: dict):
    """A Record, or a dict as of `bad`."""
    try:
        record = next(iter(encoders.values())).read(source, i)
        examples = {
            stage: [_example(e) for e in parts(encoder, line, record, i)]
            for stage, encoder in encoders.items()
        }
        sizes = []
        files = []
        pixels = []
        for k in range(count_pictures(line.kind, record)):
            image = duplicates.picture(source.image(i, k))
            sizes.append(image.size)
            files.append(_file(source, i, k))
            pixels.append(duplicates.pixels(image))
        how = source.understood(i) if hasattr(source, "understood") else ([], [])
    except SourceError:
        raise
    except ValueError as error:
        return bad(error, source, i)
    return Record(i, sizes, files, pixels, duplicates.digest(words(record)), examples, *how)


def parts(encoder, line, record: dict, i: int):
    """The examples of record `i` of a data set: one, or those of a text that goes on from row to
    row."""
    at = 0 if line.continues else None
    while True:
        example = encoder(line.kind, record, np.random.default_rng(i), at)
        yield example
        at = example.get("rest")
        if not at:
            return


def _example(e: dict) -> Example:
    text = int((e["role"] == bt.TEXT).sum())
    predicted = int(e["supervised"].sum())
    cut = bool(e["example"][0] & bt.TRUNCATED)
    return Example(
        len(e["tokens"]),
        len(e["understanding_images"]),
        len(e["generation_images"]),
        text,
        predicted,
        cut,
    )


def _file(source, i: int, k: int) -> str:
    """Type and mode of a picture's file, from its header; "drawn" where there is no file."""
    if not hasattr(source, "picture_file"):
        return "drawn"
    return header(source.picture_file(i, k))[1]
