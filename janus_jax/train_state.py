"""The state of a stage and its step. Figure 3's flame and snowflake are two fields: `trainable`, `frozen`."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

from janus_jax import sharding as sh
from janus_jax.loss import counts, janus_loss
from janus_jax.model.config import JanusConfig
from janus_jax.model.janus import Janus


@struct.dataclass
class TrainState:
    """step int32, one a batch; left_out int32, how many of these steps made no update; graphdef is static;
    trainable and frozen are nested dicts by child; moments exist for the trainable part only."""

    step: jax.Array
    left_out: jax.Array
    graphdef: nnx.GraphDef
    trainable: dict
    frozen: dict
    opt_state: optax.OptState

    @property
    def params(self) -> dict:
        return {**self.trainable, **self.frozen}

    def model(self):
        return nnx.merge(self.graphdef, self.trainable, self.frozen)


def split(module, flames) -> tuple[nnx.GraphDef, dict, dict]:
    """A module's definition, its trainable and its frozen children (nested dicts of arrays)."""
    graphdef, *parts = nnx.split(module, lambda path, _: path[0] in flames, ...)
    return graphdef, *map(nnx.to_pure_dict, parts)


def init_state(key, config: JanusConfig, tx, flames, without=()) -> TrainState:
    """Random weights, split as the mesh says. Jit it: `jax.jit(init_state, static_argnums=(1, 2, 3))`.

    without: children that the stage's step never asks for.
    """
    model = Janus(config, nnx.Rngs(key))
    for name in without:
        delattr(model, name)
    return start(*split(model, flames), tx)


def draw(key, config: JanusConfig, names: tuple[str, ...]) -> dict:
    """Random weights of some children: those that `init_state` would give them. Only these are compiled."""
    params = nnx.to_pure_dict(nnx.state(Janus(config, nnx.Rngs(key))))
    return {name: params[name] for name in names}


def start(graphdef, trainable, frozen, tx) -> TrainState:
    return TrainState(jnp.int32(0), jnp.int32(0), graphdef, trainable, frozen, tx.init(trainable))


def update(state: TrainState, tx, loss_fn, parts=None) -> tuple[TrainState, dict]:
    """One optimiser step on `loss_fn(model) -> (loss, metrics)`, differentiated by the trainable part only.

    With `parts`, a tree of arrays of one more leading axis, it is the sum of `loss_fn(model, part)` over them, one
    after the other, its gradients summed in float32. Where the loss or its gradient is not finite, weights, moments
    and the schedule's count stay as they are and the update is counted as left out.
    """

    def of_trainable(trainable, *part):
        return loss_fn(nnx.merge(state.graphdef, trainable, state.frozen), *part)

    value_and_grad = jax.value_and_grad(of_trainable, has_aux=True)
    if parts is None:
        (loss, metrics), grads = value_and_grad(state.trainable)
    else:
        add = lambda total, part: (jax.tree.map(jnp.add, total, value_and_grad(state.trainable, part)), None)
        first = jax.eval_shape(value_and_grad, state.trainable, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, out_sharding=x.sharding.spec), first)
        ((loss, metrics), grads), _ = jax.lax.scan(add, zeros, parts)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    trainable, norm = optax.apply_updates(state.trainable, updates), optax.tree.norm(grads)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    # A select, not a branch: it melts into the update, which has both values at hand, and costs no memory.
    trainable, opt_state = jax.tree.map(
        lambda new, old: jnp.where(good, new, old), (trainable, opt_state), (state.trainable, state.opt_state)
    )
    left_out = state.left_out + jnp.where(good, 0, 1)
    state = state.replace(step=state.step + 1, left_out=left_out, trainable=trainable, opt_state=opt_state)
    return state, {"loss": loss, **metrics, "grad_norm": norm, **norms_by_part(grads), "left_out": left_out}


def norms_by_part(grads: dict) -> dict:
    """The gradient's norm by child of the model, before clipping: float32 scalars."""
    return {f"grad_norm/{part}": optax.tree.norm(grad) for part, grad in grads.items()}


def train_step(state: TrainState, batch: dict, tx, accumulate: int = 1) -> tuple[TrainState, dict]:
    """Pure; jitted, with the state donated, in train.py. `batch` as in batch.py.

    accumulate: the batch is gone through in so many parts, each of so much fewer rows of every device; the loss is
    the same mean over all supervised tokens.
    """
    if accumulate == 1:
        return update(state, tx, lambda model: janus_loss(model, batch))
    counted = counts(batch)
    parts = jax.tree.map(lambda x: sh.parts(x, accumulate), batch)
    return update(state, tx, lambda model, part: janus_loss(model, part, counted), parts)
