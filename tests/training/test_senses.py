"""A second sense, written as docs/new_modality.md says, trains by what a record and a line of config
say; and what plans count of senses."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest
from support import paths, sensing, tiny
from support.configs import checked
from support.sensing import signals  # noqa: F401

from janus_jax.config import schema
from janus_jax.model import flops
from janus_jax.model.senses import known
from janus_jax.training.preflight_weights import look_at_weights


def test_a_step_trains_a_signals_encoder_and_adaptor(signals, one_device):  # noqa: F811
    records = [sensing.record(("signal", np.sin(np.arange(64) / (1 + i)))) for i in range(4)]
    batch = sensing.batch(sensing.BOTH, *records)
    flames = ("signal_encoder", "signal_adaptor")
    state = tiny.make_state(tiny.TX, flames, sensing.BOTH)
    before = tiny.numbers(state.params)
    losses = []
    for _ in range(5):
        state, metrics = tiny.make_step()(state, tiny.put(batch))
        losses.append(float(metrics["understanding_loss"]))
    assert losses[-1] < losses[0] and float(metrics["grad_norm/signal_encoder"]) > 0
    moved = {
        k.split(".")[0] for k, x in tiny.numbers(state.params).items() if (x != before[k]).any()
    }
    assert moved == set(flames)


def test_the_recipe_names_all_that_a_sense_defines(signals):  # noqa: F811
    told = (paths.ROOT / "docs" / "new_modality.md").read_text()
    sizes = known.sizes_of("signal", {})
    own = [name for name in dir(sizes) if not name.startswith("_") and name not in vars(sizes)]
    assert sorted(own) == sorted(
        ["array", "dtype", "flops", "problems", "shape", "suffixes", "tokens"]
    )
    for name in (*own, "width", "Sizes", "Encoder", "inputs.py", "encoder.py"):
        assert re.search(rf"\b{re.escape(name)}\b", told), name


def test_flops_and_lengths_count_senses(signals):  # noqa: F811
    model = sensing.BOTH
    stage = schema.Stage(
        trainable=("points_adaptor",), init=(), steps=1, batch_size=8, ratio=schema.Ratio(1, 0, 0),
        optim=None, rows=sensing.ROWS, supervise="answers",
    )  # fmt: skip
    work = flops.expected(stage, model)
    mean = flops.lengths(stage, model)["understanding"]
    assert mean == min((16 + 8 + 8) / 3 + flops.UNDERSTANDING_TEXT, 96)
    assert work.senses == dict.fromkeys(("points", "signal"), work.understanding_images)
    assert work.understanding_images == pytest.approx(8 * 96 / mean / 3)
    counted = flops.count(model, ("points_adaptor",), work)
    n = work.understanding_images
    assert counted["signal_encoder"] == n * 2 * 64 * 16
    assert counted["points_adaptor"] == n * 8 * 2 * (32 * 32 * 2 + 32 * 32 * 3)
    assert counted["signal_adaptor"] == n * 8 * 2 * (16 * 32 + 32 * 32)
    # Gradients come down to the adaptor through the transformer, whose matrices do not learn.
    frozen = flops.count(model, (), work)
    assert counted["transformer"] == 2 * frozen["transformer"]
    batch = sensing.batch(model, sensing.record(("points", sensing.cloud(1))))
    found = flops.of_batch(batch, model)
    assert found.senses == {"points": (batch["points_slots"] > 0).sum() / 8, "signal": 0}


def test_a_sense_that_stays_random_is_told():
    experiment = checked({f"model.senses.points.{k}": str(x) for k, x in sensing.POINTS.items()})
    stage = dataclasses.replace(experiment.stages["stage1"], init=(), trainable=("transformer",))
    changed = dataclasses.replace(experiment, stages={"one": stage})
    _, report = look_at_weights(changed, pathlib.Path("nowhere"), pathlib.Path(), 1)
    (line,) = [line for line in report.warnings if "points_encoder" in line]
    assert "so it stays random: what it says of its inputs means nothing" in line
    learns = dataclasses.replace(stage, trainable=("points_encoder",))
    changed = dataclasses.replace(experiment, stages={"one": learns})
    _, report = look_at_weights(changed, pathlib.Path("nowhere"), pathlib.Path(), 1)
    assert not [line for line in report.warnings if "points_encoder" in line]
