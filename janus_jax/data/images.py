"""The two preprocessings of Janus, and decoded arrays back to pictures."""

import numpy as np
from PIL import Image

from janus_jax.data.image_pixels import ImageError, as_rgb
from janus_jax.data.resize import bicubic

_MIN_SIDE = 14  # of the original's understanding preprocessing
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
    width, height = (max(side * size // longest, min(_MIN_SIDE, size)) for side in image.size)
    image = bicubic(image, (width, height), (0, 0, *image.size), fast)
    square = np.full((size, size, 3), background, np.uint8)
    top = (size - height) // 2
    left = (size - width) // 2
    square[top : top + height, left : left + width] = np.asarray(image)
    return square


def generation_image(image, size, fast=False):
    """A picture (PIL, or uint8 [H, W, 3]) -> uint8 [size, size, 3]: short side resized, centre
    crop.

    Resize and crop are one bicubic pass over the kept part, so a 1x5000 picture costs no more than
    another.
    fast: see `resize.bicubic`. Raises ImageError.
    """
    image = as_rgb(image)
    shortest = min(image.size)
    spans = []
    for side in image.size:
        resized = round(side * size / shortest)
        start = (resized - size) // 2
        spans.append((start * side / resized, (start + size) * side / resized))
    (left, right), (top, bottom) = spans
    box = (left, top, min(right, image.size[0]), min(bottom, image.size[1]))
    return np.array(bicubic(image, (size, size), box, fast))


def to_pil(images):
    """Decoded pictures, float [B, H, W, 3] in [-1, 1] -> a list of B RGB pictures.

    Clipped, then truncated to uint8 as in the original. Raises ImageError for another shape or for
    NaN.
    """
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[-1] != 3:
        message = f"images: shape {images.shape}, needs [B, H, W, 3]; one picture is images[None]"
        raise ImageError(message, cause="odd shape")
    bad = np.flatnonzero(np.isnan(images).any(axis=(1, 2, 3)))
    if bad.size:
        raise ImageError(
            f"images: NaN in picture {bad[0]} ({bad.size} of {len(images)}); check the decoder's "
            f"weights"
        )
    return [Image.fromarray(x) for x in ((np.clip(images, -1, 1) + 1) / 2 * 255).astype(np.uint8)]
