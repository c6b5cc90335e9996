"""Figure 2, "Auto-Regressive Transformer": LLaMA (arXiv 2302.13971), as DeepSeek-LLM uses it.

Its layers are stacked and scanned, so that a step compiles once for all of them. model.serving has
the form that decodes.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.attention import packed
from janus_jax.model.config import TransformerConfig
from janus_jax.model.layers import Attention, Linear, rope_table, stack, through_layers


class TransformerBlock(nnx.Module):
    def __init__(self, config: TransformerConfig, dtype, rngs: nnx.Rngs):
        d = config.width
        f = config.mlp_width
        norms = [nnx.RMSNorm(d, epsilon=config.norm_eps, dtype=dtype, rngs=rngs) for _ in range(2)]
        self.norm1, self.norm2 = norms
        self.attention = Attention(d, config.heads, dtype, rngs, bias=False)
        self.gate, self.up = (
            Linear(d, f, sh.W_DF, sh.ACT_BTF, dtype, rngs, bias=False) for _ in range(2)
        )
        self.down = Linear(f, d, sh.W_FD, sh.ACT_BTD, dtype, rngs, bias=False)

    def __call__(self, x, attend, rope):  # [B, T, D] -> [B, T, D]
        x = x + self.attention(self.norm1(x), attend, rope)
        h = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(h)) * self.up(h))


class Transformer(nnx.Module):
    """Embeddings of packed rows to hidden states after the final RMSNorm; `attention` as in
    attention.packed."""

    def __init__(
        self, config: TransformerConfig, dtype, remat: str, attention: str, rngs: nnx.Rngs
    ):
        self.blocks = stack(lambda rngs: TransformerBlock(config, dtype, rngs), config.layers, rngs)
        self.norm = nnx.RMSNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.remat = remat
        self.kind = attention

    def __call__(self, x, positions, segment_ids, ahead=None):  # [B, T, D] -> [B, T, D]
        c = self.config
        attend = functools.partial(packed, segment_ids=segment_ids, kind=self.kind, ahead=ahead)
        rope = rope_table(positions, c.width // c.heads, c.rope_theta)
        x = jax.sharding.reshard(x.astype(self.dtype), sh.ACT_BTD)
        return self.norm(through_layers(self.blocks, x, self.remat, attend, rope))
