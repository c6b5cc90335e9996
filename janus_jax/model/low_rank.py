"""Linear maps whose kernel W stays as it is and learns a product of two narrow matrices beside it,
W + scaling * a b (LoRA, arXiv 2106.09685).

A pair lies in a tree that is nested like the model, {"a": [in, r], "b": [r, out]} in the place of its
linear map, both with a leading axis of layers where the map's kernel has one. A model that has such
a tree has it as its child `lora`. W may be int8 beside a float32 scale for each output.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.model.config import JanusConfig
from janus_jax.model.kernels import FLOAT32
from janus_jax.model.rounding import int8

_ATTENTION = tuple(f"blocks/attention/{name}" for name in ("q", "k", "v", "o"))
# By child, all that may have a pair.
_LINEARS = {
    "understanding_encoder": (*_ATTENTION, "blocks/mlp/fc1", "blocks/mlp/fc2"),
    "understanding_adaptor": ("fc1", "fc2"),
    "generation_adaptor": ("fc1", "fc2"),
    "transformer": (*_ATTENTION, "blocks/gate", "blocks/up", "blocks/down"),
    "text_head": ("linear",),
    "image_head": ("fc1", "fc2"),
}
# Those of which the loss takes the kernel itself.
LOGITS = ("text_head/linear", "image_head/fc2")


def linears(config: JanusConfig) -> list[str]:
    """The paths of a model's linear maps that may have a pair, such as
    "transformer/blocks/attention/q"; none of another head than Janus' own."""
    none = {"image_head"} if config.image_head != "softmax" else set()
    children = [child for child in config.children if child not in none]
    return [f"{child}/{x}" for child in children for x in _LINEARS.get(child, ())]


def scaling(rank: int, alpha: float, rslora: bool) -> float:
    """What a pair's product is multiplied by: alpha / rank, or, stabilised for large ranks, alpha /
    sqrt(rank) (rsLoRA, arXiv 2312.03732)."""
    return alpha / (rank**0.5 if rslora else rank)


def merged(base: dict, pairs: dict, scaling: float) -> dict:
    """The base with each pair's product added to its kernel; what has no pair is shared, not copied.

    base: nested dicts of numpy or JAX arrays: kernels of any float type, or int8 [..., in, out] beside
        a float32 `scale` [..., out], whose sum is float32 and has no scale any more.
    pairs: nested like it, of the same kind of arrays, for as many of its linear maps as have any.
    scaling: what the products are multiplied by, see `scaling`.

    Products and sums are float32, rounded once to the kernel's type. Raises ValueError for a pair
    without a kernel or of other sizes, naming its place.
    """
    return _merged(base, pairs, scaling, ())


def _merged(base: dict, pairs: dict, scaling: float, path: tuple[str, ...]) -> dict:
    if is_pair(pairs):
        kernel = whole_kernel(base) if "kernel" in base else None
        a, b = pairs["a"], pairs["b"]
        shape = (*a.shape[:-1], b.shape[-1])
        if kernel is None or kernel.shape != shape or a.shape[-1] != b.shape[-2]:
            there = "no linear map" if kernel is None else f"a kernel {kernel.shape}"
            raise ValueError(
                f"lora/{'/'.join(path)}: a pair {a.shape}, {b.shape}, and the base has {there} there; "
                "give the base and the model config that the pairs were trained with"
            )
        rest = {name: x for name, x in base.items() if name != "scale"}
        return rest | {"kernel": added(kernel, a, b, scaling).astype(kernel.dtype)}
    unknown = [name for name in pairs if not isinstance(base.get(name), dict)]
    if unknown:
        raise ValueError(
            f"lora/{'/'.join((*path, unknown[0]))}: the base has nothing of that name; give the base "
            "and the model config that the pairs were trained with"
        )
    new = {name: _merged(base[name], x, scaling, (*path, name)) for name, x in pairs.items()}
    return base | new


def is_pair(tree: dict) -> bool:
    """Whether this place of a tree of pairs is a pair."""
    return set(tree) == {"a", "b"} and not isinstance(tree["a"], dict)


def whole_kernel(linear: dict):
    """A linear map's kernel [..., in, out], an int8 one as float32."""
    if "scale" not in linear:
        return linear["kernel"]
    return linear["kernel"].astype(np.float32) * linear["scale"][..., None, :]


def widened(params: dict) -> dict:
    """The params with `whole_kernel`s: none is int8 any more."""
    if "scale" in params and "kernel" in params:
        rest = {name: x for name, x in params.items() if name != "scale"}
        return rest | {"kernel": whole_kernel(params)}
    return {name: widened(x) if isinstance(x, dict) else x for name, x in params.items()}


def added(kernel, a, b, scaling: float):
    """float32, of arrays of numpy or of JAX."""
    kernel, a, b = (x.astype(np.float32) for x in (kernel, a, b))
    if isinstance(kernel, np.ndarray):
        return kernel + np.float32(scaling) * np.matmul(a, b)
    spec = jax.typeof(kernel).sharding.spec
    return kernel + scaling * jnp.matmul(a, b, precision=FLOAT32, out_sharding=spec)


def unscaled(params: dict) -> dict:
    """The shapes of weights as they are read: each int8 kernel with its scale as one in bfloat16."""
    if "scale" in params and "kernel" in params:
        rest = {name: x for name, x in params.items() if name != "scale"}
        return rest | {"kernel": params["kernel"].update(dtype=jnp.bfloat16)}
    return {n: unscaled(x) if isinstance(x, dict) else x for n, x in params.items()}


def kept_as(params: dict, like: dict) -> dict:
    """Of the arrays those that the shapes `like` name, in their types, int8 kernels with their
    scales; what changes is deleted, one by one, for all together may fill a device."""
    if "scale" in like and "kernel" in like and "scale" not in params:
        kernel, scale = jax.jit(functools.partial(int8, axis=-2))(params["kernel"])
        params["kernel"].delete()
        return params | {"kernel": kernel, "scale": scale}
    return {
        name: kept_as(params[name], x) if isinstance(x, dict) else _as_type(params[name], x.dtype)
        for name, x in like.items()
    }


def _as_type(x, dtype):
    if x.dtype == dtype:
        return x
    out = x.astype(dtype)
    x.delete()
    return out
