"""What a Fréchet distance is taken over: pictures to features."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np
from PIL import Image

from janus_jax.data.images import understanding_image
from janus_jax.eval import inception
from janus_jax.eval.resizers import ENTRANCES, named
from janus_jax.model import batch as bt


@dataclasses.dataclass(frozen=True)
class Features:
    """A way to see pictures.

    Args:
        title: what a distance over them is called: FID for Inception's alone.
        facts: what they depend on, by name; two sets are comparable where these are equal.
        extract: uint8 pictures [H, W, 3], a list of them or one array [n, H, W, 3] -> real [n, D].
            The list is never longer than `batch`.
        batch: how many pictures it takes at once.
    """

    title: str
    facts: Mapping
    extract: Callable
    batch: int = 32


def inception_features(weights, entrance: str = "clean-fid", batch: int = 32) -> Features:
    """FID's 2,048 features.

    Args:
        weights: a file, as `inception.read_inception` reads it.
        entrance: one of `resizers.ENTRANCES`: whose 299 x 299.
        batch: pictures at once.
    """
    enter = named(ENTRANCES, entrance, "--entrance")
    params = jax.device_put(inception.read_inception(weights))
    facts = {
        "features": "inception-2015-12-05 pool3",
        "entrance": entrance,
        "weights_sha256": inception.fingerprint(weights),
    }

    def extract(pictures):
        x = np.stack([enter(picture) for picture in pictures])
        x = np.pad(x, ((0, batch - len(x)), *[(0, 0)] * 3))  # one compiled shape
        return np.asarray(inception.pool3(params, x))[: len(pictures)]

    return Features("FID", facts, extract, batch)


def pixel_features(side: int = 8, batch: int = 32) -> Features:
    """The means of side x side x 3 fields of each picture, in [0, 1]: for toy worlds."""

    def extract(pictures):
        small = (Image.fromarray(p).resize((side, side), Image.Resampling.BOX) for p in pictures)
        return np.stack([np.asarray(x, np.float64).ravel() / 255 for x in small])

    return _others(f"pixels {side}x{side}", {}, extract, batch)


def understanding_features(
    see: Callable, side: int, processor, batch: int = 32, **facts
) -> Features:
    """The mean over the patches of what a model's own understanding encoder and adaptor see, [n,
    D]: for toy worlds.

    see: `sample.understand.features` of the model.
    side: of its pictures to understand, in pixels.
    processor: of the model.
    batch: pictures at once.
    facts: what tells the model from others, as the hash of its weights.
    """

    def extract(pictures):
        squares = [understanding_image(p, side, processor.background) for p in pictures]
        shown = bt.pixels(np.stack(squares), processor.image_mean, processor.image_std)
        return see(shown).mean(axis=1, dtype=np.float64)

    return _others("understanding encoder", facts, extract, batch)


def _others(name: str, facts: Mapping, extract, batch: int) -> Features:
    title = f"Fréchet distance ({name} features)"
    return Features(title, {"features": name, **facts}, extract, batch)
