"""Linear maps whose kernel W stays as it is and learns a product of two narrow matrices beside it,
W + scaling * a b (LoRA, arXiv 2106.09685).

A pair lies in a tree that is nested like the model, {"a": [in, r], "b": [r, out]} in the place of its
linear map, both with a leading axis of layers where the map's kernel has one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.model.kernels import FLOAT32


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
        return rest | {"kernel": _sum(kernel, a, b, scaling)}
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


def _sum(kernel, a, b, scaling: float):
    a, b = a.astype(np.float32), b.astype(np.float32)
    if isinstance(kernel, np.ndarray):
        product = np.matmul(a, b)
    else:
        spec = jax.typeof(kernel).sharding.spec
        product = jnp.matmul(a, b, precision=FLOAT32, out_sharding=spec)
    return (kernel.astype(np.float32) + np.float32(scaling) * product).astype(kernel.dtype)
