"""A config file and its overrides become an experiment, or are refused with all faults of form."""

import dataclasses

import pytest
from support.configs import QUICKSTART, ROOT, checked

from janus_jax.common.text import differences
from janus_jax.config import read as read_
from janus_jax.config import schema as experiment


def test_overrides_reach_their_field_with_its_type():
    built = checked({
        "stages.stage3.steps": "7",
        "stages.stage1.optim.learning_rate": "1",
        "stages.stage2.trainable": "image_head,transformer",
        "stages.stage1.init": "()",
        "mesh.tensor": "2",
        "model.dtype": "bfloat16",
        "tokenizer": "",
        "model.generation_encoder.multipliers": "(1, 2, 2)",
    })  # fmt: skip
    assert built.stages["stage3"].steps == 7
    rate = built.stages["stage1"].optim.learning_rate
    assert rate == 1.0 and isinstance(rate, float)
    assert built.stages["stage2"].trainable == ("image_head", "transformer")
    assert (
        built.stages["stage1"].init == ()
        and built.mesh.tensor == 2
        and built.model.dtype == "bfloat16"
    )
    assert built.model.generation_encoder.multipliers == (1, 2, 2)
    plain = read_.read(QUICKSTART)[0]
    assert differences(dataclasses.asdict(plain), dataclasses.asdict(built))
    assert built.stages["stage2"].optim == plain.stages["stage2"].optim


def test_a_sentence_with_a_comma_is_one_prompt():
    built = checked({"evaluation.prompts": "a cat,a dog, asleep", "evaluation.every": "5"})
    assert built.evaluation.prompts == ("a cat", "a dog, asleep")


def test_a_rate_of_one_part_leaves_that_of_all_others_as_it_is():
    at = "stages.stage3.optim."
    built = checked(
        {f"{at}learning_rate.understanding_encoder": "1e-5", f"{at}weight_decay.image_head": "0.2"}
    )
    o = built.stages["stage3"].optim
    assert o.learning_rate == {"default": 1e-3, "understanding_encoder": 1e-5}
    assert o.weight_decay == {"default": 0.1, "image_head": 0.2}
    again, wrong = read_.resolve(dataclasses.asdict(built), {f"{at}learning_rate.default": "2"})
    assert not wrong
    assert again.stages["stage3"].optim.learning_rate == {
        "default": 2.0,
        "understanding_encoder": 1e-5,
    }
    one = read_.resolve(dataclasses.asdict(again), {f"{at}learning_rate": "3"})[0]
    assert one.stages["stage3"].optim.learning_rate == 3.0
    both = {f"{at}learning_rate.image_head": "2", f"{at}learning_rate": "3"}  # in whatever order
    one = read_.resolve(dataclasses.asdict(again), both)[0]
    assert one.stages["stage3"].optim.learning_rate == {"default": 3.0, "image_head": 2.0}


def test_paths_of_a_config_are_expanded_and_what_is_unknown_in_them_named(values, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    line = values["data"]["datasets"]["questions"]
    line |= {"path": "~/a.jsonl", "images": "$HOME/pictures", "image_ids": "~"}
    values["stages"]["stage1"]["init"] = ("previous", "~/siglip")
    built, wrong = read_.resolve(values, {"tokenizer": "~/tokenizer"})
    read = built.data.datasets["questions"]
    assert (read.path, read.images, read.image_ids) == (
        "/home/ada/a.jsonl", "/home/ada/pictures", "/home/ada",
    )  # fmt: skip
    assert built.stages["stage1"].init == ("previous", "/home/ada/siglip") and not wrong
    assert built.tokenizer == "/home/ada/tokenizer"
    line["path"] = "$NO_SUCH/a.jsonl"
    with pytest.raises(
        experiment.ConfigError, match=r"questions.path.*variable NO_SUCH is not set"
    ):
        read_.resolve(values, {})


@pytest.mark.parametrize(
    "overrides, batch, rows",
    [
        ({"batch_size": "28"}, 28, 8),
        ({"batch_size": "1"}, 1, 1),
        ({"batch_size": "112", "rows.length": "256"}, 112, 32),
        ({"batch_size": "32", "rows.count": "16"}, 32, 16),
        ({"rows.count": "4"}, 56, 4),
    ],
)
def test_rows_follow_a_batch_size_given_alone(overrides, batch, rows):
    """stage2 of the quick start has 16 rows for 56."""
    built = read_.read(QUICKSTART, {f"stages.stage2.{k}": v for k, v in overrides.items()})[0]
    stage = built.stages["stage2"]
    assert (stage.batch_size, stage.rows.count) == (batch, rows)
    assert built.stages["stage3"].rows.count == 16


def test_faults_of_form_in_the_file_are_named_at_once(values):
    values["modle"] = values.pop("model")
    values["stages"]["stage1"]["steps"] = 60.5
    values["stages"]["stage2"]["trainable"] = "transformer"
    values["stages"]["stage3"]["optim"] = 3e-4
    values["mesh"]["fsdp"] = 2.5
    del values["data"]["datasets"]["questions"]["path"]
    with pytest.raises(experiment.ConfigError) as error:
        read_.resolve(values, {"sed": "1"})
    for said in (
        "modle: unknown field; did you mean 'model'?", "model: missing", "data.datasets.questions.path: missing",
        "stages.stage1.steps is 60.5: must be a whole number", "--config.sed",
        "stages.stage2.trainable is 'transformer': must be a tuple", "mesh.fsdp is 2.5",
        "stages.stage3.optim is 0.0003: must be a section with learning_rate",
    ):  # fmt: skip
        assert said in str(error.value)
    assert str(error.value).startswith("8 problem(s)")


@pytest.mark.parametrize("stages", [3, "stage1", ("stage1",), None])
def test_stages_that_are_no_section_are_refused(values, stages):
    with pytest.raises(experiment.ConfigError, match=r"stages is .*: must be a section"):
        read_.resolve({**values, "stages": stages}, {})


def test_unknown_config_file_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT.parent)
    with pytest.raises(experiment.ConfigError) as error:
        read_.read("configs/quickstrat.py")
    assert "configs/quickstrat.py: no such file; did you mean 'configs/quickstart.py'?" in str(
        error.value
    )
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(experiment.ConfigError, match=r"empty\.py: defines no get_config"):
        read_.read(str(empty))


GIVEN = """
from ml_collections import ConfigDict
import runpy
def get_config(given=None):
    config = runpy.run_path({quickstart!r})["get_config"]()
    config.seed = int((given or {{}}).get("stages.stage1.steps", 5))
    return config
"""


def test_a_config_that_asks_for_them_is_given_the_overrides(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(GIVEN.format(quickstart=QUICKSTART), "utf-8")
    assert read_.read(str(file))[0].seed == 5
    built, wrong = read_.read(str(file), {"stages.stage1.steps": "7"})
    assert (built.seed, built.stages["stage1"].steps, wrong) == (7, 7, [])
    with pytest.raises(experiment.ConfigError, match="has no targets"):
        read_.read(f"{file}:h100:1")
