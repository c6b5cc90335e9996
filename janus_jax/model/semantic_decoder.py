"""The semantic decoder of the paper's appendix A: a ViT on the VQ tokenizer's quantised latents
whose features mean what SigLIP's do.

A position sees only the codes before it and its own, so that the features of a picture can be
computed while it is drawn.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.attention import plain
from janus_jax.model.config import GenerationEncoderConfig, SemanticDecoderConfig
from janus_jax.model.kernels import precision
from janus_jax.model.layers import stack, through_layers, weight
from janus_jax.model.serving import cache_dtype, cast, stored, zero_cache
from janus_jax.model.understanding_encoder import EncoderBlock, layer_norm


class SemanticDecoder(nnx.Module):
    """Codes of a picture to features, in raster order; learned positions for the tokenizer's grid.
    Where the appendix is silent: a linear map into the width, LayerNorm before each part and at the
    end, exact GELU."""

    def __init__(
        self,
        vq: GenerationEncoderConfig,
        config: SemanticDecoderConfig,
        dtype,
        remat: str,
        rngs: nnx.Rngs,
    ):
        w = config.width
        self.code_kernel = weight(rngs, (vq.code_dim, w), sh.W_NC, vq.code_dim**-0.5)
        self.code_bias = nnx.Param(jnp.zeros(w))
        self.positions = weight(rngs, (vq.tokens, w), sh.W_NC, w**-0.5)
        self.blocks = stack(lambda rngs: EncoderBlock(config, dtype, rngs), config.layers, rngs)
        self.norm = layer_norm(w, dtype, rngs)
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.remat = remat

    def placed(self, codes, at=None):  # [B, N, code_dim] -> [B, N, width]
        """Codes and where they stand: `at` int32 [B], of one code each, or all places in order."""
        kernel, positions = (
            jax.sharding.reshard(w[...].astype(self.dtype), sh.REPLICATED)
            for w in (self.code_kernel, self.positions)
        )
        if at is not None:
            positions = positions.at[at].get(out_sharding=sh.BATCH)[:, None]
        x = jnp.matmul(codes.astype(self.dtype), kernel, precision=precision(self.dtype))
        return jax.sharding.reshard(
            x + self.code_bias[...].astype(self.dtype) + positions, sh.ACT_BTD
        )

    def __call__(self, codes):  # [B, N, code_dim], of unit length -> [B, N, width]
        n = codes.shape[1]
        attend = functools.partial(plain, mask=jnp.tril(jnp.ones((n, n), bool))[None, None])
        return self.norm(through_layers(self.blocks, self.placed(codes), self.remat, attend))

    def blank_cache(self, rows: int) -> list:
        """What `cached` keeps of the pictures of so many rows, before their first code."""
        c = self.config
        shape = (rows, c.heads, len(self.positions[...]), c.width // c.heads)
        return zero_cache(shape, cache_dtype(self.dtype), c.layers)

    def cached(self, codes, at, cache):  # [B, 1, code_dim], int32 [B] -> [B, 1, width], cache
        """The features of the codes at places `at` of pictures whose earlier codes lie in the
        cache, one (k, v) a layer, each [B, H, N, K]; of a decoder whose layers are a list."""
        at = jnp.minimum(at, cache[0][0].shape[2] - 1)  # rows that draw nothing count on
        x = self.placed(codes, at)
        seen = (jnp.arange(cache[0][0].shape[2]) <= at[:, None])[:, None, None]
        new = []

        def attend(q, k, v):  # each [B, 1, H, K]
            old = cache[len(new)]
            pair = tuple(stored(o, y.swapaxes(1, 2), at) for o, y in zip(old, (k, v)))
            new.append(pair)
            return plain(q, *(cast(y, q.dtype).swapaxes(1, 2) for y in pair), seen)

        for block in self.blocks:
            x = block(x, attend)
        return self.norm(x), new
