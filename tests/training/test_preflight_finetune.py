"""What users of fine-tuning lose without a word is said before the first step."""

import math
import types

import pytest
from support.paths import ROOT

from janus_jax.config.read import read
from janus_jax.training import preflight_finetune
from janus_jax.training.preflight_finetune import finetuning_warnings, with_first_losses
from janus_jax.training.stage_plan import StagePlan

WHOLE = {"a path": types.SimpleNamespace(config="of a whole Janus")}
DROPPED = {"stages.finetune.condition_dropout": "0"}
CAPTIONS = {"data.datasets.captions.path": "a.jsonl"}
FAST = {"stages.finetune.optim.learning_rate": "0.003"}


@pytest.mark.parametrize(
    "target, given, said",
    [
        ("full", {}, []),
        ("lora", CAPTIONS, []),
        ("full", DROPPED, ["condition_dropout is 0"]),
        ("full", CAPTIONS, ["trains the whole transformer and no understanding: its answers"]),
        ("full", FAST, ["optim.learning_rate is 0.003"]),
        ("lora", FAST, ["optim.learning_rate is 0.003"]),
        ("lora", FAST | {"stages.finetune.init": "quickstart"}, []),  # a toy learns so fast
    ],
)
def test_what_is_lost_by_fine_tuning_is_told(target, given, said):
    experiment, wrong = read(str(ROOT / f"configs/finetune.py:{target}"), given)
    plan = StagePlan.of(experiment, "finetune")
    told = finetuning_warnings(plan, WHOLE)
    assert wrong == [] and len(told) == len(said)
    assert all(words in line for words, line in zip(said, told, strict=True))
    assert finetuning_warnings(plan, {"a part": types.SimpleNamespace(config=None)}) == []


@pytest.mark.parametrize(
    "step, above, held, said",
    [
        (
            0,
            1.5,
            ["image_head"],
            ["generation_loss is 11.20, and guessing one of 16,384 ids costs 9.70"],
        ),
        (0, 0.5, ["image_head"], []),
        (0, 1.5, ["text_head"], []),  # a head drawn at random, after trained layers, may be far off
        (7, 1.5, ["image_head"], []),  # a run that goes on
    ],
)
def test_a_first_loss_above_that_of_guessing_is_told_once(step, above, held, said, monkeypatch):
    monkeypatch.setattr(preflight_finetune, "open_source", lambda path: path)
    monkeypatch.setattr(preflight_finetune, "children", lambda path: held)
    plan = StagePlan.of(read(str(ROOT / "configs/stage3.py"))[0], "stage3")
    losses = {"generation_loss": math.log(16384) + above, "text_loss": 3.0}
    told = []
    stepped = with_first_losses(plan, lambda state, batch: (state, losses), ["a"], told.append)
    for _ in range(2):
        assert stepped(types.SimpleNamespace(step=step), {})[1] == losses
    assert len(told) == len(said)
    assert all(words in line for words, line in zip(said, told, strict=True))


def test_a_first_loss_above_that_of_guessing_ends_no_run_whose_init_is_gone(tmp_path):
    """A stage that goes on from a checkpoint of step 0 needs it no more."""
    plan = StagePlan.of(read(str(ROOT / "configs/stage3.py"))[0], "stage3")
    losses = {"generation_loss": math.log(16384) + 1.5}
    gone = [str(tmp_path / "gone")]
    told = []
    stepped = with_first_losses(plan, lambda state, batch: (state, losses), gone, told.append)
    assert stepped(types.SimpleNamespace(step=0), {})[1] == losses and told == []
