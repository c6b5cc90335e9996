"""Records over a reader of a format: raw fields -> what the pipeline learns from, and pictures
(paper section 3.3)."""

import dataclasses
import functools
import hashlib
import threading
from typing import Protocol

import numpy as np

from janus_jax.config.schema import Dataset
from janus_jax.data import edits, fields, kinds, selection, senses
from janus_jax.data.image_files import NamedBytes, from_data_uri, read_image
from janus_jax.data.mapping import PICTURES, Raw, mapped
from janus_jax.data.sources import RecordError, shown, unreadable


class Reader(Protocol):
    """One format. Picklable, safe to read from many threads. Optional: `pictured`, int8 [records], 1
    with a picture, 0 without, -1 broken; `pictures_fingerprint`, of the pictures alone, for formats
    whose fingerprint has too much or too little; and `picture`, the column that is "image"."""

    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict:
        """The raw fields of record `i`. Raises RecordError that says where."""

    def open(self, ref) -> str | bytes:
        """The path or the file of a picture that a record refers to. Raises RecordError."""

    def where(self, i: int) -> str:
        """The file and record, for people. Never raises: it is asked where reading fails."""


class Records:
    """The Source over `reader` for one line of a config.

    Understanding and generation leave out records without a picture where the reader can tell; text
    takes those, and where every record has a picture, the captions or answers. Smaller or
    lower-scored records are left out when opened.
    """

    def __init__(self, reader, dataset: Dataset, resized: int = 0):
        """resized: the pixels that pictures will be resized to (understanding: their longest side,
        generation: their shortest), when large JPEGs may come scaled down, see read_image; 0: they
        come whole. Raises SourceError when no record is left."""
        if dataset.kind == "generation":
            fields.check_templates(dataset.prompt, dataset.path)
        selection.require_used(dataset)
        if dataset.picture and dataset.picture == getattr(reader, "picture", None):
            dataset = dataclasses.replace(dataset, picture="image")  # as the reader calls it
        self.reader = reader
        self.dataset = dataset
        self.left_out = {}  # why -> how many records were, when this was opened
        self._kept = None
        self._last = (
            threading.local()
        )  # the record that this thread read last: its pictures come next
        self._scale = {"longest" if dataset.kind == "understanding" else "shortest": resized}
        for select in (selection.by_kind, selection.by_size_and_score):
            kept, left_out = select(self)
            if kept is not None:
                self._kept = kept if self._kept is None else self._kept[kept]
                self.left_out |= left_out
        self.fingerprint = self._digest(
            reader.fingerprint, dataset.prompt, dataset.caption, *self._named("question", "answer"),
            *self._set("target", "source_ids", "edit_dropout"),
        )  # fmt: skip

    @functools.cached_property
    def pictures_fingerprint(self) -> str:
        """Of pictures and their order alone: stored image_ids outlive another prompt. May look at
        every file."""
        pictures = getattr(self.reader, "pictures_fingerprint", lambda: self.reader.fingerprint)
        return self._digest(pictures())

    def _named(self, *names: str) -> list[tuple[str, str]]:
        """Those of these fields of the line that name one."""
        return [
            (name, getattr(self.dataset, name)) for name in names if getattr(self.dataset, name)
        ]

    def _set(self, *names: str) -> list[tuple]:
        """Those of these fields of the line that are not at their default."""
        found = {name: getattr(self.dataset, name) for name in names}
        return [(name, x) for name, x in found.items() if x != getattr(Dataset, name)]

    def _digest(self, *facts) -> str:
        d = self.dataset
        kept = b"" if self._kept is None else self._kept.astype(np.int64).tobytes()
        facts = (
            *facts,
            *self._named("picture"),
            d.kind,
            d.min_side,
            d.score,
            d.min_score,
            len(self),
            hashlib.sha256(kept).digest(),
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_last"}

    def __setstate__(self, state):
        self.__dict__ |= state | {"_last": threading.local()}

    def __len__(self):
        return len(self.reader) if self._kept is None else len(self._kept)

    def __getitem__(self, i):
        """The record of this kind, see sources.Source. Raises RecordError."""
        raw = self.raw(i)
        try:
            made = kinds.record(raw, self.dataset, int(i))
            for sources in made.get("senses", {}).values():
                sources[:] = [self.opened(x) if isinstance(x, str) else x for x in sources]
            return made
        except RecordError as error:
            raise RecordError(error.cause, f"{self.where(i)}: {error}") from None

    def understood(self, i) -> tuple[list[str], list[str]]:
        """Of a record that was just read: how it was understood where it does not say so itself, a
        few words each, and the names of its fields that nothing read. Raises RecordError."""
        raw = self.raw(i)
        return list(raw.notes), raw.unread()

    def image(self, i, k: int = 0):
        """Picture `k` of record `i`, an RGB `PIL.Image`. Raises RecordError or ImageError."""
        source = self.picture_file(i, k)
        file = NamedBytes(source, self.where(i)) if isinstance(source, bytes) else source
        # Of several, as of an edit, some are there to be understood: they come whole.
        shown = self.dataset.kind == "generation" and len(fields.pictures(self.raw(i))) > 1
        return read_image(file, **({} if shown else self._scale))

    def picture_file(self, i, k: int = 0) -> str | bytes:
        """The path, or the bytes as they are, of picture `k` of record `i`. Raises RecordError."""
        raw = self.raw(i)
        try:
            found = [
                ref
                for ref in fields.pictures(raw)
                if ref is not None and not isinstance(ref, senses.Input)
            ]
            if k >= len(found):
                raise RecordError(
                    "no picture", f"has {len(found)} pictures, number {k} is asked for"
                )
            return self.opened(found[k])
        except RecordError as error:
            raise RecordError(error.cause, f"{self.where(i)}: {error}") from None

    def portable(self, i) -> dict:
        """The raw fields of record `i` with the pictures' files as bytes in "image" (one, or a
        list, None where a document has text): what conversion to another format stores. Raises
        RecordError."""
        raw = self.raw(i)
        try:
            files = [None if ref is None else self._bytes(ref) for ref in fields.pictures(raw)]
        except RecordError as error:
            raise RecordError(error.cause, f"{self.where(i)}: {error}") from None
        rest = {name: value for name, value in raw.items() if name not in PICTURES}
        # a list of one tells a document
        listed = any(isinstance(raw.get(name), list) for name in ("image", "images"))
        if raw.sources:
            return {"images": files[:-1], "target": files[-1], **rest}
        if "rejected" in raw and kinds.pairs().of_pictures(raw, self.dataset):
            return rest | dict(zip(kinds.pairs().HALVES, files))
        return {"image": files if listed else files[0], **rest} if files else rest

    def where(self, i) -> str:
        return self.reader.where(self._index(i))

    def __repr__(self):
        return f"Records({self.reader!r}, {self.dataset.kind}, {len(self)}, {self.fingerprint})"

    def _index(self, i) -> int:
        return int(i) if self._kept is None else int(self._kept[i])

    def raw(self, i) -> Raw:
        """The fields of record `i`, see mapping.mapped. Raises RecordError."""
        index = self._index(i)
        if self._last.__dict__.get("index") == index:
            return self._last.raw
        found = self.reader[index]
        try:
            raw = senses.beside(mapped(senses.among(found), self.dataset))
            raw = edits.gathered(raw, self.dataset, found)
            if "chosen" in raw and "rejected" in raw:
                raw = kinds.pairs().with_both_pictures(raw, self.dataset)
        except RecordError as error:
            raise RecordError(error.cause, f"{self.where(i)}: {error}") from None
        value = raw.get(self.dataset.score) if self.dataset.score else 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            cause = "missing field" if value is None else "wrong type"
            field = f'field "{self.dataset.score}" (score)'
            raise RecordError(
                cause, f"{self.where(i)}: {field} is {shown(repr(value))}, needs a number"
            )
        self._last.index = index
        self._last.raw = raw
        return raw

    def opened(self, ref) -> str | bytes:
        """The path, or the bytes, of a picture's reference. Raises RecordError."""
        if isinstance(ref, bytes):
            return ref
        if isinstance(ref, senses.Input):
            raise RecordError(
                "another sense", f"has {ref.name}, where pictures alone are read; leave it out"
            )
        if isinstance(ref, str) and ref.lstrip()[:5].lower() == "data:":
            try:
                return from_data_uri(ref)
            except ValueError as error:
                raise RecordError(
                    "bad base64",
                    f'field "image": {ref[:40]!r} is not valid base64 ({error}); encode the file '
                    f"again",
                ) from None
        return self.reader.open(ref)

    def _bytes(self, ref) -> bytes:
        source = self.opened(ref)
        if isinstance(source, bytes):
            return source
        try:
            with open(source, "rb") as file:
                return file.read()
        except OSError as error:
            raise unreadable(source, error) from None
