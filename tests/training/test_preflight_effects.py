"""A setting that changes nothing is told to whoever gave it."""

import pytest
from support.configs import shipped
from support.rehearsal import QUICKSTART

from janus_jax.config import read
from janus_jax.training.preflight_effects import settings_without_effect, undrawn

WITHOUT = [  # overrides of the quick start, and the warning
    ({"checkpoints.keep_every": "300"}, "saves every 200 steps, so that only each 600th stays"),
    ({"evaluation.holdout": "0.1"}, "records are kept from training and nothing is evaluated"),
    ({"data.datasets.scenes.holdout": "8"}, "holdout of scenes, and evaluation.every is 0: records"),
    ({"stages.stage2.ratio.generation": "0"}, "rows.generation_images is 3 and ratio.generation 0"),
    ({"stages.stage2.ratio.generation": "0", "stages.stage2.condition_dropout": "0.3"},
     "stages.stage2.condition_dropout is 0.3 and ratio.generation 0"),
    ({"data.workers": "40"}, "data.workers is 40: stages.stage1 has 16 rows a step"),
    ({"data.datasets.questions.steps": "(1000, 2000)", "stages.stage3.steps": "1000"},
     "stage2 ends at step 800, stage3 ends at step 1,000: none of its records is drawn"),
    ({"data.datasets.sentences.min_side": "64"}, "sentences.min_side is 64: kind text has no pictures"),
]  # fmt: skip


@pytest.mark.parametrize("overrides, said", WITHOUT, ids=[said[:20] for _, said in WITHOUT])
def test_a_setting_without_effect_is_told(overrides, said):
    experiment, wrong = read.read(QUICKSTART, overrides)
    assert not wrong
    warnings = settings_without_effect(experiment).warnings
    assert any(said in line for line in warnings), warnings


def test_no_shipped_config_has_one():
    for path in shipped():
        assert settings_without_effect(read.read(path)[0]).warnings == [], path


def test_steps_of_a_data_set_that_one_of_its_stages_reaches_are_not_told():
    late = {"data.datasets.questions.steps": "(1000, 2000)"}
    for stages in (
        {"stages.stage3.steps": "1001"},
        {"stages.stage3.steps": "'2 epochs of questions'"},
    ):
        assert settings_without_effect(read.read(QUICKSTART, late | stages)[0]).warnings == []


def test_data_sets_that_no_stage_draws_are_told_with_the_reason():
    overrides = {"data.datasets.pictures.weight": "0"}
    overrides |= {f"stages.stage{n}.ratio.text": "0" for n in (2, 3)}
    experiment = read.read(QUICKSTART, overrides)[0]
    assert undrawn(experiment) == {
        "pictures": "its weight is 0",
        "sentences": "ratio.text is 0 in stage0, stage1, stage2, stage3",
    }
    told = settings_without_effect(experiment).lines
    assert ("data", "pictures: not read; its weight is 0") in told


def test_places_for_pictures_to_read_are_used_by_edits():
    alone = {f"stages.stage2.ratio.{kind}": "0" for kind in ("understanding", "text")}
    told = "stages.stage2.rows.understanding_images is 2 and ratio.understanding 0"
    for line, used in (({}, False), ({"target": "after"}, True), ({"path": "shapes:edits"}, True)):
        edits = {f"data.datasets.scenes.{name}": value for name, value in line.items()}
        warnings = settings_without_effect(read.read(QUICKSTART, alone | edits)[0]).warnings
        assert any(told in line for line in warnings) is not used
