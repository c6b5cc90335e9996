"""What decodes on a CPU: products and attention by C++ of ours (`cpu.cc`), and without it which operand
of XLA's product is the kernel.

XLA reads kernels at speeds that differ by the type, the number of rows and the processor: on an AMD
EPYC bfloat16 at half of what the memory gives, int8 at two thirds. Measured, see docs/benchmarks.md.
"""

import functools
import pathlib
import sys
import threading

import jax
import jax.numpy as jnp

from janus_jax.model import native
from janus_jax.model import sharding as sh
from janus_jax.model.kernels import precision

FEW = 32  # rows up to which the kernel is the first operand
PLAIN = 16  # rows from which so it is in bfloat16 of a processor without AMX
# rows up to which `product` is quicker than XLA's, and from which on again: many where the processor
# multiplies narrow types by itself and not in tiles, which int8 needs; of float32 measured there alone
OWN = {"float32": (4, 64), "bfloat16": (16, 64), "int8": (16, 17)}
_LOCK = threading.Lock()
NAMES = (
    "attention", "pictures", "product_float32", "product_bfloat16", "product_bfloat16_rounded", "product_int8",
)  # fmt: skip


def multiplies(dtype, rows: int) -> bool:
    """Whether `product` is there and quicker than XLA's for so many rows."""
    name, rows = jnp.dtype(dtype).name, rows // sh.batch_shards()
    if not attends() or f"product_{name}" not in registered():
        return False
    few, many = OWN[name]
    instructions = "product_int8" in registered() and not has_amx()
    return rows <= few or bool(many and instructions and rows >= many)


def attends() -> bool:
    """Whether `attend` and `attend_to_all` are there: this machine could compile them, `tensor` splits
    nothing, and the mesh has no devices of other processes, whose machines might not have."""
    mesh = jax.sharding.get_abstract_mesh()
    alone = sh.tensor_shards() == 1 and mesh.size <= jax.local_device_count()
    return alone and "attention" in registered()


def product(x, w, out, rounded: bool = False):
    """[N, out], x [N, in] times a kernel w [out, in], both float32, bfloat16 or int8: sums in float32,
    of int8 in int32; split as `out` says. rounded: the sums may be rounded to bfloat16 if x is."""
    kind = jnp.int32 if x.dtype == jnp.int8 else jnp.float32
    if not multiplies(x.dtype, len(x)):
        return _of_xla(x, w, out, kind)
    name = f"janus_jax_product_{x.dtype}"
    if rounded and x.dtype == jnp.bfloat16:
        kind, name = x.dtype, f"{name}_rounded"

    def local(x, w):
        return jax.ffi.ffi_call(name, jax.ShapeDtypeStruct((len(x), len(w)), kind))(x, w)

    rows = jax.P(out[0], None)
    return jax.sharding.reshard(sh.per_device(local, (rows, sh.REPLICATED), rows)(x, w), out)


def _of_xla(x, w, out, kind):
    if len(x) == 1:  # as in `layers.Linear`: one row is ten times slower
        return _of_xla(jnp.concatenate([x, x]), w, out, kind)[:1]
    exact = precision(x.dtype)
    if not kernel_first(x.dtype, len(x)):
        over = ((1,), (1,)), ((), ())
        return jax.lax.dot_general(x, w, over, exact, kind, out_sharding=out)
    # The axis of one keeps XLA from making the kernel the second operand again.
    over = ((2,), (1,)), ((), ())
    split = jax.P(None, out[1], out[0])
    y = jax.lax.dot_general(w[None], x, over, exact, kind, out_sharding=split)
    return y.transpose(2, 0, 1).reshape(len(x), -1, out_sharding=out)


def attend(qkv, rope, keys, values, places):
    """The attention [B, T, H, K] of tokens to their rows, each up to its own place, and the cache with
    them.

    qkv: [B, T, 3, H, K], float32 or bfloat16, before the rotation; rope: see `layers.rope_table`.
    keys, values: [B, H, S, K], float32 or the bits of bfloat16, see `serving.cache_dtype`.
    places: int32 [B, T], where in the cache each token is. One that is nowhere, at -1, finds zeros.
    """

    def local(qkv, cos, sin, places, keys, values):
        like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        y = jax.ShapeDtypeStruct((*qkv.shape[:2], *qkv.shape[3:]), qkv.dtype)
        call = jax.ffi.ffi_call(
            "janus_jax_attention", (y, like(keys), like(values)), input_output_aliases={4: 1, 5: 2}
        )
        return call(qkv, cos, sin, places, keys, values)

    rows, kept = sh.BATCH, sh.CACHE_BHSK
    each = sh.per_device(local, (rows, rows, rows, rows, kept, kept), (rows, kept, kept))
    return each(qkv, *rope, places.astype(jnp.int32), keys, values)


def attend_to_all(q, k, v):
    """The attention of pictures' tokens to all of theirs, each [B, T, H, K], float32 or bfloat16, on
    one device; in the type of v."""
    result = jax.ShapeDtypeStruct(v.shape, v.dtype)
    q, k = q.astype(v.dtype), k.astype(v.dtype)  # a norm over them may have widened them
    return jax.ffi.ffi_call("janus_jax_pictures", result)(q, k, v)


def registered() -> frozenset[str]:
    """The functions of `cpu.cc` that JAX knows, compiled now if they were not: on processors with
    AVX-512, int8's on those that have instructions for it. Where they could not be compiled stderr is
    told why."""
    with _LOCK:
        return _registered()


@functools.cache
def _registered() -> frozenset[str]:
    if not all(map(has, ("avx512f", "avx512bw", "avx512vl"))):
        # With fewer and shorter registers XLA's are as quick.
        return frozenset()
    try:
        library = native.library(pathlib.Path(__file__).with_name("cpu.cc"))
    except native.Missing as missing:
        print(
            f"decoding without the C++ of janus_jax/model/cpu.cc, which is slower: {missing}",
            file=sys.stderr,
        )
        return frozenset()
    made = {name: getattr(library, name) for name in NAMES if hasattr(library, name)}
    for name, function in made.items():
        capsule = jax.ffi.pycapsule(function)
        jax.ffi.register_ffi_target(f"janus_jax_{name}", capsule, platform="cpu")
    return frozenset(made)


def kernel_first(dtype, rows: int) -> bool:
    """Whether XLA's product [rows, in] x [out, in] is quicker with the kernel as its first operand. In
    bfloat16 that is an Intel Xeon's, whose AMX multiplies tiles; of few rows an AMD EPYC reads 16
    GB/s of the second operand and 11 of the first."""
    if dtype == jnp.bfloat16 and not has_amx():
        return PLAIN <= rows <= FEW
    return rows <= FEW


def has_amx() -> bool:
    """Whether the processor says that it multiplies tiles of bfloat16."""
    return has("amx_bf16")


@functools.cache
def has(instructions: str) -> bool:
    """Whether Linux says that the processor has these instructions."""
    told = pathlib.Path("/proc/cpuinfo")
    return told.is_file() and instructions in told.read_text("utf-8", "replace").split()
