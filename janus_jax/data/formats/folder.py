"""A folder of pictures: class folders as ImageNet's, or pictures with their captions in files
beside them."""

import concurrent.futures
import hashlib
import json
import os

import numpy as np

from janus_jax.data.formats.files import PICTURES, Strings, inside
from janus_jax.data.formats.names import Names
from janus_jax.data.sources import RecordError, SourceError, printable, refuse_open_files

_THREADS = 16  # that look at files: network disks answer slowly
_AT_ONCE = 256  # files that a thread looks at before it reports
_BESIDE = ("", ".txt", ".json")  # what may hold a picture's caption


class Folder:
    """<root>/<class>/<picture>: fields "image", "class", "name" and "names" (synonyms). Or
    <root>/<picture> with <stem>.txt ("caption") or <stem>.json (its fields) beside it. Sorted by
    class and name, in every run the same."""

    def __init__(self, path: str, names: str = "", bare: bool = False):
        """names: what the classes are called, see Names. bare: pictures need no captions. Raises
        SourceError."""
        self.root = os.path.realpath(os.path.expanduser(path))
        self._names = Names(names)
        self._bare = bare
        entries = _scan(self.root)
        folders = [e.name for e in entries if e.is_dir()]
        loose = [e for e in entries if _is_picture(e.name) and e.is_file()]
        self._classes = [] if loose else folders
        files = []
        classes = []
        beside = []
        for c, folder in enumerate(self._classes or [""]):
            inner = _scan(os.path.join(self.root, folder)) if folder else entries
            present = {e.name for e in inner}
            for name in filter(_is_picture, (e.name for e in inner)):
                stem = name[: name.rindex(".")]
                files.append(name)
                classes.append(c)
                beside.append(
                    2 if stem + ".json" in present else 1 if stem + ".txt" in present else 0
                )
            if folder and (not classes or classes[-1] != c):
                raise SourceError(
                    f"{path}: no picture in its folder {folder!r}, and folders are classes here; "
                    f"remove it, or give "
                    f"the folder right above the classes' (pictures end in {', '.join(PICTURES)})"
                )
        self._refuse(path, folders, files if loose else None, beside)
        for folder in self._classes:
            self._names.fields(folder)  # says now, not in every worker, if one has no name
        self._files = Strings(files)
        self._class = np.array(classes, np.int32)
        self._beside = np.array(beside, np.int8)
        facts = self._listed(), sorted(self._names.table.items()), self._beside.tobytes()
        self.fingerprint = _digest(*facts, self._each(self._caption_digest) if any(beside) else b"")

    def _refuse(self, path: str, folders: list[str], loose: list[str] | None, beside: list[int]):
        """Raises SourceError for a folder that holds no pictures, two layouts, or pictures and no
        captions."""
        if not folders and not loose:
            raise SourceError(
                f"{path}: no pictures and no folders in it; pictures end in {', '.join(PICTURES)}"
            )
        if not loose:
            return
        mixed = [
            f
            for f in folders
            if any(_is_picture(e.name) for e in _scan(os.path.join(self.root, f)))
        ]
        if mixed:
            raise SourceError(
                f"{path}: has pictures ({loose[0]}, ...) and folders of pictures ({mixed[0]}, "
                f"...): captions beside "
                "pictures, or folders named by class? Move one of them elsewhere"
            )
        if not (any(beside) or self._bare):
            raise SourceError(
                f"{path}: no .txt or .json with its caption beside any of {len(loose)} pictures; "
                f"if one file holds "
                "them all, give its path, and this folder as images"
            )

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
        """Of the bytes of the file beside picture `i`; why there are none, if it cannot be read."""
        name = self._caption_name(i)
        try:
            with open(os.path.join(self.root, name or os.devnull), "rb", 0) as file:
                return hashlib.sha256(file.read()).digest()[:16]
        except OSError as error:
            refuse_open_files(error)
            return f"{error.errno};".encode()

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
        if name := self._caption_name(i):
            fields |= self._caption(name)
        elif not (self._classes or self._bare):
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

    def _caption_name(self, i) -> str:
        """What holds the caption of record `i`, or nothing."""
        suffix = _BESIDE[self._beside[i]]
        name = self._name(i)
        return name[: name.rindex(".")] + suffix if suffix else ""

    def _content(self, name: str) -> bytes:
        try:
            with open(inside(self.root, name, "caption"), "rb") as file:
                return file.read()
        except OSError as error:
            refuse_open_files(error)
            raise RecordError(
                "not readable", f"{name}: {error.strerror}; make it readable"
            ) from None

    def __repr__(self):
        name = printable(os.path.basename(self.root))
        return f"Folder({name}, {len(self)} pictures, {self.fingerprint})"

    def _caption(self, name: str) -> dict:
        data = self._content(name)
        try:
            text = data.decode("utf-8-sig")
            fields = (
                json.loads(text, strict=False)
                if name.endswith(".json")
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


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


def _scan(folder: str) -> list:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}; give a folder that can be read") from None
