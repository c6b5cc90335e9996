"""The format of what lies at a path that does not say it."""

import os

from janus_jax.config.schema import FORMATS
from janus_jax.data.formats import left_out, sniff
from janus_jax.data.formats.found import find, is_hidden
from janus_jax.data.sources import SourceError

_SUFFIXES = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".tar": "webdataset",
    ".array_record": "array_record", ".arrayrecord": "array_record",
    ".parquet": "parquet", ".txt": "text",
}  # fmt: skip
_GZIPPED = ("json", "csv", "text")  # formats of which gzipped files are read
_LOOKED_AT = 64  # files of a folder, to know what it holds


def detect(path: str) -> str:
    """The format of what lies at `path`, by its prefix, suffix, what the folder holds, or what the
    file begins with. Raises SourceError."""
    prefix = path.partition(":")[0]
    if prefix in ("tfds", "hf"):
        return prefix
    if named := _by_suffix(path.rstrip("*")):
        return named
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return _of_folder(path)
    if os.path.lexists(path):
        return sniff.by_content(path)
    if not any(c in path for c in "*?[{"):
        raise SourceError(f"{path}: no such file or folder; check the path")
    found = find(path, ())
    formats = sorted({_by_suffix(p) or sniff.by_content(p) for p in found})
    if len(formats) > 1:
        raise SourceError(
            f"{path}: finds {' and '.join(formats)} files; say which with format, or a narrower pattern"
        )
    return formats[0]


def _by_suffix(path: str) -> str:
    """The format that a file's name tells, or nothing."""
    name = path.lower()
    bare = name.removesuffix(".gz")
    found = next((f for suffix, f in _SUFFIXES.items() if bare.endswith(suffix)), "")
    if bare != name and found and found not in _GZIPPED and not name.endswith(".tar.gz"):
        raise SourceError(f"{path}: {found} is not read gzipped; run `gunzip -k` on it")
    return found


def _of_folder(path: str) -> str:
    """The format of what a folder holds. Raises SourceError."""
    try:
        with os.scandir(path) as entries:
            entries = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; give a folder that can be read") from None
    if not entries:
        raise SourceError(f"{path}: is an empty folder; check the path")
    names = sorted(entry.name for entry in entries)
    if any(left_out.is_picture(name) for name in names):
        return "folder"
    if {"dataset_info.json", "state.json"} <= set(names) or "dataset_dict.json" in names:
        return "hf"  # of save_to_disk
    found = {format for name in names if (format := _by_suffix(name))}
    if "array_record" in found:
        return "array_record"  # beside the shards lie the lists that the conversion wrote
    unknown = [e.name for e in entries if not e.is_dir() and not _by_suffix(e.name)]
    if found <= {"text", "json"} and left_out.pictures_among(path, unknown[:_LOOKED_AT]):
        return "folder"  # of pictures whose names do not tell it, with captions beside them
    if len(found) == 1:
        return found.pop()
    if found:
        raise SourceError(
            f"{path}: holds {' and '.join(sorted(found))} files; say which with format, or a "
            f"pattern"
        )
    if any(entry.is_dir() for entry in entries):
        return "folder"
    raise SourceError(
        f"{path}: holds no files of a format that is read: {left_out.counted(path, names)}; set format to one of "
        f"{', '.join(FORMATS)}"
    )
