"""The state of a stage and one update of it. Figure 3's flame and snowflake are two fields:
`trainable`, `frozen`."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct


@struct.dataclass
class TrainState:
    """step int32, one a batch; nonfinite_updates int32, how many of these steps made no update;
    graphdef is static; trainable and frozen are nested dicts by child; moments exist for the
    trainable part only."""

    step: jax.Array
    nonfinite_updates: jax.Array
    graphdef: nnx.GraphDef
    trainable: dict
    frozen: dict
    opt_state: optax.OptState

    @property
    def params(self) -> dict:
        return {**self.trainable, **self.frozen}

    def model(self):
        return nnx.merge(self.graphdef, self.trainable, self.frozen)


def split(module, trainable) -> tuple[nnx.GraphDef, dict, dict]:
    """A module's definition, its trainable and its frozen children (nested dicts of arrays)."""
    graphdef, *parts = nnx.split(module, lambda path, _: path[0] in trainable, ...)
    return graphdef, *map(nnx.to_pure_dict, parts)


def new_state(graphdef, trainable, frozen, tx) -> TrainState:
    return TrainState(jnp.int32(0), jnp.int32(0), graphdef, trainable, frozen, tx.init(trainable))


def update(state: TrainState, tx, loss_fn, parts=None) -> tuple[TrainState, dict]:
    """One optimiser step on `loss_fn(model) -> (loss, metrics)`, differentiated by the trainable
    part only.

    With `parts`, a tree of arrays of one more leading axis, it is the sum of `loss_fn(model, part)`
    over them, one after the other, its gradients summed in float32. Where the loss or its gradient
    is not finite, weights, moments and the schedule's count stay as they are and the update is
    counted as left out. The metrics hold the gradient's norm, and that of each child, before
    clipping.
    """

    def of_trainable(trainable, *part):
        return loss_fn(nnx.merge(state.graphdef, trainable, state.frozen), *part)

    value_and_grad = jax.value_and_grad(of_trainable, has_aux=True)
    if parts is None:
        (loss, metrics), grads = value_and_grad(state.trainable)
    else:
        add = lambda total, part: jax.tree.map(
            jnp.add, total, value_and_grad(state.trainable, part)
        )
        first = jax.eval_shape(value_and_grad, state.trainable, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype, out_sharding=x.sharding.spec), first
        )
        ((loss, metrics), grads), _ = jax.lax.scan(lambda *of: (add(*of), None), zeros, parts)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    norms = {part: optax.tree.norm(grad) for part, grad in grads.items()}
    trainable = optax.apply_updates(state.trainable, updates)
    norm = optax.tree.norm(grads)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    # A select, not a branch: it melts into the update, which has both values at hand, and costs no
    # memory.
    trainable, opt_state = jax.tree.map(
        lambda new, old: jnp.where(good, new, old),
        (trainable, opt_state),
        (state.trainable, state.opt_state),
    )
    left_out = state.nonfinite_updates + jnp.where(good, 0, 1)
    state = state.replace(
        step=state.step + 1, nonfinite_updates=left_out, trainable=trainable, opt_state=opt_state
    )
    return state, {
        "loss": loss,
        **metrics,
        "grad_norm": norm,
        **{f"grad_norm/{part}": one for part, one in norms.items()},
        "nonfinite_updates": left_out,
    }
