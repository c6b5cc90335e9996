"""Files of a folder that are not read: found by content where a name tells nothing, counted, and named."""

import concurrent.futures
import os

from janus_jax.data.image_types import PICTURES, is_supported, what_it_is
from janus_jax.data.sources import refuse_open_files, shown

_THREADS = 16  # that look at files: network disks answer slowly
_NAMED = 3  # files of each kind
_UNDONE = ("~", ".part", ".partial", ".crdownload", ".download", ".tmp", ".bak", ".orig", ".swp")


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return name.lower().endswith(PICTURES)


def pictures_among(folder: str, names: list[str]) -> list[str]:
    """Those of a folder's files that are pictures which can be read, by their content; no copies that
    editors keep, nor downloads that have not ended."""
    names = [name for name in names if not name.lower().endswith(_UNDONE)]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _readable(os.path.join(folder, name)), names)
    return [name for name, readable in zip(names, found) if readable]


def counted(root: str, names: list[str]) -> str:
    """How many files there are of each suffix, and the first of them: "2 .heic (a.heic, b.heic:
    unsupported type HEIC; ...)".

    names: below `root`; folders end in a slash.
    """
    kinds = {}
    for name in names:
        suffix = os.path.splitext(name)[1].lower() or "without suffix"
        kinds.setdefault("folders" if name.endswith("/") else suffix, []).append(name)
    out = []
    for kind, of in sorted(kinds.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(of) > _NAMED else ""
        reason = _reason(os.path.join(root, of[0]))
        listed = ", ".join(map(shown, of[:_NAMED]))
        out.append(f"{len(of):,} {kind} ({listed}{more}{reason})")
    return ", ".join(out)


def _readable(path: str) -> bool:
    if not os.path.isfile(path):
        return False  # opening a pipe would wait
    try:
        with open(path, "rb") as file:
            return is_supported(file.read(32))
    except OSError as error:
        refuse_open_files(error)
        return False


def _reason(path: str) -> str:
    """Of a picture of a type that is not read, its type and what to do."""
    if not os.path.isfile(path):
        return ""
    try:
        with open(path, "rb") as file:
            cause, words = what_it_is(file.read(1024))
    except OSError:
        return ""
    return f": {words}" if cause == "unsupported type" else ""
