"""Writing a directory of image ids (see image_ids.py): shards that are there complete or not at
all, so that a run goes on after a kill, and a list of the pictures that could not be used. Pictures
are opened by threads, ahead."""

import dataclasses
import json
import pathlib

import numpy as np

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.data import image_ids
from janus_jax.data.images import generation_image
from janus_jax.data.row_stream import IN_A_ROW
from janus_jax.data.sources import SourceError
from janus_jax.data.tools.read_ahead import read_ahead


def begin(directory: pathlib.Path, origin: image_ids.Origin, made: dict):
    """Says in the directory what its ids are made of, or sees that it says so already.

    made: what else to note; "arguments", the command's, among it, and "computed", a list of what
        computes: one that is not noted yet joins those of earlier commands. Raises UsageError
        where it says something else.
    """
    path = directory / image_ids.FILE
    if not path.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(dataclasses.asdict(origin) | made, indent=1).encode())
        return
    there, _ = image_ids.read_origin(directory)
    if different := origin.differences(there):
        lines = "\n  ".join(different)
        raise UsageError(
            f"--out={directory}: holds ids of something else:\n  {lines}\nName another directory, "
            f"or remove this one: "
            f"only the same tokenizer, precision, pictures and --shard go on in it"
        )
    noted = json.loads(path.read_text("utf-8"))
    before = noted.get("computed", [])
    if new := [one for one in made["computed"] if one not in before]:
        files.write(path, json.dumps(noted | {"computed": before + new}, indent=1).encode())


class Shards:
    """This process's files, filled batch by batch and written when they are full."""

    def __init__(self, directory: pathlib.Path, origin: image_ids.Origin, source, own: range):
        self.directory = directory
        self.origin = origin
        self.source = source
        self.own = own
        self.todo = [k for k in own if not (directory / origin.files[k]).is_file()]
        self.rows = None
        self.errors = []
        self.bad = 0
        self.in_a_row = 0

    def records(self, k: int) -> range:
        return range(k * self.origin.shard, min((k + 1) * self.origin.shard, self.origin.records))

    def parts(self, batch: int):
        """(shard, its next records, `batch` of them at most) of all that is to be done; no batch
        spans two shards, so that a shard does not depend on where a run began."""
        for k in self.todo:
            for i in range(0, len(self.records(k)), batch):
                yield k, self.records(k)[i : i + batch]

    def add(self, k: int, part: range, ids: np.ndarray, errors: dict[int, Exception]):
        """ids int32 [batch, N], whose first rows are those of `part`; errors: by record, of those
        that have none."""
        records = self.records(k)
        dtype = self.origin.dtype
        if part[0] == records[0]:
            self.rows = np.full((len(records), self.origin.tokens), np.iinfo(dtype).max, dtype)
        for j, i in enumerate(part):
            self.in_a_row = self.in_a_row + 1 if i in errors else 0
            if self.in_a_row == IN_A_ROW:
                raise SourceError(
                    f"{self.source!r}: {self.in_a_row} pictures in a row cannot be used, so "
                    f"something is wrong with "
                    f"all of them; the last: {errors[i]}"
                )
            if i in errors:
                self.errors.append(line(errors[i], i, self.source.where(i)))
            else:
                self.rows[i - records[0]] = ids[j]
        self.bad += len(errors)
        if part[-1] == records[-1]:
            name = self.origin.files[k]
            if self.errors:  # first: a shard that is there is done
                files.write(self.directory / listing(name), "".join(self.errors).encode())
            rows = self.rows
            files.write(self.directory / name, lambda file: np.save(file, rows, allow_pickle=False))
            self.errors = []


def line(error: Exception, record: int, where: str) -> str:
    """What is written of a record whose picture cannot be used."""
    values = {
        "record": record,
        "where": where,
        "cause": getattr(error, "cause", "damaged"),
        "message": str(error),
    }
    return json.dumps(values, ensure_ascii=False) + "\n"


def listing(shard: str) -> str:
    """The file that lists a shard's bad records until all are done."""
    return f"bad-{shard.removesuffix('.npy')}.jsonl"


def opened_batches(source, parts, side: int, batch: int, threads: int):
    """(shard, records, uint8 pictures [batch, side, side, 3], errors by record) of each of `parts`,
    in order; rows without a picture are zero. Some batches are opened ahead, by `threads`
    threads."""

    read = lambda i: generation_image(source.image(i), side, fast=True)  # as in training
    for k, part, found in read_ahead(read, parts, threads):
        pictures = np.zeros((batch, side, side, 3), np.uint8)
        for row, x in zip(pictures, found):
            if not isinstance(x, Exception):
                row[:] = x
        yield k, part, pictures, {i: x for i, x in zip(part, found) if isinstance(x, Exception)}


def gather_bad_records(directory: pathlib.Path, origin: image_ids.Origin):
    """The shards' listings, and what was listed before, into one; a shard made anew may have lost
    some."""
    path = directory / image_ids.BAD_RECORDS
    lines = {}
    listings = [
        file for file in (directory / listing(name) for name in origin.files) if file.is_file()
    ]
    for file in [path, *listings] if path.is_file() else listings:
        lines |= {json.loads(line)["record"]: line for line in file.read_text("utf-8").splitlines()}
    files.write(path, b"")
    ids = image_ids.Ids(directory)
    text = "".join(lines[i] + "\n" for i in sorted(lines) if ids.bad(i))
    files.write(path, text.encode())
    for file in listings:
        file.unlink()
