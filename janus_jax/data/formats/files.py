"""Files of a data set: found once in one order, then read by position from any thread of any
process."""

import array
import concurrent.futures
import contextlib
import hashlib
import logging
import mmap
import os
import re
import resource
import stat
import threading

import numpy as np

from janus_jax.data.formats.found import find, once
from janus_jax.data.formats.gzipped import is_gzipped, unpacked
from janus_jax.data.sources import (
    RecordError,
    SourceError,
    printable,
    refuse_open_files,
    unreadable,
)

# Descriptors that a data set keeps in a process, of perhaps 1024: other files are opened for each
# read.
_OPEN = 64
_THREADS = 16  # that look at files: network disks answer slowly
_EMPTY = "is empty (0 bytes); copy or download it again, or remove it"
_SPARE = 64  # descriptors left to all else: sockets, logs, checkpoints
_HEAD = 64 * 1024  # bytes at either end that tell large files apart
_UNPACKING = threading.Lock()  # not by every thread that reads at once
_WHOLE = 4 * 1024 * 1024  # files up to this size are hashed whole


class Files:
    """paths: the files of `path` in sorted order, each once; names: the same below what they share,
    for people.

    path: a file, a glob (`**` too), a `{000..123}` range, or a folder, of which every file with a
    suffix in `suffixes` is taken. whole: the reader indexes every byte anyway, so all are hashed.
    Raises SourceError when nothing is there, or a file is empty or not readable.
    """

    def __init__(self, path: str, suffixes: tuple[str, ...], whole: bool = False):
        found = find(path, suffixes)
        self._path = path
        self.base = os.path.dirname(found[0]) if len(found) == 1 else os.path.commonpath(found)
        self.paths = once(found)
        self.names = [printable(os.path.relpath(p, self.base)) for p in self.paths]
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            probed = list(pool.map(lambda p: _probe(p, whole), self.paths))
        named = zip(self.names, probed)
        refuse(path, [f"{name}: {found}" for name, found in named if isinstance(found, str)])
        self.sizes = [size for size, _, _ in probed]
        self._hashes = [content for _, _, content in probed]
        _warn_of_copies(self.names, [(size, head) for size, head, _ in probed])
        self._descriptors = {}
        self._gzipped = set()  # numbers of files, as `view` finds them
        self._unpacked = {}

    @contextlib.contextmanager
    def view(self, file: int):
        """The content of file number `file` in memory, unpacked where it is gzipped: `read` then
        reads of that. Raises SourceError, also for text in UTF-16."""
        with contextlib.ExitStack() as opened:
            if is_gzipped(self.paths[file]):
                self._gzipped.add(file)
                data = self._content(file)
                if not data:
                    raise SourceError(_EMPTY)
                memory = opened.enter_context(mmap.mmap(-1, len(data)))
                memory[:] = data
            else:
                number = opened.enter_context(open(self.paths[file], "rb")).fileno()
                memory = opened.enter_context(mmap.mmap(number, 0, access=mmap.ACCESS_READ))
            if memory[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise SourceError("is UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`")
            yield memory

    def indexed(self, rows, empty: str) -> list[np.ndarray]:
        """Of every record the number of its file, and the whole numbers of its row: an array each.
        Raises SourceError for all files at once.

        rows: takes a file's number, and gives a row for each record. Raises SourceError.
        empty: what is wrong with a file without records.
        """
        found = array.array("q")
        problems = []
        for file, name in enumerate(self.names):
            before = len(found)
            try:
                for row in rows(file):
                    found.extend((file, *row))
                problems += [f"{name}: {empty}"] if len(found) == before else []
            except SourceError as error:
                problems.append(f"{name}: {error}")
        refuse(self._path, problems)
        columns = np.array(found, np.int64).reshape(-1, 1 + len(row)).T
        return [column.astype(np.int32 if column.max() < 2**31 else np.int64) for column in columns]

    def read(self, file: int, start: int, size: int) -> bytes:
        """`size` bytes of file number `file` from `start`. Raises RecordError when it has become
        shorter or is gone."""
        try:
            if file in self._gzipped:
                data = self._content(file)[start : start + size]
            else:
                data = self._at(file, start, size)
        except OSError as error:
            raise unreadable(self.names[file], error) from None
        if len(data) < size:
            raise RecordError(
                "damaged",
                f"{self.names[file]}: ends before byte {start + size}; was it changed meanwhile?",
            )
        return data

    def _at(self, file: int, start: int, size: int) -> bytes:
        descriptor = self._descriptors.get(file)
        kept = descriptor is not None
        try:
            if not kept:
                descriptor = os.open(self.paths[file], os.O_RDONLY)
                if len(self._descriptors) < _OPEN:
                    kept = True
                    before = self._descriptors.setdefault(file, descriptor)
                    if before != descriptor:  # another thread was first
                        os.close(descriptor)
                        descriptor = before
            data = os.pread(descriptor, size, start)
            while len(data) < size and (
                more := os.pread(descriptor, size - len(data), start + len(data))
            ):
                data += more  # one read of Linux ends at 2 GiB
            return data
        finally:
            if not kept and descriptor is not None:
                os.close(descriptor)

    def fingerprint(self, *more) -> str:
        """16 hex digits over names, sizes and contents, and the repr of `more`. Of files above 4 MB
        that are not indexed whole: both ends and the time of the last change, which copies keep
        with `cp -p` or `rsync -t`."""
        listed = list(zip(self.names, self.sizes, self._hashes)), more
        return hashlib.sha256(repr(listed).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def __repr__(self):
        return (
            self.names[0]
            if len(self.names) == 1
            else f"{self.names[0]} ... {self.names[-1]}, {len(self.names)} files"
        )

    def _content(self, file: int) -> bytes:
        """Of a gzipped file; not pickled, since it may be large."""
        with _UNPACKING:
            if file not in self._unpacked:
                held = sum(map(len, self._unpacked.values()))
                self._unpacked[file] = unpacked(self.paths[file], held)
        return self._unpacked[file]

    def __getstate__(self):
        return self.__dict__ | {"_descriptors": {}, "_unpacked": {}}

    def __del__(self):
        for descriptor in self.__dict__.pop("_descriptors", {}).values():
            os.close(descriptor)


class Strings:
    """Many strings in two arrays: a list of a million file names would cost every worker 100 MB."""

    def __init__(self, strings):
        encoded = [s.encode("utf-8", "surrogateescape") for s in strings]
        self._ends = np.cumsum([0, *map(len, encoded)])
        self._bytes = b"".join(encoded)

    def __len__(self):
        return len(self._ends) - 1

    def __getitem__(self, i):
        return self._bytes[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogateescape")

    def digest(self) -> bytes:
        return hashlib.sha256(self._ends.tobytes() + self._bytes).digest()


def inside(root: str, name: str, field: str = "image") -> str:
    """The path of `name`, relative or whole, below `root`. Links that lie there are followed wherever they lead: their
    owner has put them there. Raises RecordError where the name itself leads out."""
    path = ""
    try:
        root = os.path.realpath(root)
        inner = root.rstrip(os.sep) + os.sep
        path = os.path.normpath(os.path.join(root, name))
        path = path if path.startswith(inner) else os.path.realpath(path)
        os.fsencode(path)
    except ValueError:  # NULs, or lone surrogates
        path = ""
    if not path or not path.startswith(inner) or ".." in re.split(r"[/\\]", name) or "\0" in name:
        raise RecordError(
            "outside the folder",
            f'field "{field}" leaves the folder of the pictures: {name[:80]!r}; give a path (or '
            f"link) that stays below",
        )
    return path


def refuse(path: str, problems: list[str], shown: int = 20):
    """Raises SourceError that lists `problems`, if any."""
    if problems:
        more = [f"  ... and {len(problems) - shown} more"] if len(problems) > shown else []
        raise SourceError("\n".join([f"{path}:", *(f"  {p}" for p in problems[:shown]), *more]))


def allow_open_files(count: int, name: str):
    """Raises this process's limit on open files (its workers inherit it) as far as it may. Raises
    SourceError where `count` files, which their reader keeps open, are still too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):  # macOS has a lower limit of its own
            pass
    if soft != resource.RLIM_INFINITY and count + _SPARE > soft:
        raise SourceError(
            f"{name}: {count:,} shards stay open while they are read, this system allows {soft:,} "
            f"files; raise the limit with `ulimit -n {count + _SPARE}`, or convert to fewer, larger shards"
        )


def file_facts(paths, timed: bool) -> list[tuple]:
    """(name, size, hash) of files that a library made, for a fingerprint: of large files both ends,
    and if `timed` the time of their last change, which differs where each host has made its own.
    Raises SourceError."""
    out = []
    paths = list(map(str, paths))
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for path, found in zip(paths, pool.map(lambda p: _probe(p, False, timed), paths)):
            if isinstance(found, str):
                raise SourceError(f"{path}: {found}")
            out.append((os.path.basename(path), found[0], found[2]))
    return out


def spread(read, length: int, rows: int = 64) -> list:
    """What `read(i)` says of records from the first to the last of `length`, for a fingerprint; of
    one that cannot be read the cause: training counts it. Raises SourceError where none can."""
    found = []
    errors = []
    for i in np.unique(np.linspace(0, length - 1, rows).astype(np.int64)):
        try:
            found.append(read(i))
        except RecordError as error:
            errors.append(error)
            found.append(error.cause)
    if len(errors) == len(found):
        raise SourceError(f"none of {len(found)} rows can be read; the first: {errors[0]}")
    return found


def _probe(path: str, whole: bool, timed: bool = True):
    """Size, hash of the beginning, and of the content (see Files.fingerprint); or what is wrong."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "is no regular file; give the path of a file"
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            head = file.read(_HEAD)
            total = hashlib.sha256(head)
            beginning = total.digest()
            if size > _WHOLE and not whole:
                file.seek(size - _HEAD)
                total.update(str(status.st_mtime_ns).encode() if timed else b"")
            while more := file.read(_WHOLE):
                total.update(more)
    except OSError as error:
        refuse_open_files(error)
        return f"{error.strerror}; make it a file that this user can read"
    return (size, beginning, total.hexdigest()) if size else _EMPTY


def _warn_of_copies(names: list[str], facts: list[tuple]):
    first = {}
    for name, fact in zip(names, facts):
        if fact in first:
            logging.warning(
                "%s begins like %s and has its size: if it is a copy, remove it", name, first[fact]
            )
        first.setdefault(fact, name)
