"""Residual quantisation: several codes of one codebook for each token (RQ-VAE, arXiv 2203.01941, section
3.1), in place of the one code of `generation_encoder.GenerationEncoder`.

The first code is the nearest to the latent, each further one the nearest to what the codes before it
leave of the latent; a token is the sum of its codes. Letters: d `depth`, C `code_dim`.
"""

import jax.numpy as jnp
from flax import nnx

from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import GenerationEncoder


class ResidualEncoder(GenerationEncoder):
    """Pictures to `depth` ids a token and back. Its leaves are those of one code a token."""

    def __init__(self, config: GenerationEncoderConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.depth = config.depth
        # What is left grows shorter with each code: codes of all lengths, for all depths.
        lengths = jnp.linspace(1.0, 0.0, config.codebook_size, endpoint=False)
        self.codebook = nnx.Param(self.codebook[...] * lengths[:, None])

    def nearest(self, z):  # [B, h, w, C] -> int32 ids [B, h, w, d]
        ids = []
        for _ in range(self.depth):
            ids.append(super().nearest(z))
            z = z - super().codes(ids[-1])
        return jnp.stack(ids, -1)

    def each(self, ids):  # int32 [..., d] -> each code by itself [..., d, C]
        return super().codes(ids)

    def codes(self, ids):  # int32 [..., d] -> the sums of the codes [..., C]
        return self.each(ids).sum(-2)

    def residuals(self, z, ids):  # [B, h, w, C], int32 [B, h, w, d] -> [B, h, w, d, C]
        """What each code was chosen to be near: the latent less the codes before."""
        codes = self.each(ids)
        return z[..., None, :] - (jnp.cumsum(codes, -2) - codes)

    def encode(self, images):  # [B, H, W, 3] in [-1, 1] -> int32 ids [B, N, d], raster order
        return self.nearest(self.latents(images)).reshape(len(images), -1, self.depth)

    def decode(self, ids, grid):  # int32 [B, N, d], (rows, columns) -> [B, H, W, 3]
        return self.render(self.codes(ids.reshape(ids.shape[0], *grid, self.depth)))
