"""The linear maps of a model that has low-rank pairs beside them (`model/low_rank.py`), as modules in
the places of its own."""

import copy
import functools
import operator
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.kernels import precision
from janus_jax.model.layers import Linear, use
from janus_jax.model.low_rank import LOGITS, added, linears
from janus_jax.model.rounding import int8


class Pairs(nnx.Module):
    """A place of the tree of pairs, with places or the two matrices of a pair below it. The whole
    tree's also has `scaling` and `dropout`, the probability that an input is left out."""

    def children(self) -> dict:
        return {name: x for name, x in vars(self).items() if isinstance(x, Pairs)}

    def paths(self, above: str = "") -> dict[str, "Pairs"]:
        """Path -> pair."""
        if hasattr(self, "a"):
            return {above: self}
        join = lambda name: f"{above}/{name}" if above else name
        return {
            p: x for n, child in self.children().items() for p, x in child.paths(join(n)).items()
        }


def attach(model, paths, rank: int, scaling: float, dropout: float, key):
    """Gives a model its child `lora`, a pair for each of its linear maps named by `paths`: a drawn as
    a linear map's kernel is by torch and by peft, uniformly within in**-0.5, and b zero. Each is drawn
    by its path alone."""
    model.lora = Pairs()
    model.lora.scaling = scaling
    model.lora.dropout = dropout
    for path in paths:
        place = model.lora
        for name in path.split("/"):
            if not hasattr(place, name):
                setattr(place, name, Pairs())
            place = getattr(place, name)
        linear = of_path(model, path)
        *layers, d_in, d_out = linear.kernel.shape
        stack = [None] * len(layers)
        own = jax.random.fold_in(key, np.uint32(zlib.crc32(path.encode())))
        size = (*layers, d_in, rank)
        spec = jax.P(*stack, linear.spec[0], None)
        drawn = jax.random.uniform(own, size, minval=-1.0, maxval=1.0, out_sharding=spec)
        place.a = nnx.Param(d_in**-0.5 * drawn)
        spec = jax.P(*stack, None, linear.spec[1])
        place.b = nnx.Param(jnp.zeros((*layers, rank, d_out), out_sharding=spec))


class Given(Linear):
    """A `Linear` with another kernel."""

    def __init__(self, linear: Linear, kernel: jax.Array):
        self.kernel = nnx.Param(kernel)
        self.bias = linear.bias
        self.spec = linear.spec
        self.out = linear.out
        self.dtype = linear.dtype


class ScaledLinear(Given):
    """A frozen `Linear` with an int8 kernel and a float32 scale for each output."""

    def __init__(self, linear: Linear):
        kernel, scale = int8(linear.kernel[...], -2)
        super().__init__(linear, kernel)
        self.scale = nnx.Param(scale)

    def product(self, x, out):  # [N, in] -> float32 [N, out]
        if len(x) == 1:  # `Linear` would come back here with two rows, and scale them twice
            return self.product(jnp.concatenate([x, x]), out)[:1]
        # int8 numbers are exact in bfloat16: the product is scaled, not the kernel.
        columns = use(self.scale, jax.P(self.spec[1]), jnp.float32)
        return super().product(x, out).astype(jnp.float32) * columns


class LowRank(Given):
    """A `Linear` and its pair. key: raw, of its dropout, with a leading axis of layers as the kernel
    has one; None for none."""

    def __init__(self, linear: Linear, pair: Pairs, scaling: float, dropout: float, key):
        super().__init__(linear, linear.kernel[...])
        self.linear = linear
        self.a = pair.a
        self.b = pair.b
        self.key = nnx.data(None if key is None else nnx.Variable(key))
        self.scaling = scaling
        self.dropout = dropout

    def product(self, x, out):  # [N, in] -> [N, out], of the type of `Linear`'s
        y = self.linear.product(x, out)
        if self.key is not None:
            key = jax.random.wrap_key_data(self.key[...])
            spec = jax.typeof(x).sharding.spec
            kept = jax.random.bernoulli(key, 1 - self.dropout, x.shape, out_sharding=spec)
            x = jnp.where(kept, x / (1 - self.dropout), 0)
        narrow = _times(x, self.a, jax.P(self.spec[0], None), jax.P(out[0], None))
        wide = _times(self.scaling * narrow, self.b, jax.P(None, self.spec[1]), out)
        return y + wide.astype(y.dtype)


def _times(x, matrix: nnx.Param, spec, out):
    """x [N, in] by a matrix split as `spec` says, in the type of x."""
    w = sh.gather(matrix[...].astype(x.dtype), spec)
    return jnp.matmul(x, w, precision=precision(x.dtype), out_sharding=out)


def with_pairs(model, key=None):
    """The model with its pairs put onto its linear maps; itself where it has none.

    key: of this step's dropout; None: none is left out. Those of LOGITS, of which the loss takes the
    kernel, get the sum as a kernel.
    """
    if not hasattr(model, "lora"):
        return model
    lora = model.lora
    new = {}
    for path, pair in lora.paths().items():
        linear = of_path(model, path)
        if path in LOGITS:
            new[path] = Given(
                linear, added(linear.kernel[...], pair.a[...], pair.b[...], lora.scaling)
            )
            continue
        own = None
        if key is not None and lora.dropout:
            own = jax.random.fold_in(key, np.uint32(zlib.crc32(path.encode())))
            layers = linear.kernel.shape[:-2]
            own = jax.random.key_data(jax.random.split(own, layers) if layers else own)
        new[path] = LowRank(linear, pair, lora.scaling, lora.dropout, own)
    return _replaced(model, new)


def whole(model):
    """A model that draws and answers: its pairs merged, and no kernel int8, all in the compute type;
    itself where it has no pairs."""
    if not hasattr(model, "lora"):
        return model
    pairs = model.lora.paths()
    new = {}
    for path in linears(model.config):
        linear = of_path(model, path)
        kernel = linear.kernel[...]
        scale = linear.scale[...] if isinstance(linear, ScaledLinear) else None
        if path not in pairs and scale is None:
            continue
        pair = (pairs[path].a[...], pairs[path].b[...]) if path in pairs else ()
        how = dict(scaling=model.lora.scaling, dtype=jnp.dtype(model.config.dtype))
        new[path] = Given(linear, _whole(kernel, scale, pair, **how))
    out = _replaced(model, new)
    del out.lora
    return out


@functools.partial(jax.jit, static_argnames=("scaling", "dtype"))
def _whole(kernel, scale, pair, scaling: float, dtype):
    def of_layer(x):
        kernel, scale, pair = x
        kernel = kernel if scale is None else kernel.astype(jnp.float32) * scale
        return (added(kernel, *pair, scaling) if pair else kernel).astype(dtype)

    x = kernel, scale, pair
    return jax.lax.map(of_layer, x) if kernel.ndim == 3 else of_layer(x)


def scaled(model, children) -> None:
    """Makes the linear maps of some children int8, but for LOGITS."""
    for path in linears(model.config):
        if path.split("/")[0] in children and path not in LOGITS:
            above, _, name = path.rpartition("/")
            place = of_path(model, above)
            setattr(place, name, ScaledLinear(getattr(place, name)))


def of_path(model, path: str):
    return operator.attrgetter(path.replace("/", "."))(model)


def _replaced(model, new: dict[str, Linear]):
    """A copy of a model with other linear maps at some paths."""
    out = copy.copy(model)
    for path, linear in new.items():
        place = out
        *above, last = path.split("/")
        for name in above:
            setattr(place, name, copy.copy(getattr(place, name)))
            place = getattr(place, name)
        setattr(place, last, linear)
    return out
