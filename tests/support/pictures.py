"""Pictures of every kind and damage that users have: what each is, or why it cannot be used."""

import io
import os
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    image.save(out := io.BytesIO(), format, **options)
    return out.getvalue()


def bomb(side: int) -> bytes:
    """A PNG (ISO/IEC 15948) of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def half(format: str) -> bytes:
    whole = encoded(noise(64, 64), format)
    return whole[: len(whole) // 2]


def tiff(*values: float) -> bytes:
    return encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")


def photograph(width: int, height: int) -> Image.Image:
    """Edges, a texture and a gradient: what resizing and compressing find hard, without a file."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    rings = np.sin(400 * (x - 0.3) ** 2 + 300 * (y - 0.4) ** 2)
    pixels = np.stack([127 + 90 * rings, 255 * x, 255 * ((x + y) % 0.25 < 0.12)], -1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
TYPES = "supported JPEG, PNG"
# What is wrong: the file's name, its bytes (or what puts it at a path), the cause, words of the
# message.
UNUSABLE = {
    "truncated JPEG": ("cut.jpg", half("JPEG"), "damaged", "cannot be decoded", "truncated", "get it again"),
    "truncated PNG": ("cut.png", half("PNG"), "damaged", "get it again"),
    "truncated WebP": ("cut.webp", half("WEBP"), "damaged", "again"),
    "truncated GIF": ("cut.gif", half("GIF"), "damaged", "again"),
    "truncated TIFF": ("cut.tif", half("TIFF"), "damaged", "again"),
    "no bytes": ("zero.jpg", b"", "empty file", "is empty (0 bytes)", "again"),
    "a web page": ("page.jpg", b"<!DOCTYPE html><p>404", "web page", "looks like HTML", "download it again"),
    "a web page after a line break": ("page2.jpg", b"\n<!DOCTYPE html><title>404</title>",
                                      "web page", "looks like HTML"),
    "a web page in XML": ("page3.jpg", b'<?xml version="1.0"?><html>no</html>', "web page", "looks like HTML"),
    "a pointer of git-lfs": (
        "lfs.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git-lfs pointer", "git lfs pull",
    ),
    "float below the range": ("low.tif", tiff(-1, 2), "damaged", "needs [0, 1] or [0, 255]", "save it as 8 bit"),
    "float above the range": ("high.tif", tiff(0, 300), "damaged", "needs [0, 1] or [0, 255]", "save it as 8 bit"),
    "float that is no number": ("nan.tif", tiff(0, np.nan), "damaged", "needs [0, 1] or [0, 255]", "save it as 8 bit"),
    "a bomb": (
        "bomb.png", bomb(10_000), "too large", "10000x10000 is 100 million pixels", "limit is 64", "scale it down",
    ),
    "a bomb beyond Pillow's own limit": ("bomb2.png", bomb(20_000), "too large", "scale it down"),
    "SVG": ("a.svg", b"<svg xmlns='x'/>", "unsupported type", f"unsupported type SVG; {TYPES}", "convert it"),
    "SVG after a declaration": (
        "b.svg", b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "unsupported type", f"unsupported type SVG; {TYPES}",
    ),
    "HEIC": ("phone.jpg", HEIC, "unsupported type", f"unsupported type HEIC; {TYPES}", "convert it"),
    "PDF": ("paper.png", b"%PDF-1.7\n", "unsupported type", f"unsupported type PDF; {TYPES}", "convert it"),
    "EPS": ("plot.png", b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported type", f"unsupported type EPS; {TYPES}"),
    "a stub": ("stub.jpg", b"\xff\xd8\xff\xe0\0", "damaged", "damaged, or no picture (begins with b'\\xff\\xd8"),
    "a folder": ("folder.png", os.mkdir, "no regular file", "is a directory", "path of one picture file"),
    "nothing": ("gone.png", lambda path: None, "missing file", "no such file", "check the path"),
}  # fmt: skip


def put(folder: pathlib.Path, name: str, content) -> pathlib.Path:
    """The file of a row of a table, in a folder."""
    path = folder / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    return path


def _frames(format: str, **options) -> bytes:
    first, *others = (Image.new("RGB", (20, 12), colour) for colour in ("red", "blue", "lime"))
    return encoded(first, format, save_all=True, append_images=others, **options)


def _rotated() -> tuple[bytes, Image.Image]:
    exif = Image.Exif()
    exif[0x112] = 6  # Exif 2.3: a quarter turn clockwise makes it upright
    sideways = Image.new("RGB", (32, 20), "black")
    sideways.paste("white", (0, 0, 8, 20))
    return encoded(sideways, exif=exif), sideways.transpose(Image.Transpose.ROTATE_270)


def _plain(image: Image.Image, format: str = "PNG", **options) -> tuple[bytes, Image.Image]:
    return encoded(image, format, **options), image.convert("RGB")


GREY = np.random.default_rng(1).integers(0, 256, (24, 20)).astype(np.uint8)
IN_GREY = Image.fromarray(GREY).convert("RGB")
PALETTE = noise(20, 24).quantize(16)
CMYK = encoded(noise(20, 24).convert("CMYK"), "JPEG", quality=95)
RGBA = noise(20, 24)
RGBA.putalpha(Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 24)).astype(np.uint8)))
# What is unusual: the file's name and bytes, and the RGB picture that it is.
UNUSUAL = {
    "CMYK": ("cmyk.jpg", CMYK, Image.open(io.BytesIO(CMYK)).convert("RGB")),
    "16 bit": ("deep.png", encoded(Image.fromarray(GREY * np.uint16(256) + 255 - GREY)), IN_GREY),
    "float": ("float.tif", encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), IN_GREY),
    "grey": ("grey.png", encoded(Image.fromarray(GREY)), IN_GREY),
    "grey and alpha": ("la.png", *_plain(IN_GREY.convert("LA"))),
    "one bit": ("bit.png", *_plain(IN_GREY.convert("1"))),
    "alpha": ("alpha.png", encoded(RGBA), Image.fromarray(np.asarray(RGBA)[..., :3])),
    "palette with alpha": ("p.png", encoded(PALETTE, transparency=bytes(range(16))), PALETTE.convert("RGB")),
    "animated GIF": ("a.gif", _frames("GIF"), Image.new("RGB", (20, 12), "red")),
    "animated WebP": ("a.webp", _frames("WEBP", lossless=True), Image.new("RGB", (20, 12), "red")),
    "EXIF orientation": ("exif.png", *_rotated()),
    "wide": ("wide.png", *_plain(noise(1, 5000))),
    "high": ("high.png", *_plain(noise(5000, 1))),
    "one pixel": ("one.png", *_plain(noise(1, 1))),
    "wrong suffix": ("wrong.jpg", *_plain(noise(20, 24))),
}  # fmt: skip
