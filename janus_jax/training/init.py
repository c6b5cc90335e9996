"""Random weights of Janus, and the train state that holds them."""

import functools

import jax
from flax import nnx

from janus_jax.model.config import JanusConfig
from janus_jax.model.janus import build
from janus_jax.model.keys import Keys
from janus_jax.training.state import TrainState, new_state, split


def init_janus(key, model: JanusConfig, tx, trainable, without=()) -> TrainState:
    """Random weights, split as the mesh says.

    Args:
        key: of the random numbers.
        model: the sizes.
        tx: the optimiser, which makes its moments.
        trainable: the children that learn.
        without: children that the step never asks for; the state has no weights of them.
    """
    janus = build(model, Keys(key))
    for name in without:
        delattr(janus, name)
    return new_state(*split(janus, trainable), tx)


@functools.partial(jax.jit, static_argnums=(1, 2))
def random_children(key, model: JanusConfig, names: tuple[str, ...]) -> dict:
    """Random weights of some children: those that `init_janus` would give them. Only these are
    compiled."""
    params = nnx.to_pure_dict(nnx.state(build(model, Keys(key))))
    return {name: params[name] for name in names}
