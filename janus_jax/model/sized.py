"""Image ids of pictures of several sizes: each is cut from its canvas and encoded by itself."""

import jax
import jax.numpy as jnp

from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh


def image_ids(encoder, config, images, sizes):
    """int32 [B, G, N], N the most tokens of a picture; 0 beyond its own, and where there is none.

    encoder: a `GenerationEncoder`, whose weights are whole on every device; config: its sizes.
    images: uint8 [B, G, H, W, 3], each in the upper left of its canvas.
    sizes: int32 [B, G], 0 where there is no picture, else 1 + its number in `all_sizes`.
    """
    most = config.most_tokens

    def local(encoder, images, sizes):
        def of(width, height):
            def encode(image):
                ids = encoder.encode(bt.pixels(image[None, :height, :width]))[0]
                return jnp.pad(ids, (0, most - len(ids)))

            return encode

        none = lambda image: jnp.zeros(most, jnp.int32)
        ways = [none, *(of(*size) for size in config.all_sizes)]
        flat = images.reshape(-1, *images.shape[2:])
        ids = jax.lax.map(lambda x: jax.lax.switch(x[1], ways, x[0]), (flat, sizes.reshape(-1)))
        return ids.reshape(*sizes.shape, most)

    specs = jax.tree.map(lambda _: sh.REPLICATED, encoder), sh.BATCH, sh.BATCH
    return sh.per_device(local, specs, sh.BATCH)(encoder, images, sizes)
