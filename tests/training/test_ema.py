"""The average of the weights, against its formula."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from janus_jax.config import schema
from janus_jax.training import ema, optim


@pytest.mark.parametrize("decay", [0.9, 0.2])
def test_the_average_is_that_of_the_weights_after_each_update(decay):
    """A tenth of the first average is kept, then a growing share up to the decay. A part that a
    step did not move enters as it is, also where decay alone would shrink it."""
    tx = optim.make(schema.Optim(0.1, weight_decay=0.5, ema=decay), 20)
    params = {"head": {"kernel": jnp.ones(3)}, "still": {"kernel": jnp.full(2, 5.0)}}
    state = tx.init(params)
    want = np.ones(3)
    for n in range(1, 21):
        grads = {"head": {"kernel": jnp.full(3, 1.0 / n)}, "still": {"kernel": jnp.zeros(2)}}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        keep = min(decay, n / (n + 9))
        want = keep * want + (1 - keep) * np.asarray(params["head"]["kernel"])
    average = ema.averaged(state)
    np.testing.assert_allclose(average["head"]["kernel"], want, rtol=1e-6)
    assert (average["still"]["kernel"] == 5.0).all() and (params["still"]["kernel"] == 5.0).all()


def test_an_optimiser_without_an_average_keeps_none():
    state = optim.make(schema.Optim(0.1), 20).init({"head": {"kernel": jnp.ones(3)}})
    assert ema.averaged(state) == {}
