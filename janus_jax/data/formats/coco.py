"""COCO's caption files: one JSON object with lists of images and of annotations."""

import collections
import io
import json
import os
import re

from janus_jax.data.formats.files import Files, Strings, inside
from janus_jax.data.formats.gzipped import is_gzipped, unpacked
from janus_jax.data.sources import SourceError

_FIELDS = ("file_name", "width", "height", "id")  # of an image, that its record keeps
_LONGEST = 2**30  # bytes of a file that is one object
_WRAPS = ("data", "records", "rows", "items", "samples", "questions", "annotations", "images")
# Fields of a record: an object with one of them is a record itself.
_OF_RECORDS = {
    "image", "file_name", "caption", "captions", "text", "texts", "conversations", "messages", "question",
}  # fmt: skip
_SPLIT = re.compile(r"(train|val|test)\d{4}")  # of COCO's folders and file names
_TRIED = 20  # pictures of which one must be there


class CocoCaptions:
    """A record is a picture: "image", "captions" (all of it), "width", "height" and "id". Pictures
    without a caption are left out."""

    def __init__(self, path: str, images: str = ""):
        """images: the folder of the pictures; by default that of the file, or COCO's own place, the folder
        train2017 beside annotations/captions_train2017.json. Raises SourceError."""
        self.files = Files(path, (".json", ".json.gz"), whole=True)
        whole = only_object(self.files.paths[0])
        ids = [image.get("id") for image in whole["images"]]
        if None in ids:
            raise SourceError(
                f"{path}: {ids.count(None)} of its images have no id, and by it an annotation names "
                "its image; give each one"
            )
        if twice := [i for i, n in collections.Counter(ids).items() if n > 1]:
            raise SourceError(
                f"{path}: {len(twice)} ids, such as {twice[0]!r}, stand at several of its images, and whose the "
                "captions are is not known; give each image an id of its own"
            )
        captions = {}
        for annotation in whole["annotations"]:
            if annotation.get("caption"):
                captions.setdefault(annotation.get("image_id"), []).append(annotation["caption"])
        if not captions:
            has = next(map(", ".join, whole["annotations"]), "nothing")
            raise SourceError(
                f"{path}: is COCO's, but no file of captions: its annotations have {has}; give captions_*.json"
            )
        kept = [image for image in whole["images"] if image.get("id") in captions]
        records = [
            {"image": image.get("file_name")}
            | {name: image[name] for name in _FIELDS[1:] if name in image}
            | {"captions": captions[image["id"]]}
            for image in kept
        ]
        if not records:
            raise SourceError(
                f"{path}: none of its captions has the id of one of its images; get it again"
            )
        self.root = os.path.realpath(images or _folder(self.files.paths[0]))
        self._require_pictures(path, records)
        self._records = Strings(json.dumps(record) for record in records)
        self.fingerprint = self.files.fingerprint(len(self))

    def _require_pictures(self, path: str, records: list[dict]):
        names = [str(record["image"]) for record in records[:_TRIED]]
        if not any(os.path.lexists(os.path.join(self.root, name)) for name in names):
            raise SourceError(
                f"{path}: its pictures, such as {names[0]}, are not in {self.root}; give their folder as images"
            )

    def __len__(self):
        return len(self._records)

    def __getitem__(self, i):
        """The fields of record `i`."""
        return json.loads(self._records[int(i)])

    def open(self, ref: str) -> str:
        """The path of a picture. Raises RecordError."""
        return inside(self.root, ref)

    def where(self, i) -> str:
        return f"{self.files.names[0]}: image {self[i].get('id')}"

    def __repr__(self):
        return f"CocoCaptions({self.files!r}, {len(self)} pictures, {self.fingerprint})"


def only_object(path: str) -> dict | None:
    """What a JSON file holds that is one object, on one line or several; None for all else."""
    if not os.path.isfile(path):
        return None  # opening a pipe would wait
    try:
        packed = is_gzipped(path)
        with io.BytesIO(unpacked(path)) if packed else open(path, "rb") as file:
            if not file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return None  # a list may be long, and on one line
            file.seek(0)
            line = file.readline(_LONGEST)
            try:
                found = json.loads(line)
                return None if file.read(1024).strip() else found
            except ValueError:
                return json.loads(line + file.read(_LONGEST)) if len(line) < 1024 else None
    except (OSError, ValueError, RecursionError):
        return None


def is_captions(path: str) -> bool:
    """Whether a JSON file is one of COCO's. Raises SourceError where it is one object around a list
    of records."""
    whole = only_object(path)
    if whole is None:
        return False
    lists = {name: whole[name] for name in _WRAPS if isinstance(whole.get(name), list)}
    of = [name for name, rows in lists.items() if all(isinstance(row, dict) for row in rows)]
    if whole.keys() & _OF_RECORDS:
        return False
    if {"images", "annotations"} <= set(of):
        return True
    if of := [name for name in of if lists[name]]:
        others = ", ".join(name for name in whole if name != of[0]) or "nothing else"
        raise SourceError(
            f"{path}: is one object, whose list {of[0]!r} holds {len(whole[of[0]]):,} records (beside it: {others}); "
            f"write the list alone, as with `jq '.{of[0]}' {os.path.basename(path)} > records.json`"
        )
    return False


def _folder(path: str) -> str:
    """Where the pictures of a file lie by COCO's own layout; else the folder of the file."""
    here = os.path.dirname(path)
    split = _SPLIT.search(os.path.basename(path))
    named = [os.path.join(up, split[0]) for up in (os.path.dirname(here), here)] if split else []
    return next(filter(os.path.isdir, named), here)
