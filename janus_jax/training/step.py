"""One training step of Janus (paper section 3.3)."""

import jax

from janus_jax.model import sharding as sh
from janus_jax.training.loss import counts, janus_loss
from janus_jax.training.state import TrainState, update


def train_step(state: TrainState, batch: dict, tx, accumulate: int = 1) -> tuple[TrainState, dict]:
    """Pure; jitted, with the state donated, in stages.py.

    Args:
        state: the train state.
        batch: as in model/batch.py.
        tx: the optimiser.
        accumulate: the batch is gone through in so many parts, each of so much fewer rows of every
            device; the loss is the same mean over all supervised tokens.
    """
    if accumulate == 1:
        return update(state, tx, lambda model: janus_loss(model, batch))
    counted = counts(batch)
    parts = jax.tree.map(lambda x: sh.parts(x, accumulate), batch)
    return update(state, tx, lambda model, part: janus_loss(model, part, counted), parts)
