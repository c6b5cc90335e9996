"""Pictures of every kind and damage that users have: the right pixels, or an error naming file and
cause."""

import base64
import io
import logging
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image
from support.pictures import UNUSABLE, UNUSUAL, bomb, encoded, photograph, put

from janus_jax.data import image_files, image_pixels
from janus_jax.data.image_files import ImageError, read_image
from janus_jax.data.image_parts import open_picture
from janus_jax.data.images import generation_image, understanding_image


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def refusal(source, cause=None, **options):
    with pytest.raises(ImageError) as error:
        read_image(source, **options)
    if cause:
        assert (
            pickle.loads(pickle.dumps(error.value)).cause == cause
        )  # workers hand errors on pickled
    return str(error.value)


def test_reads_path_file_and_pil_by_content(tmp_path):
    pixels = noise(7, 9)
    path = saved(tmp_path / "a.jpg", Image.fromarray(pixels), format="PNG")  # the suffix lies
    for source in (
        path,
        str(path),
        io.BytesIO(path.read_bytes()),
        Image.open(path),
        Image.fromarray(pixels),
    ):
        image = read_image(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_named_with_its_cause_and_remedy(name, tmp_path):
    file, content, cause, *words = UNUSABLE[name]
    path = put(tmp_path, file, content)
    message = refusal(path, cause)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert all(word in message for word in words), message
    if isinstance(content, bytes):
        message = refusal(io.BytesIO(content), cause)
        assert all(word in message for word in words), message


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_read_as_the_picture_that_it_is(name, tmp_path):
    file, content, expected = UNUSUAL[name]
    image = read_image(put(tmp_path, file, content))
    assert image.mode == "RGB" and image.size == expected.size
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    for prepare in (understanding_image, generation_image):
        np.testing.assert_array_equal(prepare(image, 16), prepare(expected, 16))


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


def test_other_modes_become_rgb(tmp_path):
    red = Image.new("RGB", (8, 8), (200, 30, 20))
    np.testing.assert_allclose(
        np.asarray(read_image(saved(tmp_path / "cmyk.jpg", red.convert("CMYK"), quality=100))),
        red,
        atol=6,
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


def test_warnings_as_errors_refuse_no_picture_and_the_filters_of_others_stay(monkeypatch):
    jpeg = encoded(Image.new("RGB", (4, 4)), "JPEG")
    block = b"MPF\0II*\0\x08\0\0\0\xff\xff"  # several pictures, and no table of them
    jpeg = jpeg[:2] + b"\xff\xe2" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
    with warnings.catch_warnings(action="error"):
        assert read_image(io.BytesIO(jpeg)).size == (4, 4)
        with pytest.raises(ImageError, match="10000x10000 is 100 million pixels"):
            read_image(io.BytesIO(bomb(10_000)))
    during = []
    opened = Image.open
    look = lambda *args, **how: during.append(list(warnings.filters)) or opened(*args, **how)
    monkeypatch.setattr(Image, "open", look)
    read_image(io.BytesIO(encoded(Image.new("RGB", (4, 4)))))
    assert during == [list(warnings.filters)]  # threads share them


def test_animation_gives_the_first_frame_and_says_so_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(image_pixels, "_noted", {})
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue", "green")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    webp = saved(
        tmp_path / "a.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True
    )
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
    assert (
        upright.size == (16, 32)
        and upright.getpixel((8, 4))[0] > 200 > 50 > upright.getpixel((8, 28))[0]
    )
    with Image.open(path) as image:  # also when a picture comes in unread
        assert understanding_image(image, 32)[4, 16].min() > 200
        assert understanding_image(read_image(upright), 32)[4, 16].min() > 200  # and not twice


def test_pixel_cap_acts_before_decoding(tmp_path, monkeypatch):
    path = saved(tmp_path / "big.png", Image.new("L", (300, 200)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    message = refusal(path, "too large", max_pixels=59_999)
    assert (
        message.startswith(f"{path}: 300x200 is")
        and "max_pixels" in message
        and "scale it down" in message
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert f"{path}: Image size (60000 pixels) exceeds limit" in refusal(path, "too large")


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
    assert (
        refusal(tmp_path, "no regular file")
        == f"{tmp_path}: is a directory; give the path of one picture file"
    )
    missing = tmp_path / "no.png"
    assert (
        refusal(missing, "missing file")
        == f"{missing}: no such file; check the path and the image root"
    )
    path = saved(tmp_path / "mine.png", Image.new("L", (2, 2)))

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image_files, "open", denied, raising=False)  # chmod does not stop root
    assert refusal(path, "no permission").startswith(f"{path}: no permission to read it; try chmod")


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
    exact, scaled = (
        understanding_image(read_image(path, longest=n), 384).astype(float) for n in (0, 384)
    )
    assert read_image(path, longest=384).size == (600, 800)  # upright
    assert 10 * np.log10(255**2 / np.mean((exact - scaled) ** 2)) > 45
    (tmp_path / "cut.jpg").write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(tmp_path / "cut.jpg", longest=384)


def test_a_picture_that_is_upright_already_is_not_copied(tmp_path):
    path = saved(tmp_path / "a.jpg", photograph(64, 48))
    image = read_image(path)
    assert read_image(image) is image and image.size == (64, 48)
    np.testing.assert_array_equal(
        generation_image(image, 32), generation_image(np.asarray(image), 32)
    )


def test_arrays_are_pictures_only_as_bytes_in_three_channels():
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(np.asarray(image_files.read_image(pixels)), pixels)
    for wrong in (pixels[..., :2], pixels.astype(bool)):
        with pytest.raises(image_files.ImageError, match=r"uint8 \[height, width, 3\]: convert it"):
            image_files.read_image(wrong)


@pytest.mark.parametrize("kind", [np.float32, np.uint16, np.uint8], ids=lambda x: x.__name__)
def test_an_array_that_is_no_picture_is_refused_with_code_that_makes_it_one(kind):
    pixels = noise(4, 5)
    deep = {np.float32: (pixels + 0.5) / 255, np.uint16: pixels * np.uint16(257)}
    x = deep.get(kind, pixels).astype(kind)
    grey = np.stack([pixels[..., 0]] * 3, -1)
    for wrong, want in (
        (x[None], pixels),
        (x.transpose(2, 0, 1), pixels),
        (x[..., [0, 1, 2, 0]], pixels),
        (x[..., 0], grey),
        (x[..., :1], grey),
        (x[None, :, :, 0], grey),
    ):
        with pytest.raises(
            image_files.ImageError, match=r"uint8 \[height, width, 3\]: x = "
        ) as error:
            image_files.read_image(wrong)
        names = {"x": wrong, "np": np}
        exec(str(error.value).rpartition("]: ")[2], names)
        assert np.array_equal(np.asarray(image_files.read_image(names["x"])), want)


def test_base64_without_its_head_is_told_in_few_words_and_how_to_mend_it(tmp_path):
    saved(tmp_path / "a.png", Image.fromarray(noise(400, 400)))
    raw = (tmp_path / "a.png").read_bytes()
    text = base64.b64encode(raw).decode()
    assert open_picture(f"data:image/png;base64,{text}", "message 0").size == (400, 400)
    for given, kind in ((text, "png"), (f"/9j/{text[:100]}", "jpeg"), ("A" * 8_000_000, "png")):
        with pytest.raises(ImageError) as error:
            open_picture(given, "message 0")
        said = str(error.value)
        assert f"put data:image/{kind};base64, before it" in said and len(said) < 200
    for given in ("pictures/" + "a " * 200 + ".png", "a/" * 5000, "http://a/" + "b" * 5000):
        with pytest.raises(ImageError) as error:
            open_picture(given, "message 0")
        assert len(str(error.value)) < 500
    with pytest.raises(ImageError, match="is base64 text, not the picture's bytes"):
        open_picture(text.encode(), "message 0")
