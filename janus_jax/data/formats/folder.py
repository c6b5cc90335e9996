"""A folder of pictures: class folders as ImageNet's, or pictures with their captions in files
beside them."""

import concurrent.futures
import hashlib
import json
import logging
import os
import re

import numpy as np

from janus_jax.data.formats import left_out
from janus_jax.data.formats.files import Strings, inside
from janus_jax.data.formats.found import is_hidden, refuse_as_classes, refuse_pictures
from janus_jax.data.formats.image_folder import METADATA
from janus_jax.data.formats.names import Names
from janus_jax.data.image_types import PICTURES
from janus_jax.data.sources import (
    RecordError,
    SourceError,
    printable,
    refuse_open_files,
    unreadable,
)

_THREADS = 16  # that look at files: network disks answer slowly
_AT_ONCE = 256  # files that a thread looks at before it reports
# What may hold a picture's caption, a bit each.
_BESIDE = (".txt", ".json", ".caption", ".TXT", ".JSON", ".CAPTION")
_LISTS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")  # what may describe many pictures
_COUNTED = re.compile(r"\d+_\D")  # a folder of kohya's: 10_ohwx dog
# What a folder of pictures is called, and no class.
_NO_CLASS = ("images", "image", "imgs", "img", "pictures", "photos", "data", "jpegimages")


class Folder:
    """<root>/<class>/<picture>: fields "image", "class", "name" and "names" (synonyms). Or
    <root>/<picture> with <stem>.txt or <stem>.caption ("caption"), or <stem>.json (its fields) beside it.
    Sorted by class and name, in every run the same. Files whose names tell nothing are pictures
    where their content is; what else is there is counted and named in the log."""

    def __init__(self, path: str, names: str = "", bare: bool = False):
        """names: what the classes are called, see Names. bare: pictures need no captions. Raises
        SourceError."""
        self.root = os.path.realpath(os.path.expanduser(path))
        self._names = Names(names)
        self._bare = bare
        entries = _scan(self.root)
        folders = [e.name for e in entries if e.is_dir()]
        first, left = self._sorted_out("", entries)
        self._classes = [] if first else folders
        if not first:
            self._refuse_classes(path, folders, left)
        files = []
        classes = []
        beside = []
        for c, folder in enumerate(self._classes or [""]):
            inner = _scan(os.path.join(self.root, folder)) if folder else entries
            found, more = self._sorted_out(folder, inner) if folder else (first, [])
            self._refuse_class(path, folder, inner, found, more)
            stems = {_stem(name) for name in found}
            present = [e.name for e in inner if e.name.lower().endswith(_BESIDE)]
            left += more + [os.path.join(folder, n) for n in present if _stem(n) not in stems]
            known = set(present)
            files += found
            classes += [c] * len(found)
            beside += [_bits(_stem(name), known) for name in found]
        left += [] if self._classes else [f"{folder}/" for folder in folders]
        left = [
            name for name in left if os.path.join(self.root, name) != os.path.realpath(names or ".")
        ]
        self._refuse(path, folders, files, beside)
        if left:
            logging.warning("%s: not read: %s", path, left_out.counted(self.root, left))
        numbered = [c for c in self._classes if c not in self._names.table and _COUNTED.match(c)]
        if numbered and len(numbered) == len(self._classes) and not all(beside):
            logging.warning(
                "%s: its folders are numbered, and so are the captions: %r; name them in a file of names, where the "
                "numbers are how often a picture is to be seen, and say that by weight",
                path,
                self._names.fields(numbered[0])["name"],
            )
        for folder in () if all(beside) else self._classes:
            self._names.fields(folder)  # says now, not in every worker, if one has no name
        self._files = Strings(files)
        self._class = np.array(classes, np.int32)
        self._beside = np.array(beside, np.int8)
        facts = self._listed(), sorted(self._names.table.items()), self._beside.tobytes()
        self.fingerprint = _digest(*facts, self._each(self._caption_digest) if any(beside) else b"")

    def _sorted_out(self, folder: str, entries: list) -> tuple[list[str], list[str]]:
        """(names of the pictures of a folder, what else lies there below the root); the files that
        may hold captions are neither."""
        found = []
        unknown = []
        others = []
        for entry in entries:
            if entry.is_dir():
                others += [entry.name + "/"] if folder else []
            elif left_out.is_picture(entry.name):
                found.append(entry.name)
            elif not entry.name.lower().endswith(_BESIDE):
                unknown.append(entry.name)
        more = left_out.pictures_among(os.path.join(self.root, folder), unknown)
        others += sorted(set(unknown) - set(more))
        return sorted(found + more), [os.path.join(folder, name) for name in others]

    def _refuse_classes(self, path: str, folders: list[str], left: list[str]):
        """Raises SourceError for a folder whose folders are no classes."""
        if not folders:
            there = f"; there are {left_out.counted(self.root, left)}" if left else ""
            raise SourceError(
                f"{path}: no pictures and no folders in it; pictures end in {', '.join(PICTURES)}{there}"
            )
        refuse_as_classes(path, folders, self._names.table)
        only = folders[0] if len(folders) == 1 else ""
        if only.lower() in _NO_CLASS and only not in self._names.table:
            raise SourceError(
                f"{path}: its only folder {only!r} would be the class, and so the caption, of every picture; give "
                f"path={os.path.join(path, only)}, with captions beside the pictures"
            )

    def _refuse_class(self, path: str, folder: str, inner: list, found: list[str], left: list[str]):
        """Raises SourceError for a class's folder without pictures, or with captions that would not be read."""
        listed = next((e.name for e in inner if e.name.lower().endswith(_LISTS)), "")
        if folder and listed:
            known = listed in METADATA
            give = os.path.join(path, folder) if known else os.path.join(path, folder, listed)
            raise SourceError(
                f"{path}: its folder {folder!r} has {listed}, which says more of each picture than the folder's "
                f"name; give path={give}, several with commas between them{'' if known else ', or remove it'}"
            )
        if folder and not found:
            there = f" (it holds {left_out.counted(self.root, left)})" if left else ""
            raise SourceError(
                f"{path}: no picture in its folder {folder!r}, and folders are classes here{there}; "
                f"remove it, or give the folder right above the classes' (pictures end in {', '.join(PICTURES)})"
            )

    def _refuse(self, path: str, folders: list[str], loose: list[str], beside: list[int]):
        """Raises SourceError for loose pictures beside folders of pictures, of two splits, or without captions."""
        if self._classes:
            return
        mixed = [
            f
            for f in folders
            if any(left_out.is_picture(e.name) for e in _scan(os.path.join(self.root, f)))
        ]
        if mixed:
            raise SourceError(
                f"{path}: has pictures ({loose[0]}, ...) and folders of pictures ({mixed[0]}, "
                f"...): captions beside "
                "pictures, or folders named by class? Move one of them elsewhere"
            )
        if not (any(beside) or self._bare):
            lies = lambda name: os.path.exists(os.path.join(self.root, name))
            long = next((loose[0] + s for s in _BESIDE if lies(loose[0] + s)), "")
            remedy = (
                f"call {long} {_stem(loose[0])}{os.path.splitext(long)[1]}, and so on"
                if long
                else ("if one file holds them all, give its path, and this folder as images")
            )
            raise SourceError(
                f"{path}: no .txt or .json with its caption beside any of {len(loose)} pictures; {remedy}"
            )
        refuse_pictures(path, loose)

    def pictures_fingerprint(self) -> str:
        """16 hex digits over the names of pictures, their sizes and times of last change, which
        copies keep with `cp -p` or `rsync -t`. Asks the disk about every one: seconds for each
        100,000, so only when ids are stored."""
        return _digest(self._listed(), self._each(self._picture_facts))

    def _listed(self) -> tuple:
        return self._classes, self._files.digest(), self._class.tobytes()

    def _each(self, of) -> bytes:
        """A digest of what `of` says of every record, in order."""
        starts = range(0, len(self), _AT_ONCE)
        some = lambda start: b"".join(map(of, range(start, min(start + _AT_ONCE, len(self)))))
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            return hashlib.sha256(b"".join(pool.map(some, starts))).digest()

    def _caption_digest(self, i) -> bytes:
        """Of the bytes of the files beside picture `i`; why there are none, if one cannot be
        read."""
        total = hashlib.sha256()
        for name in self._caption_names(i):
            try:
                with open(os.path.join(self.root, name), "rb", 0) as file:
                    total.update(file.read())
            except OSError as error:
                refuse_open_files(error)
                total.update(f"{error.errno};".encode())
        return total.digest()[:16]

    def _picture_facts(self, i) -> bytes:
        try:
            facts = os.stat(os.path.join(self.root, self._name(i)))
        except OSError as error:
            return f"{error.errno};".encode()
        return f"{facts.st_size} {facts.st_mtime_ns};".encode()

    def __len__(self):
        return len(self._files)

    def __getitem__(self, i):
        """The fields of record `i`. Raises RecordError."""
        fields = {}
        if self._classes:
            fields = self._names.fields(self._classes[self._class[i]])
        names = self._caption_names(i)
        for name in sorted(names, key=str.lower):  # .txt counts before .json, as in a tar
            fields |= self._caption(name)
        if not (names or self._classes or self._bare):
            raise RecordError(
                "no caption",
                f"{self.where(i)}: no .txt or .json with its caption beside it; add it",
            )
        return {"image": (self._name(i),)} | fields

    def open(self, ref: tuple) -> str:
        """The path of a picture, of (its name,): no text, a name need not be UTF-8. Raises
        RecordError."""
        return inside(self.root, ref[0])

    def where(self, i) -> str:
        return printable(self._name(i))

    def _name(self, i) -> str:
        return (
            os.path.join(self._classes[self._class[i]], self._files[i])
            if self._classes
            else self._files[i]
        )

    def _caption_names(self, i) -> list[str]:
        """The files beside the picture of record `i` that say something of it."""
        stem = _stem(self._name(i))
        return [stem + suffix for bit, suffix in enumerate(_BESIDE) if self._beside[i] & 1 << bit]

    def own_files(self) -> list[str]:
        """The paths of all that it reads."""
        names = (n for i in range(len(self)) for n in (self._name(i), *self._caption_names(i)))
        return [os.path.join(self.root, name) for name in names]

    def _content(self, name: str) -> bytes:
        try:
            with open(inside(self.root, name, "caption"), "rb") as file:
                return file.read()
        except OSError as error:
            raise unreadable(name, error) from None

    def __repr__(self):
        name = printable(os.path.basename(self.root))
        return f"Folder({name}, {len(self)} pictures, {self.fingerprint})"

    def _caption(self, name: str) -> dict:
        data = self._content(name)
        try:
            text = data.decode("utf-8-sig")
            fields = (
                json.loads(text, strict=False)
                if name.lower().endswith(".json")
                else {"caption": text.strip()}
            )
        except UnicodeDecodeError as error:
            byte = f"byte {data[error.start]:#04x} at offset {error.start}"
            raise RecordError(
                "not UTF-8", f"{name}: {byte} is not UTF-8; convert it with iconv"
            ) from None
        except (ValueError, RecursionError) as error:
            raise RecordError("not JSON", f"{name}: is not JSON ({error}); mend it") from None
        if not isinstance(fields, dict):
            raise RecordError(
                "not an object", f"{name}: is a {type(fields).__name__}, needs an object"
            )
        return {k: v for k, v in fields.items() if k not in ("image", "images", "file_name")}


def _digest(*facts) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _bits(stem: str, present: set[str]) -> int:
    """Which of _BESIDE a picture has, a bit each."""
    return sum(1 << bit for bit, suffix in enumerate(_BESIDE) if stem + suffix in present)


def _scan(folder: str) -> list:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not is_hidden(e.name)), key=lambda e: e.name)
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}; give a folder that can be read") from None
