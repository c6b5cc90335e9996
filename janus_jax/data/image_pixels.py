"""The pixels of an opened picture, whatever its mode, depth and orientation, as upright 8-bit
RGB."""

import contextlib
import logging

import numpy as np
from PIL import ExifTags, Image, ImageOps

from janus_jax.data.sources import printable, shown

UNNAMED = "PIL image"  # what errors and notes call one that is from no file
_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners give, stored in 16
_MOST_NOTES = 10  # of one kind, in one process
_noted = {}  # kind of note -> the notes
_log = logging.getLogger(__name__)


class ImageError(ValueError):
    """A picture cannot be used. The message names the file, what is wrong and the remedy; `cause`
    is the short category under which it is counted: "missing file", "empty file", "web page",
    "git-lfs pointer", "unsupported type", "damaged", "too large", "no regular file", "no
    permission" or "odd shape"."""

    exit_code = "data"

    def __init__(self, message: str, *, cause: str = "damaged"):
        super().__init__(printable(message))
        self.cause = cause


def _note(kind: str, text: str, most: int = _MOST_NOTES):
    """Logs a warning about a picture, unless it, or so many of its kind, were logged before."""
    notes = _noted.setdefault(kind, [])
    said = text in notes and not text.startswith(UNNAMED)  # several may be called alike
    if not said and len(notes) < most:
        notes.append(text)
        _log.warning("%s", text)


def as_rgb(image):
    """A `PIL.Image` or uint8 [H, W, 3] -> an RGB `PIL.Image` with pixels in it. Raises
    ImageError."""
    if not isinstance(image, Image.Image):
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
            raise ImageError(
                f"image: {image.dtype} {image.shape}, needs uint8 [H, W, 3]; floats go through "
                f"to_pil",
                cause="odd shape",
            )
        return Image.fromarray(image)
    if not min(image.size):
        size = f"{image.size[0]}x{image.size[1]}"
        raise ImageError(f"image: {size} holds no pixels; leave it out", cause="odd shape")
    return decoded(image, shown(getattr(image, "filename", "")) or "image")


def decoded(image, name: str, again=None):
    """An opened `PIL.Image` -> upright 8-bit RGB; itself where it is that already. Raises
    ImageError.

    name: of the picture, for errors.
    again: opens the same file once more, for reading the lower bytes of deep colours.
    """
    try:
        if image.format not in (None, "MPO") and getattr(image, "is_animated", False):
            said = "is animated: its first frame is used, as of every animation (said once)"
            _note("animation", f"{name} {said}", 1)
        raw = _raw_mode(image)
        image.load()
        if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
            image = image.copy()
            del image.info["transparency"]  # dropped below anyway, and Pillow would warn about it
        image = _upright(image, name)
        if image.mode in ("RGB", "RGBA", "LA") and (";16" in raw or raw.endswith(";65535")):
            image = _deep_colours(image, name, again)
        image = _eight_bit(image, name, raw)
        if image.mode == "La":
            image = image.convert("LA")  # the only mode that Pillow cannot turn into RGB
        _note_transparency(image, name)
        # Other formats' readers may go back to their file, which will be closed.
        still = image.mode == "RGB" and image.format in (None, "JPEG", "PNG")
        return image if still else image.convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
        if "closed" in str(error) or (getattr(image, "fp", image) is None and image.tile):
            why = "this PIL image was closed before its pixels were read, or close() let them go"
            raise ImageError(
                f"{name}: {why}; .load() it in its `with`, or give its path"
            ) from error
        why = str(error) or type(error).__name__
        raise ImageError(
            f"{name}: cannot be decoded ({why}); if it is truncated or damaged, get it again"
        ) from error


def _note_transparency(image, name):
    if image.mode not in ("RGBA", "LA"):
        return
    *colours, (low, high) = image.getextrema()
    if low < high and all(least == most for least, most in colours):
        said = "shows one colour alone, since transparency is dropped, as in the original"
        _note("transparency", f"{name}: {said}; paste it on a background to show its shape")


def _raw_mode(image) -> str:
    """How the pixels of an unread file are stored, "RGB;16B"; of a PPM the highest value that its
    header allows, "RGB;65535". Empty where it is not known."""
    codec, _, _, how = image.tile[0] if getattr(image, "tile", ()) else ("", 0, 0, "")
    if codec.startswith("ppm"):
        return "{};{}".format(*how)
    return how if isinstance(how, str) else str(how[0])


def _upright(image, name):
    """Turned as the EXIF mark says; as it is where a `PIL.Image` has been worked on, since whoever
    did that may have turned it, and saw it as it is."""
    try:
        exif = image.getexif()
        mark = exif.get(ExifTags.Base.Orientation, 1)
        if image.format is not None or mark not in range(2, 9):
            # Without orientation the picture itself: exif_transpose would copy it.
            turned = ImageOps.exif_transpose(image) if mark != 1 else image
            _note_stale(exif, turned, mark, name)
            return turned
    except Exception:  # the EXIF block is damaged, not the pixels: no orientation is known
        return image
    said = "its EXIF asks for a turn, which is not made, since the image was worked on when open"
    _note("turned", f"{name}: {said}; if it lies on its side, use PIL.ImageOps.exif_transpose")
    image = image.copy()
    image.info = {}  # the mark, so that it is heard once
    return image


def _note_stale(exif, turned, mark: int, name: str):
    """A file that was turned and kept its mark: its EXIF has the size that it had before."""
    if mark not in range(5, 9):
        return
    before = (0, 0)
    with contextlib.suppress(Exception):  # where this part of it is damaged
        fields = exif.get_ifd(ExifTags.IFD.Exif)
        names = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
        before = tuple(int(fields[name]) for name in names)
    if (before[0] - before[1]) * (turned.width - turned.height) > 0:
        said = "turned as its EXIF asks, though by the size in it this was done before"
        _note("turned", f"{name}: {said}; if it lies on its side, remove the mark from the file")


def _bits_in_use(high, name) -> int:
    """The bits that a picture of 16 bits uses, by its highest value."""
    bits = next(bits for bits in _DEPTHS if high < 1 << bits)
    if high and bits < 16:
        said = f"16 bits, but its values end at {high}: taken as {bits} bits, 0 to {2**bits - 1}"
        _note("depth", f"{name}: {said}; for another range save it as 8 bit")
    return bits


def _deep_colours(image, name, again):
    """Colours of 16 bits, of which Pillow keeps the upper 8, by the bits in use."""
    count = max(len(image.getbands()) // 3 * 3, 1)  # without transparency
    pixels = lambda of: np.asarray(of).reshape(*image.size[::-1], -1)[..., :count]
    upper = pixels(image)
    if upper.max() >= 64:
        return image
    lower = 0
    if again is not None:
        # Not every mode has its other half, and a file may be gone.
        with contextlib.suppress(ValueError, OSError), again() as other:
            other.tile = [tile._replace(args=_other_half(tile.args)) for tile in other.tile]
            other.load()
            lower = pixels(_upright(other, name))
    deep = upper.astype(np.uint16) << 8 | lower
    bits = _bits_in_use(deep.max(), name)
    eight = (deep >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(eight if count == 3 else eight[..., 0])


def _other_half(how):
    """Bytes taken in the other order, so that Pillow keeps the lower 8 bits."""
    if not isinstance(how, str):
        return _other_half(how[0]), *how[1:]
    return how[:-1] + ("L" if how[-1] == "B" else "B")


def _eight_bit(image, name, raw: str):
    """Integer and float grey -> "L"; other modes stay. Raises ValueError where the range is not
    plain."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    grey = np.asarray(image)
    low = grey.min()
    high = grey.max()
    # False for NaN. What ends a little above 1 would come out black.
    if image.mode == "F" and low >= 0 and (high <= 1 or 8 <= high <= 255):
        return Image.fromarray((grey * (255 if high <= 1 else 1) + 0.5).astype(np.uint8))
    if image.mode != "F" and low >= 0 and high <= 65535:
        plain = image.mode == "I" and high <= 255
        scaled = raw.startswith("L;") and raw != "L;65535"  # by Pillow, from the header's range
        bits = 16 if scaled else 8 if plain else _bits_in_use(high, name)
        return Image.fromarray((grey >> (bits - 8)).astype(np.uint8))
    ranges = "[0, 1] or [0, 255]" if image.mode == "F" else "[0, 65535]"
    raise ImageError(
        f"{name}: mode {image.mode} with values {low} to {high}, needs {ranges}: scale it, and "
        f"save it as 8 bit"
    )
