"""Records over a reader of a format: raw fields -> what the pipeline learns from, and pictures
(paper section 3.3)."""

import concurrent.futures
import functools
import hashlib
import logging
import threading
from typing import Protocol

import numpy as np

from janus_jax.config.schema import Dataset
from janus_jax.data import fields, kinds
from janus_jax.data.image_files import NamedBytes, from_data_uri, header, read_image
from janus_jax.data.sources import RecordError, SourceError, refuse_open_files, shown

_THREADS = 16  # that look at sizes and scores: they wait for the disk


class Reader(Protocol):
    """One format. Picklable, safe to read from many threads. Optional: `pictured`, see
    Records._of_kind, and `pictures_fingerprint`, of the pictures alone, for formats whose
    fingerprint has too much or too little."""

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
        self.reader = reader
        self.dataset = dataset
        self._kept = None
        self._last = (
            threading.local()
        )  # the record that this thread read last: its pictures come next
        self._scale = {"longest" if dataset.kind == "understanding" else "shortest": resized}
        if hasattr(reader, "pictured"):
            self._of_kind(reader.pictured())
        if dataset.min_side or dataset.score:
            self._filter()
        self.fingerprint = self._digest(reader.fingerprint, dataset.prompt, dataset.caption)

    @functools.cached_property
    def pictures_fingerprint(self) -> str:
        """Of pictures and their order alone: stored image_ids outlive another prompt. May look at
        every file."""
        pictures = getattr(self.reader, "pictures_fingerprint", lambda: self.reader.fingerprint)
        return self._digest(pictures())

    def _digest(self, *facts) -> str:
        d = self.dataset
        kept = b"" if self._kept is None else self._kept.astype(np.int64).tobytes()
        facts = (
            *facts,
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
            if self.dataset.kind == "understanding":
                return kinds.understanding_record(raw, self.dataset, int(i))
            if self.dataset.kind == "generation":
                return kinds.generation_record(raw, self.dataset)
            return kinds.text_record(raw, self.dataset)
        except RecordError as error:
            raise RecordError(error.cause, f"{self.where(i)}: {error}") from None

    def image(self, i, k: int = 0):
        """Picture `k` of record `i`, an RGB `PIL.Image`. Raises RecordError or ImageError."""
        source = self.picture_file(i, k)
        file = NamedBytes(source, self.where(i)) if isinstance(source, bytes) else source
        return read_image(file, **self._scale)

    def picture_file(self, i, k: int = 0) -> str | bytes:
        """The path, or the bytes as they are, of picture `k` of record `i`. Raises RecordError."""
        raw = self.raw(i)
        try:
            found = [ref for ref in fields.pictures(raw) if ref is not None]
            if k >= len(found):
                raise RecordError(
                    "no picture", f"has {len(found)} pictures, number {k} is asked for"
                )
            return self._open(found[k])
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
        rest = {
            name: value
            for name, value in raw.items()
            if name not in ("image", "images", "file_name")
        }
        listed = any(
            isinstance(raw.get(name), list) for name in ("image", "images")
        )  # a list of one tells a document
        return {"image": files if listed else files[0], **rest} if files else rest

    def where(self, i) -> str:
        return self.reader.where(self._index(i))

    def __repr__(self):
        return f"Records({self.reader!r}, {self.dataset.kind}, {len(self)}, {self.fingerprint})"

    def _index(self, i) -> int:
        return int(i) if self._kept is None else int(self._kept[i])

    def raw(self, i) -> dict:
        """The fields of record `i` as they are, without nulls. Raises RecordError."""
        index = self._index(i)
        if self._last.__dict__.get("index") == index:
            return self._last.raw
        # Arrow gives every row the columns of all.
        raw = {name: value for name, value in self.reader[index].items() if value is not None}
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

    def _open(self, ref) -> str | bytes:
        if isinstance(ref, bytes):
            return ref
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
        source = self._open(ref)
        if isinstance(source, bytes):
            return source
        try:
            with open(source, "rb") as file:
                return file.read()
        except OSError as error:
            refuse_open_files(error)
            cause = "missing file" if isinstance(error, FileNotFoundError) else "not readable"
            raise RecordError(
                cause, f"{source}: {error.strerror}; check the path and the folder"
            ) from None

    def _of_kind(self, pictured: np.ndarray):
        """pictured: int8 [records], 1 with a picture, 0 without, -1 broken: those stay, training
        counts them."""
        if self.dataset.kind == "text":
            self._kept = np.flatnonzero(pictured < 1) if (pictured == 0).any() else None
        elif not (pictured == 1).any():
            raise SourceError(
                f'{self.dataset.path}: no record has the field "image"; as text, use kind text'
            )
        elif (pictured == 0).any():
            self._kept = np.flatnonzero(pictured)
        left = 0 if self._kept is None else len(self.reader) - len(self._kept)
        if left:
            kind = self.dataset.kind
            what = f"{left} of {len(self.reader)} records are not of kind {kind}, and left out"
            logging.warning("%s: %s", self.dataset.path, what)

    def _filter(self):
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(self._passes, range(len(self))))
        keep = np.array([f is not False for f in found])
        errors = [f for f in found if isinstance(f, str)]
        d = self.dataset
        kept = np.arange(len(self)) if self._kept is None else self._kept
        asked = []
        if d.min_side:
            asked.append(f"shorter side >= {d.min_side}")
        if d.score:
            asked.append(f"{d.score} >= {d.min_score}")
        logging.warning(
            "%s: asked for %s: kept %d of %d records",
            d.path,
            " and ".join(asked),
            keep.sum(),
            len(keep),
        )
        if True not in found:
            unread = f"; {len(errors)} cannot be read, such as {errors[0]}" if errors else ""
            raise SourceError(
                f"{d.path}: no record has {' and '.join(asked)}; lower min_side or "
                f"min_score{unread}"
            )
        self._kept = kept[keep]

    def _passes(self, i) -> bool | str:
        """Whether record `i` stays, or why it cannot be read: then it stays too, training counts
        it."""
        d = self.dataset
        try:
            raw = self.raw(i)
            if d.score and not raw[d.score] >= d.min_score:  # nor is NaN
                return False
            return not d.min_side or all(
                min(self._size(raw, ref)) >= d.min_side
                for ref in fields.pictures(raw)
                if ref is not None
            )
        except SourceError:
            raise
        except Exception as error:  # damaged headers make Pillow raise nearly anything
            refuse_open_files(error)
            return str(error)

    def _size(self, raw: dict, ref) -> tuple[int, int]:
        size = raw.get("width"), raw.get("height")
        if all(isinstance(side, int) for side in size):
            return size
        return header(self._open(ref))[0]
