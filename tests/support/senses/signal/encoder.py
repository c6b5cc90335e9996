"""Windows of a signal to features: one linear map."""

from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.layers import Linear


class Encoder(nnx.Module):
    def __init__(self, sizes, dtype, remat: str, attention: str, rngs: nnx.Rngs):
        self.windows = Linear(sizes.window, sizes.width, sh.W_DD, sh.ACT_BTD, dtype, rngs)
        self.sizes = sizes

    def __call__(self, signals):  # [B, samples] -> [B, N, C]
        s = self.sizes
        return self.windows(signals.reshape(-1, s.tokens, s.window, out_sharding=sh.ACT_BTD))
