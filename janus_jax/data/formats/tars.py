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
from janus_jax.data.formats.tar_headers import BLOCK, members
from janus_jax.data.image_types import PICTURES
from janus_jax.data.sources import RecordError, SourceError, refuse_open_files, shown

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
            told = shown(", ".join(f"{n:,} .{suffix}" for suffix, n in unread.items()))
            dotted = next((s for s in unread if _is_read(s.rpartition(".")[2])), "")
            told += f"; a sample's name ends at its first dot: rename *.{dotted}" if dotted else ""
            logging.warning("%s: members not read: %s", path, told)

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
            header = self.files.read(shard, start - BLOCK, 100)
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
    seen = {}  # the suffixes of each sample so far, by folder and name
    apart = []  # samples that come again with other files
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for name, start, length in members(descriptor, path, size):
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
    _refuse_folders(seen)
    if apart:
        raise SourceError(
            f"the files of one sample are not neighbours ({shown(', '.join(apart[:_SAID]))}: {len(apart):,} of "
            f"{len(seen):,} samples); write it again in the order of names: `tar --sort=name -cf NEW.tar FOLDER`"
        )
    return counts, suffixes, starts, sizes


def _refuse_folders(seen: dict[tuple[str, str], tuple[str, ...]]):
    """Raises SourceError where the pictures of all samples are in another folder than what is said
    of them. seen: the suffixes of each folder and name."""
    pictures = {}
    words = {}
    for (folder, stem), suffixes in seen.items():
        found = {_is_picture(suffix) for suffix in suffixes if _is_read(suffix)}
        if len(found) > 1:
            return
        if found:
            (pictures if found == {True} else words)[stem] = f"{folder}/{stem}.{suffixes[0]}"
    if both := sorted(pictures.keys() & words.keys()):
        raise SourceError(
            f"the files of one sample are in two folders ({shown(pictures[both[0]])}, {shown(words[both[0]])}: "
            f"{len(both):,} samples); put them side by side into one, and write it with `tar --sort=name`"
        )
