"""Depth, orientation and transparency: the pixels that a person sees, or a word about what is
not."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.pictures import encoded

from janus_jax.data import image_pixels
from janus_jax.data.image_files import read_image


@pytest.fixture(autouse=True)
def unsaid(monkeypatch):
    monkeypatch.setattr(image_pixels, "_noted", {})


def colours(rgb: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits a channel (ISO/IEC 15948), which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = rgb.shape
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


GREY = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.mark.parametrize("highest, bits", [
    (200, 8), (255, 8), (999, 10), (1023, 10), (3000, 12), (16383, 14), (16384, 16), (65535, 16),
])  # fmt: skip
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_by_those_in_use_and_it_is_said(highest, bits, format, caplog):
    values = (GREY * highest).astype(np.uint16)
    file = io.BytesIO(encoded(Image.fromarray(values), format))
    file.name = "deep"
    seen = np.asarray(read_image(file))[..., 0]
    np.testing.assert_array_equal(seen, values >> (bits - 8))
    said = (
        f"deep: 16 bits, but its values end at {highest}: taken as {bits} bits, 0 to {2**bits - 1}"
    )
    plain = bits == 16 or (format == "PPM" and bits == 8)  # of 32 bits, which says nothing
    assert [said in message for message in caplog.messages] == [True] * (not plain)


def test_the_range_that_a_pgm_names_is_no_guess(caplog):
    values = np.array([0, 100, 200, 40], ">u2")
    image = read_image(io.BytesIO(b"P5 4 1 1023\n" + values.tobytes()))
    np.testing.assert_array_equal(
        np.asarray(image)[0, :, 0], values.astype(int) * 65535 // 1023 >> 8
    )
    assert not caplog.messages


@pytest.mark.parametrize("colour_type, channels", [(2, 3), (6, 4)])
def test_colours_of_16_bits_keep_their_lower_bits(colour_type, channels, caplog):
    values = np.random.default_rng(0).integers(0, 1000, (6, 5, channels))
    values[0, 0, 0] = 999
    if channels == 4:
        values[..., 3] = 65535
    file = colours(values, colour_type)
    for source in (io.BytesIO(file), Image.open(io.BytesIO(file))):
        np.testing.assert_array_equal(np.asarray(read_image(source)), values[..., :3] >> 2)
    assert "values end at 999: taken as 10 bits" in caplog.text
    bright = colours(values[..., :3] * 64, 2)
    np.testing.assert_array_equal(np.asarray(read_image(io.BytesIO(bright))), values[..., :3] >> 2)


def test_floats_that_end_a_little_above_one_are_not_black():
    for highest in (1.02, 4.0):
        grey = Image.fromarray((GREY * highest).astype(np.float32))
        with pytest.raises(
            image_pixels.ImageError, match=r"needs \[0, 1\] or \[0, 255\]: scale it"
        ):
            read_image(grey)


def photograph() -> Image.Image:
    """A picture that lies on its side, white at what is its top, and says so by its EXIF."""
    exif = Image.Exif()
    exif[0x112] = 6
    sideways = Image.new("RGB", (32, 16), "black")
    sideways.paste("white", (0, 0, 16, 16))
    return Image.open(io.BytesIO(encoded(sideways, "PNG", exif=exif)))


TURNS = {  # what a user does with the opened photograph: whether a word is due
    "nothing": (lambda image: image, False),
    "thumbnail": (lambda image: image.thumbnail((16, 16)) or image, False),
    "exif_transpose": (ImageOps.exif_transpose, False),
    "exif_transpose in place": (
        lambda image: ImageOps.exif_transpose(image, in_place=True) or image,
        False,
    ),
    "rotate": (lambda image: image.rotate(-90, expand=True), True),
    "transpose": (lambda image: image.transpose(Image.Transpose.ROTATE_270), True),
    "rotate a copy": (lambda image: image.copy().rotate(270, expand=True), True),
    "rotate a grey one": (lambda image: image.convert("L").rotate(-90, expand=True), True),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_photograph_is_turned_once(name, caplog):
    turn, due = TURNS[name]
    image = read_image(turn(photograph()))
    assert image.height > image.width, "on its side"
    column = np.asarray(image.convert("L"))[:, image.width // 2]
    assert column[2] > 200 and column[-3] < 50, "upside down"
    assert ("its EXIF asks for a turn" in caplog.text) == due
    assert read_image(image).size == image.size  # and not turned later


def test_a_photograph_worked_on_otherwise_is_used_as_it_looks_and_that_is_said(caplog):
    assert read_image(photograph().convert("RGB")).size == (32, 16)
    assert "its EXIF asks for a turn" in caplog.text and "exif_transpose" in caplog.text
    read_image(photograph().convert("RGB"))  # another one of this size
    assert caplog.text.count("PIL image 32x16: its EXIF asks for a turn") == 2


@pytest.mark.parametrize("size, stale", [((40, 30), False), ((30, 40), True), ((30, 30), False)])
def test_a_file_that_was_turned_and_kept_its_mark_is_told(size, stale, caplog):
    exif = Image.Exif()
    exif[0x112] = 6
    exif.get_ifd(0x8769).update({0xA002: 40, 0xA003: 30})  # as the camera wrote it
    file = encoded(Image.new("RGB", size), "JPEG", exif=exif)
    assert read_image(io.BytesIO(file)).size == size[::-1]
    assert ("this was done before" in caplog.text) == stale


def test_a_shape_of_transparency_alone_is_told(caplog):
    shape = Image.linear_gradient("L").resize((16, 16))
    for black in (Image.new("RGB", (16, 16)), Image.new("L", (16, 16))):
        caplog.clear()
        black.putalpha(shape)
        assert not np.asarray(read_image(black)).any()
        assert "transparency is dropped" in caplog.text or black.mode == "LA"
    assert read_image(Image.new("La", (4, 4))).mode == "RGB"


def test_notes_of_one_kind_come_to_an_end(caplog):
    for k in range(30):
        image_pixels._bits_in_use(999, f"{k}.png")
    assert len(caplog.messages) == image_pixels._MOST_NOTES
