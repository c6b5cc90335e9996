"""Files in the folders of data sets that no record reads."""

import itertools
import os

from janus_jax.data.formats import left_out
from janus_jax.data.formats.array_record import MANIFEST
from janus_jax.data.formats.found import below
from janus_jax.data.formats.image_folder import METADATA
from janus_jax.data.sources import RecordError

_OURS = (MANIFEST, "bad_records.jsonl")  # lists that a conversion writes beside its shards


def unread(sources) -> dict[str, list[str]]:
    """By folder, the files below it that no record of any of these sources reads, as names below
    that folder. Raises SourceError for a folder that cannot be read.

    The folders are those that the data sets' lines name, as path or images. Asks every record for
    its pictures' paths, which opens none of them.
    """
    used = set()
    roots = []
    for part in (part for source in sources for part in getattr(source, "parts", [source])):
        reader = getattr(part, "reader", None)
        if hasattr(reader, "files") or hasattr(reader, "own_files"):
            roots += _roots(part)
            used.update(map(os.path.realpath, _files(part)))
            used.add(os.path.realpath(os.path.expanduser(part.dataset.names)))
    out = {}
    for root in dict.fromkeys(roots):
        left = (p for p in below(root) if os.path.realpath(p) not in used)
        names = sorted(os.path.relpath(p, root) for p in left if os.path.basename(p) not in _OURS)
        if names:
            out[root] = names
    return out


def lines(found: dict[str, list[str]]) -> list[str]:
    """What was found, for the terminal."""
    return [f"no record reads, in {root}: {left_out.counted(root, n)}" for root, n in found.items()]


def _roots(source) -> list[str]:
    """The folders whose files the data set might read, one inside another once."""
    line = source.dataset
    path = os.path.expanduser(line.path)
    path = os.path.dirname(path) if os.path.basename(path) in METADATA else path
    pictures = os.path.expanduser(line.images) if line.kind != "text" else ""
    found = [os.path.realpath(p) for p in (path, pictures) if os.path.isdir(p)]
    return [p for p in found if not any(p.startswith(other + os.sep) for other in found)]


def _files(source):
    """The paths of a source's own files, and of its records' pictures."""
    reader = source.reader
    yield from getattr(getattr(reader, "files", None), "paths", ())
    if hasattr(reader, "own_files"):
        yield from reader.own_files()
    elif source.dataset.kind != "text":
        for i in range(len(source)):
            for k in itertools.count():
                try:
                    file = source.picture_file(i, k)
                except RecordError:
                    break
                if isinstance(file, str):
                    yield file
                elif not hasattr(reader, "root"):
                    return  # shards hold the pictures; elsewhere one record may, and others not
