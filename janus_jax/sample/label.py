"""A field that a model adds to every record of a data set: a caption, a score.

A folder gets `records.jsonl`, which training reads as a data set: the fields of each record, and the
new one. Pictures that are files stay where they are and are named; those that stand in a record
(tar, parquet, ...) are written into it. What cannot be used is left out, and listed in
`bad_records.jsonl` as training lists it.

The records are cut into batches, the same on any number of processes, of which each labels its
share. A batch that is done is a line of a log, so that a kill costs one batch; at the end the first
process makes the files of all logs. They are the same, byte for byte, on any number of processes and
after any kill.
"""

import base64
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.json_lines import Log, whole_lines
from janus_jax.common.progress import Progress
from janus_jax.data import fields
from janus_jax.data.image_types import base64_type
from janus_jax.data.records import Records
from janus_jax.data.row_stream import IN_A_ROW
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.data.tools.read_ahead import read_ahead
from janus_jax.data.tools.survey import bad

RECORDS = "records.jsonl"
BAD_RECORDS = "bad_records.jsonl"
LOG, DONE = "labels-{}.jsonl", "done-{}-of-{}"  # of a process
PICTURES = ("image", "images", "file_name")


@dataclasses.dataclass(frozen=True)
class Labelling:
    """What gets a field.

    source: the data set's.
    count: how many of its records, from the first on.
    folder: where all is written.
    field: the name of the new field.
    batch: how many records are labelled together.
    """

    source: Records
    count: int
    folder: pathlib.Path
    field: str
    batch: int

    def records(self, number: int) -> range:
        """Those of batch `number`."""
        return range(number * self.batch, min((number + 1) * self.batch, self.count))

    @property
    def batches(self) -> range:
        return range(-(-self.count // self.batch))

    @property
    def is_done(self) -> bool:
        return (self.folder / RECORDS).is_file()


def label_share(
    job: Labelling, read: Callable, label: Callable, share: tuple[int, int], threads: int,
    progress: Progress,
) -> str:  # fmt: skip
    """Labels one process's batches that no log has yet. Returns the name of the file that says so.

    read: number of a record -> what `label` needs of it; runs in `threads` threads, ahead. Raises
        RecordError or ImageError for one that cannot be used.
    label: a list of such things -> for each a value that JSON holds, or the error for which it has
        none.
    share: (which process this is, of how many).

    Raises SourceError after 100 records in a row that cannot be used.
    """
    index, count = share
    own = job.batches[index::count]
    done = {line["batch"] for line in _logged(job.folder)}
    todo = [(number, job.records(number)) for number in own if number not in done]
    progress.total = sum(len(job.records(number)) for number in own)
    progress.skip(progress.total - sum(len(records) for _, records in todo))
    unusable = in_a_row = 0

    def prepared(i: int):
        raw = job.source.raw(i)
        if raw.get(job.field) is not None:
            raise RecordError(
                "field there",
                f'{job.source.where(i)}: has a field "{job.field}" already; name another --field',
            )
        return read(i)

    with progress, Log(job.folder / LOG.format(index)) as log:
        for number, records, found in read_ahead(prepared, todo, threads):
            usable = [k for k, thing in enumerate(found) if not isinstance(thing, Exception)]
            values = label([found[k] for k in usable]) if usable else []
            for k, value in zip(usable, values, strict=True):
                found[k] = value
            line = {"batch": number, "labels": {}, "bad": []}
            for i, value in zip(records, found, strict=True):
                in_a_row = in_a_row + 1 if isinstance(value, Exception) else 0
                if in_a_row == IN_A_ROW:
                    raise SourceError(
                        f"{job.source!r}: {in_a_row} records in a row cannot be used, so something "
                        f"is wrong with all of them; the last: {value}"
                    )
                if isinstance(value, Exception):
                    line["bad"].append(bad(value, job.source, i))
                else:
                    line["labels"][i] = value
            log.add([line])
            unusable += len(line["bad"])
            progress(len(records), f", {unusable:,} cannot be used" if unusable else "")
    name = DONE.format(index, count)
    files.write(job.folder / name, b"")
    return name


def gather(job: Labelling):
    """Makes the records of all logs, once all processes are done, and removes the logs. Raises
    SourceError where no record can be used."""
    labels = {}
    unusable = []
    done = set()
    for line in _logged(job.folder):
        if line["batch"] not in done:  # two commands at once may both have made it
            done.add(line["batch"])
            labels |= line["labels"]
            unusable += line["bad"]
    if lacking := sorted(set(job.batches) - done):
        raise UsageError(
            f"{job.folder}: {len(lacking)} batches are missing, the first {lacking[0]} (a log that "
            "was removed?); start the same command again"
        )
    if not labels:
        tidy(job.folder)  # once the data are mended, all are tried again
        raise SourceError(
            f"{job.source!r}: no record can be used; the first: {unusable[0]['message']}"
        )

    def write(out):
        for i in range(job.count):
            if str(i) not in labels:
                continue
            try:
                line = json_line(job.source, i, {job.field: labels[str(i)]})
            except RecordError as error:
                unusable.append(bad(error, job.source, i))
                continue
            out.write(line.encode())
        if not out.tell():
            raise SourceError(
                f"{job.source!r}: no record can be written; {unusable[-1]['message']}"
            )
        told = sorted(unusable, key=lambda line: line["record"])
        files.write(job.folder / BAD_RECORDS, "".join(f"{json.dumps(line)}\n" for line in told))

    files.write(job.folder / RECORDS, write)
    tidy(job.folder)


def tidy(folder: pathlib.Path):
    """Removes what was needed until the records were there."""
    forget_shares(folder)
    for path in folder.glob(LOG.format("*")):
        path.unlink()


def forget_shares(folder: pathlib.Path):
    """Removes what processes of an earlier command said of their shares: each says it anew."""
    for path in folder.glob(DONE.format("*", "*")):
        path.unlink()


def labelled(job: Labelling) -> Iterator[dict]:
    """The records that were written, without their pictures."""
    with open(job.folder / RECORDS, encoding="utf-8") as lines:
        for line in lines:
            yield {name: x for name, x in json.loads(line).items() if name not in PICTURES}


def count_bad(job: Labelling) -> int:
    with open(job.folder / BAD_RECORDS, "rb") as lines:
        return sum(1 for _ in lines)


def picture_root(source: Records) -> str:
    """The folder below which a data set names its pictures; empty where records hold them."""
    return getattr(source.reader, "root", "")


def json_line(source: Records, i: int, new: dict) -> str:
    """Record `i` with `new` fields: in "image" stands the path of its picture below `picture_root`,
    or the picture as a data URI. Raises RecordError."""
    raw = source.raw(i)
    there = iter(range(len(fields.pictures(raw))))
    named = [
        None if ref is None else _named(source, i, next(there)) for ref in fields.pictures(raw)
    ]
    rest = {name: value for name, value in raw.items() if name not in PICTURES}
    listed = any(isinstance(raw.get(name), list) for name in PICTURES)
    image = {"image": named if listed else named[0]} if named else {}
    try:
        return json.dumps(image | rest | new) + "\n"
    except (TypeError, ValueError, RecursionError) as error:  # bytes, dates
        raise RecordError(
            "no JSON", f"{source.where(i)}: {error}; leave such fields out of the data set"
        ) from None


def _named(source: Records, i: int, k: int) -> str:
    file = source.picture_file(i, k)
    root = picture_root(source)
    if isinstance(file, str) and root:
        name = os.path.relpath(file, root)
        try:
            name.encode()
            return name
        except UnicodeEncodeError:  # no text, which JSON needs
            pass
    data = pathlib.Path(file).read_bytes() if isinstance(file, str) else file
    text = base64.b64encode(data).decode()
    return f"data:image/{base64_type(text) or 'png'};base64,{text}"


def _logged(folder: pathlib.Path) -> Iterator[dict]:
    """The batches that are done, of whichever process. Raises UsageError for a damaged line."""
    for path in sorted(folder.glob(LOG.format("*"))):
        for number, line in whole_lines(path):
            try:
                found = json.loads(line)
                _ = found["batch"], found["labels"], found["bad"]
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{path}:{number}: no line of this command ({error}); take it out, and its "
                    "batch is made again"
                ) from None
            yield found
