"""The weights that a policy is kept near: those that are named, with what is frozen of them, and the
average of its own."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.grpo import plan_of

from janus_jax.training import grpo_options
from janus_jax.training.grpo_reference import ReferenceWeights
from janus_jax.training.state import new_state
from janus_jax.weights.table import WeightsError

CHILDREN = ("head", "tower")


def state_of(value: float, tx=None):
    """A child that learns and one that is frozen, of one number each."""
    parts = ({name: {"kernel": jnp.full(3, value + i)}} for i, name in enumerate(CHILDREN))
    return new_state(None, *parts, tx or optax.identity())


def reference(path: str, named, adapted=False):
    """Of a stage that begins with 1, where other weights are 7."""
    plan = types.SimpleNamespace(name="one", options={"reference": path}, adapted=adapted)
    asked = []

    def initial(weights):
        asked.append(weights)
        return state_of(7.0 if weights else 1.0), dict.fromkeys(named, path)

    return ReferenceWeights(plan, initial), asked


def values(state) -> tuple:
    return tuple(float(state.params[name]["kernel"][0]) for name in CHILDREN)


def test_a_reference_that_is_named_takes_its_own_frozen_parts_along():
    policy = state_of(3.0)
    named, asked = reference("weights", CHILDREN)
    assert values(named.held(policy)) == (7, 8) and asked == [["weights"]]
    begun, asked = reference("", CHILDREN)
    assert values(begun.held(policy)) == (1, 4) and asked == [None]
    assert values(policy) == (3, 4)


def test_a_reference_without_a_child_is_refused():
    with pytest.raises(WeightsError, match=r"stages\.one: the reference, weights, has no tower"):
        reference("weights", ["head"])
    with pytest.raises(WeightsError, match=r"what the stage begins with, has no head"):
        reference("", ["tower"])
    reference("", ["head"])  # what is frozen is the policy's own


@pytest.mark.parametrize("decay, updates", [(0.15, 4), (0.999, 4)])
def test_the_average_is_that_of_the_closed_form(decay, updates):
    """Update k keeps min(decay, k / (k + 9)): weights of k count (1 - keep_k) times all later keep."""
    options = {"reference": "ema"}
    optim = {"learning_rate": 0.1, "warmup_steps": 0, "schedule": "constant", "ema": decay}
    plan = plan_of(options=options, optim=optim)
    assert not grpo_options.grpo_problems(plan.experiment, "one")
    state = state_of(1.0, plan.tx)
    seen = [state.trainable]
    for k in range(updates):
        grads = jax.tree.map(lambda x, k=k: jnp.sin(x + k), state.trainable)
        new, opt_state = plan.tx.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, new)
        state = state.replace(trainable=trainable, opt_state=opt_state)
        seen.append(trainable)
    keep = np.array([0.0, *(min(decay, k / (k + 9)) for k in range(1, updates + 1))])
    counts = (1 - keep) * [keep[k + 1 :].prod() for k in range(updates + 1)]
    assert counts.sum() == pytest.approx(1)
    want = sum(c * np.asarray(x["head"]["kernel"], np.float64) for c, x in zip(counts, seen))
    held = ReferenceWeights(plan, None).held(state)
    np.testing.assert_allclose(held.trainable["head"]["kernel"], want, rtol=1e-6)
    assert held.frozen is state.frozen
    assert abs(values(state)[0] - want[0]) > 1e-3


def test_an_average_that_nobody_keeps_is_refused():
    for task, more in (("grpo", {}), ("grpo_lora", {"trainable": ()})):
        plan = plan_of(options={"reference": "ema"}, task=task, **more)
        (told,) = plan.task.problems(plan.experiment, "one")
        assert told.startswith("stages.one.options.reference is 'ema' and stages.one.optim.ema 0")
