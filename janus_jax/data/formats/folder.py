"""A folder of pictures: class folders as ImageNet's, or pictures with their captions in files beside them."""

import hashlib
import json
import os

import numpy as np

from janus_jax.data.formats.files import PICTURES, Strings, inside
from janus_jax.data.formats.names import Names
from janus_jax.data.sources import RecordError, SourceError

_BESIDE = ("", ".txt", ".json")  # what may hold a picture's caption


class Folder:
    """<root>/<class>/<picture>: fields "image", "class", "name" and "names" (synonyms). Or <root>/<picture> with
    <stem>.txt ("caption") or <stem>.json (its fields) beside it. Sorted by class and name, in every run the same."""

    def __init__(self, path: str, names: str = ""):
        """names: what the classes are called, see Names. Raises SourceError."""
        self.root, self._names = os.path.realpath(os.path.expanduser(path)), Names(names)
        entries = _scan(self.root, path)
        loose = [e.name for e in entries if e.is_file() and e.name.lower().endswith(PICTURES)]
        folders = [e.name for e in entries if e.is_dir()]
        self._classes, files, beside, classes = [] if loose else folders, [], [], []
        for c, folder in enumerate(self._classes or [""]):
            inner = [e.name for e in (_scan(os.path.join(self.root, folder), path) if folder else entries)]
            present = set(inner)
            for name in inner:
                if name.lower().endswith(PICTURES):
                    stem = name[: name.rindex(".")]
                    files.append(name)
                    classes.append(c)
                    beside.append(2 if stem + ".json" in present else 1 if stem + ".txt" in present else 0)
        if not files:
            raise SourceError(
                f"{path}: no pictures in it or in its folders; they end in {', '.join(PICTURES)}"
            )
        mixed = [
            f
            for f in folders
            if any(e.name.lower().endswith(PICTURES) for e in _scan(f"{self.root}/{f}", path))
        ]
        if loose and mixed:
            raise SourceError(
                f"{path}: has pictures ({loose[0]}, ...) and folders of pictures ({mixed[0]}, ...): captions beside "
                "pictures, or folders named by class? Move one of them elsewhere"
            )
        empty = sorted(set(range(len(self._classes))) - set(classes))
        if empty:
            raise SourceError(
                f"{path}: no picture in {self._classes[empty[0]]!r} ({len(empty)} such folders); remove them"
            )
        self._files, self._class = Strings(files), np.array(classes, np.int32)
        self._beside = np.array(beside, np.int8)
        listed = repr((self._classes, sorted(self._names.table.items()))).encode("utf-8", "surrogateescape")
        self.fingerprint = hashlib.sha256(
            listed + self._files.digest() + self._class.tobytes() + self._beside.tobytes()
        ).hexdigest()[:16]

    def __len__(self):
        return len(self._files)

    def __getitem__(self, i):
        """The fields of record `i`. Raises RecordError."""
        name, fields = self.where(i), {}
        if self._classes:
            fields = self._names.fields(self._classes[self._class[i]])
        if suffix := _BESIDE[self._beside[i]]:
            fields |= self._caption(name[: name.rindex(".")] + suffix)
        elif not self._classes:
            raise RecordError("no caption", f"{name}: no .txt or .json with its caption beside it; add it")
        return {"image": name} | fields

    def open(self, ref: str) -> str:
        """The path of a picture. Raises RecordError."""
        return inside(self.root, ref)

    def where(self, i) -> str:
        return (
            os.path.join(self._classes[self._class[i]], self._files[i]) if self._classes else self._files[i]
        )

    def __repr__(self):
        return f"Folder({os.path.basename(self.root)}, {len(self)} pictures, {self.fingerprint})"

    def _caption(self, name: str) -> dict:
        try:
            with open(inside(self.root, name, "caption"), "rb") as file:
                text = file.read().decode("utf-8-sig")
            fields = json.loads(text, strict=False) if name.endswith(".json") else {"caption": text.strip()}
        except OSError as error:
            raise RecordError("not readable", f"{name}: {error.strerror}; make it readable") from None
        except UnicodeDecodeError as error:
            byte = f"byte {error.object[error.start]:#04x} at offset {error.start}"
            raise RecordError("not UTF-8", f"{name}: {byte} is not UTF-8; convert it with iconv") from None
        except (ValueError, RecursionError) as error:
            raise RecordError("not JSON", f"{name}: is not JSON ({error}); mend it") from None
        if not isinstance(fields, dict):
            raise RecordError("not an object", f"{name}: is a {type(fields).__name__}, needs an object")
        return {k: v for k, v in fields.items() if k != "image"}


def _scan(folder: str, path: str) -> list:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise SourceError(f"{path}: {folder}: {error.strerror}; give a folder that can be read") from None
