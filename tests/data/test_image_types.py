"""Files of other types are named as what they are, and a PNG is read whatever lies beside its
pixels."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support.pictures import bomb, encoded, noise

from janus_jax.data.image_files import header, read_image
from janus_jax.data.image_pixels import ImageError

BOX = b"\0\0\0\x18ftyp"
PICTURE = noise(24, 20)
OTHERS = {  # first bytes, words of the message
    "JPEG XL": (b"\xff\x0a\xfa", ["unsupported type JPEG XL", "convert it"]),
    "JPEG XL in a box": (b"\0\0\0\x0cJXL \r\n\x87\n", ["unsupported type JPEG XL"]),
    "JPEG 2000": (encoded(PICTURE, "JPEG2000"), ["unsupported type JPEG 2000", "PNG"]),
    "a stream of JPEG 2000": (b"\xff\x4f\xff\x51\0", ["unsupported type JPEG 2000"]),
    "PSD": (b"8BPS\0\1", ["unsupported type PSD", "PNG"]),
    "ICO": (encoded(PICTURE, "ICO"), ["unsupported type ICO", "PNG"]),
    "ICNS": (b"icns\0\0", ["unsupported type ICNS"]),
    "MP4": (BOX + b"isom", ["unsupported type MP4 video", "ffmpeg"]),
    "MOV": (BOX + b"qt  ", ["QuickTime video", "ffmpeg"]),
    "WebM": (b"\x1a\x45\xdf\xa3webm", ["WebM", "ffmpeg"]),
    "AVI": (b"RIFF\0\0\0\0AVI LIST", ["AVI video", "ffmpeg"]),
    "AVIF that is cut": (encoded(PICTURE, "AVIF")[:50], ["damaged", "AVIF", "get it again"]),
    "CR3": (BOX + b"crx ", ["unsupported type a camera's RAW"]),
    "RAF": (b"FUJIFILMCCD-RAW", ["a camera's RAW"]),
    "CR2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(30), ["unsupported type a camera's RAW"]),
    "AVIF of the brand mif1": (
        b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(20),
        ["damaged", "AVIF", "get it again"],
    ),
    "TGA": (encoded(PICTURE, "TGA"), ["unsupported type TGA"]),
    "PCX": (encoded(PICTURE, "PCX"), ["unsupported type PCX"]),
    "SGI": (encoded(PICTURE, "SGI"), ["unsupported type SGI"]),
    "CUR": (b"\0\0\2\0\1\0\x20\x20", ["unsupported type CUR"]),
    "EMF": (b"\1\0\0\0" + bytes(36) + b" EMF", ["unsupported type EMF"]),
    "PFM in colour": (b"PF\n2 2\n-1.0\n" + bytes(48), ["unsupported type PFM"]),
    "XPM": (b"/* XPM */\nstatic char", ["unsupported type XPM"]),
    "XBM": (encoded(PICTURE.convert("1"), "XBM"), ["unsupported type XBM"]),
    "MNG": (b"\x8aMNG\r\n\x1a\n", ["unsupported type MNG"]),
    "BPG": (b"BPG\xfb\0", ["unsupported type BPG"]),
    "FLIF": (b"FLIF3", ["unsupported type FLIF"]),
    "KTX": (b"\xabKTX 20\xbb", ["unsupported type KTX"]),
    "JPEG XS": (b"\xff\x10\xff\x50\0", ["unsupported type JPEG XS"]),
    "HDR by its other name": (b"#?RGBE\n", ["unsupported type Radiance HDR"]),
    "SVG in UTF-16": ("<svg xmlns='x'/>".encode("utf-16"), ["unsupported type SVG"]),
    "DICOM": (bytes(128) + b"DICM", ["unsupported type DICOM"]),
    "an array": (b"\x93NUMPY\1", ["NumPy array"]),
    "ZIP": (b"PK\3\4", ["unsupported type ZIP", "unpack it"]),
    "zeros": (bytes(5000), ["zeros", "get it again"]),
    "a server's error": (b'{"error": "denied"}', ["JSON", "download it again"]),
    "a bucket's error": (b'<?xml version="1.0"?><Error><Code>AccessDenied', ["XML", "download"]),
    "base64": (base64.b64encode(encoded(PICTURE)), ["base64", "decode it"]),
    "JPEG of 12 bits": (
        encoded(PICTURE, "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        ["damaged, or no picture", "JPEG of more than 8 bits"],
    ),
    "text": (b"hello there", ["text that begins with b'hello th'"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_type_is_named_with_the_way_out(name):
    content, words = OTHERS[name]
    with pytest.raises(ImageError) as error:
        read_image(io.BytesIO(content))
    assert all(word in str(error.value) for word in words), error.value


def tiff_entry(tag: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, 4, 1, value)


@pytest.mark.parametrize("tag, value", [(254, 1), (50706, 0x401)])  # NewSubfileType, DNGVersion
def test_a_preview_is_not_taken_for_the_photograph(tag, value):
    picture = tiff_with(tag, value)
    with pytest.raises(ImageError, match="unsupported type a camera's RAW") as error:
        read_image(io.BytesIO(picture))
    assert error.value.cause == "unsupported type"
    assert read_image(io.BytesIO(tiff_with(305, value))).size == (2, 2)


def test_planes_of_16_bits_are_refused_since_pillow_would_show_noise():
    for planes, depth in ((2, 8), (1, 16)):
        read_image(io.BytesIO(tiff_with(284, planes, depth)))
    with pytest.raises(ImageError, match="TIFF with a plane of 16 bits for each colour"):
        read_image(io.BytesIO(tiff_with(284, 2, 16)))


def tiff_with(tag: int, value: int, bits: int = 8) -> bytes:
    """A TIFF of 2x2 grey pixels with one more entry."""
    entries = {256: 2, 257: 2, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, tag: value}
    entries[279] = bits // 2  # bytes of the strip
    table = b"".join(tiff_entry(key, entries[key]) for key in sorted(entries))
    return struct.pack("<2sHI8sH", b"II", 42, 16, b"abcdefgh", len(entries)) + table + bytes(4)


def chunk(kind: bytes, data: bytes, damage: int = 0) -> bytes:
    checksum = zlib.crc32(kind + data) ^ damage
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


LONG = zlib.compress(bytes(2 << 20))
BESIDE = {
    "compressed text": chunk(b"zTXt", b"a\0\0" + LONG),
    "international text": chunk(b"iTXt", b"a\0\1\0\0\0" + LONG),
    "a large profile": chunk(b"iCCP", b"a\0\0" + LONG),
    "a damaged profile": chunk(b"iCCP", b"a"),
    "damaged text": chunk(b"tEXt", b"a\0b", damage=1),
    "a short gamma": chunk(b"gAMA", b"\0"),
    "a short resolution": chunk(b"pHYs", b"\0"),
    "a damaged EXIF block": chunk(b"zTXt", b"a\0\0" + LONG) + chunk(b"eXIf", b"II*\0", damage=1),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_png_is_read_whatever_lies_beside_its_pixels(name):
    whole = encoded(PICTURE)
    for file in (
        whole[:33] + BESIDE[name] + whole[33:],
        whole[:-12] + BESIDE[name] + whole[-12:],  # behind the pixels
    ):
        image = read_image(io.BytesIO(file))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(PICTURE))
        assert header(file) == (PICTURE.size, "PNG RGB")


def test_a_png_is_still_turned_by_its_mark_beside_long_text():
    exif = Image.Exif()
    exif[0x112] = 6
    file = encoded(PICTURE, exif=exif)
    upright = read_image(io.BytesIO(file[:33] + BESIDE["compressed text"] + file[33:]))
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(PICTURE), -1))


def test_damage_to_the_pixels_and_bombs_of_pixels_are_refused_beside_long_text():
    text = BESIDE["compressed text"]
    whole = encoded(PICTURE)
    at = whole.index(b"IDAT") + 40
    for file in (
        whole[:33] + text + whole[33 : len(whole) // 2],
        whole[:33] + text + whole[33:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :],
    ):
        with pytest.raises(ImageError) as error:
            read_image(io.BytesIO(file))
        assert error.value.cause == "damaged"
    for side in (10_000, 20_000):
        large = bomb(side)
        with pytest.raises(ImageError, match="scale it down") as error:
            read_image(io.BytesIO(large[:33] + text + large[33:]))
        assert error.value.cause == "too large"
