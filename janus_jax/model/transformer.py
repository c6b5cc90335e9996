"""Figure 2, "Auto-Regressive Transformer": LLaMA (arXiv 2302.13971), as DeepSeek-LLM uses it.

`Transformer` trains: its layers are stacked and scanned, so that a step compiles once for all of them.
`Unrolled` decodes: each layer has arrays of its own, since a scan copies a layer's weights out of the stack
before it reads them (three times the traffic, measured on CPU), q|k|v and gate|up are one product each, and
keys and values are kept in a cache.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax import sharding as sh
from janus_jax.model.attention import causal_mask, packed
from janus_jax.model.config import TransformerConfig
from janus_jax.model.layers import (
    Attention,
    Fused,
    Int8Linear,
    Linear,
    rope_table,
    rotate,
    split_parts,
    stack,
    through_layers,
)


class Block(nnx.Module):
    def __init__(self, config: TransformerConfig, dtype, rngs: nnx.Rngs):
        d, f = config.width, config.mlp_width
        norms = [nnx.RMSNorm(d, epsilon=config.norm_eps, dtype=dtype, rngs=rngs) for _ in range(2)]
        self.norm1, self.norm2 = norms
        self.attention = Attention(d, config.heads, dtype, rngs, bias=False)
        self.gate, self.up = (Linear(d, f, sh.W_DF, sh.ACT_BTF, dtype, rngs, bias=False) for _ in range(2))
        self.down = Linear(f, d, sh.W_FD, sh.ACT_BTD, dtype, rngs, bias=False)

    def __call__(self, x, attend, rope):  # [B, T, D] -> [B, T, D]
        x = x + self.attention(self.norm1(x), attend, rope)
        h = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(h)) * self.up(h))


class Transformer(nnx.Module):
    """Embeddings of packed rows to hidden states after the final RMSNorm; `attention` as in attention.packed."""

    def __init__(self, config: TransformerConfig, dtype, remat: str, attention: str, rngs: nnx.Rngs):
        self.blocks = stack(lambda rngs: Block(config, dtype, rngs), config.layers, rngs)
        self.norm = nnx.RMSNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.config, self.dtype, self.remat, self.kind = config, jnp.dtype(dtype), remat, attention

    def __call__(self, x, positions, segment_ids):  # [B, T, D] -> [B, T, D]
        c = self.config
        attend = functools.partial(packed, segment_ids=segment_ids, kind=self.kind)
        rope = rope_table(positions, c.width // c.heads, c.rope_theta)
        x = jax.sharding.reshard(x.astype(self.dtype), sh.ACT_BTD)
        return self.norm(through_layers(self.blocks, x, self.remat, attend, rope))


class DecodingBlock(nnx.Module):
    """The arithmetic of `Block`, its weights regrouped; int8: kernels as `Int8Linear` keeps them."""

    def __init__(self, block: Block, int8: bool):
        kind = Int8Linear if int8 else lambda linear: linear
        a = block.attention
        self.norm1, self.norm2, self.heads = block.norm1, block.norm2, a.heads
        self.qkv, self.o = kind(Fused([a.q, a.k, a.v])), kind(a.o)
        self.gate_up, self.down = kind(Fused([block.gate, block.up])), kind(block.down)

    def __call__(self, x, mask, rope, cache, at):  # [B, T, D] -> [B, T, D], (k, v)
        b, t, d = x.shape
        qkv = split_parts(self.qkv(self.norm1(x)), 3)
        q, k, v = (y.reshape(b, t, self.heads, d // self.heads) for y in qkv)
        q, k, v = (
            y.swapaxes(1, 2).astype(cache_dtype(y.dtype)) for y in (rotate(q, rope), rotate(k, rope), v)
        )
        if cache is not None:
            k, v = (jax.lax.dynamic_update_slice_in_dim(old, new, at, 2) for old, new in zip(cache, (k, v)))
        scores = jnp.einsum("bhtk,bhsk->bhts", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(jnp.where(mask, scores * q.shape[-1] ** -0.5, -1e30)).astype(v.dtype)
        y = jnp.einsum("bhts,bhsk->bhtk", weights, v, preferred_element_type=jnp.float32)
        x = x + self.o(y.astype(x.dtype).swapaxes(1, 2).reshape(b, t, d))
        gate, up = split_parts(self.gate_up(self.norm2(x)), 2)
        return x + self.down(nnx.silu(gate) * up), (k, v)


class Unrolled(nnx.Module):
    """`Transformer` in the form that decodes. Built from its layers one by one, so that only one of them is
    there twice. A cache is a list, one (k, v) a layer, each [B, H, S, K]."""

    def __init__(self, config: TransformerConfig, dtype, blocks, norm: nnx.RMSNorm, int8: bool = False):
        self.layers = nnx.List([_decoding_block(block, int8) for block in blocks])
        self.norm, self.config, self.dtype = norm, config, jnp.dtype(dtype)

    def __call__(self, x, positions, segment_ids):  # [B, T, D] -> [B, T, D]
        return self.cached(x, positions, causal_mask(segment_ids))[0]

    def cached(self, x, positions, mask, cache=None, at=None):  # [B, T, D] -> [B, T, D], cache
        """`mask` is bool [B, 1, T, S]; new keys and values are written from position `at` of the cache on, or,
        without one, are it."""
        c, new = self.config, []
        rope = rope_table(positions, c.width // c.heads, c.rope_theta)
        x = jax.sharding.reshard(x.astype(self.dtype), sh.ACT_BTD)
        for layer, old in zip(self.layers, cache or [None] * c.layers):
            x, pair = layer(x, mask, rope, old, at)
            new.append(pair)
        return self.norm(x), new


_decoding_block = jax.jit(DecodingBlock, static_argnums=1)


def cache_dtype(dtype):
    """Keys and values are kept as computed, on CPU in float32: there a bfloat16 cache is 1.4 times slower."""
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else dtype)
