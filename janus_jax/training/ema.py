"""An average of the weights that learn, kept in the optimiser's state (Polyak and Juditsky, 1992)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

DIRECTORY = "ema"  # in what a stage hands on: the same weights, averaged


class Average(NamedTuple):
    """count int32, of updates; weights as those that learn, float32."""

    count: jax.Array
    weights: dict


def averaging(decay: float) -> optax.GradientTransformation:
    """Keeps an average of the weights as they are after each update; it stands last in a chain and
    passes updates on. Update n, from 1, keeps min(decay, n / (n + 9)) of the average, as TensorFlow's
    ExponentialMovingAverage does: so a short run is not the average of where it began."""

    def init(params):
        # Arrays of its own: a donated state must not hold one twice.
        return Average(jnp.zeros([], jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates, state, params):
        count = optax.safe_increment(state.count)
        keep = jnp.minimum(decay, count / (count + 9.0))
        now = optax.apply_updates(params, updates)
        mix = lambda before, x: keep * before + (1 - keep) * x
        return updates, Average(count, jax.tree.map(mix, state.weights, now))

    return optax.GradientTransformation(init, update)


def averaged(opt_state) -> dict:
    """The average in an optimiser's state; empty where it keeps none."""
    is_average = lambda x: isinstance(x, Average)
    found = [x for x in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(x)]
    return found[0].weights if found else {}
