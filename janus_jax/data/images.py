"""The two preprocessings of Janus."""

import numpy as np

from janus_jax.data.image_pixels import as_rgb
from janus_jax.data.resize import bicubic

LEAST_SIDE = 14  # of the original's understanding preprocessing
# How a picture becomes the square that the VQ tokenizer encodes. Stored ids are bound to these
# words: change them, with their number, whenever the pixels that come out change.
GENERATION_RECIPE = (
    "3: upright RGB, 16 bits by those in use, JPEGs scaled while decoding where that leaves twice "
    "the side, short side and centre square in one bicubic pass"
)


def understanding_image(image, size, background=127, fast=False):
    """A picture (PIL, or uint8 [H, W, 3]) -> uint8 [size, size, 3] for the understanding encoder.

    The longest side becomes `size`, the other is truncated as in the original but at least 14
    pixels (very long pictures change their aspect); bicubic; centred, with an odd row or column of
    padding at the bottom or right. fast: see `resize.bicubic`. Raises ImageError.
    """
    image = as_rgb(image)
    longest = max(image.size)
    width, height = (max(side * size // longest, min(LEAST_SIDE, size)) for side in image.size)
    image = bicubic(image, (width, height), (0, 0, *image.size), fast)
    square = np.full((size, size, 3), background, np.uint8)
    top = (size - height) // 2
    left = (size - width) // 2
    square[top : top + height, left : left + width] = np.asarray(image)
    return square


def generation_image(image, size, fast=False):
    """A picture (PIL, or uint8 [H, W, 3]) -> uint8 [size, size, 3]: short side resized, centre
    crop. size: of a square, or (width, height), which it is resized to cover.

    Resize and crop are one bicubic pass over the kept part, so a 1x5000 picture costs no more than
    another.
    fast: see `resize.bicubic`. Raises ImageError.
    """
    image = as_rgb(image)
    sizes = size if isinstance(size, tuple) else (size, size)
    over, under = max(zip(sizes, image.size), key=lambda pair: pair[0] / pair[1])
    spans = []
    for side, wanted in zip(image.size, sizes):
        resized = round(side * over / under)
        start = (resized - wanted) // 2
        spans.append((start * side / resized, (start + wanted) * side / resized))
    (left, right), (top, bottom) = spans
    box = (left, top, min(right, image.size[0]), min(bottom, image.size[1]))
    return np.array(bicubic(image, sizes, box, fast))
