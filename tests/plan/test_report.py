"""The plan of a config for readers: what fits, what would save memory, how fast a step could be."""

import dataclasses
import json

import jax
import pytest
from support import quickstart
from support.mesh import on_mesh
from support.paths import CONFIGS

from janus_jax.config.read import read
from janus_jax.data.toy.scenes import MOST
from janus_jax.model import flops, presets
from janus_jax.model.layers import FEW
from janus_jax.plan import assumed, hlo, memory, pictures, program, report
from janus_jax.training.stage_plan import StagePlan


def test_what_does_not_fit_names_three_flags_and_the_first_helps():
    experiment = quickstart.small("none", 2, 4)
    # As many layers as go through a loop, which keeps what estimates count.
    deep = dataclasses.replace(experiment.model.transformer, layers=FEW + 2)
    deep = dataclasses.replace(experiment.model, transformer=deep)
    experiment = dataclasses.replace(experiment, model=deep)
    found = quickstart.studied(
        experiment, "stage1", dataclasses.replace(quickstart.CPU, name="a100-40gb", memory=1e5)
    )
    assert any(
        "too high" in remark for remark in found["remarks"]
    )  # the quickstart.CPU's compiler stands in
    assert not found["fits"] and len(found["savings"]) == 3
    saves = [k["saves"] for k in found["savings"]]
    assert saves == sorted(saves, reverse=True) and saves[-1] > 0
    assert found["savings"][0]["flag"] in report.savings_table(found["savings"])
    with on_mesh(2, 4, 1):
        changed = memory.changed_by(experiment, found["savings"][0]["flag"])
    after = quickstart.studied(changed, "stage1")
    temporaries = lambda s: s["bytes"]["activations"] + s["bytes"]["other"]
    assert after["fits"] and not after["savings"]
    assert temporaries(after) < temporaries(found) - saves[0] / 2


def test_an_out_of_memory_error_is_explained():
    experiment = quickstart.small("none", 2, 4)
    error = RuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes.\nmore"
    )
    with on_mesh(2, 4, 1):
        text = report.explain_out_of_memory(experiment, "stage2", error)
    assert "stage2 does not fit" in text and "moments" in text and text.count("--config.") >= 3
    assert "RESOURCE_EXHAUSTED" in text and "more" not in text.splitlines()


def test_the_whole_plan_is_told_and_is_json():
    whole, text = json.loads(json.dumps(quickstart.told()[0])), quickstart.told()[1]
    s = whole["stages"]["stage3"]
    assert whole["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1}
    for words in ("a compiler", "transformer", "moments", "FITS", "all-gather", "MFU", "Assumed",
                  "Largest losses", "alone", program.ESTIMATED):  # fmt: skip
        assert words in text
    assert any(c["kind"] == "all-gather" and c["axes"] == ["fsdp"] for c in s["collectives"])
    in_turn, overlapped = (s["speeds"][f"bound, {how} overlapped"] for how in ("nothing", "all"))
    assert 0 < overlapped["seconds"] <= in_turn["seconds"] and overlapped["mfu"] <= 1
    here = s["program"]
    assert sum(here["flops"].values()) >= here["model_flops"] == sum(s["flops"].values())
    assert here["seconds"] == s["speeds"][program.ESTIMATED]["seconds"] > overlapped["seconds"]
    assert {"LLM forward", "LLM backward", "VQ encoder", "update"} < set(here["parts"])
    assert sum(c["bytes"] for c in here["collectives"]) == pytest.approx(
        sum(c["bytes"] for c in s["collectives"])
    )
    rows = quickstart.small().stages["stage3"].rows
    drawn = here["pictures"]["draw"]
    assert drawn["room"] == rows.generation_images and 0 < drawn["holds"] <= drawn["room"]
    assert f"room for {drawn['room']} pictures to draw, and holds {drawn['holds']:.1f} by" in text
    with on_mesh(1, 8, 1):
        state = memory.lower_inputs(StagePlan.of(quickstart.small(), "stage3"))[1]
    assert s["parameters"]["transformer"] == [
        sum(x.size for x in jax.tree.leaves(state.trainable["transformer"])),
        0,
    ]


def test_a_program_that_cannot_be_read_is_a_remark():
    module = hlo.Module("ENTRY %main (x: f32[2]) {\n  %f = f32[2] fusion(), calls=%gone\n}")
    stage, model = quickstart.small().stages["stage2"], quickstart.small().model
    with on_mesh(1, 8, 1):
        found, (why,) = program.studied(
            module, quickstart.CPU, stage, model, flops.expected(stage, model), {}
        )
    assert found is None and "KeyError: 'gone'" in why and "nothing is estimated" in why


def test_the_cross_entropys_loop_turns_for_the_supervised_tokens():
    """Of the released vocabulary 1,024 tokens at a time; another loop's turns are not known."""
    stage, model = quickstart.small().stages["stage2"], presets.janus_1_3b()
    work = flops.Work(0, 0, text=2500.0, image=900.0, understanding_images=0, generation_images=0)
    loop = lambda dims: hlo.Instruction("w", f"(s32[], f32[{dims}])", "while", [], "", False)
    turns = lambda dims: program.turns(loop(dims), stage, model, work)
    with on_mesh(1, 1, 1):
        assert [turns(dims) for dims in ("2048,102400", "2048,16384", "2048,7")] == [3, 1, 1]
    with on_mesh(2, 1, 2):  # each device has half the tokens and half the vocabulary
        assert turns("2048,51200") == 1


def test_pictures_that_come_as_ids_fill_no_place():
    stage, model = quickstart.small().stages["stage2"], quickstart.small().model
    work = flops.expected(stage, model)
    told = program.pictures_a_row(stage.rows, work)
    rooms = {"understand": stage.rows.understanding_images, "draw": stage.rows.generation_images}
    assert {do: of["room"] for do, of in told.items()} == rooms
    assert told["draw"]["holds"] * stage.rows.count == work.generation_images > 0
    stored = dataclasses.replace(work, generation_images=0.0)
    assert program.pictures_a_row(stage.rows, stored) == {"understand": told["understand"]}


def test_a_stage_of_scenes_is_planned_with_all_of_its_batch():
    experiment, _ = read(f"{CONFIGS}/miniature.py:detector")
    stage = dataclasses.replace(experiment.stages["detector"], batch_size=8)
    encoder = dataclasses.replace(experiment.model.generation_encoder, image_size=32)
    model = dataclasses.replace(experiment.model, generation_encoder=encoder)
    experiment = dataclasses.replace(experiment, model=model, stages={"detector": stage})
    with on_mesh(1, 8, 1):
        found = pictures.study_pictures(experiment, "detector", quickstart.CPU)
    assert found["fits"] and found["flops"] and not found["bytes"]["LPIPS"]
    labels = 4 * (
        4 * MOST + 1
    )  # a centre's x and y, thing and size of each drawing, and the ground
    assert found["bytes"]["batch"] == 32 * 32 * 3 + labels


@pytest.mark.parametrize("rows, alone", [(True, True), (False, True), (True, False)])
def test_what_is_assumed_is_of_the_stages_that_are_planned(rows, alone):
    """Of either kind what is said of float32 products is said once."""
    stages = {"rows": {"lengths": {"text": 9.0}}, "pictures": {}}
    kinds = list(stages) if not alone else ["rows" if rows else "pictures"]
    planned = {kind: stages[kind] for kind in kinds}
    found = assumed.taken_for_granted(planned, quickstart.CPU, jax.devices()[0])
    text = "\n".join(found)
    assert ("rows full" in text, "cross-entropy" in text) == (rows, rows)
    assert ("every product of the compiled program" in text) == (not rows or not alone)
    assert ("tokens of an example of rows: text 9" in text) == rows
    assert (
        text.count("memory in the bound is a floor")
        == text.count("at the bfloat16 peak")
        == len(kinds)
    )
    marked = [line for line in found if line.startswith("stages of ")]
    assert {line.split(":")[0] for line in marked} == (
        set() if alone else {"stages of rows", "stages of pictures"}
    )
