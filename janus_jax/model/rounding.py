"""Matrices rounded to int8."""

import jax
import jax.numpy as jnp


def int8(x: jax.Array, axis: int = 1) -> tuple[jax.Array, jax.Array]:
    """A matrix as int8, and the float32 scales that give it back, one for each row (axis 1) or
    column (axis -2, also of stacked matrices): symmetric, nearest."""
    scale = jnp.maximum(jnp.abs(x.astype(jnp.float32)).max(axis), 1e-30) / 127
    # Tied together, or XLA keeps a float32 copy of a kernel between its two readings.
    x, scale = jax.lax.optimization_barrier((x, scale))
    return jnp.round(x / jnp.expand_dims(scale, axis)).astype(jnp.int8), scale
