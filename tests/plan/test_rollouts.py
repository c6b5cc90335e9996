"""What a step of reinforcement learning holds and takes, part by part, against what it really holds."""

import dataclasses
import functools

import jax
import pytest
from support import quickstart, tiny
from support.mesh import on_mesh

from janus_jax.config.read import resolve
from janus_jax.model.serving import blank_cache
from janus_jax.plan import memory, report
from janus_jax.plan import rollouts as planned
from janus_jax.sample import programs
from janus_jax.sample.rollouts import decoding
from janus_jax.training.grpo_options import grpo_problems
from janus_jax.training.stage_plan import StagePlan

MODEL = tiny.small(
    transformer=dataclasses.replace(tiny.CONFIG.transformer, layers=1),
    understanding_encoder=dataclasses.replace(tiny.CONFIG.understanding_encoder, layers=1),
    remat="none",
)


def experiment(task: str = "grpo", **options):
    stage = {
        "task": task,
        "options": {"group": 4, "rewards": "shapes", "answer_rewards": "match", **options},
        "trainable": ("transformer", "image_head", "text_head") if task == "grpo" else (),
        "init": (),
        "steps": 86400,
        "batch_size": 16,
        "rows": {"count": 16, "length": 64, "understanding_images": 1, "generation_images": 1},
        "ratio": {"generation": 1, "text": 0, "understanding": 1},
        "accumulate": 2,
        "optim": {"learning_rate": 1e-2},
    }
    values = {"model": dataclasses.asdict(MODEL), **tiny.WORLD, "stages": {"rl": stage}}
    return resolve(values, {})[0]


@functools.cache
def studied():
    """(the plan, what was told of it)."""
    said = []
    chip = quickstart.CPU
    plan = report.run(experiment(), chip, 8, jax.devices(), "a compiler", said.append)
    return plan["stages"]["rl"], "\n".join(said)


def test_low_rank_pairs_are_scored_and_have_no_copy_of_their_reference():
    with on_mesh():
        plan = StagePlan.of(experiment("grpo_lora"), "rl")
        state = plan.state()
        assert planned.reference_bytes(plan, state) == 0
        counts = planned.Counts.of(plan.stage, plan.options)
        part = planned.scored(plan, quickstart.CPU, state, counts)
        assert not part.error and part.temporaries > 0 and part.turns == 2
        other = StagePlan.of(experiment(reference="elsewhere"), "rl")
        whole = memory.shard_bytes((other.state().trainable, other.state().frozen))
        assert planned.reference_bytes(other, other.state()) == whole


def test_the_peak_is_the_largest_part_and_not_the_sum():
    found, text = studied()
    held = sum(found["held"].values())
    own = {
        part: sum(x[key] for key in ("weights", "cache", "batch", "temporaries"))
        for part, x in found["parts"].items()
    }
    assert tuple(own) == planned.PARTS
    assert found["peak"] == held + max(own.values()) < held + sum(own.values())
    assert found["fits"] and "FITS" in text and "reference" in text and planned.ASSUMED in text
    # The update is what any stage's plan says of it, and the reference beside it.
    assert found["parts"]["update"]["total"] - found["held"]["reference"] == pytest.approx(
        found["bytes"]["total"]
    )
    step = found["step"]
    times = [x["seconds"] for part, x in found["parts"].items() if part != planned.PARTS[0]]
    assert step["seconds"] == pytest.approx(sum(times)) and min(times) > 0
    assert step["days"] == pytest.approx(step["seconds"]), "86,400 steps"
    assert step["drawings_per_s"] == pytest.approx(8 / step["seconds"])


def test_a_part_holds_what_the_real_arrays_hold():
    found = studied()[0]
    here = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
    with on_mesh(1, 8, 1):
        model = decoding(tiny.make_model(MODEL))
        weights = here(model) - here(model.generation_encoder)
        cache = here(blank_cache(model, 16, 256))
        state = StagePlan.of(experiment(), "rl").state()
        learns = memory.shard_bytes(state.trainable)
    for part in ("drawing", "answering"):
        assert found["parts"][part]["weights"] == weights
        assert found["parts"][part]["cache"] == cache
    assert found["held"]["reference"] == learns
    assert found["parts"]["drawing"]["turns"] == MODEL.generation_encoder.tokens
    assert found["parts"]["answering"]["turns"] == 16 and found["parts"]["scoring"]["turns"] == 2


def test_guidance_takes_two_rows_a_drawing_and_a_reference_is_held_where_one_is_read():
    how = lambda **options: StagePlan.of(experiment(**options), "rl")
    with on_mesh(1, 8, 1):
        rows = planned.Rows.of(2 * 64, 128, 576, programs.IMAGE)
        assert (rows.count, rows.rounds, rows.length) == (16, 8, 768)
        state = how().state()
        both = memory.shard_bytes((state.trainable, state.frozen))
        assert planned.reference_bytes(how(kl=0), state) == 0
        assert planned.reference_bytes(how(reference="weights/other"), state) == both
        plain, guided = (planned.work_of(how(cfg_scale=s), planned.Counts(8, 8, 4)) for s in (1, 5))
    assert guided.tokens - plain.tokens == 8 * (16 + 40) and guided.image == plain.image == 8 * 16
    assert plain.text == 8 * 16 and plain.generation_images == 0


def test_rollouts_of_other_rows_and_weights():
    how = dict(rollout_rows=100, rollout_weights="whole")
    assert not grpo_problems(experiment(**how), "rl")
    (line,) = grpo_problems(experiment(rollout_weights="half"), "rl")
    assert "rollout_weights is 'half': must be one of split, whole" in line
    with on_mesh(1, 8, 1):
        rows = planned.Rows.of(2 * 64, 128, 576, programs.IMAGE, 100)
        assert (rows.count, rows.rounds) == (112, 2), "whole pairs on each of eight devices"


def test_a_part_that_does_not_fit_is_said():
    found, _ = studied()
    small = found | {"fits": False, "savings": []}
    text = planned.rollout_tables({"chip": "cpu"}, "rl", small)
    assert "DOES NOT FIT" in text and "No field of the config" in text and "FITS\n" not in text
