"""Keys by number."""

import jax
from flax import nnx

from janus_jax.model.keys import Keys


def test_they_are_those_of_flax():
    ours, theirs = Keys(jax.random.key(7)), nnx.Rngs(jax.random.key(7))
    for _ in range(3):
        assert jax.random.key_data(ours.params()).tolist() == (
            jax.random.key_data(theirs.params()).tolist()
        )
