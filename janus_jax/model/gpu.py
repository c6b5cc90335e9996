"""A token of the language model as NVIDIA's GPUs decode it: the arithmetic of `serving.Unrolled` with
kernels that XLA does not make, in Pallas, compiled by Triton.

* Attention reads of the cache what a row has filled (`attentions.decoding`).
* Maps onto the residual stream: a product of few rows fills a GPU only if its sums are made in parts.
  One kernel adds up the parts and the stream, and norms it for the next map.

Letters: B rows of a device, D width, H heads, S places, K head size, P parts. `interpret` runs the
kernels on CPU, for tests.
"""

import copy
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as backend

from janus_jax.model import sharding as sh
from janus_jax.model.attentions.decoding import BLOCKS, TILE, attended
from janus_jax.model.kernels import precision
from janus_jax.model.layers import rope_table
from janus_jax.model.serving import Int8Linear, TurnedLinear, cache_dtype, seen_from

PARTS = 4  # of a product's sums
LEAST = 16  # the least size of a head
ALLOWED = 0.05  # `difference`: rounding to bfloat16 makes it 0.005, to int8 0.01

_FOUND = {}  # what decides it -> whether these kernels work (`prepare`)


def token(llm, x, positions, cache, at, interpret: bool = False):
    """`Unrolled.cached` of one token of each row, which sees the places up to its own.

    llm: the `Unrolled`.
    x: [B, 1, D]; positions: int32 [B, 1].
    cache: one (k, v) a layer, each [B, H, S, K]; at: int32 [B].

    Returns hidden [B, 1, D] and the cache.
    """
    c = llm.config
    names = "qkv", "o", "gate_up", "down"
    weights = [{name: _arrays(getattr(layer, name)) for name in names} for layer in llm.layers]
    norms = [norm.scale[...] for layer in llm.layers for norm in (layer.norm1, layer.norm2)]
    norms.append(llm.norm.scale[...])
    turned = isinstance(llm.layers[0].qkv, TurnedLinear)

    def local(weights, norms, x, positions, cache, at):
        rope = rope_table(positions, c.width // c.heads, c.rope_theta)
        x = x[:, 0].astype(llm.dtype)
        h = _normed(x, norms[0], c.norm_eps)
        new = []
        for i, (w, pair) in enumerate(zip(weights, cache)):
            qkv = _sums(h, w["qkv"], turned).reshape(len(x), 3, c.heads, -1)
            y, *pair = attended(qkv, *rope, *pair, at, interpret)
            new.append(tuple(pair))
            add = functools.partial(added_and_normed, epsilon=c.norm_eps, interpret=interpret)
            y = y.reshape(len(x), PARTS, -1).astype(x.dtype)
            x, h = add(*_parts(y, w["o"], turned), x, norms[2 * i + 1])
            gate_up = _sums(h, w["gate_up"], turned).reshape(len(x), 2, PARTS, -1)
            wide = jax.nn.silu(gate_up[:, 0]) * gate_up[:, 1]
            x, h = add(*_parts(wide, w["down"], turned), x, norms[2 * i + 2])
        return h[:, None], new

    whole, rows, kept = sh.REPLICATED, sh.BATCH, sh.CACHE_BHSK
    each = sh.per_device(local, (whole, whole, rows, rows, kept, rows), (rows, kept))
    return each(weights, norms, x, positions, cache, at)


def added_and_normed(parts, scales, x, norm, epsilon: float, interpret: bool = False):
    """The residual stream x [B, D] with a map's result, and that normed.

    parts: float32 [P, B, D], whose sum the result is.
    scales: float32 [D], to multiply it by, or None.
    norm: the scale of an RMSNorm, [D].
    """
    count, b, d = parts.shape
    row = pl.BlockSpec((None, d), lambda b: (b, 0))
    whole = pl.BlockSpec((d,), lambda b: (0,))
    given = [parts, x, norm.astype(x.dtype)] + ([] if scales is None else [scales])

    def kernel(parts_ref, x_ref, norm_ref, *more):
        *scales_ref, x_out, h_out = more
        y = sum(parts_ref[i, :] for i in range(count))
        for ref in scales_ref:
            y = y * ref[...]
        x = x_ref[...] + y.astype(x_ref.dtype)
        wide = x.astype(jnp.float32)
        number = jax.lax.rsqrt((wide * wide).sum() / d + epsilon)
        x_out[...] = x
        h_out[...] = (wide * number * norm_ref[...].astype(jnp.float32)).astype(x.dtype)

    return pl.pallas_call(
        kernel,
        grid=(b,),
        in_specs=[
            pl.BlockSpec((count, None, d), lambda b: (0, b, 0)), row, *[whole] * (len(given) - 2)
        ],
        out_specs=[row, row],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)] * 2,
        compiler_params=backend.CompilerParams(num_warps=8, num_stages=1),
        interpret=interpret,
        name="add_and_norm",
    )(*given)  # fmt: skip


def _normed(x, scale, epsilon):  # [B, D]
    wide = x.astype(jnp.float32)
    number = jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + epsilon)
    return (wide * number * scale.astype(x.dtype)).astype(x.dtype)


def _arrays(linear):
    """(its kernel, the scales of an `Int8Linear`'s results or None)."""
    if isinstance(linear, Int8Linear):
        return linear.kernel[...], linear.scale[...]
    return linear.kernel[...].astype(linear.dtype), None


def _product(x, kernel, turned, kind):
    """[P, B, out]: parts of the sums of x [B, P, in] times a kernel [P * in, out], or [out, P * in] if
    turned."""
    if len(x) == 1:  # XLA's product of one row reads the kernel more slowly
        return _product(jnp.concatenate([x, x]), kernel, turned, kind)[:, :1]
    parts = x.shape[1]
    shape = (-1, parts, x.shape[2]) if turned else (parts, x.shape[2], -1)
    axis = 1 if turned else 0
    over = ((2,), (axis + 1,)), ((1,), (axis,))
    return jax.lax.dot_general(
        x, kernel.astype(x.dtype).reshape(shape), over, precision(x.dtype), kind
    )


def _sums(x, w, turned):  # [B, in] -> [B, out]
    kernel, scale = w
    if scale is None:
        return _product(x[:, None], kernel, turned, x.dtype)[0]
    return (_product(x[:, None], kernel, turned, jnp.float32)[0] * scale).astype(x.dtype)


def _parts(x, w, turned):  # [B, P, in] -> float32 [P, B, out], the scales of `added_and_normed`
    kernel, scale = w
    return _product(x, kernel, turned, jnp.float32), scale


def prepare(llm):
    """Has an `Unrolled` write its tokens with these kernels, where they can: the width and the size of a
    head, `LEAST` or more, are powers of two, as the sides of Triton's tiles are, the MLP's width can
    be cut into `PARTS`, and `tensor` splits nothing. On GPUs that are there (others are only
    compiled for) `token` must first give what `Unrolled.cached` gives, once for all models alike;
    where it does not, stderr is told."""
    c = llm.config
    power = lambda n: n & (n - 1) == 0
    size = c.width // c.heads
    fits = power(c.width) and power(size) and size >= LEAST and c.mlp_width % PARTS == 0
    if not fits or sh.tensor_shards() > 1:
        return
    if jax.default_backend() != "gpu":
        llm.kernels = True
        return
    where = jax.devices()[0].device_kind
    alike = c, llm.dtype, type(llm.layers[0].qkv), jax.sharding.get_mesh(), where
    if alike in _FOUND:
        llm.kernels = _FOUND[alike]
        return
    problem = ""
    try:
        error = difference(llm)
        if not error < ALLOWED:
            problem = f"results off by {error:.2g} of the largest, {ALLOWED} allowed"
    except Exception as failed:
        problem = f"{type(failed).__name__}: {failed}"
    llm.kernels = _FOUND[alike] = not problem
    if problem:
        print(
            f"the kernels of janus_jax/model/gpu.py do not work on {where}: {problem}\nDecoding "
            "without them, which is slower. Please report it.",
            file=sys.stderr,
        )


def difference(llm) -> float:
    """How far `token` is from `Unrolled.cached` through the first layer, by the largest number: of few
    rows, whose places blocks share, and of many; NaN where either is not finite."""
    few, many = 2, -(-BLOCKS // llm.config.heads)
    return float(np.max([_of_rows(llm, rows * sh.batch_shards()) for rows in (few, many)]))


def _of_rows(llm, rows: int) -> float:
    c = llm.config
    one = copy.copy(llm)
    one.layers = nnx.List([llm.layers[0]])
    draw = np.random.default_rng(0).normal
    put = lambda x, spec: jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), spec))
    old = [draw(size=(rows, c.heads, 4 * TILE, c.width // c.heads)) for _ in range(2)]
    kept = cache_dtype(llm.dtype)
    cache = [tuple(put(jnp.asarray(x, kept), sh.CACHE_BHSK) for x in old)]
    x = put(jnp.asarray(draw(size=(rows, 1, c.width)), llm.dtype), sh.BATCH)
    at = put(np.resize(np.int32([3 * TILE + 5, 0]), rows), sh.BATCH)

    def plain(llm, x, at, cache):
        return llm.cached(x, at[:, None], seen_from(at[:, None], 4 * TILE), cache, at)

    def ours(llm, x, at, cache):
        return token(llm, x, at[:, None], cache, at)

    want, got = (jax.tree.leaves(jax.jit(f)(one, x, at, cache)) for f in (plain, ours))
    wide = lambda x: np.asarray(x.astype(jnp.float32))
    return np.max([abs(wide(a) - wide(b)).max() / abs(wide(a)).max() for a, b in zip(want, got)])
