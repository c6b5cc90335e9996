"""The parts that several boxes share: linear maps, multi-head attention, two-layer MLPs, the layer
scan."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from janus_jax.model import sharding as sh
from janus_jax.model.attention import plain
from janus_jax.model.kernels import SAVED, precision
from janus_jax.model.keys import Keys

# the name of a `Linear`'s result, in its compute dtype
PRODUCT = "product"
FEW = 4  # layers that are compiled one by one, not as a loop
TOGETHER = 8  # pictures of a device that are encoded at once, where its rows are fewer
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT, SAVED),
    "none": jax.checkpoint_policies.everything_saveable,
}


def weight(rngs: nnx.Rngs, shape: tuple[int, ...], spec, std: float) -> nnx.Param:
    """A float32 parameter drawn from N(0, std^2), already split as `spec` says where that divides
    it."""
    spec = sh.fitting(spec, shape)
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32, out_sharding=spec))


def use(param: nnx.Param, spec, dtype) -> jax.Array:
    """A bias or scale as a layer needs it, whole along fsdp; kernels go through `sh.gather`."""
    return jax.sharding.reshard(param[...].astype(dtype), sh.gathered(spec))


def take(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a whole table [V, D] by int32 ids [...], split as the ids are: [..., D]."""
    return table.at[ids].get(out_sharding=jax.P(*jax.typeof(ids).sharding.spec, None))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def lookup(table: jax.Array, ids: jax.Array, dtype) -> jax.Array:
    """Rows of a table [V, D], split or not, by int32 ids [B, T], in the compute type: [B, T, D].
    Its gradient is summed in float32 within a device, for a frequent id has thousands of terms, more
    than bfloat16 can count; the sums of devices are added in the compute type, like a matrix's."""
    return take(jax.sharding.reshard(table.astype(dtype), sh.REPLICATED), ids)


def _lookup_forward(table, ids, dtype):
    return lookup(table, ids, dtype), (table, ids)


def _lookup_backward(dtype, saved, g):
    table, ids = saved
    spec = jax.typeof(table).sharding.spec

    def local(ids, g):
        zeros = jnp.zeros(table.shape, jnp.float32)
        whole = zeros.at[ids.reshape(-1)].add(g.reshape(-1, g.shape[-1]).astype(jnp.float32))
        return sh.sum_to_columns(whole.astype(dtype), spec)

    return sh.per_device(local, (sh.BATCH, sh.ACT_BTD), spec)(ids, g).astype(table.dtype), None


lookup.defvjp(_lookup_forward, _lookup_backward)


class Linear(nnx.Module):
    """y = x @ kernel (+ bias); `spec` splits the kernel, `out` the result."""

    def __init__(self, d_in: int, d_out: int, spec, out, dtype, rngs: nnx.Rngs, bias: bool = True):
        spec = sh.fitting(spec, (d_in, d_out))
        self.kernel = weight(rngs, (d_in, d_out), spec, d_in**-0.5)
        self.bias = (
            nnx.Param(jnp.zeros(d_out, out_sharding=jax.P(spec[1]))) if bias else nnx.data(None)
        )
        self.spec = spec
        self.out = out
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x):  # [B, T, in] -> [B, T, out]
        b, t, d = x.shape
        # As a plain matrix product: XLA's CPU backward of the three-dimensional one is 2.5 times
        # slower.
        flat = x.astype(self.dtype).reshape(b * t, d, out_sharding=jax.P(self.out[0], None))
        y = self.product(flat, jax.P(self.out[0], self.out[2]))
        if self.bias is not None:
            y = y + use(self.bias, jax.P(self.spec[1]), jnp.float32)
        return checkpoint_name(
            y.astype(self.dtype).reshape(b, t, -1, out_sharding=self.out), PRODUCT
        )

    def product(self, x, out):  # [N, in] -> [N, out], float32 or the compute type
        # Cast first: half the bytes travel.
        w = sh.gather(self.kernel[...].astype(self.dtype), self.spec)
        if len(x) == 1 and self.dtype != jnp.float32:
            # XLA's CPU product of one bfloat16 row is ten times slower than that of two.
            return self.product(jnp.concatenate([x, x]), out)[:1]
        # Accelerators sum in float32 whatever the result's type is. A float32 result would have a
        # float32 gradient, and both products of the backward pass would be float32, at half the
        # rate and twice the bytes.
        kind = jnp.float32 if sh.platform() == "cpu" else self.dtype
        exact = precision(self.dtype)
        return jnp.matmul(x, w, precision=exact, out_sharding=out, preferred_element_type=kind)


class MLP(nnx.Module):
    """Two linear maps with the exact (erf) GELU between them, as in the released models."""

    def __init__(self, d_in: int, d_mid: int, d_out: int, dtype, rngs: nnx.Rngs):
        self.fc1 = Linear(d_in, d_mid, sh.W_DF, sh.ACT_BTF, dtype, rngs)
        self.fc2 = Linear(d_mid, d_out, sh.W_FD, sh.ACT_BTD, dtype, rngs)

    def __call__(self, x):  # [B, T, in] -> [B, T, out]
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class Attention(nnx.Module):
    """Multi-head attention; `rope` is given by the language model only."""

    def __init__(self, width: int, heads: int, dtype, rngs: nnx.Rngs, bias: bool):
        self.q, self.k, self.v = (
            Linear(width, width, sh.W_DF, sh.ACT_BTF, dtype, rngs, bias) for _ in range(3)
        )
        self.o = Linear(width, width, sh.W_FD, sh.ACT_BTD, dtype, rngs, bias)
        self.heads = heads

    def __call__(self, x, attend=plain, rope=None):  # [B, T, D] -> [B, T, D]
        b, t, d = x.shape
        q, k, v = (
            p(x).reshape(b, t, self.heads, d // self.heads) for p in (self.q, self.k, self.v)
        )
        if rope is not None:
            q = rotate(q, rope)
            k = rotate(k, rope)
        return self.o(attend(q, k, v).reshape(b, t, d))


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
    """`layers` modules made by `make(rngs)`, stacked on a leading axis for `through_layers`."""
    return jax.vmap(lambda key: make(Keys(key)))(jax.random.split(rngs.params(), layers))


def through_layers(layers, x, remat: str, *more):
    """x through each layer in turn, each called with `more`.

    Stacked layers are scanned, recomputing in the backward pass as `remat` says; up to FEW one by
    one, for a loop stacks what the backward pass needs. A list of layers, as models that only infer
    have it, is gone through: a scan copies each layer's weights out of the stack before it reads
    them, and in bfloat16 XLA's CPU compiler widens the whole stack.
    """
    if isinstance(layers, nnx.List):
        for one in layers:
            x = one(x, *more)
        return x
    body = jax.checkpoint(
        lambda x, one: (one(x, *more), None), policy=REMAT[remat], prevent_cse=False
    )
    return jax.lax.scan(body, x, layers, unroll=len(jax.tree.leaves(layers)[0]) <= FEW)[0]


def filled(slots, tokens: int):
    """int32 [B]: how many pictures of each row exist, from its slots int32 [B, T] (0, or 1 + an
    index into the row's pictures of `tokens` tokens each); they come first in the row."""
    return -(-slots.max(1) // tokens)


def of_filled(encode, images, count):
    """`encode` ([n, S, S, 3] -> [n, N, ...]) of the first `count` int32 [B] of each row's images
    [B, M, S, S, 3]; zeros for the others: [B, M, N, ...].

    Each device moves its images together and goes through them, one a row or TOGETHER at a time, as
    far as the fullest device needs: waiting for it comes anyway. TOGETHER or fewer slots are all
    encoded at once, full or empty. All devices take the same steps, so `encode` may be split over
    them.
    """
    m = images.shape[1]
    rows = len(images) // sh.batch_shards()
    size = min(rows * m, max(rows, TOGETHER))
    turns = -(-rows * m // size)
    room = turns * size - rows * m

    def gather(images, count):
        empty = jnp.arange(m) >= count[:, None]
        order = jnp.argsort(empty.reshape(-1), stable=True)
        order = jnp.pad(order, (0, room), constant_values=rows * m).reshape(turns, size)
        flat = images.reshape(-1, *images.shape[2:])
        chunks = flat.at[order].get(mode="fill", fill_value=0) if room else flat[order]
        return chunks, order, sh.largest((~empty).sum())

    def scatter(found, order):
        flat = found.reshape(-1, *found.shape[2:])
        put = jnp.zeros((rows * m, *flat.shape[1:]), flat.dtype).at[order.reshape(-1)]
        return put.set(flat, mode="drop").reshape(rows, m, *flat.shape[1:])

    split = sh.CHUNKS, sh.CHUNKS, sh.REPLICATED
    chunks, order, most = sh.per_device(gather, (sh.BATCH, sh.BATCH), split)(images, count)
    if turns == 1:
        found = encode(chunks[0])[None]
    else:
        shape = jax.eval_shape(encode, chunks[0])
        zeros = lambda _: jnp.zeros(shape.shape, shape.dtype, out_sharding=shape.sharding.spec)
        encoded = lambda i, chunk: jax.lax.cond(i * size < most, encode, zeros, chunk)
        _, found = jax.lax.scan(lambda i, x: (i + 1, encoded(i, x)), jnp.int32(0), chunks)
    return sh.per_device(scatter, (sh.CHUNKS, sh.CHUNKS), sh.BATCH)(found, order)


def with_whole_weights(module, dtype):
    """The module with its weights whole along `fsdp`, kernels in `dtype`: for one that is gone
    through several times, whose layers would otherwise be gathered each time."""
    graphdef, state = nnx.split(module)

    def gather(path, x):
        spec = jax.typeof(x).sharding.spec
        if path[-1].key == "kernel":  # its gradient is scattered, as any kernel's
            return sh.gather(x.astype(dtype), spec)
        return jax.sharding.reshard(x, sh.gathered(spec))

    return nnx.merge(graphdef, jax.tree.map_with_path(gather, nnx.to_pure_dict(state)))


def parameter_count(module) -> int:
    """Number of parameters of a module, real or from `jax.eval_shape`."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(module, nnx.Param)))
