"""The children of a model's further senses, and what their slots read (paper section 3.5).

A sense <name> has two: `<name>_encoder`, the `Encoder` of its folder's `encoder.py`, and
`<name>_adaptor`, as pictures have it. `Encoder(sizes, dtype, remat, attention, rngs)` is an
nnx.Module that is called with inputs [B, *shape] and gives features [B, tokens, width]; layers that
it stacks are called `blocks`.

Letters: P inputs of a row, K tokens of an input, D width of the language model.
"""

import functools
import importlib

import jax
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.adaptors import Adaptor
from janus_jax.model.keys import Keys
from janus_jax.model.layers import filled, of_filled, with_whole_weights
from janus_jax.model.senses import known


def add(model, rngs):
    """Gives a model the children of its config's senses."""
    config = model.config
    for name, sizes in known.sizes(config).items():
        for child, module in made(name, sizes, config, rngs).items():
            setattr(model, child, module)


def made(name: str, sizes, config, rngs) -> dict[str, nnx.Module]:
    """The children of one sense."""
    kind = importlib.import_module(f"janus_jax.model.senses.{name}.encoder").Encoder
    width = config.transformer.width
    return {
        f"{name}_encoder": kind(sizes, config.dtype, config.remat, config.attention, rngs),
        f"{name}_adaptor": Adaptor(sizes.width, width, config.dtype, rngs),
    }


def read(model, batch):
    """(name, features [B, P*K, D]) of each sense of a model that the batch brings."""
    d = model.config.transformer.width
    for name, sizes in known.sizes(model.config).items():
        inputs = batch.get(name)  # [B, P, *shape]
        if inputs is None or inputs.shape[1] == 0:
            continue
        encoder, adaptor = f"{name}_encoder", f"{name}_adaptor"
        children = {child: getattr(model, child) for child in (encoder, adaptor)}
        if inputs.shape[1] > 1:  # gone through several times
            children[encoder] = with_whole_weights(children[encoder], model.config.dtype)
        count = filled(batch[f"{name}_slots"], sizes.tokens)
        found = of_filled(functools.partial(features, children, name), inputs, count)
        yield name, found.reshape(len(inputs), -1, d, out_sharding=sh.BATCH)


def features(children: dict, name: str, inputs):
    """What slots read of inputs [B, *shape] of a sense: [B, K, D]. children: its own, by name."""
    return children[f"{name}_adaptor"](children[f"{name}_encoder"](inputs))


def leaf_shapes(config) -> dict[str, tuple[int, ...]]:
    """path -> shape of all leaves of a model's senses; any mesh may be set."""

    def build():
        rngs = Keys(jax.random.key(0))
        parts = known.sizes(config).items()
        built = [made(name, sizes, config, rngs) for name, sizes in parts]
        return {child: nnx.state(x) for some in built for child, x in some.items()}

    with sh.traced_on(1, 1, 1, 1):
        found = {name: nnx.to_pure_dict(x) for name, x in jax.eval_shape(build).items()}
    leaves = jax.tree.leaves_with_path(found)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x.shape for p, x in leaves}
