"""The form of the model that decodes: each layer with arrays of its own, regrouped, and a cache;
int8 if asked.

Training never comes here. A scan copies a layer's weights out of the stack before it reads them
(three times the traffic, measured on CPU), so the layers are taken apart; q|k|v and gate|up are one
product each; keys and values are kept in a cache.
"""

import copy

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.attention import causal_mask
from janus_jax.model.config import TransformerConfig
from janus_jax.model.kernels import einsum, precision
from janus_jax.model.layers import Linear, rope_table, rotate, use


class Fused(Linear):
    """Several maps of one input as one product. The columns lie by tensor shard first, then by
    part, so that `split_parts` moves nothing between devices."""

    def __init__(self, linears: list[Linear]):
        first = linears[0]
        n = sh.tensor_shards()
        d = len(first.kernel[...])
        shards = [w.kernel[...].reshape(d, n, -1, out_sharding=sh.SHARDS_DNF) for w in linears]
        self.kernel = nnx.Param(jnp.stack(shards, 2).reshape(d, -1, out_sharding=first.spec))
        self.bias = nnx.data(None)
        self.spec = first.spec
        self.out = first.out
        self.dtype = first.dtype


def split_parts(y: jax.Array, count: int) -> list[jax.Array]:
    """The results [B, T, F] of the `count` maps whose joint result `Fused` gave, y [B, T, count *
    F]."""
    b, t, _ = y.shape
    y = y.reshape(b, t, sh.tensor_shards(), count, -1, out_sharding=sh.SHARDS_BTNPF)
    return [y[:, :, :, i].reshape(b, t, -1, out_sharding=sh.ACT_BTF) for i in range(count)]


class TurnedLinear(Linear):
    """A `Linear` for inference whose kernel lies [out, in], in the compute type, and is the first
    operand of the product. Of few rows XLA's CPU product copies a bfloat16 kernel that lies [in,
    out], and reads one that is the second operand at half the memory's speed."""

    def __init__(self, linear: Linear):
        self.kernel = nnx.Param(linear.kernel[...].astype(linear.dtype).swapaxes(0, 1))
        self.bias = linear.bias
        self.spec = linear.spec
        self.out = linear.out
        self.dtype = linear.dtype

    def product(self, x, out):  # [N, in] -> float32 [N, out]
        if len(x) == 1:  # as in `Linear`: on CPU the product of one row is ten times slower
            return self.product(jnp.concatenate([x, x]), out)[:1]
        return self.rows(x, out)

    def rows(self, x, out, kind=jnp.float32):  # [N, in], two or more rows -> `kind` [N, out]
        spec = sh.gathered(jax.P(self.spec[1], self.spec[0]))
        w = jax.sharding.reshard(self.kernel[...], spec).astype(x.dtype)
        exact = precision(x.dtype)
        if sh.platform() != "cpu":
            over = ((1,), (1,)), ((), ())
            return jax.lax.dot_general(x, w, over, exact, kind, out_sharding=out)
        # The axis of one keeps XLA from making the kernel the second operand again.
        over = ((2,), (1,)), ((), ())
        split = jax.P(None, out[1], out[0])
        y = jax.lax.dot_general(w[None], x, over, exact, kind, out_sharding=split)
        return y.transpose(2, 0, 1).reshape(len(x), -1, out_sharding=out)


class Int8Linear(TurnedLinear):
    """A `Linear` for inference: int8 kernel [out, in] with a float32 `scale` for each output. Rows
    of x are rounded to int8 likewise as they come, and products summed exactly in int32; on a GPU,
    where reading the kernel is what takes time and rounding x costs two more programs a product, x
    stays as it is."""

    def __init__(self, linear: Linear):
        super().__init__(linear)
        self.kernel, self.scale = (nnx.Param(x) for x in int8(self.kernel[...]))

    def rows(self, x, out):  # as in `TurnedLinear`
        columns = use(self.scale, jax.P(self.spec[1]), jnp.float32)
        if sh.platform() == "gpu":
            return super().rows(x, out) * columns
        x, scale = int8(x)
        y = super().rows(x, out, jnp.int32).astype(jnp.float32)
        return y * scale[:, None] * columns


def int8(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows [N, D] as int8 and the float32 scales [N] that give them back: symmetric, nearest."""
    scale = jnp.maximum(jnp.abs(x.astype(jnp.float32)).max(-1), 1e-30) / 127
    return jnp.round(x / scale[:, None]).astype(jnp.int8), scale


def normed(norm: nnx.RMSNorm, x):  # [B, T, D] -> [B, T, D]
    """`norm(x)`, multiplied in the order of which XLA's GPU compiler makes one kernel, not two: by
    the row's number first, then by the scale."""
    wide = x.astype(jnp.float32)
    number = jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + norm.epsilon)
    return (wide * number * norm.scale[...].astype(norm.dtype)).astype(norm.dtype)


class DecodingBlock(nnx.Module):
    """The arithmetic of a `transformer.TransformerBlock`, its weights regrouped; int8: as
    `Int8Linear` keeps them."""

    def __init__(self, block: nnx.Module, int8: bool):
        kind = kernel_kind(int8)
        a = block.attention
        self.norm1 = block.norm1
        self.norm2 = block.norm2
        self.heads = a.heads
        self.qkv = kind(Fused([a.q, a.k, a.v]))
        self.o = kind(a.o)
        self.gate_up = kind(Fused([block.gate, block.up]))
        self.down = kind(block.down)

    def __call__(self, x, mask, rope, cache, at):  # [B, T, D] -> [B, T, D], (k, v)
        b, t, d = x.shape
        qkv = split_parts(self.qkv(normed(self.norm1, x)), 3)
        q, k, v = (y.reshape(b, t, self.heads, d // self.heads) for y in qkv)
        q, k, v = (
            y.swapaxes(1, 2).astype(cache_dtype(y.dtype))
            for y in (rotate(q, rope), rotate(k, rope), v)
        )
        if cache is not None:
            k, v = (
                jax.lax.dynamic_update_slice_in_dim(old, new, at, 2)
                for old, new in zip(cache, (k, v))
            )
        scores = einsum("bhtk,bhsk->bhts", q, k)
        weights = jax.nn.softmax(jnp.where(mask, scores * q.shape[-1] ** -0.5, -1e30)).astype(
            v.dtype
        )
        y = einsum("bhts,bhsk->bhtk", weights, v)
        x = x + self.o(y.astype(x.dtype).swapaxes(1, 2).reshape(b, t, d))
        gate, up = split_parts(self.gate_up(normed(self.norm2, x)), 2)
        return x + self.down(nnx.silu(gate) * up), (k, v)


def kernel_kind(int8: bool):
    """What makes a `Linear` one for decoding on the current platform."""
    if int8:
        return Int8Linear
    return TurnedLinear if sh.platform() == "cpu" else lambda linear: linear


_decoding_block = jax.jit(DecodingBlock, static_argnums=1)


class Unrolled(nnx.Module):
    """`Transformer` in the form that decodes. Built from its layers one by one, so that only one of
    them is there twice. A cache is a list, one (k, v) a layer, each [B, H, S, K]."""

    def __init__(
        self, config: TransformerConfig, dtype, blocks, norm: nnx.RMSNorm, int8: bool = False
    ):
        self.layers = nnx.List([_decoding_block(block, int8) for block in blocks])
        self.norm = norm
        self.config = config
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x, positions, segment_ids):  # [B, T, D] -> [B, T, D]
        return self.cached(x, positions, causal_mask(segment_ids))[0]

    def cached(self, x, positions, mask, cache=None, at=None):  # [B, T, D] -> [B, T, D], cache
        """`mask` is bool [B, 1, T, S]; new keys and values are written from position `at` of the
        cache on, or, without one, are it."""
        c = self.config
        new = []
        rope = rope_table(positions, c.width // c.heads, c.rope_theta)
        x = jax.sharding.reshard(x.astype(self.dtype), sh.ACT_BTD)
        for layer, old in zip(self.layers, cache or [None] * c.layers):
            x, pair = layer(x, mask, rope, old, at)
            new.append(pair)
        return normed(self.norm, x), new


def cache_dtype(dtype):
    """Keys and values are kept as computed, on CPU in float32: there a bfloat16 cache is 1.4 times
    slower."""
    return jnp.dtype(jnp.float32 if sh.platform() == "cpu" else dtype)


def serving(model: nnx.Module, int8: bool = False, layers=None) -> nnx.Module:
    """A `model.janus.Janus` with an `Unrolled` transformer and the tower's layers in a list; the
    rest is shared. A model that is in this form already is returned as it is.

    int8: the transformer and the heads keep int8 kernels (`Int8Linear`); on CPU those of other types
        are turned (`TurnedLinear`).
    layers: layers(box) gives the layers of the box of that name one by one, by default those of the
        model.
    """
    if isinstance(model.transformer, Unrolled):
        return model
    if layers is None:
        layers = lambda box: _layers(getattr(model, box).blocks)
    stacked = model.transformer
    head = model.image_head
    kind = kernel_kind(int8)
    kind = jax.jit(kind) if isinstance(kind, type) else kind
    served = copy.copy(model)
    served.transformer = Unrolled(
        stacked.config, stacked.dtype, layers("transformer"), stacked.norm, int8
    )
    served.understanding_encoder = copy.copy(model.understanding_encoder)
    served.understanding_encoder.blocks = nnx.List(layers("understanding_encoder"))
    served.text_head = copy.copy(model.text_head)
    served.text_head.linear = kind(model.text_head.linear)
    served.image_head = copy.copy(head)
    served.image_head.fc1 = kind(head.fc1)
    served.image_head.fc2 = kind(head.fc2)
    return served


def _layers(blocks):
    """Stacked layers one by one."""
    for i in range(len(jax.tree.leaves(blocks)[0])):
        yield layer(blocks, i)


def layer(stacked, i: int):
    """Layer `i` of stacked layers, with arrays of its own."""
    return jax.tree.map(lambda x: x[i], stacked)
