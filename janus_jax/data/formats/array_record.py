"""ArrayRecord shards of msgpack maps, as `python -m janus_jax.data convert` writes them."""

import bisect
import itertools
import json
import os

import msgpack

from janus_jax.data.formats.files import Files, allow_open_files, inside, refuse
from janus_jax.data.sources import RecordError, refuse_open_files

MANIFEST = "convert.json"  # says whether a conversion came to its end


class ArrayRecords:
    """A record is a msgpack map of fields; "image" holds a picture's file as bytes, a list of
    several, or None."""

    def __init__(self, path: str, images: str = ""):
        """images: where pictures lie that were left outside; by default the folder of the shards.
        Raises SourceError."""
        from array_record.python.array_record_module import ArrayRecordReader
        from grain.sources import ArrayRecordDataSource

        self.files = Files(path, (".array_record", ".arrayrecord"))
        self._root = images or self.files.base
        allow_open_files(len(self.files.paths), path)
        counts = []
        problems = _unfinished(self.files.paths)
        for name, file in zip(self.files.names, self.files.paths):
            try:
                reader = ArrayRecordReader(file)
                counts.append(reader.num_records())
                first = reader.read([0])[0] if counts[-1] else None
                reader.close()  # raises if the file is damaged
                problem = (
                    _no_map(first)
                    if counts[-1]
                    else "holds no records; remove it, or convert again"
                )
                problems += [f"{name}: {problem}"] if problem else []
            except Exception as error:  # the reader raises several kinds for damaged files
                refuse_open_files(error)
                problems.append(
                    f"{name}: cannot be read as ArrayRecord ({error}); copy or convert it again"
                )
        refuse(path, problems)
        self._ends = list(itertools.accumulate(counts))
        self._source = ArrayRecordDataSource(
            [f"{p}[0:{n}]" for p, n in zip(self.files.paths, counts)]
        )
        self.fingerprint = self.files.fingerprint(len(self))

    def __len__(self):
        return self._ends[-1]

    def __getitem__(self, i):
        """The fields of record `i`. Raises RecordError."""
        try:
            record = msgpack.unpackb(self._source[int(i)])
        except (
            Exception
        ) as error:  # damaged chunks raise the reader's own kinds, damaged maps msgpack's
            refuse_open_files(error)
            raise RecordError("damaged", f"{self.where(i)}: cannot be read ({error})") from None
        if not isinstance(record, dict):
            raise RecordError(
                "not an object", f"{self.where(i)}: is a {type(record).__name__}, needs a map"
            )
        return record

    def open(self, ref: str) -> str:
        """The path of a picture that was left outside. Raises RecordError."""
        return inside(self._root, ref)

    def where(self, i) -> str:
        file = bisect.bisect_right(self._ends, i)
        return f"{self.files.names[file]}: record {i - (self._ends[file - 1] if file else 0)}"

    def __repr__(self):
        return f"ArrayRecords({self.files!r}, {len(self)} records, {self.fingerprint})"


def _unfinished(paths: list[str]) -> list[str]:
    """The directories among those of `paths` in which a conversion was stopped before its end."""
    out = []
    for directory in sorted({os.path.dirname(path) for path in paths}):
        try:
            with open(os.path.join(directory, MANIFEST), encoding="utf-8") as file:
                complete = json.load(file)["complete"]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            out.append(f"{directory}/{MANIFEST}: cannot be read ({error!r}); convert again")
            continue
        if not complete:
            out.append(
                f"{directory}: its conversion was stopped; start the same `janus_jax.data convert` "
                f"again"
            )
    return out


def _no_map(data: bytes) -> str:
    """What is wrong with a first record, or nothing."""
    try:
        if isinstance(msgpack.unpackb(data), dict):
            return ""
    except Exception:  # whatever msgpack makes of foreign bytes
        pass
    return (
        f"its records are no msgpack maps (the first begins with {data[:16]!r}); name TFDS's files "
        f"as "
        "tfds:<folder>@<split>, others must go through `python -m janus_jax.data convert`"
    )
