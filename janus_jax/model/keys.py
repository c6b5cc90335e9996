"""The keys that a model's weights are drawn from."""

import jax
import numpy as np


class Keys:
    """The keys of `nnx.Rngs(key)`. Rngs counts them in an array: within a trace, flax asks each
    count for its sharding, and that took most of the time in which Janus is traced."""

    def __init__(self, key: jax.Array):
        self.key = key
        self.given = 0

    def params(self) -> jax.Array:
        self.given += 1
        return jax.random.fold_in(self.key, np.uint32(self.given - 1))
