"""Task grpo_lora: its step against grpo's on merged weights, its reference, a run that is killed, and what
it refuses."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from support import tiny
from support.grpo import DRAWS, batch_of, begun, exported, gone_on, plan_of

from janus_jax.model import low_rank
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.training.grpo_loss import grpo_loss
from janus_jax.training.grpo_reference import ReferenceWeights
from janus_jax.training.tasks import grpo
from janus_jax.weights.adapter_facts import read_facts
from janus_jax.weights.reader import flatten

PAIRS = {"rank": 2, "alpha": 4, "base": "float32", "targets": "transformer/*,image_head/*"}
SCALING = 2.0  # 4 / 2
CLIP = 1e6  # clips nothing
B1 = 0.5


def lora_plan(weights=(), options=None, **changes):
    optim = {"learning_rate": 1e-2, "eps": 1e-3, "warmup_steps": 1, "clip_norm": CLIP, "b1": B1}
    how = {"task": "grpo_lora", "trainable": (), "optim": optim, **changes}
    return plan_of(weights, PAIRS | (options or {}), **how)


def merged(plan, state):
    """(definition, weights) of the plain Janus that a state stands for, by numpy."""
    base, pairs = (jax.tree.map(np.asarray, x) for x in (state.frozen, state.trainable["lora"]))
    graphdef, like = nnx.split(abstract(plan.model))
    like = sh.concrete(nnx.to_pure_dict(like))
    put = lambda like, x: jax.device_put(x, like.sharding)
    return graphdef, jax.tree.map(put, like, low_rank.merged(base, pairs, SCALING))


@pytest.mark.slow
def test_a_pair_learns_what_its_kernel_would(one_device):
    """Of the gradient g of a merged kernel, its a: scaling * g b^T, and its b: scaling * a^T g."""
    plan = lora_plan()
    state = begun(plan)
    batch = tiny.put(batch_of(plan))
    now = grpo.likely(plan.options)
    graphdef, whole = merged(plan, state)
    how = {"clip_low": 0.2, "clip_high": 0.2, "kl": 0.01}
    plain = lambda params: grpo_loss(now(nnx.merge(graphdef, params), batch), batch, **how)
    (loss, _), of_kernels = jax.jit(jax.value_and_grad(plain, has_aux=True))(whole)
    stepped, metrics = jax.jit(plan.task.step(plan))(state, batch)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    # The first moment of Adam's first step is a part of the gradient.
    learned = flatten(optax.tree_utils.tree_get(stepped.opt_state, "mu")["lora"])
    pairs = flatten(jax.tree.map(np.asarray, state.trainable["lora"]))
    kernels = flatten(of_kernels)
    assert len(pairs) == 18
    for name, x in pairs.items():
        place, _, which = name.rpartition(".")
        g = np.asarray(kernels[f"{place}.kernel"])
        turned = pairs[f"{place}.{'b' if which == 'a' else 'a'}"].swapaxes(-1, -2)
        want = SCALING * (g @ turned if which == "a" else turned @ g)
        least = 1e-5 * np.abs(want).max()
        assert least > 0 and x.shape == want.shape
        np.testing.assert_allclose(
            learned[name] / (1 - B1), want, rtol=1e-5, atol=least, err_msg=name
        )


def test_the_reference_is_the_janus_without_pairs(one_device):
    plan = lora_plan()
    state = begun(plan)
    batch = tiny.put(batch_of(plan))
    now = grpo.likely(plan.options)
    score = jax.jit(lambda state: now(state.model(), batch))
    graphdef, like = nnx.split(abstract(plan.model))
    like = nnx.to_pure_dict(like)
    assert state.frozen.keys() == like.keys()
    want = jax.jit(lambda params: now(nnx.merge(graphdef, params), batch))(state.frozen)
    held = ReferenceWeights(plan, None).held(state)
    np.testing.assert_allclose(score(held), want, rtol=1e-6, atol=1e-6)
    assert np.abs(np.asarray(score(state) - want)).max() > 1e-2
    assert all(x is y for x, y in zip(jax.tree.leaves(held.frozen), jax.tree.leaves(state.frozen)))


@pytest.mark.slow
def test_pairs_held_to_their_average_that_are_killed_go_on_to_the_same_bits(tmp_path):
    weights = exported(tmp_path)
    optim = {"learning_rate": 1e-1, "eps": 1e-3, "warmup_steps": 0, "ema": 0.9}
    options = {"reference": "ema", "answer_rewards": "", "group": 2}
    rows = {"count": 4, "length": 64, "understanding_images": 0, "generation_images": 1}
    plan = lora_plan([weights], options, ratio=DRAWS, rows=rows, batch_size=4, optim=optim)
    whole, records = gone_on(plan, tmp_path, "adapter.safetensors")
    assert {name.split(".")[0] for name in whole} == {"lora"}
    assert any(name.endswith(".b") and np.abs(x).max() > 1e-3 for name, x in whole.items())
    # At first the average is the policy; later it follows. What draws has the pairs that are scored.
    assert records[0]["kl_drawing"] == pytest.approx(0, abs=1e-6)
    assert records[-1]["kl_drawing"] > 1e-6
    assert max(record["decoder_difference_most"] for record in records) < 1e-3
    facts = read_facts(tmp_path / "whole" / "one")
    assert (facts.rank, facts.alpha) == (2, 4) and facts.bases[0].path == str(weights)


REFUSED = {
    "dropout": ({"dropout": 0.1}, {}, "the ratio to what drew them would be of another policy"),
    "trainable": ({}, {"trainable": ("image_head",)}, "what learns whole would move with"),
    "rank": ({"rank": 0}, {}, "rank is 0"),
    "group": ({"group": 1}, {}, "one drawing cannot be compared with another"),
}


@pytest.mark.parametrize("options, changes, told", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(options, changes, told):
    plan = lora_plan(options=options, **changes)
    assert any(told in line for line in plan.task.problems(plan.experiment, "one"))


def test_what_learns_whole_has_a_reference_that_is_named_or_none():
    for options in ({"reference": "weights"}, {"kl": 0.0}):
        plan = lora_plan(options=options | {"targets": "attention"}, trainable=("image_head",))
        assert not plan.task.problems(plan.experiment, "one")
