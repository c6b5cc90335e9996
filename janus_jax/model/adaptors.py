"""Figure 2, "Und. Adaptor" and "Gen. Adaptor": two-layer MLPs with exact GELU into the LLM's width.

`generation_embedding` is the image ids' own table (its released values sit beside the adaptor's).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model.layers import MLP, lookup, weight


class Adaptor(MLP):
    """Features of any width C to the LLM's: Linear, exact GELU, Linear."""

    def __init__(self, d_in: int, width: int, dtype, rngs: nnx.Rngs):
        super().__init__(d_in, width, width, dtype, rngs)


class Embedding(nnx.Module):
    """A lookup table; ids out of range are checked on the host (see data.pipeline), never here."""

    def __init__(self, size: int, width: int, spec, dtype, rngs: nnx.Rngs, std: float):
        self.table = weight(rngs, (size, width), spec, std)
        self.dtype = jnp.dtype(dtype)

    def __call__(self, ids):  # int32 [B, T] -> [B, T, D]
        table = self.table[...]
        if table.dtype == jnp.bfloat16:
            # XLA's CPU compiler reads bfloat16 rows from a widened table; tied to ids, the widening
            # is not moved out of a loop, where it would be of the whole table.
            table, ids = jax.lax.optimization_barrier((table, ids))
        return lookup(table, ids, self.dtype)
