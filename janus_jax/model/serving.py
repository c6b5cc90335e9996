"""The form of the model that decodes: each layer with arrays of its own, regrouped, and a cache;
int8 if asked.

Training never comes here. A scan copies a layer's weights out of the stack before it reads them
(three times the traffic, measured on CPU), so the layers are taken apart; q|k|v and gate|up are one
product each; keys and values are kept in a cache.
"""

import copy
import functools
import importlib
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.attention import causal_mask
from janus_jax.model.config import TransformerConfig
from janus_jax.model.kernels import einsum, precision
from janus_jax.model.layers import Linear, rope_table, rotate, use
from janus_jax.model.rounding import int8

# What `serving` makes anew.
PARTS = (
    "text_head", "image_head", "understanding_adaptor", "generation_adaptor",
    "understanding_encoder.blocks", "semantic_decoder.blocks", "transformer.blocks", "transformer.norm",
)  # fmt: skip


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
    """The results [B, T, F] of the `count` maps whose joint result `Fused` gave, y [B, T, count * F]."""
    b, t, _ = y.shape
    y = y.reshape(b, t, sh.tensor_shards(), count, -1, out_sharding=sh.SHARDS_BTNPF)
    return [y[:, :, :, i].reshape(b, t, -1, out_sharding=sh.ACT_BTF) for i in range(count)]


class TurnedLinear(Linear):
    """A `Linear` for inference whose kernel lies [out, in], as `model.cpu` reads it: XLA's CPU product
    copies a bfloat16 kernel that lies [in, out]."""

    def __init__(self, linear: Linear, dtype=None):
        """dtype: the compute type; by default the map's own."""
        self.dtype = jnp.dtype(dtype or linear.dtype)
        self.kernel = nnx.Param(linear.kernel[...].astype(self.dtype).swapaxes(0, 1))
        self.bias = linear.bias
        self.spec = linear.spec
        self.out = linear.out

    def product(self, x, out):  # [N, in] -> [N, out], float32 or the compute type, of int8 int32
        spec = sh.gathered(jax.P(self.spec[1], self.spec[0]))
        w = jax.sharding.reshard(self.kernel[...], spec).astype(x.dtype)
        if on_cpu():
            return on_cpu().product(x, w, out, rounded=self.bias is None)
        over = ((1,), (1,)), ((), ())
        kind = jnp.float32 if x.dtype != jnp.int8 else jnp.int32
        return jax.lax.dot_general(x, w, over, precision(x.dtype), kind, out_sharding=out)


class Int8Linear(TurnedLinear):
    """A `Linear` for inference: int8 kernel [out, in] with a float32 `scale` for each output. Rows
    of x are rounded to int8 likewise as they come, and products summed exactly in int32; on a GPU,
    where reading the kernel is what takes time and rounding x costs two more programs a product, x
    stays as it is."""

    def __init__(self, linear: Linear):
        super().__init__(linear)
        kernel, scale = int8(linear.kernel[...], 0)
        self.kernel = nnx.Param(kernel.swapaxes(0, 1))
        self.scale = nnx.Param(scale)

    def product(self, x, out):  # [N, in] -> float32 [N, out]
        columns = use(self.scale, jax.P(self.spec[1]), jnp.float32)
        if sh.platform() == "gpu":
            return super().product(x, out) * columns
        x, scale = int8(x)
        return super().product(x, out).astype(jnp.float32) * scale[:, None] * columns


class DecodingBlock(nnx.Module):
    """The arithmetic of a `transformer.TransformerBlock`, its weights regrouped; int8: as `Int8Linear` keeps them."""

    def __init__(self, block: nnx.Module, int8: bool):
        kind = kernel_kind(int8) or (lambda linear: linear)
        a = block.attention
        self.norm1 = block.norm1
        self.norm2 = block.norm2
        self.heads = a.heads
        self.qkv = kind(Fused([a.q, a.k, a.v]))
        self.o = kind(a.o)
        self.gate_up = kind(Fused([block.gate, block.up]))
        self.down = kind(block.down)

    def __call__(self, x, mask, rope, cache, at, only=None):  # as `Unrolled.cached`
        y, cache = self.attended(self.qkv(self.norm1(x)), mask, rope, cache, at)
        if only is not None:
            x, y = (jax.lax.dynamic_slice_in_dim(z, only, 1, 1) for z in (x, y))
        x = x + self.o(y.astype(x.dtype))
        gate, up = split_parts(self.gate_up(self.norm2(x)), 2)
        # In float32 a CPU takes 0.4 of the time: nothing is rounded in between.
        return x + self.down(nnx.silu(gate.astype(jnp.float32)) * up), cache

    def attended(self, qkv, mask, rope, cache, at):  # [B, T, 3 * D] -> [B, T, D], the cache
        b, t, _ = qkv.shape
        if mask is None:
            parts = qkv.reshape(b, t, 3, self.heads, -1, out_sharding=sh.BATCH)
            y, *cache = on_cpu().attend(parts, rope, *cache, at)
            return y.reshape(b, t, -1, out_sharding=sh.BATCH), tuple(cache)
        shape = b, t, self.heads, -1
        q, k, v = (y.reshape(shape, out_sharding=sh.ACT_BTHK) for y in split_parts(qkv, 3))
        q, k, v = (y.swapaxes(1, 2) for y in (rotate(q, rope), rotate(k, rope), v))
        if cache is not None:
            cache = k, v = tuple(stored(old, new, at) for old, new in zip(cache, (k, v)))
        # On a CPU XLA's products of bfloat16 are slower.
        q, k, v = (cast(y, jnp.float32 if on_cpu() else q.dtype) for y in (q, k, v))
        scores = jnp.where(mask, einsum("bhtk,bhsk->bhts", q, k) * q.shape[-1] ** -0.5, -1e30)
        y = einsum("bhts,bhsk->bthk", jax.nn.softmax(scores).astype(v.dtype), v)
        return y.reshape(b, t, -1), cache


def kernel_kind(int8: bool) -> type[Linear] | None:
    """What takes the place of a `Linear` in decoding; None: it stays."""
    if int8:
        return Int8Linear
    return TurnedLinear if sh.platform() == "cpu" else None


def with_kernels(box: nnx.Module, kind) -> nnx.Module:
    """The box with `kind` of each `Linear` in its place, where there is a kind."""
    if kind is None:
        return box
    is_linear = lambda x: isinstance(x, Linear)
    make = jax.jit(kind)
    return jax.tree.map(lambda x: make(x) if is_linear(x) else x, box, is_leaf=is_linear)


_decoding_block = jax.jit(DecodingBlock, static_argnums=1)


class Unrolled(nnx.Module):
    """`Transformer` in the form that decodes. Built from its layers one by one, so that only one of
    them is there twice. A cache is a list, one (k, v) a layer, each [B, H, S, K]."""

    def __init__(
        self, config: TransformerConfig, dtype, blocks, norm: nnx.RMSNorm, int8: bool = False
    ):
        # One is waited for before the next is read: JAX goes ahead, and holds what is not done.
        regroup = lambda block: jax.block_until_ready(_decoding_block(block, int8))
        self.layers = nnx.List(map(regroup, blocks))
        self.norm = norm
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.kernels = False  # whether those of `model.gpu` compute a token

    def __call__(self, x, positions, segment_ids, ahead=None):  # [B, T, D] -> [B, T, D]
        return self.cached(x, positions, causal_mask(segment_ids, ahead))[0]

    def cached(self, x, positions, mask, cache=None, at=None, only=None):
        """[B, T, D] -> [B, T, D], cache; [B, 1, D] of the one token that is number `only`, if given. `mask` is bool
        [B, 1, T, S], or None: positions are places in the cache (-1: nowhere), and each token sees its row up to
        its own; keys and values are written from place `at` on, int32 or int32 [B]."""
        c = self.config
        if mask is None:
            if self.kernels and x.shape[1] == 1 and at.ndim:
                gpu = importlib.import_module("janus_jax.model.gpu")
                return gpu.token(self, x, positions, cache, at)
            if not (on_cpu() and on_cpu().attends()):
                mask = seen_from(positions, cache[0][0].shape[2])
        at = positions if mask is None else at
        new = []
        rope = rope_table(positions, c.width // c.heads, c.rope_theta)
        x = jax.sharding.reshard(x.astype(self.dtype), sh.ACT_BTD)
        for layer, old in zip(self.layers, cache or [None] * c.layers):
            x, pair = layer(x, mask, rope, old, at, only if len(new) == c.layers - 1 else None)
            new.append(pair)
        return self.norm(x), new


def on_cpu():
    """`model.cpu`, where that is what computes."""
    return importlib.import_module("janus_jax.model.cpu") if sh.platform() == "cpu" else None


def seen_from(places, length: int):
    """bool [B, 1, T, S]: a query sees its row up to its own place, places [B, T]."""
    return (jnp.arange(length) <= places[..., None])[:, None]


def stored(old, new, at):
    """Keys or values [B, H, S, K] with new ones [B, H, T, K] from place `at` on, as `cached` has it."""
    new = cast(new, old.dtype)
    if not at.ndim:
        return jax.lax.dynamic_update_slice_in_dim(old, new, at, 2)
    each = jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1))
    return sh.per_device(each, (*[sh.CACHE_BHSK] * 2, sh.BATCH), sh.CACHE_BHSK)(old, new, at)


def cast(x, dtype):
    """Keys or values in another type: of uint16 see `cache_dtype`."""
    bits = jax.lax.bitcast_convert_type
    x = bits(x, jnp.bfloat16) if x.dtype == "uint16" else x
    return bits(x.astype(jnp.bfloat16), dtype) if dtype == "uint16" else x.astype(dtype)


def cache_dtype(dtype):
    """Keys and values are kept as computed, but on a CPU bfloat16 as uint16 of the same bits, since XLA
    makes float32 of bfloat16 to move it; and in float32 where XLA attends to it."""
    if jnp.dtype(dtype) == "bfloat16" and on_cpu():
        return jnp.dtype("uint16" if on_cpu().attends() else "float32")
    return jnp.dtype(dtype)


def blank_cache(model, rows: int, length: int) -> list:
    """An empty cache of so many rows and places, of a model in the form that decodes."""
    c = model.transformer.config
    shape = (rows, c.heads, length, c.width // c.heads)
    return zero_cache(shape, cache_dtype(model.transformer.dtype), c.layers)


def zero_cache(shape, dtype, layers: int) -> list:
    """Keys and values [B, H, S, K] of so many layers, all 0."""
    split = jax.NamedSharding(jax.sharding.get_mesh(), sh.CACHE_BHSK)
    zeros = jax.device_put(np.zeros(shape, dtype), split)
    copy = lambda: jax.device_put(zeros, split, may_alias=False)  # compiles nothing
    return [(copy(), copy()) for _ in range(layers)]


def serving(model: nnx.Module, int8: bool = False, part=None) -> nnx.Module:
    """A `model.janus.Janus` with an `Unrolled` transformer and the tower's layers in a list; the
    rest is shared. A model that is in this form already is returned as it is.

    int8: the transformer and the heads keep int8 kernels (`Int8Linear`). On CPU all others are turned
        (`TurnedLinear`), the tower's and the adaptors' of an int8 model in bfloat16.
    part: part(name, i) gives layer i of the stack of that name, part(name) the whole (`PARTS`); by
        default the model's own. What needs most room comes first, while little else is there.
    """
    if isinstance(model.transformer, Unrolled):
        return model
    part = part or (lambda name, i=None: layer(operator.attrgetter(name)(model), i))
    stacked = model.transformer
    kind, seeing = kernel_kind(int8), kernel_kind(False)
    if seeing and int8:
        seeing = functools.partial(seeing, dtype=jnp.bfloat16)
    served = copy.copy(model)
    for name in ("text_head", "image_head", "understanding_adaptor", "generation_adaptor"):
        how = kind if name.endswith("head") else seeing
        setattr(served, name, with_kernels(part(name), how))
    for name in ("understanding_encoder", "semantic_decoder"):
        if hasattr(model, name):
            box = copy.copy(getattr(model, name))
            layers = range(jax.tree.leaves(box.blocks)[0].shape[0])
            box.blocks = nnx.List([with_kernels(part(f"{name}.blocks", i), seeing) for i in layers])
            if hasattr(box, "kind") and on_cpu() and on_cpu().attends():
                box.kind = "native"
            setattr(served, name, box)
    blocks = (part("transformer.blocks", i) for i in range(stacked.config.layers))
    norm = part("transformer.norm")
    served.transformer = Unrolled(stacked.config, stacked.dtype, blocks, norm, int8)
    if sh.platform() == "gpu":
        importlib.import_module("janus_jax.model.gpu").prepare(served.transformer)
    return served


def layer(stacked, i: int | None):
    """Layer `i` of stacked layers, with arrays of its own; None: all as it is."""
    return stacked if i is None else jax.tree.map(lambda x: x[i], stacked)
