"""The norm of MoVQ's decoder (arXiv 2209.09002, section 3.2, equation 4). Loaded where it is used."""

import jax.numpy as jnp
from flax import nnx

from janus_jax.model.generation_encoder import Conv


class SpatialNorm(nnx.GroupNorm):
    """A group norm that the codes scale and shift, each position by its own: `gamma` and `beta` are
    1x1 convolutions of the codes, brought to the features' resolution by repeating them.

    What is repeated is the convolutions' result: the same numbers for a fraction of the work. At
    random weights gamma is 1 on average, and the norm near a group norm (our choice).
    """

    def __init__(self, channels: int, codes: int, *, rngs: nnx.Rngs, **how):
        super().__init__(channels, rngs=rngs, **how)
        self.gamma = Conv(codes, channels, rngs, size=1)
        self.gamma.bias = nnx.Param(jnp.ones(channels))
        self.beta = Conv(codes, channels, rngs, size=1)

    def __call__(self, x, codes):  # [B, H, W, C], [B, h, w, code_dim] -> [B, H, W, C]
        times = x.shape[1] // codes.shape[1]
        resized = lambda y: jnp.repeat(jnp.repeat(y, times, 1), times, 2)
        return super().__call__(x) * resized(self.gamma(codes)) + resized(self.beta(codes))
