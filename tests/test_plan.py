"""Every shipped config's true step, lowered for eight devices with nothing allocated."""

import pathlib

import jax
import pytest
from conftest import on_mesh

from janus_jax import budget, plan
from janus_jax.checks import check
from janus_jax.experiment import read

CONFIGS = sorted(str(path) for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: pathlib.Path(path).stem)
def test_every_stage_lowers_on_eight_devices(path):
    experiment, wrong = read(path)
    check(experiment, 8, files=False, known=wrong)
    with on_mesh(1, 8, 1):
        for stage in experiment.stages.values():
            step, state, batch = budget.lower_inputs(experiment, stage)
            text = step.lower(state, batch).as_text()
            assert "stablehlo.dot_general" in text
            assert {name for name in state.trainable} == set(stage.trainable)
            rows = batch["tokens"]
            assert rows.shape == (stage.rows.count, stage.rows.length)
            assert rows.sharding.shard_shape(rows.shape)[0] == stage.rows.count // 8


def test_the_plan_counts_what_a_device_holds():
    experiment, _ = read(CONFIGS[[pathlib.Path(c).stem for c in CONFIGS].index("quickstart")])
    stage = experiment.stages["stage1"]
    with on_mesh(1, 8, 1):
        sizes = plan.compile_stage(experiment, stage)
        _, state, batch = budget.lower_inputs(experiment, stage)
        shards = lambda tree: sum(x.dtype.itemsize * _size(x) for x in jax.tree.leaves(tree))
        assert sizes["arguments"] == pytest.approx(shards(state) + shards(batch), rel=0.02)
        assert sizes["temporaries"] > 0


def _size(x):
    size = 1
    for n in x.sharding.shard_shape(x.shape):
        size *= n
    return size
