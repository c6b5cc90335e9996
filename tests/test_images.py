"""Pictures of every kind and damage that users have: the right pixels, or an error naming file and cause."""

import io
import logging
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image

from janus_jax.data import images, resize
from janus_jax.data.images import (
    ImageError,
    contact_sheet,
    generation_image,
    read_image,
    to_pil,
    understanding_image,
)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def refusal(source, cause=None, **options):
    with pytest.raises(ImageError) as error:
        read_image(source, **options)
    if cause:
        assert pickle.loads(pickle.dumps(error.value)).cause == cause  # workers hand errors on pickled
    return str(error.value)


def test_reads_path_file_and_pil_by_content(tmp_path):
    pixels = noise(7, 9)
    path = saved(tmp_path / "a.jpg", Image.fromarray(pixels), format="PNG")  # the suffix lies
    for source in (path, str(path), io.BytesIO(path.read_bytes()), Image.open(path), Image.fromarray(pixels)):
        image = read_image(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    "scale, dtype, suffix",
    [
        (257, np.uint16, "png"),
        (257, np.uint16, "tif"),
        (257, np.int32, "tif"),
        (1, np.int32, "tif"),
        (1 / 255, np.float32, "tif"),
        (1, np.float32, "tif"),
    ],
)
def test_deep_grey_is_scaled_not_clipped_or_black(tmp_path, scale, dtype, suffix):
    grey = np.arange(256).reshape(16, 16)
    path = saved(tmp_path / f"deep.{suffix}", Image.fromarray((grey * scale).astype(dtype)))
    np.testing.assert_array_equal(np.asarray(read_image(path)), np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize("value", [-1.0, 300.0, np.nan])
def test_float_without_a_plain_range_is_refused(tmp_path, value):
    path = saved(tmp_path / "float.tif", Image.fromarray(np.array([[0.0, value]], np.float32)))
    message = refusal(path)
    assert str(path) in message and "needs [0, 1] or [0, 255]" in message and "save it as 8 bit" in message


def test_other_modes_become_rgb(tmp_path):
    red = Image.new("RGB", (8, 8), (200, 30, 20))
    np.testing.assert_allclose(
        np.asarray(read_image(saved(tmp_path / "cmyk.jpg", red.convert("CMYK"), quality=100))), red, atol=6
    )
    for mode, colour, expected in (("L", 90, 90), ("LA", (90, 3), 90), ("1", 1, 255)):
        image = read_image(saved(tmp_path / f"{mode}.png", Image.new(mode, (4, 4), colour)))
        assert image.mode == "RGB" and set(np.asarray(image).ravel()) == {expected}


def test_alpha_is_dropped_not_blended_and_quietly(tmp_path):
    rgba = saved(tmp_path / "rgba.png", Image.new("RGBA", (4, 4), (10, 200, 30, 0)))
    palette = Image.new("P", (4, 4))
    palette.putpalette([10, 200, 30, 9, 9, 9])
    palette = saved(tmp_path / "p.png", palette, transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (rgba, palette):
            assert read_image(path).getpixel((0, 0)) == (10, 200, 30)


def test_animation_gives_the_first_frame_and_says_so_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(images, "_animations", [])
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue", "green")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    webp = saved(tmp_path / "a.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    with caplog.at_level(logging.INFO):
        for source in (path, path, webp):
            assert read_image(source).getpixel((0, 0)) == (255, 0, 0)
    assert [r.getMessage() for r in caplog.records if "first frame" in r.getMessage()] == [
        f"{path} is animated: its first frame is used, as of every animation (said once)"
    ]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied_first(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x112] = 6  # rotate 90 degrees clockwise to see it upright
    sideways = Image.new("RGB", (32, 16), "black")
    sideways.paste("white", (0, 0, 16, 16))  # left half, which is the top once upright
    path = saved(tmp_path / f"a.{suffix}", sideways, exif=exif)
    upright = read_image(path)
    assert upright.size == (16, 32) and upright.getpixel((8, 4))[0] > 200 > 50 > upright.getpixel((8, 28))[0]
    with Image.open(path) as image:  # also when a picture comes in unread
        assert understanding_image(image, 32)[4, 16].min() > 200
        assert understanding_image(read_image(upright), 32)[4, 16].min() > 200  # and not twice


def test_pixel_cap_acts_before_decoding(tmp_path, monkeypatch):
    path = saved(tmp_path / "big.png", Image.new("L", (300, 200)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    message = refusal(path, "too large", max_pixels=59_999)
    assert (
        message.startswith(f"{path}: 300x200 is") and "max_pixels" in message and "scale it down" in message
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert f"{path}: Image size (60000 pixels) exceeds limit" in refusal(path, "too large")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
NOT_PICTURES = {
    "empty.jpg": (b"", "empty file", "is empty (0 bytes)"),
    "page.jpg": (b"\n<!DOCTYPE html><title>404</title>", "web page", "looks like HTML"),
    "page2.jpg": (b'<?xml version="1.0"?><html>no</html>', "web page", "looks like HTML"),
    "lfs.png": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
        "git-lfs pointer",
        "git lfs pull",
    ),
    "drawing.svg": (
        b'<?xml version="1.0"?>\n<svg xmlns="x"/>',
        "unsupported type",
        "unsupported type SVG; supported JPEG, PNG",
    ),
    "phone.jpg": (HEIC, "unsupported type", "unsupported type HEIC; supported JPEG, PNG"),
    "paper.png": (b"%PDF-1.7\n", "unsupported type", "unsupported type PDF; supported JPEG, PNG"),
    "plot.png": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "unsupported type",
        "unsupported type EPS; supported JPEG, PNG",
    ),
    "stub.jpg": (b"\xff\xd8\xff\xe0\0", "damaged", "damaged, or no picture (begins with b'\\xff\\xd8"),
}


@pytest.mark.parametrize("name", NOT_PICTURES)
def test_files_that_are_no_pictures(tmp_path, name):
    content, cause, why = NOT_PICTURES[name]
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name, cause).startswith(f"{tmp_path / name}: ")
    assert why in refusal(tmp_path / name) and why in refusal(io.BytesIO(content))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif"])
def test_truncated_pictures(tmp_path, suffix):
    path = saved(tmp_path / f"cut.{suffix}", Image.fromarray(noise(64, 64)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = refusal(path, "damaged")
    assert message.startswith(f"{path}: ") and "get" in message and "again" in message


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
    assert (
        refusal(tmp_path, "no regular file")
        == f"{tmp_path}: is a directory; give the path of one picture file"
    )
    missing = tmp_path / "no.png"
    assert refusal(missing, "missing file") == f"{missing}: no such file; check the path and the image root"
    path = saved(tmp_path / "mine.png", Image.new("L", (2, 2)))

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images, "open", denied, raising=False)  # chmod does not stop root
    assert refusal(path, "no permission").startswith(f"{path}: no permission to read it; try chmod")


FITTED = {
    (100, 50): (96, 48),
    (50, 101): (47, 96),
    (31, 97): (30, 96),
    (1, 5000): (14, 96),
    (5000, 1): (96, 14),
    (1, 1): (96, 96),
}


@pytest.mark.parametrize("height, width", FITTED)
def test_understanding_image_truncates_and_pads(height, width):
    pixels = noise(height, width)
    result = understanding_image(pixels, 96)
    assert result.shape == (96, 96, 3) and result.dtype == np.uint8
    h, w = FITTED[height, width]
    top, left = (96 - h) // 2, (96 - w) // 2  # the odd row or column lies at the bottom or right
    resized = np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(result[top : top + h, left : left + w], resized)
    padding = np.ones((96, 96), bool)
    padding[top : top + h, left : left + w] = False
    assert (result[padding] == 127).all()
    np.testing.assert_array_equal(result, understanding_image(Image.fromarray(pixels), 96))


def test_small_sizes_and_pictures_that_fit_already():
    pixels = noise(8, 8)
    np.testing.assert_array_equal(understanding_image(pixels, 8), pixels)
    np.testing.assert_array_equal(generation_image(pixels, 8), pixels)
    assert understanding_image(noise(1, 50), 8).shape == (
        8,
        8,
        3,
    )  # the minimum side 14 never exceeds the size


@pytest.mark.parametrize("height, width", [(60, 100), (301, 97), (96, 96), (480, 641), (20, 50), (7, 9)])
def test_generation_image_is_resize_then_centre_crop(height, width):
    pixels = Image.fromarray(noise(height, width))
    short = min(height, width)
    w, h = round(width * 96 / short), round(height * 96 / short)
    left, top = (w - 96) // 2, (h - 96) // 2
    crop = pixels.resize((w, h), Image.Resampling.BICUBIC).crop((left, top, left + 96, top + 96))
    difference = np.asarray(crop).astype(int) - generation_image(pixels, 96)
    assert abs(difference).max() <= 1 and (difference != 0).mean() < 1e-3


def test_generation_image_of_extreme_shapes_needs_no_huge_resize():
    for pixels in (noise(1, 5000), noise(5000, 1), noise(1, 1)):
        assert generation_image(pixels, 384).shape == (384, 384, 3)


@pytest.mark.parametrize("prepare", [understanding_image, generation_image])
def test_arrays_must_be_uint8_rgb(prepare):
    for array in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageError, match=r"needs uint8 \[H, W, 3\]"):
            prepare(array, 16)


def photograph(width, height):
    """Edges, a texture and a gradient: what resizing and compressing find hard, without a file."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    rings = np.sin(400 * (x - 0.3) ** 2 + 300 * (y - 0.4) ** 2)
    pixels = np.stack([127 + 90 * rings, 255 * x, 255 * ((x + y) % 0.25 < 0.12)], -1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [(640, 480), (50, 60), (131, 400), (1, 300), (300, 1), (1000, 700)])
@pytest.mark.parametrize("prepare", [understanding_image, generation_image])
def test_fast_resizing_is_two_levels_away_at_most(size, prepare, monkeypatch):
    pytest.importorskip("cykooz_resizer")
    image = photograph(*size)
    fast = prepare(image, 96, fast=True).astype(int)

    def rows_then_columns(image, size, box, fast):
        left, top, right, bottom = box
        rows = (left, 0, right, image.size[1])
        image = image.resize((size[0], image.size[1]), Image.Resampling.BICUBIC, box=rows)
        return image.resize(size, Image.Resampling.BICUBIC, box=(0, top, size[0], bottom))

    monkeypatch.setattr(images, "bicubic", rows_then_columns)
    difference = abs(fast - prepare(image, 96))
    assert difference.max() <= 2 and (difference > 0).mean() < 0.02


def test_fast_resizing_falls_back_to_pillow_alone(monkeypatch):
    monkeypatch.setattr(resize, "_resizer", None)
    image = photograph(200, 100)
    np.testing.assert_array_equal(understanding_image(image, 96, fast=True), understanding_image(image, 96))


@pytest.mark.parametrize("size, side, read", [
    ((2000, 1500), {"longest": 384}, (1000, 750)),
    ((2000, 1500), {"shortest": 384}, (2000, 1500)),  # 750 would be less than twice 384
    ((1500, 2001), {"longest": 200}, (375, 501)),
    ((1535, 400), {"longest": 384}, (1535, 400)),
    ((2000, 1500), {}, (2000, 1500)),
])  # fmt: skip
def test_large_jpegs_come_scaled_for_training(tmp_path, size, side, read):
    path = saved(tmp_path / "large.jpg", photograph(*size), quality=90)
    assert read_image(path, **side).size == read
    with Image.open(path) as image:  # not ours: it stays as it is
        assert read_image(image, **side).size == size


def test_scaling_while_decoding_keeps_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    path = saved(tmp_path / "large.jpg", photograph(1600, 1200), quality=90, exif=exif)
    exact, scaled = (understanding_image(read_image(path, longest=n), 384).astype(float) for n in (0, 384))
    assert read_image(path, longest=384).size == (600, 800)  # upright
    assert 10 * np.log10(255**2 / np.mean((exact - scaled) ** 2)) > 45
    (tmp_path / "cut.jpg").write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(tmp_path / "cut.jpg", longest=384)


def test_a_picture_that_is_upright_already_is_not_copied(tmp_path):
    path = saved(tmp_path / "a.jpg", photograph(64, 48))
    image = read_image(path)
    assert read_image(image) is image and image.size == (64, 48)
    np.testing.assert_array_equal(generation_image(image, 32), generation_image(np.asarray(image), 32))


def test_to_pil_clips_and_truncates():
    values = np.array([-2, -1, 0, 0.5, 0.999, 1, 3], np.float32)  # 0 -> 127.5, 0.999 -> 254.87
    (picture,) = to_pil(np.repeat(values[None, None, :, None], 3, -1))
    assert [picture.getpixel((x, 0))[0] for x in range(7)] == [0, 0, 127, 191, 254, 255, 255]
    assert len(to_pil(np.zeros((3, 2, 2, 3), np.float16))) == 3
    with pytest.raises(ImageError, match=r"shape \(2, 2, 3\).*images\[None\]"):
        to_pil(np.zeros((2, 2, 3)))
    broken = np.zeros((3, 2, 2, 3))
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(ImageError, match=r"NaN in picture 1 \(1 of 3\)"):
        to_pil(broken)


def test_contact_sheet_shows_every_picture_and_caption():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    pictures = [np.full((8, 8, 3), colour, np.uint8) for colour in colours]
    long = "a caption that is far too long for one line " * 9
    sheet = np.asarray(contact_sheet(pictures, ["a red square", "", long], columns=2, scale=4)).astype(int)
    for colour in colours:  # enlarged without blending: exactly 32x32 pixels of each colour
        assert (sheet == colour).all(-1).sum() == 32 * 32
    assert (sheet[:, -1] == 255).all() and (sheet[-1] == 255).all()  # text stays inside
    assert (sheet.sum(-1) < 300).any()
    with pytest.raises(ImageError, match="3 pictures, 1 captions"):
        contact_sheet(pictures, ["one"], columns=2, scale=4)


def test_arrays_are_pictures_only_as_bytes_in_three_channels():
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(np.asarray(images.read_image(pixels)), pixels)
    for wrong in (pixels.astype(np.float32), pixels[..., 0], pixels[..., :2]):
        with pytest.raises(images.ImageError, match=r"uint8 \[height, width, 3\]"):
            images.read_image(wrong)
