"""Steps by epochs, counted of the data."""

import dataclasses
import json
import os

import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh
from support.rehearsal import TINY, refusal

from janus_jax.config.read import resolve
from janus_jax.data.toy import shapes_sources
from janus_jax.training import epochs, preflight, stage_data
from janus_jax.training.stage_plan import StagePlan

SOURCES = {
    "see": shapes_sources.ShapesUnderstanding(0, 101),
    "draw": shapes_sources.ShapesGeneration(0, 97),
    "late": shapes_sources.ShapesGeneration(1, 97),
}


def experiment(steps: str, **changes):
    stage = {
        "trainable": ("image_head",), "init": (), "steps": steps, "batch_size": 999,
        "rows": {"count": 4, "length": 192, "understanding_images": 2, "generation_images": 2},
        "ratio": {"understanding": 1, "text": 0, "generation": 2}, "optim": {"learning_rate": 1e-3},
    }  # fmt: skip
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "data": {"datasets": {
            "see": {"kind": "understanding", "path": "shapes:"},
            "draw": {"kind": "generation", "path": "shapes:", "weight": 3},
            "late": {"kind": "generation", "path": "shapes:", "steps": (8, 10_000)},
        }},
        "stages": {"one": stage | changes},
        "evaluation": {"every": 2, "holdout": 0.1},
    }  # fmt: skip
    return resolve(values, {})[0]


def test_so_many_steps_draw_a_data_set_so_often_without_what_is_held_out(tmp_path):
    """`late` takes a quarter of the drawings from step 8 on. batch_size says nothing true."""
    tiny.processor().tokenizer.save(tmp_path)
    with on_mesh():
        found, report = epochs.count_steps(experiment("2 epochs of draw"), SOURCES, tmp_path)
        plan = StagePlan.of(found, "one")
        data = stage_data.open_batches(plan, SOURCES, tiny.processor(), tmp_path, print)
        entries = np.concatenate([next(data)[1][:, 1] for _ in range(plan.stage.steps)])
        drawn = {e.name: int((entries == k).sum()) for k, e in enumerate(data.mixture.entries)}
        data.close()
    assert not report.config
    ((subject, text),) = report.lines
    assert subject == "epochs"
    assert f"one: 2 epochs of draw are {plan.stage.steps:,} steps: 87 records" in text
    assert drawn["draw"] == pytest.approx(2 * 87, rel=0.1)


def test_a_learned_tokenizer_that_was_cut_does_not_keep_steps_from_being_counted(tmp_path):
    """The run learns it again, as long as nothing was trained with it."""
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with on_mesh():
        found, report = epochs.count_steps(experiment("1 epoch of draw"), SOURCES, tmp_path)
    assert not report.config and found.stages["one"].steps > 1


def test_a_stage_without_rows_takes_batch_size_pictures_a_step(tmp_path):
    e = experiment("3 epochs of draw", task="vq", rows=None, batch_size=16)
    ratio = dataclasses.replace(e.stages["one"].ratio, understanding=0.0)
    e = dataclasses.replace(e, stages={"one": dataclasses.replace(e.stages["one"], ratio=ratio)})
    with on_mesh():
        found, _ = epochs.count_steps(e, SOURCES, tmp_path)
    # 8 steps of 16, then of 12, until 3 * 87 are drawn.
    assert found.stages["one"].steps == 8 + 12


def test_a_data_set_that_ends_before_its_epochs_is_told(tmp_path):
    e = experiment("500 epochs of late", batch_size=16, rows=None, task="vq")
    with on_mesh():
        found, report = epochs.count_steps(e, SOURCES, tmp_path)
    (line,) = report.config
    assert "stages.one.steps is '500 epochs of late'" in line and "late.steps ends" in line
    assert found.stages["one"].steps == "500 epochs of late"


def test_a_run_keeps_its_steps_as_a_number_and_a_dry_run_tells_them(weights, tmp_path, capsys):
    """Its tokenizer is that of the weights."""
    directory = os.environ["WEIGHTS"]
    flags = {"stages.only.steps": "0.01 epochs of scenes", "tokenizer": directory}
    with on_mesh():  # it sets the run's own, which is to end with the test
        found = preflight.prepare(TINY, flags, tmp_path / "run")
    ((_, told),) = [line for line in found.report.lines if line[0] == epochs.SUBJECT]
    steps = found.experiment.stages["only"].steps
    assert f"only: 0.01 epochs of scenes are {steps:,} steps: " in told
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["stages"]["only"]["steps"] == steps
    late = flags | {"stages.only.optim.warmup_steps": str(steps + 1)}
    assert f"longer than the {steps} steps" in refusal(ValueError, TINY, tmp_path / "other", late)
    assert told in capsys.readouterr().out
