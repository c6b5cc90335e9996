"""The first records of a run's data, read before its first step."""

import json
import re

import pytest
from PIL import Image
from support import tiny
from support.mesh import on_mesh
from support.rehearsal import QUICKSTART, TINY, refusal, rehearsed

from janus_jax.checkpoint import checksums
from janus_jax.config import read
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import shapes_sources
from janus_jax.training import preflight_data, stage_data, stage_mixture
from janus_jax.training.changes import Changes
from janus_jax.training.stage_plan import StagePlan

pytestmark = pytest.mark.usefixtures("traced_once")


def test_a_data_set_none_of_whose_first_records_can_be_used_is_refused_and_a_few_are_told(
    tmp_path, capsys
):
    good = {"image": "p.png", "caption": "a cat"}
    Image.new("RGB", (30, 20), "red").save(tmp_path / "p.png")
    path, overrides = (
        tmp_path / "it.jsonl",
        {"data.datasets.scenes.path": str(tmp_path / "it.jsonl")},
    )
    overrides["data.datasets.scenes.images"] = str(tmp_path)
    lines = [good | {"image": "gone.png"}] * 2 + [good]
    path.write_text("\n".join(map(json.dumps, lines)))
    out = rehearsed(capsys, QUICKSTART, tmp_path / "run", overrides)
    assert (
        "data.datasets.scenes: stage1 cannot use its first 2 records, such as" in out
        and "gone.png" in out
    )
    # The first that can be used, as the model sees it.
    assert "\nscenes, it.jsonl:3, as stage1 sees it: " in out
    assert "User: a cat\n\nAssistant:<begin_of_image>«[36 x image]»<end_of_image>" in out
    # A command of --config alone would show the file's own data.
    assert "data show --out=shown.html, with the --config and --data flags of this" in out
    path.write_text("\n".join(map(json.dumps, lines[:2])))
    told = refusal(SourceError, QUICKSTART, tmp_path / "run", overrides)
    assert (
        "data.datasets.scenes: stage1 can use none of its first 2 records" in told
        and "gone.png" in told
    )


def test_rows_that_hold_other_than_batch_size_examples_are_told(tmp_path, capsys):
    overrides = {"stages.stage2.batch_size": "128", "stages.stage2.rows.count": "16"}
    overrides["stages.stage3.options.keep"] = "understanding"
    overrides["evaluation.count"] = "0"
    out = rehearsed(capsys, QUICKSTART, tmp_path / "run", overrides)
    assert re.search(r"stage1: 16 rows of 184 hold about 4[3-6] examples a step", out)
    told = re.search(
        r"stage3: .* about (\d+) examples .* keep leaves about (\d+) of them, und", out
    )
    assert int(told[2]) == pytest.approx(7 / 20 * int(told[1]), abs=1)
    (line,) = [line for line in out.splitlines() if line.startswith("WARNING")]
    held = re.search(
        r"stages.stage2.batch_size is 128, but its 16 rows of 184 hold about (\d+) .* set "
        r"stages.stage2.rows.count=(\d+)",
        line,
    )
    about = int(held[1])  # rounded
    assert 50 <= about <= 62
    assert 16 * 128 / (about + 0.5) - 0.5 <= int(held[2]) <= 16 * 128 / (about - 0.5) + 0.5


def test_records_that_are_held_out_by_path_are_read_before_training_too(tmp_path, capsys):
    good = {"image": "p.png", "caption": "a cat"}
    Image.new("RGB", (30, 20), "red").save(tmp_path / "p.png")
    tiny.processor().tokenizer.save(tmp_path)
    overrides = {"tokenizer": str(tmp_path)}
    for field, image in (("path", "p.png"), ("holdout", "gone.png")):
        (tmp_path / f"{field}.jsonl").write_text(json.dumps(good | {"image": image}) + "\n")
        overrides[f"data.datasets.scenes.{field}"] = str(tmp_path / f"{field}.jsonl")
    told = refusal(SourceError, QUICKSTART, tmp_path / "run", overrides)
    out = capsys.readouterr().out
    assert (
        f"1 records of {tmp_path}/path.jsonl (1 beside them, {tmp_path}/holdout.jsonl, held" in out
    )
    assert "data.datasets.scenes.holdout: stage1 can use none of its first 1 records" in told
    assert "gone.png" in told


def test_data_that_changed_under_the_same_config_are_asked_and_asked_once(files, weights, tmp_path):
    """By the position of a checkpoint; other libraries are no change of the data."""
    experiment = read.read(TINY, {"tokenizer": str(files / "weights")})[0]
    plan = StagePlan.of(experiment, "only")
    sources, _ = preflight_data.open_sources(experiment, [])
    opened = plan, sources, tiny.processor()
    with on_mesh():
        position = stage_data.open_batches(*opened, tmp_path, print).get_state()
    position["fingerprint"] = position["fingerprint"] | {"versions": {"numpy": "0"}}
    changes = Changes()
    report = preflight_data._look_at_position(*opened, position, changes)
    assert not changes.asked and any("may differ in bits" in line for line in report.warnings)
    sources["sentences"] = shapes_sources.ShapesText(5, 83)
    report = preflight_data._look_at_position(*opened, position, changes)
    assert [line.partition(": ")[2].partition(":")[0] for line in changes.asked] == [
        "datasets.sentences.records",
        "datasets.sentences.content",
    ]
    assert "stages.only, its data: data.datasets.sentences begins anew" in report.warnings
    again = Changes(history=[{"step": 0, "data": changes.data}])
    preflight_data._look_at_position(*opened, position, again)
    assert not again.asked


def test_pictures_that_changed_under_a_stage_without_a_position_are_asked(tmp_path):
    """Its batches are a function of the step; what the data sets held stands in the checkpoint."""
    experiment = read.read(QUICKSTART)[0]
    plan = StagePlan.of(experiment, "stage0")
    sources, _ = preflight_data.open_sources(experiment, [])
    mixture = stage_mixture.mixture_of(plan, stage_mixture.entries_of(plan, sources))
    (tmp_path / "state").mkdir()
    for noted, asked in (({"data": stage_mixture.contents(mixture)}, 1), ({}, 0)):
        checksums.write(tmp_path, {"step": 3, "leaves": {}} | noted)
        changes = Changes()
        preflight_data._look_at_contents(plan, sources, tmp_path, changes)
        assert not changes.asked
        other = sources | {"pictures": shapes_sources.ShapesGeneration(9, 31)}
        preflight_data._look_at_contents(plan, other, tmp_path, changes)
        assert len(changes.asked) == asked  # older code noted nothing
