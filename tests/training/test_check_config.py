"""What a task cannot work with is refused with the field, its value and what to do."""

import dataclasses

import pytest
from support.configs import checked, refusal

from janus_jax.config.schema import ConfigError, Ratio, Rows
from janus_jax.training import check_config, task
from janus_jax.training.tokenizer_options import option_problems


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
    assert told("stage1", task="rlhf") == [
        f"task is 'rlhf': unknown; known: {', '.join(task.NAMES)}"
    ]


def test_unknown_options_are_named():
    lines = told("stage0", options={"comitment": 0.25, "entropy": 0.01, "sharpness": 1.0})
    assert lines[0] == "options.comitment: unknown; did you mean 'commitment'?"
    assert lines[1].startswith("options.sharpness: unknown; known: ") and "entropy" in lines[1]
    assert len(lines) == 2
    assert told("stage1", options={"entropy": 0.01}) == [
        "options.entropy: unknown; known: keep, probe_every"
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


GAN = {"discriminator": "patchgan", "discriminator_layers": 2, "discriminator_start": 100}


@pytest.mark.parametrize(
    "options, said",
    [
        ({"discriminator": "pathgan"}, "discriminator is 'pathgan': unknown; did you mean 'patchgan'?"),
        ({"weighting": "adaptive"}, "weighting is 'adaptive': there is no discriminator; set "
         "options.discriminator, or leave it out"),
        ({"discriminator_start": 5}, "discriminator_start is 5: there is no discriminator; set "
         "options.discriminator, or leave it out"),
        (GAN | {"discriminator_loss": "hinges"}, "discriminator_loss is 'hinges': unknown; did you mean 'hinge'?"),
        (GAN | {"discriminator_start": 20000}, "discriminator_start is 20000: the stage has 900 steps, so that "
         "its discriminator would never count; lower it, or leave options.discriminator out"),
        (GAN | {"discriminator_layers": 2.5}, "discriminator_layers is 2.5: must be a whole number"),
        (GAN | {"discriminator_layers": 4}, "discriminator is 'patchgan': has 4 layers, after which 1 of 24 "
         "pixels are left of a side, and 3 are needed: lower discriminator_layers"),
        ({"discriminator": "stylegan", "discriminator_start": 1}, "discriminator is 'stylegan': halves the sides down "
         "to 4 pixels, and pictures have 24: take a power of 2 from 8 on, or patchgan"),
        ({"perceptual_weight": 0.5}, "perceptual_weight is 0.5: options.lpips names no file, so there is no such "
         "term; name one"),
        (GAN | {"discriminator_weight": 0}, "discriminator_weight is 0: the tokenizer would learn nothing of its "
         "discriminator; leave options.discriminator out, or give a weight, as LlamaGen's 0.5"),
        ({"lpips": "a,b", "perceptual_weight": 0.0}, "perceptual_weight is 0.0: the files of options.lpips would count "
         "for nothing; leave them out"),
        ({"ema": 1.0}, "ema is 1.0: a share below 1, such as 0.9999"),
        ({"crop": 1.5}, "crop is 1.5: a share below 1, such as 0.8"),
    ],
    ids=lambda x: ", ".join(map(str, x)) if isinstance(x, dict) else "",
)  # fmt: skip
def test_options_of_the_vq_task_that_do_not_go_together_are_refused(options, said):
    assert told("stage0", options=options) == [f"options.{said}"]


@pytest.mark.parametrize(
    "options, side, said",
    [
        (GAN | {"discriminator": "stylegan"}, 32, "discriminator_layers is 2: only the patchgan reads it"),
        ({"lpips": "a,b"}, 15, "lpips is 'a,b': VGG16 halves a picture"),
        ({"lpips": "a,b"}, 16, ""),
    ],
)  # fmt: skip
def test_options_that_fit_other_sizes_alone_are_refused(options, side, said):
    stage = dataclasses.replace(checked().stages["stage0"], options=options)
    found = option_problems(stage, "stages.stage0", side)
    assert len(found) == bool(said) and all(f"stages.stage0.options.{said}" in x for x in found)


def test_a_discriminator_with_numbers_that_fit_is_taken():
    plain = checked()
    stage = dataclasses.replace(plain.stages["stage0"], options=GAN)
    changed = dataclasses.replace(plain, stages={**plain.stages, "stage0": stage})
    assert check_config.all_problems(changed, 8) == []


def test_a_janus_stage_needs_rows():
    assert told("stage1", rows=None, batch_size=48) == [
        "rows: missing; task janus packs examples into rows: give count, length and images"
    ]


LINE = "data.datasets.questions."


def test_a_data_set_is_held_out_by_share_by_number_or_by_path():
    for held in ("0", "0.1", "8", "8.0", "val.jsonl", "~/val"):
        checked({LINE + "holdout": held})
    for held in ("-1", "8.5", "1e999"):
        (told,) = refusal({LINE + "holdout": held})
        assert told == (
            f"data.datasets.questions.holdout is {float(held):g}: give a share below 1, such as 0.1, a "
            "whole number of records, or the path of those that are held out"
        )
    scenes = "data.datasets.scenes."
    (told,) = refusal({scenes + "holdout": "val", scenes + "image_ids": "ids"})
    assert told.startswith(f"{scenes}holdout is 'val': with image_ids")


def test_one_data_sets_holdout_and_what_a_user_asks_are_something_to_evaluate():
    checked({"evaluation.every": "200", LINE + "holdout": "8"})
    checked({"evaluation.every": "200", "evaluation.prompts": "a red circle"})
    assert refusal({"evaluation.questions": "a.png: what?"}) == [
        "evaluation.questions, and evaluation.every 0: when? set evaluation.every"
    ]
    assert refusal({"evaluation.at_start": "True"}) == [
        "evaluation.at_start, and evaluation.every 0: when? set evaluation.every"
    ]
    best = {"checkpoints.best": "validation_loss", "evaluation.every": "200"}
    found = refusal(best | {LINE + "holdout": "8"})
    assert found == [
        "checkpoints.best is 'validation_loss': in stages.stage0 nothing of its data is held out to "
        "measure it by; set evaluation.holdout, or holdout of a data set"
    ]
    found = refusal(best | {"checkpoints.best": "validation_text_loss", LINE + "holdout": "8"})
    assert [line.split(": ")[1][:37] for line in found] == [
        "in stages.stage0 nothing of its data ",
        "in stages.stage2 nothing of its text ",
        "in stages.stage3 nothing of its text ",
    ]


EVALUATES = {"evaluation.every": "200", "evaluation.holdout": "0.01"}


def test_evaluation_while_training_needs_what_it_is_of():
    checked(EVALUATES | {"evaluation.patience": "3", "checkpoints.best": "validation_text_loss"})
    checked(
        EVALUATES | {"evaluation.benchmarks": "pope@9=a", "checkpoints.best": "understanding/pope"}
    )
    assert refusal({"evaluation.every": "200"}) == [
        "evaluation.every is 200, and evaluation.holdout 0: nothing is held out of training to "
        "evaluate on; set evaluation.holdout, such as 0.01, or holdout of a data set"
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
