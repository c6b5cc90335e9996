"""Any data set as ArrayRecord shards: `python -m janus_jax.data convert --kind=understanding
--path=a.json --images=pictures --out=converted`, or `--config=configs/stage1.py --dataset=name`.

A shard `NAME-00003-of-00008.array_record` holds the raw fields of its records, a msgpack map each,
the pictures' files as they are under "image" (--max_side: larger ones as smaller JPEGs). Every
picture is decoded once; records that cannot be used are left out and listed in bad_records.jsonl.
convert.json says what was made of what. A command that was stopped goes on with the shards that are
not there yet, and leaves the same files, byte for byte.

Read them by a data set line of the same kind with the directory as its path.
"""

import collections
import contextlib
import fcntl
import json
import os
import pathlib
import sys

from janus_jax.common import cli
from janus_jax.common import progress as progress_
from janus_jax.common.files import write
from janus_jax.config.schema import Dataset
from janus_jax.data import workers
from janus_jax.data.formats.array_record import MANIFEST
from janus_jax.data.sources import SourceError
from janus_jax.data.tools import command
from janus_jax.data.tools.shards import Job, write_shard

RECORDS = 5000  # of a shard, where their number is not given
JUDGED = 1000  # records: before so many are read, no share of bad ones stops the command
BAD_RECORDS = "bad_records.jsonl"


def convert(job: Job, processes: int, max_bad: float, progress=None) -> dict:
    """Writes the shards that are missing; returns the manifest.

    job: what to convert.
    processes: that read and write.
    max_bad: the share of records that may be bad.
    progress: a common.progress.Progress.

    Raises SourceError when more records are bad or the directory is another conversion's,
    CommandError when it cannot be written, OSError when the disk fails.
    """
    with _claimed(job) as done:
        progress = progress or progress_.Progress(job.name, len(job.source))
        progress.skip(sum(len(job.span(k)) for k in done))
        todo = [k for k in range(job.shards) if k not in done]
        try:
            for k, facts in workers.run_parts(write_shard, job, todo, processes, progress):
                done[k] = facts
                if refusal := _refusal(job, done, max_bad, JUDGED):
                    raise SourceError(refusal)
        finally:
            progress.close()
            write(
                job.out / BAD_RECORDS,
                "".join(json.dumps(line) + "\n" for k in sorted(done) for line in done[k]["bad"]),
            )
        refusal = _refusal(job, done, max_bad, 1)
        # All shards are there; yet training shall not take what the command refused.
        manifest = job.identity() | _totals(job, done) | {"complete": not refusal}
        write(job.out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for k in range(job.shards):
            job.facts(k).unlink(missing_ok=True)
        if refusal:
            raise SourceError(refusal)
        return manifest


@contextlib.contextmanager
def _claimed(job: Job):
    """What an earlier command made of the directory, {shard: facts}; nobody else writes to it
    meanwhile."""
    directory = os.open(command.writable(job.out), os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceError(
                f"{job.out}: another convert writes there; wait for it, or choose another --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield _found(job)
    finally:
        os.close(directory)


def _found(job: Job) -> dict[int, dict]:
    """The complete shards of an earlier command, after checking that it was this one's; else writes
    who we are."""
    path = job.out / MANIFEST
    identity = job.identity()
    if not path.is_file():
        strange = sorted(p.name for p in job.out.iterdir() if p.suffix != ".partial")
        if strange:
            found = f"{strange[0]} and more" if len(strange) > 1 else strange[0]
            raise SourceError(f"{job.out}: holds {found}, but no {MANIFEST}; choose an empty --out")
        write(path, json.dumps(identity | {"complete": False}, indent=1) + "\n")
        return {}
    old = json.loads(path.read_text("utf-8"))
    changed = [
        f"{key} was {old.get(key)!r}, is {value!r}"
        for key, value in identity.items()
        if old.get(key) != value
    ]
    if changed:
        raise SourceError(
            f"{job.out}: was made of something else: {'; '.join(changed)}; choose another --out"
        )
    # all shards were there, whether or not too many records were bad
    whole = "files" in old
    done = {}
    listed = (
        [json.loads(line) for line in (job.out / BAD_RECORDS).read_text("utf-8").splitlines()]
        if whole
        else []
    )
    for k in range(job.shards):
        if whole:
            facts = old["files"][k] | {
                "bad": [line for line in listed if line["record"] in job.span(k)]
            }
        else:
            facts = json.loads(job.facts(k).read_text("utf-8")) if job.facts(k).is_file() else None
        size = job.path(k).stat().st_size if job.path(k).is_file() else None
        if facts and (size == facts["bytes"] or not facts["written"]):
            done[k] = facts
    return done


def _totals(job: Job, done: dict[int, dict]) -> dict:
    files = [
        {key: done[k][key] for key in ("written", "bytes", "reencoded")} for k in range(job.shards)
    ]
    causes = collections.Counter(
        line["cause"] for k in range(job.shards) for line in done[k]["bad"]
    )
    return {key: sum(f[key] for f in files) for key in files[0]} | {
        "bad": dict(causes.most_common()),
        "files": files,
    }


def _refusal(job: Job, done: dict[int, dict], max_bad: float, least: int) -> str:
    """Why the command ends when the share of bad records among at least `least` is above `max_bad`;
    else nothing."""
    read = sum(len(job.span(k)) for k in done)
    bad = [line for facts in done.values() for line in facts["bad"]]
    if read < least or len(bad) <= max_bad * read:
        return ""
    shown = [f"  [{line['cause']}] {line['message']}" for line in bad[:20]]
    return "\n".join(
        [
            f"{len(bad):,} of {read:,} records cannot be used, more than --max_bad={max_bad:g}; "
            "the first:",
            *shown,
            f"all of them: {job.out / BAD_RECORDS}. Mend the data, or raise --max_bad",
        ]
    )


def define_flags(into):
    define = cli.Definer(into)
    define.output("out", None, "The directory to write.", required=True)
    define.text("name", "", "Of the shards; else the data set's name.")
    define.whole("shards", 0, f"0: one for {RECORDS:,} records.", 0)
    define.whole("processes", os.cpu_count() or 1, "That read and write.", 1)
    about = "Pictures with a longer side become JPEGs of this one, quality 95; 0: none."
    define.whole("max_side", 0, about, 0)
    define.number("max_bad", 0.01, "Share of records that may be unusable.", 0, 1)


def open_with_files(line: Dataset, experiment, bare: bool = False):
    """The source of a data set that has files. bare: see catalog.open_dataset. Raises SourceError,
    CommandError."""
    source = command.open_line(line, experiment, bare)
    if not hasattr(source, "portable"):
        raise command.CommandError(f"{line.path}: is drawn as it is read; it has no files")
    return source


def _run(f, overrides: dict[str, str]) -> int:
    """The command; returns its exit code."""
    lines, experiment = command.chosen(f, overrides)
    if len(lines) > 1:
        raise command.CommandError(
            f"--dataset: name one of {', '.join(lines)}; a directory holds one data set"
        )
    ((name, line),) = lines.items()
    source = open_with_files(line, experiment)
    shards = f.shards or -(-len(source) // RECORDS)
    job = Job(source, line.kind, pathlib.Path(f.out), f.name or name, shards, f.max_side)
    manifest = convert(job, f.processes, f.max_bad)
    bad = sum(manifest["bad"].values())
    left_out = f"{bad:,} left out"
    if bad:
        left_out += f" ({BAD_RECORDS})"
    told = f"{f.out}: {manifest['written']:,} records in {shards:,} shards, "
    told += f"{manifest['bytes'] / 1e9:.3f} GB; {left_out}"
    if f.max_side:
        told += f"; {manifest['reencoded']:,} pictures made smaller"
    print(told)
    return 0


COMMAND = command.command(
    "python -m janus_jax.data convert",
    "Any data set as ArrayRecord shards; the same command goes on where it was stopped.",
    "python -m janus_jax.data convert --kind=understanding --path=a.json --images=pictures "
    "--out=converted",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.data convert`."""
    return command.start(COMMAND, _run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
