"""Pictures: reading files, the two preprocessings of Janus, and decoded arrays back to pictures."""

import logging
import os
import stat
import textwrap
import warnings

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from janus_jax.data.resize import bicubic
from janus_jax.data.sources import printable, refuse_open_files

# A fixed list: other Pillow readers start programs (EPS runs Ghostscript) or differ between builds.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_SUPPORTED = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF"
_BUFFER = 64 * 1024  # bytes: Pillow reads headers in small pieces
_MIN_SIDE = 14  # of the original's understanding preprocessing
_TINY = 128  # pixels: below this a contact sheet shows pixels as they are, above it interpolates
_CAPTION_LINES = 6
_ROOM = 2  # a JPEG scaled while decoding keeps this many times the side that is asked for
# How a picture becomes the square that the VQ tokenizer encodes. Stored ids are bound to these words: change them,
# with their number, whenever the pixels that come out change.
GENERATION_RECIPE = (
    "2: upright RGB, JPEGs scaled while decoding where that leaves twice the side, short side and centre square in one "
    "bicubic pass"
)
_animations = []  # the first one met, for saying once what happens to them


class ImageError(ValueError):
    """A picture cannot be used. The message names the file, what is wrong and the remedy; `cause` is the short
    category under which it is counted: "missing file", "empty file", "web page", "git-lfs pointer", "unsupported
    type", "damaged", "too large", "no regular file", "no permission" or "odd shape"."""

    def __init__(self, message: str, *, cause: str = "damaged"):
        super().__init__(printable(message))
        self.cause = cause


def read_image(source, *, max_pixels=64_000_000, longest=0, shortest=0):
    """Opens a picture, upright, as an 8-bit RGB `PIL.Image`.

    `source` is a path, a binary file object, a `PIL.Image` or a uint8 [H, W, 3] array. The content decides
    the type, not the suffix. Alpha is dropped, not blended, as in the original (`convert("RGB")`). Unlike
    the original, the EXIF orientation is applied, and deeper pictures are scaled (16 bit:
    the high byte; float: from [0, 1] or
    [0, 255]). Of an animation the first frame is used. Raises ImageError; more than `max_pixels` in the
    header is refused before anything is decoded.

    longest or shortest: the pixels that this side will be resized to, for training. A JPEG file may then come at a
    half, a quarter or an eighth, as its decoder scales, while that side keeps twice as many.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            shape = f"array {source.dtype} {source.shape}"
            raise ImageError(f"{shape}: a picture is uint8 [height, width, 3]", cause="odd shape")
        return Image.fromarray(source)
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or f"PIL image {source.size[0]}x{source.size[1]}"
        return _decode(source, name, max_pixels)
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "image file object"))
        return _open(source, name, max_pixels, longest, shortest)
    name = os.fspath(source)
    try:
        mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            message = f"{name}: is {kind}; give the path of one picture file"
            raise ImageError(message, cause="no regular file")
        with open(name, "rb", _BUFFER) as file:
            return _open(file, name, max_pixels, longest, shortest)
    except FileNotFoundError:
        message = f"{name}: no such file; check the path and the image root"
        raise ImageError(message, cause="missing file") from None
    except PermissionError:
        message = f"{name}: no permission to read it; try chmod a+r, or run as its owner"
        raise ImageError(message, cause="no permission") from None
    except OSError as error:
        refuse_open_files(error)
        raise ImageError(f"{name}: cannot be opened ({error}); check the path and the disk") from error


def understanding_image(image, size, background=127, fast=False):
    """A picture (PIL, or uint8 [H, W, 3]) -> uint8 [size, size, 3] for the understanding encoder.

    The longest side becomes `size`, the other is truncated as in the original but at least 14 pixels (very
    long pictures change their aspect); bicubic; centred, with an odd row or column of padding at the bottom
    or right. fast: see `resize.bicubic`. Raises ImageError.
    """
    image = _rgb(image)
    longest = max(image.size)
    width, height = (max(side * size // longest, min(_MIN_SIDE, size)) for side in image.size)
    image = bicubic(image, (width, height), (0, 0, *image.size), fast)
    square = np.full((size, size, 3), background, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = np.asarray(image)
    return square


def generation_image(image, size, fast=False):
    """A picture (PIL, or uint8 [H, W, 3]) -> uint8 [size, size, 3]: short side resized, centre crop.

    Resize and crop are one bicubic pass over the kept part, so a 1x5000 picture costs no more than another.
    fast: see `resize.bicubic`. Raises ImageError.
    """
    image = _rgb(image)
    shortest = min(image.size)
    spans = []
    for side in image.size:
        resized = round(side * size / shortest)
        start = (resized - size) // 2
        spans.append((start * side / resized, (start + size) * side / resized))
    (left, right), (top, bottom) = spans
    box = (left, top, min(right, image.size[0]), min(bottom, image.size[1]))
    return np.array(bicubic(image, (size, size), box, fast))


def to_pil(images):
    """Decoded pictures, float [B, H, W, 3] in [-1, 1] -> a list of B RGB pictures.

    Clipped, then truncated to uint8 as in the original. Raises ImageError for another shape or for NaN.
    """
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[-1] != 3:
        message = f"images: shape {images.shape}, needs [B, H, W, 3]; one picture is images[None]"
        raise ImageError(message, cause="odd shape")
    bad = np.flatnonzero(np.isnan(images).any(axis=(1, 2, 3)))
    if bad.size:
        raise ImageError(
            f"images: NaN in picture {bad[0]} ({bad.size} of {len(images)}); check the decoder's weights"
        )
    return [Image.fromarray(x) for x in ((np.clip(images, -1, 1) + 1) / 2 * 255).astype(np.uint8)]


def contact_sheet(pictures, captions, columns, scale):
    """Pictures (PIL, or uint8 [H, W, 3]) enlarged `scale` times in a grid, captions below -> an RGB picture.

    Tiny pictures keep hard pixels. Captions wrap, and are cut after six lines. Raises ImageError.
    """
    if not pictures or len(pictures) != len(captions) or columns < 1 or scale <= 0:
        given = f"{len(pictures)} pictures, {len(captions)} captions, columns={columns}, scale={scale}"
        raise ImageError(
            f"contact sheet: {given}; needs pictures, a caption for each, columns >= 1, scale > 0"
        )
    pictures = [_enlarge(_rgb(picture), scale) for picture in pictures]
    width, height = max(96, *(p.width for p in pictures)), max(p.height for p in pictures)
    font = ImageFont.load_default(size=min(max(width // 16, 12), 40))
    texts = [_wrap(caption, font, width) for caption in captions]
    gap, line = max(12, width // 16), sum(font.getmetrics()) + 4
    rows = [range(i, min(i + columns, len(pictures))) for i in range(0, len(pictures), columns)]
    depths = [height + line * max(1 + texts[i].count("\n") for i in row) + 2 * gap for row in rows]
    sheet = Image.new("RGB", (gap + len(rows[0]) * (width + gap), gap + sum(depths)), "white")
    draw = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        for column, i in enumerate(row):
            picture, x, y = pictures[i], gap + column * (width + gap), gap + sum(depths[:r])
            left, top = x + (width - picture.width) // 2, y + (height - picture.height) // 2
            sheet.paste(picture, (left, top))
            frame = (left - 1, top - 1, left + picture.width, top + picture.height)
            draw.rectangle(frame, outline=(208, 208, 208))
            below = (x + width / 2, y + height + gap / 2)
            draw.multiline_text(below, texts[i], (32, 32, 32), font, anchor="ma", align="center")
    return sheet


def _open(file, name, max_pixels, longest, shortest):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `max_pixels` is our guard
            image = Image.open(file, formats=FORMATS)
        with image:
            return _decode(image, name, max_pixels, longest, shortest)
    except ImageError:
        raise
    except UnidentifiedImageError:
        file.seek(0)
        cause, what = _what_it_is(file.read(1024))
        raise ImageError(f"{name}: {what}", cause=cause) from None
    except Image.DecompressionBombError as error:  # a process may have lowered Pillow's own limit
        raise ImageError(f"{name}: {error}; scale it down", cause="too large") from error
    except Exception as error:  # damaged headers
        raise ImageError(f"{name}: {error}; if it is damaged, get it again") from error


def _what_it_is(head):
    """Why Pillow found no picture in a file that begins with `head`: the cause for counts; the words with a remedy."""
    text = head.lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    if not head:
        return "empty file", "is empty (0 bytes); copy or download it again"
    if text.startswith(b"version https://git-lfs"):
        pointer = "is a git-lfs pointer, not the picture; run `git lfs pull` where it came from"
        return "git-lfs pointer", pointer
    if text.startswith(b"<!doctype html") or b"<html" in text:
        return "web page", "looks like HTML: the server sent a web page, not the picture; download it again"
    kind = {b"%pdf": "PDF", b"%!ps": "EPS"}.get(text[:4])
    kind = "HEIC" if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf") else kind
    kind = "SVG" if text.startswith(b"<") and b"<svg" in text else kind
    if kind:
        remedy = f"supported {_SUPPORTED}: convert it to PNG or JPEG"
        return "unsupported type", f"unsupported type {kind}; {remedy}"
    begins = f"damaged, or no picture (begins with {head[:8]!r})"
    return "damaged", f"{begins}; supported {_SUPPORTED}: get or convert it again"


def _decode(image, name, max_pixels=None, longest=0, shortest=0):
    """An opened `PIL.Image` -> upright 8-bit RGB; itself where it is that already. Raises ImageError."""
    width, height = image.size
    if max_pixels and width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height / 1e6:.0f} million pixels, the limit is "
            f"{max_pixels / 1e6:.0f} million (max_pixels); scale it down",
            cause="too large",
        )
    try:
        if image.format == "JPEG" and (longest or shortest):
            _scale_while_decoding(image, longest, shortest)
        if image.format not in (None, "MPO") and getattr(image, "is_animated", False):
            _note_animation(name)
        image.load()
        if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
            image = image.copy()
            del image.info["transparency"]  # dropped below anyway, and Pillow would warn about it
        image = _eight_bit(_upright(image))
        # Other formats' readers may go back to their file, which will be closed.
        still = image.mode == "RGB" and image.format in (None, "JPEG", "PNG")
        return image if still else image.convert("RGB")
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
        raise ImageError(
            f"{name}: cannot be decoded ({error}); if it is truncated or damaged, get it again"
        ) from error


def _note_animation(name):
    if not _animations:
        _animations.append(name)
        logging.warning("%s is animated: its first frame is used, as of every animation (said once)", name)


def _scale_while_decoding(image, longest, shortest):
    """Has an unread JPEG decoded at 1/2, 1/4 or 1/8, which libjpeg does in its inverse DCT, where room is left."""
    scale = max(image.size) // (_ROOM * longest) if longest else min(image.size) // (_ROOM * shortest)
    if scale > 1:
        image.draft(None, tuple(max(side // scale, 1) for side in image.size))


def _upright(image):
    try:
        # Without orientation the picture itself: exif_transpose would copy it.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # the EXIF block is damaged, not the pixels: no orientation is known
        return image


def _eight_bit(image):
    """Integer and float grey -> "L"; other modes stay. Raises ValueError where the range is not plain."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    grey = np.asarray(image)
    low, high = grey.min(), grey.max()
    if image.mode == "F" and low >= 0 and high <= 255:  # False for NaN
        return Image.fromarray((grey * (255 if high <= 1 else 1) + 0.5).astype(np.uint8))
    if image.mode != "F" and low >= 0 and high <= 65535:
        wide = image.mode != "I" or high > 255
        return Image.fromarray((grey >> (8 if wide else 0)).astype(np.uint8))
    ranges = "[0, 1] or [0, 255]" if image.mode == "F" else "[0, 65535]"
    raise ValueError(f"mode {image.mode} with values {low} to {high}, needs {ranges}: save it as 8 bit")


def _rgb(image):
    """A `PIL.Image` or uint8 [H, W, 3] -> an RGB `PIL.Image` with pixels in it. Raises ImageError."""
    if not isinstance(image, Image.Image):
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
            raise ImageError(
                f"image: {image.dtype} {image.shape}, needs uint8 [H, W, 3]; floats go through to_pil",
                cause="odd shape",
            )
        return Image.fromarray(image)
    if not min(image.size):
        size = f"{image.size[0]}x{image.size[1]}"
        raise ImageError(f"image: {size} holds no pixels; leave it out", cause="odd shape")
    return _decode(image, getattr(image, "filename", "") or "image")


def _enlarge(image, scale):
    size = tuple(max(1, round(side * scale)) for side in image.size)
    tiny = scale >= 1 and max(image.size) < _TINY
    return image.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS)


def _wrap(text, font, width):
    """`text` in lines of about at most `width` pixels, judged by its mean character."""
    text = " ".join(text.split())
    characters = int(0.95 * width * len(text) / max(font.getlength(text), 1))
    return "\n".join(textwrap.wrap(text, max(characters, 4), max_lines=_CAPTION_LINES, placeholder=" …"))
