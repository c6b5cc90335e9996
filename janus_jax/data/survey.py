"""Reads records as training would and keeps what `check` tells of them: sizes, lengths, hashes, what is unusable."""

import collections
import concurrent.futures
import dataclasses
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from janus_jax import batch as bt
from janus_jax.data import duplicates
from janus_jax.data.images import FORMATS
from janus_jax.data.sources import SourceError


class Example(NamedTuple):
    """What a stage makes of a record. tokens: in all; pictures, images: to understand, to generate; text: tokens of
    text; predicted: tokens to be predicted; cut: whether its text was too long for a row."""

    tokens: int
    pictures: int
    images: int
    text: int
    predicted: int
    cut: bool


@dataclasses.dataclass(slots=True)
class Record:
    """One usable record. Of each picture, sizes: (width, height); files: the file's type and mode, "JPEG RGB";
    pixels, looks: what `duplicates` makes of it. words: a hash of its text. examples: by stage."""

    index: int
    sizes: list
    files: list
    pixels: list
    looks: list
    words: bytes
    examples: dict[str, Example]


@dataclasses.dataclass
class Survey:
    """What a data set holds. total: its records; looked: how many were read; good, bad: what came of them, in
    order; closed: why it could not be opened, or empty."""

    name: str
    kind: str
    path: str
    total: int = 0
    looked: int = 0
    good: list[Record] = dataclasses.field(default_factory=list)
    bad: list[dict] = dataclasses.field(default_factory=list)
    closed: str = ""

    def causes(self) -> dict[str, int]:
        """Unusable records by cause, the most frequent first."""
        return dict(collections.Counter(line["cause"] for line in self.bad).most_common())


def sample(total: int, records: int, seed: int = 0) -> np.ndarray:
    """Indices of `records` of `total` (0: all), drawn without replacement, in order."""
    if not 0 < records < total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, records, replace=False, shuffle=False))


def survey(name: str, line, source, encoders: dict, records: int, threads: int, progress) -> Survey:
    """Reads `records` (0: all) of a source of `line.kind` in threads; one that a stage cannot use is bad. encoders:
    lanes.Encoder by stage; progress: as `workers.Progress`."""
    out = Survey(name, line.kind, line.path, total=len(source))
    indices = sample(out.total, records)
    out.looked = len(indices)
    read = lambda i: _read(source, int(i), line.kind, encoders)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for begin in range(0, len(indices), 64 * threads):  # a bounded number of results waits
            for found in pool.map(read, indices[begin : begin + 64 * threads]):
                (out.good if isinstance(found, Record) else out.bad).append(found)
                progress(1, f", {len(out.bad):,} unusable" if out.bad else "")
    return out


def bad(error: Exception, source, i: int) -> dict:
    """What is written of a record that cannot be used."""
    cause = getattr(error, "cause", "") or "cannot be encoded"
    return {"record": int(i), "where": source.where(int(i)), "cause": cause, "message": str(error)}


def count_pictures(kind: str, record: dict) -> int:
    if kind == "understanding" and "document" in record:
        return sum(part is None for part in record["document"])
    if kind == "understanding":
        contents = [message["content"] for message in record["messages"]]
        parts = [part for content in contents if not isinstance(content, str) for part in content]
        return sum(part["type"] == "image" for part in parts)
    return int(kind == "generation")


def words(record: dict) -> str:
    """All that a record says, for people."""
    if "captions" in record:
        return " | ".join(record["captions"])
    if "text" in record:
        return record["text"]
    if "document" in record:
        return " ".join("[picture]" if part is None else part for part in record["document"])
    said = []
    for message in record["messages"]:
        content = message["content"]
        parts = [content] if isinstance(content, str) else [p["text"] for p in content if p["type"] == "text"]
        said.append(f"{message['role'].capitalize()}: {' '.join(parts).strip()}")
    return "\n".join(said)


def _read(source, i: int, kind: str, encoders: dict):
    """A Record, or a dict as of `bad`."""
    try:
        record = source[i]
        examples = {
            stage: _example(encoder(kind, record, np.random.default_rng(i)))
            for stage, encoder in encoders.items()
        }
        sizes, files, pixels, looks = [], [], [], []
        for k in range(count_pictures(kind, record)):
            image = duplicates.picture(source.image(i, k))
            sizes.append(image.size)
            files.append(_file(source, i, k))
            pixels.append(duplicates.pixels(image))
            looks.append(duplicates.look(image))
    except SourceError:
        raise
    except ValueError as error:
        return bad(error, source, i)
    return Record(i, sizes, files, pixels, looks, duplicates.digest(words(record)), examples)


def _example(e: dict) -> Example:
    text, predicted = int((e["role"] == bt.TEXT).sum()), int(e["supervised"].sum())
    cut = bool(e["example"][0] >= bt.TRUNCATED)
    return Example(len(e["tokens"]), len(e["pictures"]), len(e["images"]), text, predicted, cut)


def _file(source, i: int, k: int) -> str:
    """Type and mode of a picture's file, from its header; "drawn" where there is no file."""
    if not hasattr(source, "picture_file"):
        return "drawn"
    file = source.picture_file(i, k)
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
        return f"{image.format} {image.mode}"
