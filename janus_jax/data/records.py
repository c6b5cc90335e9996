"""Records over a reader of a format: raw fields -> what the pipeline learns from, and pictures (paper section 3.3)."""

import base64
import binascii
import concurrent.futures
import functools
import hashlib
import io
import logging
import threading
from typing import Protocol

import numpy as np
from PIL import Image

from janus_jax.data import fields
from janus_jax.data.images import FORMATS, read_image
from janus_jax.data.sources import Dataset, RecordError, SourceError, refuse_open_files

_REQUEST = ("Describe the picture.",)  # asked where a record holds a picture and a caption only
_THREADS = 16  # that look at sizes and scores: they wait for the disk


class Reader(Protocol):
    """One format. Picklable, safe to read from many threads. Optional: `pictured`, see Records._of_kind, and
    `pictures_fingerprint`, of the pictures alone, for formats whose fingerprint has too much or too little."""

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

    Understanding and generation leave out records without a picture where the reader can tell; text takes those, and
    where every record has a picture, the captions or answers. Smaller or lower-scored records are left out when opened.
    """

    def __init__(self, reader, dataset: Dataset, resized: int = 0):
        """resized: the pixels that pictures will be resized to (understanding: their longest side, generation: their
        shortest), when large JPEGs may come scaled down, see read_image; 0: they come whole. Raises SourceError when no
        record is left."""
        if dataset.kind == "generation":
            fields.check_templates(dataset.prompt, dataset.path)
        self.reader, self.dataset, self._kept = reader, dataset, None
        self._last = threading.local()  # the record that this thread read last: its pictures come next
        self._scale = {"longest" if dataset.kind == "understanding" else "shortest": resized}
        if hasattr(reader, "pictured"):
            self._of_kind(reader.pictured())
        if dataset.min_side or dataset.score:
            self._filter()
        self.fingerprint = self._digest(reader.fingerprint, dataset.prompt, dataset.caption)

    @functools.cached_property
    def pictures_fingerprint(self) -> str:
        """Of pictures and their order alone: stored image_ids outlive another prompt. May look at every file."""
        pictures = getattr(self.reader, "pictures_fingerprint", lambda: self.reader.fingerprint)
        return self._digest(pictures())

    def _digest(self, *facts) -> str:
        d, kept = self.dataset, b"" if self._kept is None else self._kept.astype(np.int64).tobytes()
        facts = *facts, d.kind, d.min_side, d.score, d.min_score, len(self), hashlib.sha256(kept).digest()
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_last"}

    def __setstate__(self, state):
        self.__dict__ |= state | {"_last": threading.local()}

    def __len__(self):
        return len(self.reader) if self._kept is None else len(self._kept)

    def __getitem__(self, i):
        """The record of this kind, see sources.Source. Raises RecordError."""
        raw = self._raw(i)
        try:
            if self.dataset.kind == "understanding":
                return self._understanding(raw, int(i))
            return self._generation(raw) if self.dataset.kind == "generation" else self._text(raw)
        except RecordError as error:
            raise RecordError(error.cause, f"{self.where(i)}: {error}") from None

    def image(self, i, k: int = 0):
        """Picture `k` of record `i`, an RGB `PIL.Image`. Raises RecordError or ImageError."""
        source = self.picture_file(i, k)
        file = _Named(source, self.where(i)) if isinstance(source, bytes) else source
        return read_image(file, **self._scale)

    def picture_file(self, i, k: int = 0) -> str | bytes:
        """The path, or the bytes as they are, of picture `k` of record `i`. Raises RecordError."""
        raw = self._raw(i)
        try:
            found = [ref for ref in fields.pictures(raw) if ref is not None]
            if k >= len(found):
                raise RecordError("no picture", f"has {len(found)} pictures, number {k} is asked for")
            return self._open(found[k])
        except RecordError as error:
            raise RecordError(error.cause, f"{self.where(i)}: {error}") from None

    def portable(self, i) -> dict:
        """The raw fields of record `i` with the pictures' files as bytes in "image" (one, or a list, None where a
        document has text): what conversion to another format stores. Raises RecordError."""
        raw = self._raw(i)
        try:
            files = [None if ref is None else self._bytes(ref) for ref in fields.pictures(raw)]
        except RecordError as error:
            raise RecordError(error.cause, f"{self.where(i)}: {error}") from None
        rest = {name: value for name, value in raw.items() if name not in ("image", "images", "file_name")}
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

    def _raw(self, i) -> dict:
        index = self._index(i)
        if self._last.__dict__.get("index") == index:
            return self._last.raw
        # Arrow gives every row the columns of all.
        raw = {name: value for name, value in self.reader[index].items() if value is not None}
        value = raw.get(self.dataset.score) if self.dataset.score else 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            cause = "missing field" if value is None else "wrong type"
            field = f'field "{self.dataset.score}" (score)'
            raise RecordError(cause, f"{self.where(i)}: {field} is {value!r}, needs a number")
        self._last.index, self._last.raw = index, raw
        return raw

    def _understanding(self, raw: dict, i: int) -> dict:
        images = fields.pictures(raw)
        if not any(image is not None for image in images):
            raise RecordError(
                "no picture", f"no picture (fields: {', '.join(raw) or 'none'}); as text, use kind text"
            )
        if "texts" in raw or (
            "text" in raw and isinstance(raw.get("images", raw.get("image")), list) and not _chat(raw)
        ):
            return {"document": fields.document(raw, images)}
        if None in images:
            raise RecordError("wrong type", 'a picture of the list is null; only beside "texts" may it be')
        d = self.dataset
        if not _chat(raw) or d.caption:
            answer = fields.captions(raw, d.caption)[0]
            prompts = d.prompt or _REQUEST
            question = prompts[i % len(prompts)]
            raw = {"question": question, "answer": answer}
            if "<image>" in answer:  # a caption may say anything
                content = [{"type": "image"}] * len(images) + [{"type": "text", "text": question}]
                return {
                    "messages": [
                        {"role": "user", "content": content},
                        {"role": "assistant", "content": answer},
                    ]
                }
        return _messages(fields.turns(raw, len(images)))

    def _generation(self, raw: dict) -> dict:
        d, images = self.dataset, fields.pictures(raw)
        if len(images) != 1 or None in images:
            raise RecordError("no picture", f"{len(images)} pictures: a record of generation needs one")
        named = d.caption or d.prompt or any(raw.get(name) is not None for name in fields.CAPTIONS)
        if _chat(raw) and not named:
            answers = [text for role, text in fields.turns(raw, 1) if role == "assistant"]
            raw = {"caption": answers[0]}
        return {"captions": fields.fill(d.prompt, raw, d.caption)}

    def _text(self, raw: dict) -> dict:
        images, d = fields.pictures(raw), self.dataset
        if "texts" in raw:
            return {"text": "\n\n".join(filter(None, fields.document(raw, images)))}
        images = [image for image in images if image is not None]
        if _chat(raw) and not images:
            return _messages(fields.turns(raw, 0))
        if _chat(raw) and not d.caption and not any(raw.get(name) is not None for name in fields.CAPTIONS):
            return {
                "text": "\n".join(
                    text for role, text in fields.turns(raw, len(images)) if role == "assistant"
                )
            }
        return {"text": "\n".join(fields.captions(raw, d.caption or ("text" if "text" in raw else "")))}

    def _open(self, ref) -> str | bytes:
        if isinstance(ref, bytes):
            return ref
        if isinstance(ref, str) and ref[:5].lower() == "data:":
            try:
                return base64.b64decode(ref.partition(",")[2], validate=True)
            except (binascii.Error, ValueError) as error:
                raise RecordError(
                    "bad base64",
                    f'field "image": {ref[:40]!r} is not valid base64 ({error}); encode the file again',
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
            raise RecordError(cause, f"{source}: {error.strerror}; check the path and the folder") from None

    def _of_kind(self, pictured: np.ndarray):
        """pictured: int8 [records], 1 with a picture, 0 without, -1 broken: those stay, training counts them."""
        if self.dataset.kind == "text":
            self._kept = np.flatnonzero(pictured < 1) if (pictured == 0).any() else None
        elif not (pictured == 1).any():
            raise SourceError(f'{self.dataset.path}: no record has the field "image"; as text, use kind text')
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
        keep, errors = np.array([f is not False for f in found]), [f for f in found if isinstance(f, str)]
        d, kept = self.dataset, np.arange(len(self)) if self._kept is None else self._kept
        asked = [f"shorter side >= {d.min_side}"] * bool(d.min_side) + [f"{d.score} >= {d.min_score}"] * bool(
            d.score
        )
        logging.warning(
            "%s: asked for %s: kept %d of %d records", d.path, " and ".join(asked), keep.sum(), len(keep)
        )
        if True not in found:
            unread = f"; {len(errors)} cannot be read, such as {errors[0]}" if errors else ""
            raise SourceError(
                f"{d.path}: no record has {' and '.join(asked)}; lower min_side or min_score{unread}"
            )
        self._kept = kept[keep]

    def _passes(self, i) -> bool | str:
        """Whether record `i` stays, or why it cannot be read: then it stays too, training counts it."""
        d = self.dataset
        try:
            raw = self._raw(i)
            if d.score and not raw[d.score] >= d.min_score:  # nor is NaN
                return False
            return not d.min_side or all(
                min(self._size(raw, ref)) >= d.min_side for ref in fields.pictures(raw) if ref is not None
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
        source = self._open(ref)
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
        ) as image:
            return image.size


class _Named(io.BytesIO):
    """A file in memory under the name that errors shall give it."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name


def _chat(raw: dict) -> bool:
    return any(raw.get(name) is not None for name in ("conversations", "messages", "question"))


def _messages(turns: list[tuple[str, str]]) -> dict:
    contents = [fields.parts(text) if role == "user" else text for role, text in turns]
    return {"messages": [{"role": role, "content": content} for (role, _), content in zip(turns, contents)]}
