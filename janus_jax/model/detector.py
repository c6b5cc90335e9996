"""A small convolutional detector: the things in a picture, each by its centre, and the ground.

A heat map has its peaks where things have their centres (CenterNet, arXiv 1904.07850); what a thing
is and how large is read at its peak. In float32 throughout. Letters: B pictures, S pixels a side, M
cells a side of the maps (S / 4), C width, T kinds of things, K sizes, L grounds.
"""

import itertools

import jax.numpy as jnp
from flax import nnx

from janus_jax.model.generation_encoder import Conv, ResBlock, norms

STRIDE = 4  # pixels of a cell
WIDTH = 64
GROUPS = 8


class Detector(nnx.Module):
    """things, sizes, grounds: how many kinds of each there are."""

    def __init__(self, things: int, sizes: int, grounds: int, rngs: nnx.Rngs):
        c = WIDTH
        norm = norms(GROUPS, rngs)
        self.conv_in = Conv(3, c // 2, rngs, stride=2)
        self.down = nnx.List([Conv(c // 2, c, rngs, stride=2), Conv(c, 2 * c, rngs, stride=2)])
        self.fine = ResBlock(c, c, norm, rngs)
        self.coarse = nnx.List([ResBlock(2 * c, 2 * c, norm, rngs) for _ in range(2)])
        self.up = Conv(2 * c, c, rngs, size=1)
        self.last = ResBlock(c, c, norm, rngs)
        self.norm_out = norm(c)
        self.head = Conv(c, 1 + things + sizes, rngs, size=1)
        self.ground = Conv(c, grounds, rngs, size=1)
        self.ends = tuple(itertools.accumulate((1, things, sizes)))

    def last_map(self, images):  # [B, S, S, 3] in [-1, 1] -> [B, M, M, C]
        x = nnx.silu(self.conv_in(images))
        x = self.fine(self.down[0](x))
        low = self.down[1](nnx.silu(x))
        for block in self.coarse:
            low = block(low)
        x = x + self.up(jnp.repeat(jnp.repeat(low, 2, 1), 2, 2))
        return nnx.silu(self.norm_out(self.last(x)))

    def features(self, images):  # [B, S, S, 3] in [-1, 1] -> [B, C]: the means of the last map
        return self.last_map(images).mean((1, 2))

    def __call__(self, images):
        """images [B, S, S, 3] in [-1, 1] -> logits: "centre" [B, M, M], "thing" [B, M, M, T],
        "size" [B, M, M, K], "ground" [B, L]."""
        x = self.last_map(images)
        at = self.head(x)
        one, things, _ = self.ends
        return {
            "centre": at[..., 0],
            "thing": at[..., one:things],
            "size": at[..., things:],
            "ground": self.ground(x.mean((1, 2), keepdims=True))[:, 0, 0],
        }
