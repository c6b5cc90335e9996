"""The two preprocessings of Janus."""

import numpy as np
import pytest
from PIL import Image

from janus_jax.data.image_files import ImageError
from janus_jax.data.images import generation_image, understanding_image


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


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


@pytest.mark.parametrize(
    "height, width", [(60, 100), (301, 97), (96, 96), (480, 641), (20, 50), (7, 9)]
)
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
    for array in (
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ImageError, match=r"needs uint8 \[H, W, 3\]"):
            prepare(array, 16)
