"""The pictures of a chat: what a user may give for one, and what is said of what cannot be used."""

import io
import os
import re

import numpy as np
from PIL import Image

from janus_jax.common.paths import expanded, of_uri
from janus_jax.data.image_files import ImageError, NamedBytes, from_data_uri, read_image
from janus_jax.data.image_types import base64_type
from janus_jax.data.messages import PICTURE_FIELDS
from janus_jax.data.sources import shown

_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]+):", re.I)  # of two letters or more: C: is a disk


def open_picture(source, where: str):
    """A picture of a message, RGB: a part, a path, a data or file URI, a file's bytes, an open
    file, a PIL image or a uint8 array. Raises ImageError that names the message."""
    try:
        return read_image(readable(source))
    except ImageError as error:
        raise ImageError(f"{where}: {error}", cause=error.cause) from None


def readable(source):
    """A picture of a message as `read_image` takes it, not read yet. Raises ImageError."""
    return _opened(_given(source))


def _given(part):
    """What a part holds; of nested ones, such as OpenAI's "image_url", the innermost."""
    while isinstance(part, dict):
        field = next((name for name in PICTURE_FIELDS if part.get(name) is not None), None)
        if field is None:
            there = shown(", ".join(f"{name}: {value!r}" for name, value in part.items()), 120)
            known = "'image' a PIL image, a path or bytes, or 'path' or 'url'"
            raise ImageError(f"part {{{there}}} holds no picture; give {known}")
        part = f"data:;base64,{part[field]}" if field == "base64" else part[field]
    return part


def _opened(source):
    """What `read_image` takes. Raises ImageError."""
    if isinstance(source, bytes | bytearray | memoryview):
        return NamedBytes(source, "bytes")
    if hasattr(source, "read"):
        return _file(source)
    if isinstance(source, str):
        return _named(source)
    if not isinstance(source, os.PathLike | Image.Image | np.ndarray):
        raise ImageError(
            f"a picture is a path, a data URI, bytes, an open file, a PIL image or a uint8 array, "
            f"not a {type(source).__name__}; of an array of another library give np.asarray(it)"
        )
    return source


def _named(text: str):
    """A picture given by a string: a path, or a URI."""
    scheme = _SCHEME.match(text)
    scheme = scheme[1].lower() if scheme else ""
    if scheme == "data":
        try:
            return NamedBytes(from_data_uri(text.lstrip()), f"data URI {shown(text.strip(), 40)}")
        except ValueError as error:
            raise ImageError(
                f"the data URI is not valid base64 ({error}): {shown(text, 40)}; encode the "
                f"file's bytes again"
            ) from None
    if scheme == "file" and text.strip()[5:6] == "/":
        return _path(of_uri, text)
    if "://" in text[: len(scheme) + 8] and scheme:
        raise ImageError(
            f"{shown(text, 120)} is a web address; download the picture and give its path",
            cause="web address",
        )
    if (kind := base64_type(text)) and not os.path.exists(text):
        raise ImageError(
            f"is base64 without its head ({shown(text, 40)}); put data:image/{kind};base64, before "
            f"it"
        )
    return _path(expanded, text, f"{shown(text)}: ")


def _path(read, text: str, where: str = "") -> str:
    try:
        return read(text)
    except ValueError as error:
        raise ImageError(f"{where}{error}") from None


def _file(source):
    """An open file that can be read from its start. Raises ImageError."""
    name = shown(getattr(source, "name", "file object"))
    if getattr(source, "closed", False):
        raise ImageError(f"{name}: the file is closed; give its path, or keep it open")
    if isinstance(source, io.TextIOBase):
        raise ImageError(f"{name}: the file is open as text; open it with mode 'rb'")
    seekable = getattr(source, "seekable", None)
    return source if seekable and seekable() else NamedBytes(source.read(), name)
