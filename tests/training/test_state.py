"""The state: moments beside their weights, and an update that is not finite changes nothing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh
from support.tiny import is_adam, specs
from support.toy import (
    BAD,
    TX,
    Toy,
    schedule_count,
    toy_batch,
    toy_loss,
    toy_state,
    toy_step,
)

from janus_jax.checkpoint.inspect import leaves
from janus_jax.config import schema
from janus_jax.training import optim
from janus_jax.training import state as train_state


def test_moments_lie_beside_their_weights_and_exist_for_flames_only():
    with on_mesh(2, 2, 2):
        flames = ("understanding_adaptor", "transformer")
        state = tiny.make_state(tiny.TX, flames)
        adam = next(x for x in jax.tree.leaves(state.opt_state, is_leaf=is_adam) if is_adam(x))
        assert set(state.trainable) == set(flames) and not set(state.frozen) & set(flames)
        for moments in (adam.mu, adam.nu):
            assert specs(moments) == specs(state.trainable)
            assert jax.tree.map(jnp.shape, moments) == jax.tree.map(jnp.shape, state.trainable)
        many = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
        assert many == 2 * sum(x.size for x in jax.tree.leaves(state.trainable))


# Updates that are not finite


@pytest.mark.parametrize(
    "factor", [BAD, math.inf, 1e38], ids=["nan", "inf", "finite loss, infinite gradient"]
)
def test_an_update_that_is_not_finite_changes_nothing_and_is_counted(factor, one_device):
    state, _ = toy_step()(toy_state(), toy_batch(0))
    before = tiny.numbers(jax.tree.map(np.array, leaves(state)))
    batch = toy_batch(1, factor)
    if factor == 1e38:  # the loss stays below the largest float32, its gradient does not
        batch["x"] = batch["x"] * np.sqrt(
            3e38 / 1e38 / float(toy_loss(state.model(), toy_batch(1))[0])
        )
        loss, grads = jax.value_and_grad(
            lambda t: toy_loss(nnx.merge(state.graphdef, t, state.frozen), batch)[0]
        )(state.trainable)
        assert math.isfinite(loss) and not math.isfinite(optax.tree.norm(grads))
    state, metrics = toy_step()(state, batch)
    after = tiny.numbers(leaves(state))
    assert int(after.pop("step")) == 2 and int(before.pop("step")) == 1
    assert int(after.pop("nonfinite_updates")) == 1 and int(before.pop("nonfinite_updates")) == 0
    tiny.same_bits(after, before)
    assert int(metrics["nonfinite_updates"]) == 1
    state, _ = toy_step()(state, toy_batch(2))
    assert schedule_count(state) == 2 and int(state.step) == 3 and int(state.nonfinite_updates) == 1
    moved = tiny.numbers(state.trainable)
    assert all(
        np.isfinite(x).all() and (x != before[f"trainable.{n}"]).any() for n, x in moved.items()
    )


def test_a_step_of_a_poisoned_weight_leaves_all_others_as_they_are(one_device):
    tx = tiny.TX
    state = tiny.make_state(tx, ("understanding_adaptor", "image_head"))
    state.trainable["image_head"]["fc1"]["bias"] = (
        state.trainable["image_head"]["fc1"]["bias"].at[0].set(jnp.nan)
    )
    before = tiny.numbers(jax.tree.map(np.array, leaves(state)))
    state, metrics = tiny.make_step(tx)(state, tiny.put(tiny.rows(2)))
    after = tiny.numbers(leaves(state))
    assert not np.isfinite(metrics["loss"]) and (
        int(after["step"]),
        int(after["nonfinite_updates"]),
    ) == (
        1,
        1,
    )
    same = before.keys() - {"step", "nonfinite_updates"}
    tiny.same_bits({n: after[n] for n in same}, {n: before[n] for n in same})


class Deep(nnx.Module):
    def __init__(self, width: int, layers: int):
        self.flame = nnx.List([nnx.Linear(width, width, rngs=nnx.Rngs(i)) for i in range(layers)])

    def __call__(self, x):
        for layer in self.flame:
            x = jnp.tanh(layer(x))
        return (x**2).mean()


def test_leaving_out_costs_no_second_copy_of_the_state(one_device):
    """Against the same step without the select. The state is three kernels a layer; what the select
    may add is the room of one layer while it is updated."""

    def plain(state, x):
        loss, grads = jax.value_and_grad(lambda t: nnx.merge(state.graphdef, t, {})(x))(
            state.trainable
        )
        updates, opt_state = TX.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        state = state.replace(step=state.step + 1, trainable=trainable, opt_state=opt_state)
        return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

    ours = lambda state, x: train_state.update(state, TX, lambda model: (model(x), {}))
    layers, kernel = 6, 256 * 256 * 4
    state = train_state.new_state(*train_state.split(Deep(256, layers), ("flame",)), TX)
    sizes = []
    for step in (plain, ours):
        memory = (
            jax.jit(step, donate_argnums=0)
            .lower(state, jnp.ones((8, 256)))
            .compile()
            .memory_analysis()
        )
        assert memory.alias_size_in_bytes >= 3 * layers * kernel, "the state was not donated"
        sizes.append(
            memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        )
    assert sizes[1] - sizes[0] < 3 * kernel, sizes


# Children without a gradient


def test_a_child_of_which_a_step_learns_nothing_does_not_decay(one_device):
    """`snow` takes part in every second loss only."""
    tx = optim.make(schema.Optim(learning_rate=0.1, weight_decay=0.5), 60)
    state = train_state.new_state(*train_state.split(Toy(4), ("flame", "snow")), tx)

    @jax.jit
    def step(state, with_snow):
        of = lambda m: toy_loss(m, toy_batch(0))[0] + with_snow * jnp.sum(m.snow.kernel[...])
        alone = lambda m: jnp.mean(m.flame(toy_batch(0)["x"]) ** 2)
        return train_state.update(state, tx, lambda m: (jnp.where(with_snow, of(m), alone(m)), {}))

    for with_snow in (False, True, False):
        new, metrics = step(state, with_snow)
        assert (float(metrics["grad_norm/snow"]) > 0) == with_snow
        for child, moves in (("flame", True), ("snow", with_snow)):
            before, after = (np.asarray(s.trainable[child]["kernel"]) for s in (state, new))
            assert (before != after).all() if moves else (before == after).all()
        state = new
