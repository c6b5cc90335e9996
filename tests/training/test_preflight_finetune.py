"""What users of fine-tuning lose without a word is said before the first step."""

import types

import pytest
from support.paths import ROOT

from janus_jax.config.read import read
from janus_jax.training.preflight_finetune import finetuning_warnings
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
