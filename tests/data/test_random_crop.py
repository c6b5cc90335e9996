"""Random squares of a picture lie inside it, of the sizes asked for."""

import numpy as np
import pytest
from PIL import Image
from support import tiny

from janus_jax.data.images import generation_image
from janus_jax.data.random_crop import random_crop
from janus_jax.data.random_pictures import RandomPictures

SIDE = 32


def ramp(width: int, height: int) -> Image.Image:
    """Red tells the column and green the row, in pixels."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def crops(picture, count: int = 400, least: float = 0.8, flip: float = 0.5):
    rng = np.random.default_rng(0)
    return np.stack([random_crop(picture, SIDE, rng, least, flip) for _ in range(count)]).astype(int)


def test_a_random_crop_keeps_the_share_of_the_short_side_that_it_is_asked_for():
    """64 x 128 pixels whose short side becomes 32 to 40: a crop spans 64 to 51.2 of them."""
    out = crops(ramp(128, 64))
    span = abs(out[:, 0, -1, 0] - out[:, 0, 0, 0]) * SIDE / (SIDE - 1)
    assert 50 < span.min() < 53 and 62 < span.max() < 66
    sizes = np.histogram(span, np.linspace(51, 64.1, 10))[0]
    assert (sizes > 15).all()
    first = np.minimum(out[:, 0, 0, 0], out[:, 0, -1, 0])
    assert first.min() <= 2 and (first + span).max() >= 125, "a crop lies anywhere"
    tall = out[:, -1, 0, 1] - out[:, 0, 0, 1]
    np.testing.assert_allclose(tall, span * (SIDE - 1) / SIDE, atol=2, err_msg="not square")


def test_half_of_the_crops_are_mirrored():
    out = crops(ramp(64, 64))
    mirrored = (out[:, 0, 0, 0] > out[:, 0, -1, 0]).mean()
    assert 0.4 < mirrored < 0.6
    assert not (crops(ramp(64, 64), 50, flip=0.0)[:, 0, 0, 0] > 30).any()


def test_without_a_share_the_centre_is_taken():
    picture = ramp(50, 70)
    (out,) = crops(picture, 1, least=0.0, flip=0.0)
    np.testing.assert_array_equal(out, generation_image(picture, SIDE, fast=True))


class Small:
    """Records of growing pictures, the first ones smaller than the crop."""

    fingerprint = "small"

    def __len__(self):
        return 40

    def image(self, i, k=0):
        return ramp(28 + i, 60)

    def where(self, i):
        return f"folder/{i}.png"


@pytest.fixture
def drawn():
    def draw(**how):
        said = []
        pictures = tiny.pictures(Small(), SIDE, 16, 1)
        stats = pictures.stats
        stats.say = said.append
        return RandomPictures(pictures.mixture, SIDE, stats=stats, **how), said

    return draw


def test_pictures_smaller_than_the_crop_are_enlarged_and_named(drawn):
    pictures, said = drawn()
    for i in range(12):
        assert pictures[i].shape == (16, SIDE, SIDE, 3)
    assert {line.split(" is ")[0] for line in said} == {f"WARNING: folder/{i}.png" for i in range(4)}
    assert any("folder/0.png is 28 x 60 pixels, smaller than the crop of 32" in x for x in said)
    assert all(".min_side=32 leaves such pictures out" in line for line in said)


def test_random_crops_are_a_function_of_seed_and_step(drawn):
    make = lambda image, side, rng: random_crop(image, side, rng, 0.8, 0.5)
    one, two = (drawn(make=make)[0] for _ in range(2))
    one[0], one[1]
    np.testing.assert_array_equal(one[7], two[7])
    assert (one[7] != one[8]).any()
