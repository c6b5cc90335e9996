"""The weights that a policy began with, kept frozen beside it: the child `reference` of its model,
which has copies of the children that learn; the others are the policy's own."""

import copy

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model.janus import Janus
from janus_jax.weights.load import CAST


class Reference(nnx.Module):
    """Holds copies of children of a Janus, by their names."""


def attach(model: Janus, children):
    """Gives a model its `reference`. Matrices and tables are kept in the compute dtype, what is
    summed or normalised with in float32."""
    dtype = jnp.dtype(model.config.dtype)

    def narrowed(path, x):
        cast = path[-1].key.endswith(CAST) and x.dtype == jnp.float32
        return x.astype(dtype) if cast else jnp.copy(x)

    reference = Reference()
    for name in children:
        graphdef, params = nnx.split(getattr(model, name))
        kept = jax.tree.map_with_path(narrowed, nnx.to_pure_dict(params))
        setattr(reference, name, nnx.merge(graphdef, kept))
    model.reference = reference


def reference_of(model: Janus) -> Janus:
    """The frozen model of a policy that has one."""
    out = copy.copy(model)
    for name, child in vars(model.reference).items():
        if isinstance(child, nnx.Module):
            setattr(out, name, child)
    return out


def copied(params: dict, like: dict) -> dict:
    """Of weights, by child, what `like` has, in its types; arrays of its own, since a state that is
    donated must not hold one twice."""
    same = lambda like, x: jnp.copy(x) if x.dtype == like.dtype else x.astype(like.dtype)
    return {name: jax.tree.map(same, child, params[name]) for name, child in like.items()}
