"""Pictures: reading files, the two preprocessings of Janus, and decoded arrays back to pictures."""

import logging
import os
import stat
import textwrap
import warnings

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

# A fixed list: other Pillow readers start programs (EPS runs Ghostscript) or differ between builds.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_SUPPORTED = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF"
_MIN_SIDE = 14  # of the original's understanding preprocessing
_TINY = 128  # pixels: below this a contact sheet shows pixels as they are, above it interpolates
_CAPTION_LINES = 6
# How a picture becomes the square that the VQ tokenizer encodes. Stored ids are bound to these words: change them,
# with their number, whenever the pixels that come out change.
GENERATION_RECIPE = "1: upright RGB, short side and centre square in one bicubic pass"
_animations = []  # the first one met, for saying once what happens to them


class ImageError(ValueError):
    """A picture cannot be used. The message names the file, what is wrong and the remedy."""


def read_image(source, *, max_pixels=64_000_000):
    """Opens a picture, upright, as an 8-bit RGB `PIL.Image`.

    `source` is a path, a binary file object, a `PIL.Image` or a uint8 [H, W, 3] array. The content decides
    the type, not the suffix. Alpha is dropped, not blended, as in the original (`convert("RGB")`). Unlike
    the original, the EXIF orientation is applied, and deeper pictures are scaled (16 bit:
    the high byte; float: from [0, 1] or
    [0, 255]). Of an animation the first frame is used. Raises ImageError; more than `max_pixels` in the
    header is refused before anything is decoded.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise ImageError(f"array {source.dtype} {source.shape}: a picture is uint8 [height, width, 3]")
        return Image.fromarray(source)
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or f"PIL image {source.size[0]}x{source.size[1]}"
        return _decode(source, name, max_pixels)
    if hasattr(source, "read"):
        return _open(source, str(getattr(source, "name", "image file object")), max_pixels)
    name = os.fspath(source)
    try:
        mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise ImageError(f"{name}: is {kind}; give the path of one picture file")
        with open(name, "rb") as file:
            return _open(file, name, max_pixels)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path and the image root") from None
    except PermissionError:
        raise ImageError(f"{name}: no permission to read it; try chmod a+r, or run as its owner") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be opened ({error}); check the path and the disk") from error


def understanding_image(image, size, background=127):
    """A picture (PIL, or uint8 [H, W, 3]) -> uint8 [size, size, 3] for the understanding encoder.

    The longest side becomes `size`, the other is truncated as in the original but at least 14 pixels (very
    long pictures change their aspect); bicubic; centred, with an odd row or column of padding at the bottom
    or right. Raises ImageError.
    """
    image = _rgb(image)
    longest = max(image.size)
    width, height = (max(side * size // longest, min(_MIN_SIDE, size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    square = np.full((size, size, 3), background, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = np.asarray(image)
    return square


def generation_image(image, size):
    """A picture (PIL, or uint8 [H, W, 3]) -> uint8 [size, size, 3]: short side resized, centre crop.

    Resize and crop are one bicubic pass over the kept part, so a 1x5000 picture costs no more than another.
    Raises ImageError.
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
    return np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def to_pil(images):
    """Decoded pictures, float [B, H, W, 3] in [-1, 1] -> a list of B RGB pictures.

    Clipped, then truncated to uint8 as in the original. Raises ImageError for another shape or for NaN.
    """
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ImageError(f"images: shape {images.shape}, needs [B, H, W, 3]; one picture is images[None]")
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


def _open(file, name, max_pixels):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `max_pixels` is our guard
            image = Image.open(file, formats=_FORMATS)
        with image:
            return _decode(image, name, max_pixels)
    except ImageError:
        raise
    except UnidentifiedImageError:
        file.seek(0)
        raise ImageError(f"{name}: {_what_it_is(file.read(1024))}") from None
    except Exception as error:  # Pillow's own bomb guards, and damaged headers
        raise ImageError(f"{name}: {error}; if damaged get it again, if too large scale it down") from error


def _what_it_is(head):
    """Why Pillow found no picture in a file that begins with `head`, and the remedy."""
    text = head.lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    if not head:
        return "is empty (0 bytes); copy or download it again"
    if text.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the picture; run `git lfs pull` where it came from"
    if text.startswith(b"<!doctype html") or b"<html" in text:
        return "looks like HTML: the server sent a web page, not the picture; download it again"
    kind = {b"%pdf": "PDF", b"%!ps": "EPS"}.get(text[:4])
    kind = "HEIC" if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf") else kind
    kind = "SVG" if text.startswith(b"<") and b"<svg" in text else kind
    if kind:
        return f"unsupported type {kind}; supported {_SUPPORTED}: convert it to PNG or JPEG"
    return (
        f"damaged, or no picture (begins with {head[:8]!r}); supported {_SUPPORTED}: get or convert it again"
    )


def _decode(image, name, max_pixels=None):
    """An opened `PIL.Image` -> upright 8-bit RGB. Raises ImageError."""
    width, height = image.size
    if max_pixels and width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height / 1e6:.0f} million pixels, the limit is "
            f"{max_pixels / 1e6:.0f} million (max_pixels); scale it down"
        )
    try:
        if image.format not in (None, "MPO") and getattr(image, "is_animated", False):
            _note_animation(name)
        image.load()
        if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
            image = image.copy()
            del image.info["transparency"]  # dropped below anyway, and Pillow would warn about it
        return _eight_bit(_upright(image)).convert("RGB")
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything
        raise ImageError(
            f"{name}: cannot be decoded ({error}); if it is truncated or damaged, get it again"
        ) from error


def _note_animation(name):
    if not _animations:
        _animations.append(name)
        logging.info("%s is animated: its first frame is used, as of every animation (said once)", name)


def _upright(image):
    try:
        return ImageOps.exif_transpose(image)
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
                f"image: {image.dtype} {image.shape}, needs uint8 [H, W, 3]; floats go through to_pil"
            )
        return Image.fromarray(image)
    if not min(image.size):
        raise ImageError(f"image: {image.size[0]}x{image.size[1]} holds no pixels; leave it out")
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
