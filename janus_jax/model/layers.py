"""The parts that several boxes share: linear maps, attention over a mask, two-layer MLPs, the layer scan."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax import sharding as sh

REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "none": jax.checkpoint_policies.everything_saveable,
}


def weight(rngs: nnx.Rngs, shape: tuple[int, ...], spec, std: float) -> nnx.Param:
    """A float32 parameter drawn from N(0, std^2), already split as `spec` says."""
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32, out_sharding=spec))


def use(param: nnx.Param, spec, dtype) -> jax.Array:
    """A weight as a layer needs it: cast first, then gathered over fsdp, so half the bytes travel."""
    return jax.sharding.reshard(param[...].astype(dtype), sh.gathered(spec))


def take(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a whole table [V, D] by int32 ids [...], split as the ids are: [..., D]."""
    return table.at[ids].get(out_sharding=jax.P(*jax.typeof(ids).sharding.spec, None))


class Linear(nnx.Module):
    """y = x @ kernel (+ bias); `spec` splits the kernel, `out` the result."""

    def __init__(self, d_in: int, d_out: int, spec, out, dtype, rngs: nnx.Rngs, bias: bool = True):
        self.kernel = weight(rngs, (d_in, d_out), spec, d_in**-0.5)
        self.bias = nnx.Param(jnp.zeros(d_out, out_sharding=jax.P(spec[1]))) if bias else nnx.data(None)
        self.spec, self.out, self.dtype = spec, out, jnp.dtype(dtype)

    def __call__(self, x):  # [B, T, in] -> [B, T, out]
        w, (b, t, d) = use(self.kernel, self.spec, self.dtype), x.shape
        # As a plain matrix product: XLA's CPU backward of the three-dimensional one is 2.5 times slower.
        flat = x.astype(self.dtype).reshape(b * t, d, out_sharding=jax.P(self.out[0], None))
        y = jnp.matmul(
            flat, w, out_sharding=jax.P(self.out[0], self.out[2]), preferred_element_type=jnp.float32
        )
        if self.bias is not None:
            y = y + use(self.bias, jax.P(self.spec[1]), jnp.float32)
        return y.astype(self.dtype).reshape(b, t, -1, out_sharding=self.out)


class MLP(nnx.Module):
    """Two linear maps with the exact (erf) GELU between them, as in the released models."""

    def __init__(self, d_in: int, d_mid: int, d_out: int, dtype, rngs: nnx.Rngs):
        self.fc1 = Linear(d_in, d_mid, sh.W_DF, sh.ACT_BTF, dtype, rngs)
        self.fc2 = Linear(d_mid, d_out, sh.W_FD, sh.ACT_BTD, dtype, rngs)

    def __call__(self, x):  # [B, T, in] -> [B, T, out]
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class Attention(nnx.Module):
    """Multi-head attention; `rope` and `cache` are given by the language model only."""

    def __init__(self, width: int, heads: int, dtype, rngs: nnx.Rngs, bias: bool):
        self.q, self.k, self.v = (
            Linear(width, width, sh.W_DF, sh.ACT_BTF, dtype, rngs, bias) for _ in range(3)
        )
        self.o = Linear(width, width, sh.W_FD, sh.ACT_BTD, dtype, rngs, bias)
        self.heads = heads

    def __call__(self, x, mask=None, rope=None, cache=None, at=None):  # [B, T, D] -> [B, T, D], cache
        b, t, d = x.shape
        q, k, v = (p(x).reshape(b, t, self.heads, d // self.heads) for p in (self.q, self.k, self.v))
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            k, v = (jax.lax.dynamic_update_slice_in_dim(old, new, at, 1) for old, new in zip(cache, (k, v)))
            cache = (k, v)
        return self.o(attend(q, k, v, mask).reshape(b, t, d)), cache


def attend(q, k, v, mask=None):
    """softmax(q k / sqrt(K)) v with a float32 softmax. q [B, T, H, K], k and v [B, S, H, K], mask bool
    [B, 1, T, S]; a query that may see nothing gives the mean of v, never NaN."""
    scores = jnp.einsum("bthk,bshk->bhts", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -1e30)
    weights = jax.nn.softmax(scores).astype(v.dtype)
    return jnp.einsum("bhts,bshk->bthk", weights, v, preferred_element_type=jnp.float32).astype(v.dtype)


def rope_table(positions: jax.Array, head_size: int, theta: float):
    """cos and sin of the rotary angles, each float32 [B, T, 1, K/2]."""
    frequencies = theta ** (-jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x, rope):
    """Rotary embedding in the two-halves layout: dim i pairs with i + K/2. x [B, T, H, K]."""
    cos, sin = rope
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def stack(make, layers: int, rngs: nnx.Rngs):
    """`layers` modules made by `make(rngs)`, stacked on a leading axis for `scan_layers`."""
    return jax.vmap(lambda key: make(nnx.Rngs(key)))(jax.random.split(rngs.params(), layers))


def scan_layers(body, carry, xs, remat: str):
    """`jax.lax.scan` over stacked layers, recomputing in the backward pass as `remat` says."""
    return jax.lax.scan(jax.checkpoint(body, policy=REMAT[remat], prevent_cse=False), carry, xs)


def causal_mask(segment_ids):
    """bool [B, 1, T, T]: a token sees the earlier tokens of its own segment and itself."""
    t = segment_ids.shape[1]
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return same & (jnp.arange(t)[:, None] >= jnp.arange(t))


def parameter_count(module) -> int:
    """Number of parameters of a module, real or from `jax.eval_shape`."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(module, nnx.Param)))
