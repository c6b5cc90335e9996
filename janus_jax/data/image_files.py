"""Opening pictures: what may be in a file, and what is said of it where it cannot be used."""

import base64
import errno
import io
import os
import stat
import threading
import urllib.parse
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from janus_jax.data.image_pixels import UNNAMED, ImageError, decoded
from janus_jax.data.image_types import RAW, SUPPORTED, bare_png, unsupported, what_it_is
from janus_jax.data.sources import refuse_open_files, shown

# A fixed list: other Pillow readers start programs (EPS runs Ghostscript) or differ between builds.
FORMATS = tuple(SUPPORTED.upper().split(", "))
_FILTERS = threading.Lock()  # Python has one list of warning filters for all threads
_BUFFER = 64 * 1024  # bytes: Pillow reads headers in small pieces
_ROOM = 2  # a JPEG scaled while decoding keeps this many times the side that is asked for


def read_image(source, *, max_pixels=64_000_000, longest=0, shortest=0):
    """Opens a picture, upright, as an 8-bit RGB `PIL.Image`.

    The source is a path, a file object, a `PIL.Image` or a uint8 [H, W, 3] array. The content
    decides the type, not the suffix. Alpha is dropped, not blended, as in the original
    (`convert("RGB")`). Unlike the original, the EXIF orientation is applied, but to a `PIL.Image`
    only as it was opened: one that has been worked on is taken as it looks. Deeper pictures are
    scaled (16 bit: by the bits in use, 8, 10, 12, 14 or 16; float: from [0, 1] or [0, 255]). Of an
    animation the first frame is used. Raises ImageError; more than `max_pixels` in the header is
    refused before anything is decoded.

    source: as above.
    max_pixels: the most that a header may claim.
    longest, shortest: the pixels that this side will be resized to, for training. A JPEG file may
        then come at a half, a quarter or an eighth, as its decoder scales, while that side keeps
        twice as many.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            shape = f"array {source.dtype} {source.shape}"
            remedy = _to_rgb(source) or "convert it"
            message = f"{shape}: a picture is uint8 [height, width, 3]: {remedy}"
            raise ImageError(message, cause="odd shape")
        return Image.fromarray(source)
    if isinstance(source, Image.Image):
        again = getattr(source, "filename", "") or getattr(source, "fp", None)
        try:
            return _decode(source, _name(source), max_pixels, again=again)
        except ImageError:
            raise
        except Exception as error:  # damaged headers
            raise ImageError(f"{_name(source)}: {error}; if it is damaged, get it again") from error
    if hasattr(source, "read"):
        name = shown(getattr(source, "name", "image file object"))
        return _open(source, name, max_pixels, longest, shortest)
    path = os.fspath(source)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb", _BUFFER) as file:
                return _open(file, shown(path), max_pixels, longest, shortest)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise _no_file(path, error) from error
    kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    message = f"{shown(path)}: is {kind}; give the path of one picture file"
    raise ImageError(message, cause="no regular file")


def header(file: str | bytes, size=lambda image: image.size) -> tuple[tuple[int, int], str]:
    """(width, height), or what `size` tells, and "JPEG RGB", type and mode, of a picture's path or bytes."""
    with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb", _BUFFER) as opened:
        return _use(opened, lambda image, _: (size(image), f"{image.format} {image.mode}"))


class NamedBytes(io.BytesIO):
    """A file in memory under the name that errors shall give it."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name


def _to_rgb(x) -> str:
    """What makes a picture of the array `x`, which is none: Python that can be pasted."""
    first = x.ndim == 3 and x.shape[0] in (1, 3) and x.shape[2] not in (1, 3)
    channels = 0 if x.ndim < 3 else x.shape[0 if first else -1]
    steps = (
        ("x = x[0]", x.ndim == 4),
        ("x = x.transpose(1, 2, 0)", first),
        ("x = np.stack([x] * 3, -1)", x.ndim == 2),
        ("x = x.repeat(3, -1)", channels == 1),
        ("x = x[..., :3]", channels == 4),
        ("x = (x * 255).astype(np.uint8)", x.dtype.kind == "f"),
        ("x = (x >> 8).astype(np.uint8)", x.dtype == np.uint16),
    )
    return "; ".join(step for step, due in steps if due)


def _name(image) -> str:
    """What errors call a `PIL.Image`."""
    size = f"{image.size[0]}x{image.size[1]}"
    return shown(getattr(image, "filename", "")) or f"{UNNAMED} {size}"


def _no_file(path, error: Exception) -> ImageError:
    """Why a path cannot be opened."""
    cause = "missing file"
    if isinstance(error, FileNotFoundError):
        text = str(path)
        why = "no such file; check the path and the image root"
        why += "; it begins or ends in white space" if text != text.strip() else ""
        why += "; between folders stands /, not a backslash" if "\\" in text else ""
        why = "is a link to a file that is not there; mend it" if os.path.islink(path) else why
    elif isinstance(error, PermissionError):
        cause = "no permission"
        why = "no permission to read it; try chmod a+r, or run as its owner"
    elif isinstance(error, ValueError):
        why = "holds a NUL or a lone surrogate, which no path can; give the path of a picture file"
    elif error.errno == errno.ENAMETOOLONG:
        why = "is too long for a path; give the path of one picture file"
    else:
        refuse_open_files(error)
        cause = "damaged"
        why = f"cannot be opened ({error.strerror}); check the path and the disk"
    return ImageError(f"{shown(path) or repr(path)}: {why}", cause=cause)


def from_data_uri(uri: str) -> bytes:
    """The file in `data:image/png;base64,...`, or percent-encoded (RFC 2397). White space is
    dropped; both alphabets of base64 are read, and padding may be missing. Raises ValueError."""
    head, comma, text = uri.partition(",")
    if not comma:
        raise ValueError("there is no comma before the data")
    data = urllib.parse.unquote_to_bytes(text)
    if "base64" not in (word.strip() for word in head.lower().split(";")):
        return data
    data = b"".join(data.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)


def _open(file, name, max_pixels, longest, shortest):
    try:
        return _use(
            file, lambda image, again: _decode(image, name, max_pixels, longest, shortest, again)
        )
    except ImageError:
        raise
    except UnidentifiedImageError:
        file.seek(0)
        cause, what = what_it_is(file.read(1024))
        raise ImageError(f"{name}: {what}", cause=cause) from None
    except Image.DecompressionBombError as error:  # a process may have lowered Pillow's own limit
        raise ImageError(f"{name}: {error}; scale it down", cause="too large") from error
    except Exception as error:  # damaged headers
        raise ImageError(f"{name}: {error}; if it is damaged, get it again") from error


def _use(file, use):
    """`use(image, file)` of the picture in an open file; where that fails, of the pixels of a PNG
    alone: Pillow refuses it for long texts and for damage in what is no pixel."""
    try:
        with _image(file) as image:
            return use(image, file)
    except Exception as error:
        large = getattr(error, "cause", "") == "too large"
        bare = None if large or isinstance(error, Image.DecompressionBombError) else bare_png(file)
        if bare is None:
            raise
    with _image(bare) as image:
        return use(image, bare)


def _image(file):
    try:
        return Image.open(file, formats=FORMATS)
    except Warning:  # one that `-W error` made an exception, of what is no reason to refuse
        with _FILTERS, warnings.catch_warnings(action="ignore"):
            return Image.open(file, formats=FORMATS)


def _decode(image, name, max_pixels, longest=0, shortest=0, again=None):
    """An opened `PIL.Image` -> upright 8-bit RGB; itself where it is that already. Raises
    ImageError."""
    width, height = image.size
    if max_pixels and width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height / 1e6:.0f} million pixels, the limit is "
            f"{max_pixels / 1e6:.0f} million (max_pixels); scale it down",
            cause="too large",
        )
    if kind := _odd_tiff(image):
        raise ImageError(f"{name}: {unsupported(kind)}", cause="unsupported type")
    if image.format == "JPEG" and (longest or shortest):
        _scale_while_decoding(image, longest, shortest)
    return decoded(image, name, again and (lambda: _image(again)))


def _odd_tiff(image) -> str:
    """What a TIFF is of which Pillow would give other pixels than are seen; empty for others.
    Cameras' RAWs begin with a small preview, and Pillow takes 16 bits in planes for 8."""
    tags = getattr(image, "tag_v2", {})
    preview = tags.get(ExifTags.Base.NewSubfileType, 0) & 1
    if ExifTags.Base.DNGVersion in tags or preview:
        return RAW
    deep = max(tags.get(ExifTags.Base.BitsPerSample, (8,))) > 8
    planes = deep and tags.get(ExifTags.Base.PlanarConfiguration) == 2
    plain = image.tile[0][0] == "raw" if planes and image.tile else False  # packed ones are right
    return "TIFF with a plane of 16 bits for each colour" if plain else ""


def _scale_while_decoding(image, longest, shortest):
    """Has an unread JPEG decoded at 1/2, 1/4 or 1/8, which libjpeg does in its inverse DCT, where
    room is left."""
    scale = (
        max(image.size) // (_ROOM * longest) if longest else min(image.size) // (_ROOM * shortest)
    )
    if scale > 1:
        image.draft(None, tuple(max(side // scale, 1) for side in image.size))
