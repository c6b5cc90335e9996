"""Resizing in vector instructions, and without them."""

import numpy as np
import pytest
from PIL import Image
from support.pictures import photograph

from janus_jax.data import images, resize
from janus_jax.data.images import generation_image, understanding_image


@pytest.mark.parametrize(
    "size", [(640, 480), (50, 60), (131, 400), (1, 300), (300, 1), (1000, 700)]
)
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
    np.testing.assert_array_equal(
        understanding_image(image, 96, fast=True), understanding_image(image, 96)
    )
