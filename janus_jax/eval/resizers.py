"""How pictures are brought to a size before a distance is taken: FID differs by several points
between these (Parmar et al., arXiv 2104.11222), so a report names both.

Two things happen to a picture. Its *resizer* brings it to the resolution at which a paper compares:
RESIZERS. Then the network's *entrance* brings it to the 299 x 299 that Inception takes: ENTRANCES.

Read from GaParmar/clean-fid 0.1.35 (cleanfid/resize.py), toshas/torch-fidelity 0.4.0
(interpolate_compat_tensorflow.py, feature_extractor_inceptionv3.py), mseitzer/pytorch-fid 0.3.0
(inception.py), mingukkang/GigaGAN b2d3716 (evaluation/evaluation.py) and deepseek-ai/Janus#22.
"""

import numpy as np
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import near

SIDE = 299
FILTERS = Image.Resampling


def as_it_is(picture: Image.Image) -> Image.Image:
    """The picture, of whatever size."""
    return picture


def centre_square(picture: Image.Image) -> Image.Image:
    """The square of the shorter side in the middle, as torchvision's center_crop cuts it."""
    width, height = picture.size
    side = min(width, height)
    left = round((width - side) / 2)
    top = round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))


def gigagan_256(picture: Image.Image) -> Image.Image:
    """GigaGAN's: the centre square, by Lanczos to 256."""
    return centre_square(picture).resize((256, 256), FILTERS.LANCZOS)


def bicubic_256(picture: Image.Image) -> Image.Image:
    """What Janus's authors did to their drawings of 384 before GigaGAN's script: the centre square,
    by bicubic to 256. (The script's own resizer then leaves it as it is.)"""
    return centre_square(picture).resize((256, 256), FILTERS.BICUBIC)


RESIZERS = {"none": as_it_is, "gigagan-256": gigagan_256, "bicubic-256": bicubic_256}


def clean_fid(picture: np.ndarray) -> np.ndarray:
    """clean-fid's mode "clean": each channel in float32 by Pillow's bicubic, whose filter grows
    with the scale, so nothing aliases; clipped, not rounded. Inception takes (x - 128) / 128."""
    channels = []
    for k in range(3):
        channel = Image.fromarray(picture[..., k].astype(np.float32))
        channels.append(np.asarray(channel.resize((SIDE, SIDE), FILTERS.BICUBIC)).clip(0, 255))
    return (np.stack(channels, -1) - 128) / np.float32(128)


def torch_fidelity(picture: np.ndarray) -> np.ndarray:
    """torch-fidelity's, and the first FID's inside its graph: TensorFlow 1's bilinear, where pixel
    i of 299 lies at i * size / 299, without a filter. Inception takes (x - 128) / 128."""
    return (_bilinear(picture, lambda i, n: i * np.float32(n / SIDE)) - 128) / np.float32(128)


def pytorch_fid(picture: np.ndarray) -> np.ndarray:
    """pytorch-fid's: bilinear between the centres of pixels, without a filter, of pictures in
    [0, 1]. Inception takes 2 x - 1, which is (x - 127.5) / 127.5 and not the others' scale."""
    place = lambda i, n: np.maximum(
        (i + np.float32(0.5)) * np.float32(n / SIDE) - np.float32(0.5), 0
    )
    return 2 * (_bilinear(picture, place) / np.float32(255)) - 1


ENTRANCES = {"clean-fid": clean_fid, "torch-fidelity": torch_fidelity, "pytorch-fid": pytorch_fid}


def named(table: dict, name: str, flag: str):
    """The entry of RESIZERS or ENTRANCES. Raises UsageError that names the flag."""
    if name not in table:
        raise UsageError(f"{flag}={name}: no such one{near(str(name), table)}")
    return table[name]


def _bilinear(picture: np.ndarray, place) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [299, 299, 3]. place(i, n): where the i-th of 299 lies among n."""
    x = picture.astype(np.float32)
    for axis in (1, 0):
        n = x.shape[axis]
        at = place(np.arange(SIDE, dtype=np.float32), n)
        low = np.minimum(at.astype(np.int64), n - 1)
        high = np.minimum(low + 1, n - 1)
        share = (at - low.astype(np.float32)).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        near_, far = np.take(x, low, axis), np.take(x, high, axis)
        x = near_ + (far - near_) * share
    return x
