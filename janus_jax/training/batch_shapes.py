"""The batch of a step before there are data: what `janus-jax plan` compiles a step for."""

import jax
import jax.numpy as jnp

from janus_jax.model import sharding as sh


def abstract(shapes: dict, spec=sh.BATCH) -> dict[str, jax.ShapeDtypeStruct]:
    """shapes: name -> (shape, dtype); as arrays on the current mesh, split by `spec`."""
    sharding = jax.NamedSharding(jax.sharding.get_mesh(), spec)
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding)
        for name, (shape, dtype) in shapes.items()
    }
