"""Task grpo: what it draws and learns of, every mesh, a run that is killed, and what it refuses."""

import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny, traced
from support.configs import refusal
from support.logs import Plain
from support.mesh import on_mesh

from janus_jax.config.read import resolve
from janus_jax.model import batch as bt
from janus_jax.sample import rollouts
from janus_jax.training import grpo_batch, grpo_options, rewards
from janus_jax.training.grpo_batch import Group
from janus_jax.training.rewards import Asked, RewardError
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import run_stage
from janus_jax.training.tasks import grpo
from janus_jax.weights.load import export
from janus_jax.weights.table import WeightsError
from janus_jax.weights.tensors import read_safetensors

N = tiny.CONFIG.generation_encoder.tokens
STEPS = 4
BOTH = {"generation": 1, "text": 0, "understanding": 1}
DRAWS = {"generation": 1, "text": 0, "understanding": 0}
MEAN = "tasks.grpo_rewards:mean"
OPTIONS = {"group": 4, "rewards": "operator:add", "answer_rewards": "match", "max_new_tokens": 4}


def brightness(prompts, pictures):
    """How bright a picture is."""
    return [float(np.asarray(p, np.float32).mean()) / 255 for p in pictures]


def short(prompts, answers):
    """Short answers are good ones."""
    return [1 / (1 + len(a)) for a in answers]


def plan_of(weights=(), options=None, **changes) -> StagePlan:
    ratio = changes.get("ratio", BOTH)
    stage = {
        "task": "grpo",
        "options": OPTIONS | (options or {}),
        "trainable": ("transformer", "image_head", "text_head"),
        "init": tuple(map(str, weights)),
        "steps": STEPS,
        "batch_size": 16,
        "rows": {
            "count": 16,
            "length": 64,
            "understanding_images": int(ratio["understanding"] > 0),
            "generation_images": int(ratio["generation"] > 0),
        },
        "ratio": ratio,
        "optim": {"learning_rate": 1e-2, "eps": 1e-3, "warmup_steps": 1},
        "spikes": {"sigma": 0},
        "checkpoint_every": 1,
        "log_every": 1,
        **changes,
    }
    lines = {kind: {"kind": kind, "path": "shapes:"} for kind in ("generation", "understanding")}
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        **tiny.WORLD,
        "data": {"datasets": lines},
        "stages": {"one": stage},
    }
    return StagePlan.of(resolve(values, {})[0], "one")


def groups(guided: bool = False) -> list[Group]:
    """Two prompts drawn and two questions answered, four times each, one of whose rewards failed."""
    rng = np.random.default_rng(0)
    processor = tiny.processor()
    codes = tiny.CONFIG.generation_encoder.codebook_size
    found = []
    for k, words in enumerate(("a red circle", "two blue squares")):
        outputs = [
            (rng.integers(0, codes, N).astype(np.int32), rng.normal(-2, 0.1, N).astype(np.float32))
            for _ in range(4)
        ]
        values = np.array([0, 1, 0, k], np.float32)
        found.append(Group(Asked(words), True, processor.request(words), outputs, rewards=values))
    for k, words in enumerate(("what is it?", "how many circles are there?")):
        picture = np.full((16, 16, 3), 90 * k, np.uint8)
        ids, slots, seen = rollouts.question(processor, tiny.CONFIG, picture, words)
        outputs = [
            (rng.integers(5, 60, n).astype(np.int32), rng.normal(-2, 0.1, n).astype(np.float32))
            for n in (1, 2, 3, 4)
        ]
        values = np.array([0, 1, np.nan if k else 0, 2], np.float32)
        found.append(Group(Asked(words), False, ids, outputs, slots, seen, values))
    return found


def batch_of(plan: StagePlan) -> dict:
    """The batch of `groups`, whose old log-probabilities are what the decoder told."""
    guided = plan.options["cfg_scale"] != 1
    blank = tiny.processor().unconditional if guided else None
    batch = grpo_batch.assembled(groups(), plan.stage.rows, tiny.CONFIG, 4, blank, plan.options)
    told = batch.pop("told")
    return batch | {"old": told, "reference": told - 0.1 * (told != 0)}


def test_a_row_holds_an_example_and_what_it_is_worth():
    plan = plan_of()
    batch = batch_of(plan)
    asked = grpo_batch.batch_arrays(plan.stage.rows, tiny.CONFIG, False)
    assert {n: (x.shape, x.dtype) for n, x in batch.items()} == {
        n: (shape, np.dtype(kind)) for n, (shape, kind) in asked.items()
    }
    for row, (group, k) in enumerate((g, k) for g in groups() for k in range(4)):
        ids, n = group.outputs[k][0], len(group.ids)
        at = slice(n - 1, n - 1 + len(ids))
        own = {name: x[row] for name, x in batch.items()}
        assert (own["tokens"][:n] == group.ids).all()
        assert own["segment_ids"].sum() == n + len(ids)
        np.testing.assert_array_equal(own["old"][at], group.outputs[k][1])
        if group.draws:
            np.testing.assert_array_equal(own["image_targets"][at], 1 + np.arange(N))
            np.testing.assert_array_equal(own["image_ids"][0], ids)
            assert (own["text_targets"] == bt.IGNORE).all()
        else:
            np.testing.assert_array_equal(own["text_targets"][at], ids)
            assert (own["text_targets"] != bt.IGNORE).sum() == len(ids)
            assert not own["image_targets"].any() and own["understanding_slots"].max() == 16
        assert (own["weights"] > 0).sum() == (0 if group.failed else len(ids))
        assert not own["advantages"][own["weights"] == 0].any()
    # Of each kind that has not failed the shares add up to 1, and of 12 examples the weights.
    draws = batch["image_targets"] > 0
    for own in (draws, ~draws):
        assert batch["shares"][own].sum() == pytest.approx(1, rel=1e-5)
    assert batch["weights"].sum() == pytest.approx(1, rel=1e-5)


def begun(plan: StagePlan):
    """A state of drawn weights on the current mesh."""
    like = plan.state()
    zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
    return like.replace(
        step=jax.device_put(np.int32(0), like.step.sharding),
        nonfinite_updates=jax.device_put(np.int32(0), like.nonfinite_updates.sharding),
        trainable=tiny.drawn(like.trainable, 0),
        frozen=tiny.drawn(like.frozen, 0),
        opt_state=jax.tree.map(zeros, like.opt_state),
    )


@functools.cache
def stepped(mesh: tuple, accumulate: int, scale: float):
    """(metrics, numbers of what learns) after a step of two updates on a mesh."""
    rows = {"count": 16, "length": 96, "understanding_images": 1, "generation_images": 1}
    plan = plan_of(options={"updates": 2, "cfg_scale": scale}, accumulate=accumulate, rows=rows)
    with on_mesh(*mesh):
        state, metrics = jax.jit(grpo.step(plan))(begun(plan), tiny.put(batch_of(plan)))
        assert int(state.step) == 1
        return tiny.numbers(metrics), tiny.numbers(state.trainable)


@pytest.mark.slow
@pytest.mark.parametrize("mesh, accumulate, scale", [((2, 2, 2), 1, 1.0), ((1, 2, 1), 4, 1.0)])
def test_a_step_is_the_same_on_a_mesh_and_in_parts(mesh, accumulate, scale):
    want, got = stepped((1, 1, 1), 1, scale), stepped(mesh, accumulate, scale)
    assert want[0]["clipped_drawing"] > 0 and want[0]["kl_answering"] > 0
    for one, other in zip(got, want, strict=True):
        assert one.keys() == other.keys()
        for name in other:
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, atol=2e-6, err_msg=name)
