"""Figure 2, "Auto-Regressive Transformer": LLaMA (arXiv 2302.13971), as DeepSeek-LLM uses it."""

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax import sharding as sh
from janus_jax.model.config import TransformerConfig
from janus_jax.model.layers import Attention, Linear, rope_table, scan_layers, stack


class Block(nnx.Module):
    def __init__(self, config: TransformerConfig, dtype, rngs: nnx.Rngs):
        d, f = config.width, config.mlp_width
        norms = [nnx.RMSNorm(d, epsilon=config.norm_eps, dtype=dtype, rngs=rngs) for _ in range(2)]
        self.norm1, self.norm2 = norms
        self.attention = Attention(d, config.heads, dtype, rngs, bias=False)
        self.gate, self.up = (Linear(d, f, sh.W_DF, sh.ACT_BTF, dtype, rngs, bias=False) for _ in range(2))
        self.down = Linear(f, d, sh.W_FD, sh.ACT_BTD, dtype, rngs, bias=False)

    def __call__(self, x, mask, rope, cache, at):  # [B, T, D] -> [B, T, D], cache
        y, cache = self.attention(self.norm1(x), mask, rope, cache, at)
        x = x + y
        h = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(h)) * self.up(h)), cache


class Transformer(nnx.Module):
    """Embeddings to hidden states after the final RMSNorm.

    `mask` is bool [B, 1, T, S], S the length of the keys: T without a cache, the cache's with one. `cache` is
    a pair (k, v), each [L, B, S, H, K]; new keys and values are written from position `at` on.
    """

    def __init__(self, config: TransformerConfig, dtype, remat: str, rngs: nnx.Rngs):
        self.blocks = stack(lambda rngs: Block(config, dtype, rngs), config.layers, rngs)
        self.norm = nnx.RMSNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.config, self.dtype, self.remat = config, jnp.dtype(dtype), remat

    def __call__(self, x, positions, mask, cache=None, at=None):  # [B, T, D] -> [B, T, D], cache
        c = self.config
        rope = rope_table(positions, c.width // c.heads, c.rope_theta)

        def body(x, layer):
            block, cache = layer
            return block(x, mask, rope, cache, at)

        x = jax.sharding.reshard(x.astype(self.dtype), sh.ACT_BTD)
        x, cache = scan_layers(body, x, (self.blocks, cache), self.remat)
        return self.norm(x), cache

    def empty_cache(self, batch: int, length: int):
        """Zeros for `length` positions: (k, v), each [L, B, S, H, K]."""
        c = self.config
        shape = (c.layers, batch, length, c.heads, c.width // c.heads)
        spec = jax.P(None, sh.ROWS, None, "tensor")
        return tuple(jnp.zeros(shape, self.dtype, out_sharding=spec) for _ in range(2))
