"""The bytes of a step from tracing alone: every shipped config lowered, and against real arrays."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from support import quickstart
from support.configs import shipped
from support.mesh import on_mesh

from janus_jax.config.read import read
from janus_jax.plan import memory
from janus_jax.training.check_config import check
from janus_jax.training.stage_plan import StagePlan

CONFIGS = shipped()
# Of Janus-Pro the 7B: its 1B has the shapes of Janus-1.3B. Slow: only widths and depths
# are others, or what tests/model/test_ablations.py steps through at a small size.
SLOW = {path: f"{path}:7b" for path in CONFIGS if "pro_stage" in path}
SLOW |= {path: path for path in CONFIGS if "ablations" in path or "miniature" in path}
SLOW |= {path: f"{path}:full" for path in CONFIGS if path.endswith("/dpo.py")}
CONFIGS = [
    pytest.param(SLOW[path], marks=pytest.mark.slow) if path in SLOW else path for path in CONFIGS
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: pathlib.Path(path).stem)
def test_every_stage_lowers_on_eight_devices(path):
    experiment, wrong = read(path)
    check(experiment, 8, known=wrong)
    with on_mesh(1, 8, 1):
        for name, stage in experiment.stages.items():
            if stage.rows is None:
                continue
            step, state, batch = memory.lower_inputs(StagePlan.of(experiment, name))
            text = step.lower(state, batch).as_text()
            assert "stablehlo.dot_general" in text
            beside = {"lora"} if stage.task.endswith("lora") else set()
            assert {name for name in state.trainable} == set(stage.trainable) | beside
            rows = batch["tokens"]
            assert rows.shape == (stage.rows.count, stage.rows.length)
            assert rows.sharding.shard_shape(rows.shape)[0] == stage.rows.count // 8


def real_arrays(name: str, ema: float = 0.0):
    """(the quick start's step, what is traced of it, real arrays for it)."""
    experiment = quickstart.small()
    stage = experiment.stages[name]
    stage = dataclasses.replace(stage, optim=dataclasses.replace(stage.optim, ema=ema))
    experiment = dataclasses.replace(experiment, stages=experiment.stages | {name: stage})
    step, state, batch = memory.lower_inputs(plan := StagePlan.of(experiment, name))
    zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
    return step, memory.estimate(plan, state, batch), *jax.tree.map(zeros, (state, batch))


@pytest.mark.parametrize("name, ema", [("stage1", 0.99), ("stage3", 0.0)])
def test_a_plan_holds_what_real_arrays_hold(name, ema):
    here = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
    with on_mesh(1, 8, 1):
        _, traced, state, batch = real_arrays(name, ema)
        assert traced.trainable == here(state.trainable) and traced.frozen == here(state.frozen)
        assert traced.batch == here(batch)
        assert traced.average == (traced.trainable if ema else 0)
        assert traced.moments == 2 * traced.trainable + (20 if ema else 16)  # and counts
        kept = here((state.opt_state, state.step, state.nonfinite_updates))
        assert traced.moments + traced.average == kept


def test_a_plan_holds_what_the_step_with_real_arrays_holds():
    found = quickstart.told()[0]["stages"]["stage3"]["bytes"]
    with on_mesh(1, 8, 1):
        step, traced, state, batch = real_arrays("stage3")
        cheap = {"xla_backend_optimization_level": 0}
        real = step.lower(state, batch).compile(compiler_options=cheap).memory_analysis()
    temporaries = found["activations"] + found["other"]
    assert traced.arguments == pytest.approx(real.argument_size_in_bytes, rel=0.1)
    assert found["total"] - found["program"] - temporaries == pytest.approx(
        real.argument_size_in_bytes, rel=0.1
    )
    assert temporaries == pytest.approx(real.temp_size_in_bytes, rel=0.1)


def test_what_the_backward_pass_keeps_follows_remat_and_microbatches():
    kept = {}
    for remat in ("none", "full"):
        experiment = quickstart.small(remat)
        with on_mesh(1, 8, 1):
            _, state, batch = memory.lower_inputs(StagePlan.of(experiment, "stage2"))
            kept[remat] = [memory.kept_activations(state, batch, parts) for parts in (1, 2)]
    assert kept["full"][0] < 0.7 * kept["none"][0]
    assert all(half == pytest.approx(whole / 2, rel=0.1) for whole, half in kept.values())
