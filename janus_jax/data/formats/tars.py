"""WebDataset tars: members are indexed once by their headers, then read by position, so that order
is free."""

import array
import collections
import concurrent.futures
import json
import logging
import os

import numpy as np

from janus_jax.data.formats.files import Files, refuse
from janus_jax.data.formats.names import Names
from janus_jax.data.image_types import PICTURES
from janus_jax.data.sources import RecordError, SourceError, refuse_open_files, shown

# bytes; a header is one block, data whole blocks (POSIX.1-2001, pax, "ustar interchange format")
_BLOCK = 512
_THREADS = 16  # shards indexed at once: the walk waits for the disk
_TEXTS = ("txt", "caption")
_SAID = 3  # samples that are named


class Tars:
    """Samples are neighbouring members of one name up to its first dot. Fields: those of the .json
    member; "caption" of .txt or .caption; "class", "name" and "names" of .cls; "image" of the
    picture member, a list of several. Members of other types are not read, which is said. Links and
    folders count as absent."""

    def __init__(self, path: str, names: str = ""):
        """names: what the classes of .cls are called, see Names. Raises SourceError."""
        self.files = Files(path, (".tar",))
        self._names = Names(names)
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            shards = list(pool.map(_try_index, self.files.paths, self.files.sizes))
        refuse(
            path,
            [f"{n}: {s}" for n, s in zip(self.files.names, shards) if isinstance(s, SourceError)],
        )
        self._suffixes = sorted({suffix for _, suffixes, _, _ in shards for suffix in suffixes})
        self._refuse_halves(path, [set(suffixes) for _, suffixes, _, _ in shards])
        self._say_unread(path, [suffix for _, suffixes, _, _ in shards for suffix in suffixes])
        codes = {suffix: k for k, suffix in enumerate(self._suffixes)}
        self._suffix = np.concatenate(
            [[codes[s] for s in suffixes] for _, suffixes, _, _ in shards]
        ).astype(np.int32)
        self._start = np.concatenate([np.array(start, np.int64) for _, _, start, _ in shards])
        self._size = np.concatenate([np.array(size, np.int64) for _, _, _, size in shards])
        counts = np.concatenate([np.array(members, np.int64) for members, _, _, _ in shards])
        self._ends = np.concatenate(
            [[0], np.cumsum(counts)]
        )  # sample i: members ends[i] to ends[i + 1]
        self._shard = np.repeat(np.arange(len(shards), dtype=np.int32), [len(s[0]) for s in shards])
        self.fingerprint = self.files.fingerprint(len(self), sorted(self._names.table.items()))

    def _refuse_halves(self, path: str, shards: list[set[str]]):
        """Raises SourceError where one shard holds pictures alone, and another what is said of
        them."""
        alone = [name for name, s in zip(self.files.names, shards) if all(map(_is_picture, s))]
        words = [n for n, s in zip(self.files.names, shards) if not any(map(_is_picture, s))]
        if alone and words:
            raise SourceError(
                f"{path}: {shown(alone[0])} holds pictures alone, {shown(words[0])} none; the files of one sample must "
                "be neighbours in one tar: unpack both into one folder, and write it with `tar --sort=name`"
            )

    def _say_unread(self, path: str, suffixes: list[str]):
        counts = collections.Counter(suffixes)
        unread = {s: n for s, n in counts.most_common() if not _is_read(s)}
        if unread:
            told = ", ".join(f"{n:,} .{suffix}" for suffix, n in unread.items())
            logging.warning("%s: members not read: %s", path, shown(told))

    def __len__(self):
        return len(self._shard)

    def __getitem__(self, i):
        """The fields of sample `i`; pictures as references for `open`. Raises RecordError."""
        fields = {}
        pictures = []
        seen = set()
        for m in range(self._ends[i], self._ends[i + 1]):
            suffix = self._suffixes[self._suffix[m]]
            ref = (int(self._shard[i]), int(self._start[m]), int(self._size[m]))
            if suffix in seen:
                raise RecordError(
                    "member twice", f"{self.where(i)}: has two .{suffix} members; rename one"
                )
            seen.add(suffix)
            if _is_picture(suffix):
                pictures.append(ref)
            elif suffix == "json":
                fields = self._json(self._text(i, ref, suffix), i) | fields
            elif suffix in _TEXTS:
                fields["caption"] = self._text(i, ref, suffix).strip()
            elif suffix == "cls":
                fields |= self._names.fields(self._text(i, ref, suffix).strip())
        if pictures:
            fields["image"] = pictures if len(pictures) > 1 else pictures[0]
        return fields

    def open(self, ref) -> bytes:
        """A picture's file. Raises RecordError."""
        if isinstance(ref, str):
            raise RecordError(
                "no picture",
                f'field "image" names {ref[:80]!r}, yet the sample has no picture member',
            )
        return self.files.read(*ref)

    def where(self, i) -> str:
        """The shard, the sample's number in it, and, while the shard can be read, its first
        member's name as its header has it: 100 bytes."""
        shard = int(self._shard[i])
        start = int(self._start[self._ends[i]])
        number = int(i) - int(np.searchsorted(self._shard, shard))
        try:
            header = self.files.read(shard, start - _BLOCK, 100)
        except (RecordError, SourceError):
            return f"{self.files.names[shard]}: sample {number}"
        name = header.split(b"\0")[0].decode("utf-8", "backslashreplace")
        return f"{self.files.names[shard]}: sample {number}, {name}"

    def __repr__(self):
        return f"Tars({self.files!r}, {len(self)} samples, {self.fingerprint})"

    def _text(self, i, ref, suffix: str) -> str:
        data = self.files.read(*ref)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            byte = f"byte {data[error.start]:#04x} at offset {error.start}"
            raise RecordError(
                "not UTF-8", f"{self.where(i)}: .{suffix}: {byte} is not UTF-8"
            ) from None

    def _json(self, text: str, i) -> dict:
        try:
            fields = json.loads(text, strict=False)
        except (ValueError, RecursionError) as error:
            raise RecordError("not JSON", f"{self.where(i)}: .json is not JSON ({error})") from None
        if not isinstance(fields, dict):
            kind = type(fields).__name__
            raise RecordError(
                "not an object", f"{self.where(i)}: .json is a {kind}, needs an object"
            )
        return fields


def _is_picture(suffix: str) -> bool:
    return ("." + suffix).endswith(PICTURES)


def _is_read(suffix: str) -> bool:
    return suffix in ("json", "cls", *_TEXTS) or _is_picture(suffix)


def _try_index(path: str, size: int):
    try:
        return _index(path, size)
    except SourceError as error:
        return error
    except OSError as error:
        refuse_open_files(error)
        return SourceError(f"{error.strerror}; check the disk")


def _index(path: str, size: int):
    """Members of each sample; and of each member its suffix, first byte and bytes. Raises
    SourceError."""
    counts = array.array("q")
    suffixes = []
    starts = array.array("q")
    sizes = array.array("q")
    last = None
    seen = {}  # the suffixes of each sample so far
    apart = []  # samples that come again with other files
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for name, start, length in _members(descriptor, path, size):
            folder, _, base = name.rpartition("/")
            stem, dot, suffix = base.partition(".")
            if not dot or not stem:  # hidden files, such as macOS writes
                continue
            suffix = suffix.lower()
            key = (folder, stem)
            if key != last:
                if key in seen and suffix not in seen[key]:
                    apart.append(f"{folder}/{stem}".lstrip("/"))
                counts.append(0)
                last = key
            seen[key] = seen.get(key, ()) + (suffix,)
            counts[-1] += 1
            suffixes.append(suffix)
            starts.append(start)
            sizes.append(length)
    finally:
        os.close(descriptor)
    if not counts:
        raise SourceError("holds no samples; needs members such as 0001.jpg and 0001.txt")
    if apart:
        raise SourceError(
            f"the files of one sample are not neighbours ({shown(', '.join(apart[:_SAID]))}: {len(apart):,} of "
            f"{len(seen):,} samples); write it again in the order of names: `tar --sort=name -cf NEW.tar FOLDER`"
        )
    return counts, suffixes, starts, sizes


def _members(descriptor: int, path: str, size: int):
    """(name, first byte, bytes) of every file in a tar of `size` bytes: ustar, GNU's or pax's long
    names."""
    at = 0
    long = {}
    while at < size:
        header = os.pread(descriptor, _BLOCK, at)
        if not any(header):
            return
        name, kind, length = _header(header, at)
        length = _size(long.pop("size", length), name)
        start = at + _BLOCK
        at = at + _BLOCK + -(-length // _BLOCK) * _BLOCK
        if start + length > size:
            raise SourceError(
                f"is cut off within {name!r} at byte {size}; copy or download it again"
            )
        if kind == b"L":
            long["path"] = (
                os.pread(descriptor, length, start).rstrip(b"\0").decode("utf-8", "surrogateescape")
            )
        elif kind == b"x":
            long |= _pax(os.pread(descriptor, length, start))
        elif kind == b"S" or "GNU.sparse.major" in long:
            raise SourceError(f"{name!r} is a sparse file; write the tar without --sparse")
        elif kind not in (b"g", b"K"):
            name = long.pop("path", name)
            long = {}
            if kind in (b"0", b"\0", b"7"):
                yield name, start, length
    logging.warning(
        "%s: has no end mark; if it was cut off, samples are missing: copy it again", path
    )


def _header(header: bytes, at: int) -> tuple[str, bytes, int]:
    """Name, type and size. Raises SourceError for a block that is none."""
    if header[:2] == b"\x1f\x8b" and not at:
        raise SourceError(
            "is compressed: records in it cannot be found by position; gunzip it, pictures hardly "
            "shrink"
        )
    try:
        size = header[124:136]
        total = int(header[148:156].split(b"\0")[0], 8)
        large = size[0] & 0x80  # GNU's way to write 8 GiB and more
        number = int.from_bytes(size[1:], "big") if large else int(size.split(b"\0")[0] or b"0", 8)
        # Beyond the first header the magic will do: the sum would take as long as all the rest.
        good = (at and header[257:262] == b"ustar") or total == sum(header) - sum(
            header[148:156]
        ) + 8 * 32
    except (ValueError, IndexError):
        good = False
    good = good and number >= 0
    if not good or len(header) < _BLOCK:
        why = "is damaged" if at else "is no tar"
        raise SourceError(f"{why} (at byte {at}: {header[:16]!r}); copy or download it again")
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    name = prefix + b"/" + name if prefix else name
    return name.decode("utf-8", "surrogateescape"), header[156:157], number


def _pax(data: bytes) -> dict[str, str]:
    """Records "<length> <key>=<value>\\n" (POSIX.1-2001)."""
    found = {}
    while data.strip(b"\0"):
        digits, _, rest = data.partition(b" ")
        length = _size(digits, "a pax header")
        if length <= len(digits) + 1:
            raise SourceError(
                f"is damaged (a pax record of {length} bytes); copy or download it again"
            )
        key, _, value = rest[: length - len(digits) - 2].partition(b"=")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return found


def _size(value, name: str) -> int:
    """A number of bytes in decimal. Raises SourceError."""
    try:
        if (size := int(value)) >= 0:
            return size
    except ValueError:
        pass
    raise SourceError(f"is damaged ({name!r} has size {value!r:.40}); copy or download it again")
