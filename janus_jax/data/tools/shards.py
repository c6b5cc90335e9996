"""Records into one ArrayRecord shard, whole or not at all; see `convert`."""

import contextlib
import dataclasses
import importlib.metadata
import io
import json
import os
import pathlib

import msgpack
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image

from janus_jax.common.files import sync, write
from janus_jax.data.tools.survey import bad, count_pictures


@dataclasses.dataclass(frozen=True)
class Job:
    """What is converted, and how; pickled to each process.

    source: the `records.Records`.
    kind: of its data set.
    out: the directory to write.
    name: of the shards.
    shards: how many there are.
    max_side: pixels above which a picture is made smaller, 0 to keep every file as it is.
    """

    source: object
    kind: str
    out: pathlib.Path
    name: str
    shards: int
    max_side: int = 0

    def path(self, k: int) -> pathlib.Path:
        return self.out / f"{self.name}-{k:05d}-of-{self.shards:05d}.array_record"

    def span(self, k: int) -> range:
        """The records of shard `k`."""
        n = len(self.source)
        return range(n * k // self.shards, n * (k + 1) // self.shards)

    def facts(self, k: int) -> pathlib.Path:
        """What shard `k` holds, until convert.json says it of all."""
        return self.path(k).with_suffix(".json")

    def identity(self) -> dict:
        """What must not change between a command that was stopped and the one that goes on."""
        versions = {
            name: importlib.metadata.version(name) for name in ("array_record", "msgpack", "pillow")
        }
        return {
            "name": self.name,
            "kind": self.kind,
            "source": self.source.fingerprint,
            "records": len(self.source),
            "shards": self.shards,
            "max_side": self.max_side,
            "versions": versions,
        }


def write_shard(job: Job, k: int, tick) -> dict:
    """Shard `k` under its name, complete or not at all; {"written", "bytes", "reencoded", "bad"}.
    tick(n): n more records are done. Raises OSError when the disk is full or fails."""
    path = job.path(k)
    left_out = []
    written = 0
    reencoded = 0
    temporary = path.with_name(path.name + ".partial")
    try:
        with _writing(path):
            writer = ArrayRecordWriter(
                str(temporary), "group_size:1"
            )  # a read decompresses one record only
        for i in job.span(k):
            try:
                fields, smaller = payload(job, i)
                packed = msgpack.packb(fields)
            except (ValueError, TypeError, OverflowError) as error:
                left_out.append(bad(error, job.source, i))
            else:
                with _writing(path):
                    writer.write(packed)
                written = written + 1
                reencoded = reencoded + smaller
            tick(1)
        with _writing(path):
            writer.close()
            if ArrayRecordReader(str(temporary)).num_records() != written:
                raise RuntimeError(f"it does not hold the {written:,} records written to it")
        facts = {
            "written": written,
            "bytes": temporary.stat().st_size,
            "reencoded": reencoded,
            "bad": left_out,
        }
        write(job.facts(k), json.dumps(facts))
        if written:  # readers refuse a shard that holds nothing
            sync(temporary)
            os.replace(temporary, path)
        return facts
    finally:
        temporary.unlink(missing_ok=True)


def payload(job: Job, i: int) -> tuple[dict, int]:
    """The raw fields of record `i` with the pictures' files in them, and how many were made
    smaller. Raises RecordError or ImageError when training could not use the record."""
    record = job.source[i]
    source = job.source
    pictures = [source.image(i, k) for k in range(count_pictures(job.kind, record))]
    fields = source.portable(i)
    if not job.max_side or not pictures:
        return fields, 0
    files = fields["image"] if isinstance(fields["image"], list) else [fields["image"]]
    places = [
        n for n, file in enumerate(files) if file is not None
    ]  # a document has None where text stands
    large = [
        (n, image)
        for n, image in zip(places, pictures, strict=True)
        if max(image.size) > job.max_side
    ]
    for n, image in large:
        files[n] = _smaller(image, job.max_side)
    if large:
        for name in ("width", "height"):  # no longer true
            fields.pop(name, None)
    return fields | {"image": files if isinstance(fields["image"], list) else files[0]}, len(large)


def _smaller(image: Image.Image, side: int) -> bytes:
    """A JPEG of quality 95, no colour left out, whose longer side is `side`."""
    size = [max(1, round(length * side / max(image.size))) for length in image.size]
    out = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


@contextlib.contextmanager
def _writing(path: pathlib.Path):
    """ArrayRecord's RuntimeError, by which it says what the system refused, as OSError with the
    remedy."""
    try:
        yield
    except RuntimeError as error:
        disk = os.statvfs(path.parent)
        raise OSError(
            f"{path}: cannot be written ({error}); {disk.f_bavail * disk.f_frsize / 1e9:.2f} GB "
            f"are free there. Make "
            "room and start the same command again: complete shards are kept"
        ) from None
