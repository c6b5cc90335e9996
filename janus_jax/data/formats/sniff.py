"""The format of a file whose name does not tell it, by its content; or what it is, and what to do with it."""

import json
import os

from janus_jax.data.formats.gzipped import is_gzipped, unpacked
from janus_jax.data.formats.left_out import pictures_among
from janus_jax.data.sources import SourceError

# Suffixes of what is not read -> what to do.
_REMEDIES = {
    ".xlsx": "save it as CSV", ".xls": "save it as CSV", ".ods": "save it as CSV",
    ".zip": "unzip it, and give what is in it", ".7z": "unpack it, and give what is in it",
    ".rar": "unpack it, and give what is in it", ".zst": "unpack it with `zstd -d`", ".bz2": "unpack it with `bunzip2`",
    ".xz": "unpack it with `unxz`", ".tgz": "gunzip it into a .tar, pictures hardly shrink",
    ".tfrecord": "read TFDS's as tfds:<folder>@<split>, prepared as array_record",
    ".arrow": "give hf: and the folder that save_to_disk wrote it into, or write it as parquet",
    ".pkl": "pickles are not read, since they may run programs; write JSON lines",
    ".pt": "pickles are not read, since they may run programs; write JSON lines",
    ".yaml": "write it as JSON", ".yml": "write it as JSON", ".xml": "write it as JSON lines",
    ".h5": "write its records as parquet, or pictures as files", ".npz": "write its pictures as files",
    ".sqlite": "export the table as CSV", ".db": "export the table as CSV",
}  # fmt: skip


def is_json(path: str) -> bool:
    """Whether the first line of a text is a JSON object."""
    if not os.path.isfile(path) or is_gzipped(path):
        return False
    with open(path, "rb") as file:
        line = file.readline(2**20)
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def by_content(path: str) -> str:
    """webdataset, parquet or json. Raises SourceError with what the file is for all else."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _REMEDIES:
        raise SourceError(f"{path}: {suffix} files are not read; {_REMEDIES[suffix]}")
    if not os.path.isfile(path):
        raise SourceError(f"{path}: is no regular file; give the path of a file")
    try:
        packed = is_gzipped(path)
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise SourceError(
            f"{path}: {error.strerror}; make it a file that this user can read"
        ) from None
    try:
        head = unpacked(path)[:1024] if packed else head
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from None
    if head[257:262] == b"ustar":
        return "webdataset"
    if head[:4] == b"PAR1":
        return "parquet"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return "json"
    if pictures_among("", [path]):
        raise SourceError(
            f"{path}: is one picture; give the folder of the pictures, or a file that names them"
        )
    raise SourceError(
        f"{path}: neither its name nor its content tells a format (it begins with {head[:16]!r}); plain text is "
        "read with format=text, a table whose first line names its fields with format=csv"
    )
