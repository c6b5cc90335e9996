"""What a task cannot work with is refused with the field, its value and what to do."""

import dataclasses

import pytest
from support.configs import checked, refusal

from janus_jax.config.schema import ConfigError, Ratio, Rows
from janus_jax.training import check_config, task


def told(stage: str, **changes) -> list[str]:
    """The lines about the fields of a stage of the quick start, changed, with which it is
    refused."""
    plain = checked()
    changed = dataclasses.replace(plain.stages[stage], **changes)
    experiment = dataclasses.replace(plain, stages={**plain.stages, stage: changed})
    with pytest.raises(ConfigError) as error:
        check_config.check(experiment, 8)
    _, *lines = str(error.value).split("\n")
    assert [f"  - {line}" for line in check_config.all_problems(experiment, 8)] == lines
    return [line.removeprefix(f"  - stages.{stage}.") for line in lines]


def test_an_unknown_task_names_the_nearest():
    assert told("stage1", task="jnaus") == ["task is 'jnaus': unknown; did you mean 'janus'?"]
    assert told("stage1", task="dpo") == [f"task is 'dpo': unknown; known: {', '.join(task.NAMES)}"]


def test_unknown_options_are_named():
    lines = told("stage0", options={"comitment": 0.25, "entropy": 0.01, "sigma": 1.0})
    assert lines == [
        "options.comitment: unknown; did you mean 'commitment'?",
        "options.sigma: unknown; known: commitment, entropy",
    ]
    assert told("stage1", options={"entropy": 0.01}) == [
        "options.entropy: unknown; task janus has none"
    ]


@pytest.mark.parametrize("value", [-0.5, float("nan"), 1e39])
def test_an_option_that_is_no_weight_is_refused(value):
    assert told("stage0", options={"commitment": value}) == [
        f"options.commitment is {value}: must be a finite number in float32, 0 or more"
    ]


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"rows": Rows(16, 208, 2, 4)},
            "rows: task vq packs no rows, a step has batch_size images; leave it out",
        ),
        (
            {"ratio": Ratio(0.0, 3.0, 1.0)},
            "ratio is 0:3:1: task vq learns from images of generation alone; set it to 0:0:1",
        ),
        (
            {"trainable": ("generation_encoder", "image_head")},
            "trainable is ('generation_encoder', 'image_head'): task vq trains the tokenizer "
            "alone; set it to ('generation_encoder',)",
        ),
        (
            {"accumulate": 2},
            "accumulate is 2: task vq reads no such field; leave it out",
        ),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_what_the_vq_task_cannot_use_is_refused(changes, said):
    assert said in told("stage0", **changes)


def test_a_janus_stage_needs_rows():
    assert told("stage1", rows=None, batch_size=48) == [
        "rows: missing; task janus packs examples into rows: give count, length and images"
    ]


EVALUATES = {"evaluation.every": "200", "evaluation.holdout": "0.01"}


def test_evaluation_while_training_needs_what_it_is_of():
    checked(EVALUATES | {"evaluation.patience": "3", "checkpoints.best": "validation_text_loss"})
    checked(
        EVALUATES | {"evaluation.benchmarks": "pope@9=a", "checkpoints.best": "understanding/pope"}
    )
    assert refusal({"evaluation.every": "200"}) == [
        "evaluation.every is 200, and evaluation.holdout 0: nothing is held out of training to "
        "evaluate on; set evaluation.holdout, such as 0.01"
    ]
    assert refusal({"checkpoints.best": "validation_loss"}) == [
        "checkpoints.best is 'validation_loss', and evaluation.every 0: nothing measures it; set "
        "evaluation.every"
    ]
    assert refusal(EVALUATES | {"evaluation.patience": "3"}) == [
        "evaluation.patience is 3: name the metric that must become better in checkpoints.best, "
        "such as validation_loss"
    ]
    assert refusal(EVALUATES | {"checkpoints.best": "validation_lost"}) == [
        "checkpoints.best is 'validation_lost': unknown; did you mean 'validation_loss'?"
    ]
    assert refusal({"evaluation.holdout": "1.5", "evaluation.every": "-1"}) == [
        "evaluation.every is -1: must be a finite number in float32, 0 or more",
        "evaluation.holdout is 1.5: a share below 1, such as 0.01",
    ]
