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
        entries = _scan(self.root)
        folders = [e.name for e in entries if e.is_dir()]
        loose = [e for e in entries if _is_picture(e.name) and e.is_file()]
        self._classes = [] if loose else folders
        files, classes, beside = [], [], []
        for c, folder in enumerate(self._classes or [""]):
            inner = _scan(os.path.join(self.root, folder)) if folder else entries
            present = {e.name for e in inner}
            for name in filter(_is_picture, (e.name for e in inner)):
                stem = name[: name.rindex(".")]
                files.append(name)
                classes.append(c)
                beside.append(2 if stem + ".json" in present else 1 if stem + ".txt" in present else 0)
            if folder and (not classes or classes[-1] != c):
                raise SourceError(
                    f"{path}: no picture in its folder {folder!r}, and folders are classes here; remove it, or give "
                    f"the folder right above the classes' (pictures end in {', '.join(PICTURES)})"
                )
        self._refuse(path, folders, files if loose else None, beside)
        for folder in self._classes:
            self._names.fields(folder)  # says now, not in every worker, if one has no name
        self._files, self._class = Strings(files), np.array(classes, np.int32)
        self._beside = np.array(beside, np.int8)
        sizes = [e.stat().st_size for e in entries if loose and e.is_file()]  # too slow for ImageNet
        listed = repr((self._classes, sorted(self._names.table.items()), sizes)).encode(
            "utf-8", "surrogateescape"
        )
        arrays = self._files.digest() + self._class.tobytes() + self._beside.tobytes()
        self.fingerprint = hashlib.sha256(listed + arrays).hexdigest()[:16]

    def _refuse(self, path: str, folders: list[str], loose: list[str] | None, beside: list[int]):
        """Raises SourceError for a folder that holds no pictures, two layouts, or pictures and no captions."""
        if not folders and not loose:
            raise SourceError(
                f"{path}: no pictures and no folders in it; pictures end in {', '.join(PICTURES)}"
            )
        if not loose:
            return
        mixed = [f for f in folders if any(_is_picture(e.name) for e in _scan(os.path.join(self.root, f)))]
        if mixed:
            raise SourceError(
                f"{path}: has pictures ({loose[0]}, ...) and folders of pictures ({mixed[0]}, ...): captions beside "
                "pictures, or folders named by class? Move one of them elsewhere"
            )
        if not any(beside):
            raise SourceError(
                f"{path}: no .txt or .json with its caption beside any of {len(loose)} pictures; if one file holds "
                "them all, give its path, and this folder as images"
            )

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


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)


def _scan(folder: str) -> list:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}; give a folder that can be read") from None
