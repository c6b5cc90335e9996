"""Pictures with one file of metadata beside them, as Hugging Face's imagefolder has it."""

import os

from janus_jax.data.formats.found import is_split
from janus_jax.data.sources import SourceError

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def metadata(path: str) -> str:
    """The file that describes the pictures of a folder, its rows naming each in "file_name"; empty
    where there is none. Raises SourceError where there are two, or where it describes two splits."""
    try:
        with os.scandir(os.path.expanduser(path)) as entries:
            entries = {entry.name: entry for entry in entries}
    except OSError:
        return ""  # no folder; its reader says why
    found = [name for name in METADATA if name in entries]
    if len(found) > 1:
        raise SourceError(
            f"{path}: holds {' and '.join(found)}, one of which would not be read; give the path of one, and this "
            "folder as images"
        )
    parts = sorted(name for name, e in entries.items() if is_split(name) and e.is_dir())
    if found and len(parts) > 1:
        raise SourceError(
            f"{path}: {found[0]} describes the splits {', '.join(parts)} at once, and what is tested on must not be "
            f"trained on; move the rows of each into a file of its own, {parts[-1]}/{found[0]}, and give "
            f"path={os.path.join(path, parts[-1])}"
        )
    return os.path.join(os.path.expanduser(path), found[0]) if found else ""
