"""Random squares of pictures, as LlamaGen trains its tokenizer on ImageNet (its
dataset/augmentation.py, `random_crop_arr`, then a flip)."""

import math

import numpy as np

from janus_jax.data.image_pixels import as_rgb
from janus_jax.data.images import generation_image
from janus_jax.data.resize import bicubic


def random_crop(image, size: int, rng: np.random.Generator, least: float, flip: float):
    """A picture (PIL, or uint8 [H, W, 3]) -> uint8 [size, size, 3].

    The short side becomes a whole number of pixels, drawn evenly from `size` to `size / least`; of
    that a square is cut out anywhere. Resize and crop are one bicubic pass, where LlamaGen first
    halves large pictures by boxes.

    Args:
        image: the picture; a smaller one is enlarged.
        size: pixels a side.
        rng: drawn from alike whatever the picture is.
        least: the least share of the short side that is kept, in (0, 1]; 0: the centre is cut out.
        flip: probability that it is mirrored.

    Raises ImageError.
    """
    draws = rng.random(4)
    if not least:
        out = generation_image(image, size, fast=True)
    else:
        image = as_rgb(image)
        largest = math.ceil(size / least)
        short = size + min(int(draws[0] * (largest - size + 1)), largest - size)
        spans = []
        for side, where in zip(image.size, draws[1:]):
            resized = round(side * short / min(image.size))
            start = min(int(where * (resized - size + 1)), resized - size)
            spans.append((start * side / resized, min((start + size) * side / resized, side)))
        (left, right), (top, bottom) = spans
        out = np.array(bicubic(image, (size, size), (left, top, right, bottom), fast=True))
    return np.ascontiguousarray(out[:, ::-1]) if draws[3] < flip else out
