"""Several data sets that one line of a config names, read as one."""

import collections
import functools
import glob
import hashlib
import os

import numpy as np

from janus_jax.data.sources import SourceError, printable

_BEYOND = ("picture_file", "portable", "raw", "understood")


class Joined:
    """The records of some sources, `parts`, one after the other."""

    def __init__(self, sources: dict):
        """sources: by path, in order. Raises SourceError where two of them read one file, or hold
        the same."""
        self.parts = list(sources.values())
        self._folders = [_folder(path) for path in sources]
        self._ends = np.cumsum([len(part) for part in self.parts])
        seen = {}
        for path, part in sources.items():
            reader = getattr(part, "reader", None)
            files = getattr(getattr(reader, "files", None), "paths", ())
            content = (part.fingerprint, getattr(reader, "root", ""))  # equal lists of two folders
            for fact in (content, *map(os.path.realpath, files)):
                before = seen.setdefault(fact, path)
                if before != path:
                    raise SourceError(
                        f"{path}: {before} holds the same records; leave one out, or raise weight"
                    )
        told = [part.fingerprint for part in self.parts]
        self.fingerprint = hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    @functools.cached_property
    def pictures_fingerprint(self) -> str:
        told = [getattr(part, "pictures_fingerprint", part.fingerprint) for part in self.parts]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    @property
    def reader(self):
        """What stands for the reader of a single data set."""
        return self

    def __len__(self):
        return int(self._ends[-1])

    def __getitem__(self, i):
        """The record, see sources.Source. Raises RecordError."""
        part, k = self._at(i)
        return part[k]

    def image(self, i, k: int = 0):
        part, inner = self._at(i)
        return part.image(inner, k)

    def __getattr__(self, name):
        """What sources may have beyond the protocol, where all parts have it."""
        if name not in _BEYOND or not all(hasattr(part, name) for part in self.parts):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        return functools.partial(self._of_part, name)

    def _of_part(self, name: str, i, *more):
        part, k = self._at(i)
        return getattr(part, name)(k, *more)

    @property
    def left_out(self) -> dict[str, int]:
        """See `Records`; of all parts."""
        counts = [collections.Counter(getattr(part, "left_out", {})) for part in self.parts]
        return dict(sum(counts, collections.Counter()))

    def where(self, i) -> str:
        """With the folder that the line names: files of two folders may have one name."""
        p = int(np.searchsorted(self._ends, i, side="right"))
        part, k = self._at(i)
        return os.path.join(self._folders[p], part.where(k))

    def __repr__(self):
        return f"Joined({', '.join(map(repr, self.parts))}, {self.fingerprint})"

    def _at(self, i):
        """(source, number in it) of record `i`. Raises IndexError."""
        if not 0 <= i < len(self):
            raise IndexError(f"record {i} of {len(self)}")
        p = int(np.searchsorted(self._ends, i, side="right"))
        return self.parts[p], int(i) - (int(self._ends[p - 1]) if p else 0)


def paths_in(path: str) -> list[str]:
    """The paths that stand in `path` with commas between them; one that is there as it stands, or as
    a pattern, is one. Raises SourceError for an empty one among them."""
    whole = os.path.expanduser(path)
    if "," not in path or os.path.lexists(whole) or glob.glob(whole, recursive=True):
        return [path]
    parts = [part.strip() for part in path.split(",")]
    if "" in parts:
        raise SourceError(f"{path}: has nothing before or behind a comma; leave the comma out")
    if len(set(parts)) < len(parts):
        raise SourceError(f"{path}: names a path twice; leave one out")
    return parts


def _folder(path: str) -> str:
    """What of a path stands before the names that a reader gives."""
    if ":" in path.partition("/")[0]:
        return ""
    return printable(path if os.path.isdir(os.path.expanduser(path)) else os.path.dirname(path))
