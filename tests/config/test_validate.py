"""Every shipped config is sound, every impossible one is refused with all its faults at once."""

import copy
import pathlib

import pytest
from support.configs import ROOT, checked, refusal, shipped

from janus_jax.config import read as read_
from janus_jax.config import schema as experiment
from janus_jax.training import check_config

CONFIGS = shipped()
CONFIGS += [f"{path}:7b" for path in CONFIGS if "pro_stage" in path]
CONFIGS += [str(ROOT.parent / "configs" / f"ablations.py:{name}") for name in "ACDEF"]
CONFIGS += [
    str(ROOT.parent / "configs" / f"miniature.py:{name}")
    for name in ("vq", "siglip", "semantic", "detector", *"BCDEF")
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: pathlib.Path(path).name)
def test_shipped_configs_are_sound(path):
    built, wrong = read_.read(path)
    assert not wrong
    assert check_config.check(built, 8) is built
    assert built.stages and all(stage.steps > 0 for stage in built.stages.values())


def test_a_config_without_a_target_of_its_own_names_those_that_it_has():
    with pytest.raises(experiment.ConfigError, match=r"ablations\.py:A, :A:a100-40gb:128, "):
        read_.read(str(ROOT.parent / "configs" / "ablations.py"))


ONE = [  # an override, and what its message says besides: the field, the value, the remedy
    ("stages.stage2.step", "9", ["'step'", "did you mean 'steps'"]),
    ("stages.stage9.steps", "9", ["'stage9'", "did you mean 'stage"]),
    ("sed", "1", ["did you mean 'seed'"]),
    ("seed.more", "1", ["there is no 'more' here"]),
    ("mesh", "8", ["section", "data, fsdp, tensor"]),
    ("stages.stage2.steps", "many", ["'many'", "whole number"]),
    ("stages.stage2.steps", "1.5", ["1.5", "whole number"]),
    ("stages.stage2.steps", "3 epochs", ["'3 epochs'", "such as '3 epochs of mine'"]),
    ("stages.stage2.steps", "0 epochs of scenes", ["'0 epochs of scenes'", "more than 0 epochs"]),
    ("stages.stage2.steps", "1 epoch of scene", ["no data set 'scene'", "did you mean 'scenes'"]),
    ("stages.stage2.steps", "1 epoch of pictures", ["no data set 'pictures'", "known: questions, scenes, sentences"]),
    ("stages.stage2.steps", "True", ["True", "whole number"]),
    ("stages.stage2.optim.learning_rate", "high", ["'high'", "must be a number"]),
    ("stages.stage2.trainable", "(1, 2)", ["is 1", "text"]),
    ("stages.stage2.ratio.text", "-1", ["-1", "0 or more"]),
    ("stages.stage2.ratio.text", "1e999", ["inf", "finite"]),
    ("stages.stage2.optim.learning_rate", "-0.1", ["-0.1", "0 or more"]),
    ("stages.stage2.optim.learning_rate", "nan", ["nan", "finite"]),
    ("stages.stage2.optim.weight_decay", "-inf", ["-inf", "finite"]),
    ("stages.stage2.optim.learning_rate", "1e999", ["inf", "finite"]),
    ("stages.stage2.optim.clip_norm", "0", ["is 0", "no gradient would pass"]),
    ("stages.stage2.optim.mu_dtype", "float16", ["'float16'", "did you mean 'bfloat16'"]),
    ("stages.stage2.optim.b2", "1.0", ["1.0", "in [0, 1)"]),
    ("stages.stage2.optim.eps", "-1.0", ["-1.0", "0 or more"]),
    ("stages.stage2.optim.warmup_steps", "5000", ["5000", "longer than the 800 steps", "lower it"]),
    ("stages.stage2.optim.schedule", "cosin", ["'cosin'", "did you mean 'cosine'"]),
    ("stages.stage2.steps", "0", ["is 0", "at least 1"]),
    ("stages.stage2.accumulate", "0", ["is 0", "at least 1"]),
    ("stages.stage2.accumulate", "-2", ["is -2", "at least 1"]),
    ("stages.stage2.accumulate", "3", ["is 3", "rows.count / (mesh.data * mesh.fsdp) = 16 / 8 = 2", "nearest: 2"]),
    ("stages.stage2.accumulate", "5", ["must divide the rows of a share", "= 2; nearest: 2"]),
    ("stages.stage2.accumulate", "1.5", ["1.5", "whole number"]),
    ("stages.stage2.batch_size", "0", ["is 0", "at least 1"]),
    ("stages.stage2.log_every", "0", ["is 0", "at least 1"]),
    ("stages.stage2.spikes.window", "1", ["is 1", "at least 2"]),
    ("stages.stage2.spikes.sigma", "-6", ["-6", "0 or more"]),
    ("stages.stage0.spikes.sigma", "1e999", ["inf", "finite"]),
    ("stages.stage2.spikes.sigmas", "6", ["'sigmas'", "did you mean 'sigma'"]),
    ("stages.stage2.trainable", "transfromer", ["'transfromer'", "did you mean 'transformer'"]),
    ("stages.stage2.trainable", "()", ["empty", "nothing would be learned"]),
    ("stages.stage2.supervise", "answer", ["'answer'", "did you mean 'answers'"]),
    ("data.datasets.questions.form", "plane", ["'plane'", "did you mean 'plain'"]),
    ("data.datasets.questions.continues", "False", ["texts alone", "its kind is understanding"]),
    ("stages.stage2.condition_dropout", "1.5", ["1.5", "[0, 1]"]),
    ("stages.stage2.rows.count", "12", ["12", "8 must divide it", "nearest: 8 or 16"]),
    ("stages.stage2.rows.length", "40", ["40", "at least 44"]),
    ("stages.stage2.rows.understanding_images", "0", ["0", "at least 1"]),
    ("stages.stage2.rows.bins", "16",
     ["there is no 'bins' here", "known: count, length, understanding_images, generation_images"]),
    ("model.transformer.heads", "3", ["128", "2 * heads = 6", "nearest: 126 or 132"]),
    ("model.transformer.layers", "0", ["is 0", "at least 1"]),
    ("model.understanding_encoder.patch_size", "5", ["24", "patch_size 5", "nearest: 20 or 25"]),
    ("model.understanding_encoder.patch_size", "0", ["is 0", "at least 1"]),
    ("model.understanding_encoder.heads", "3", ["width is 64", "heads 3 must divide it", "nearest: 63 or 66"]),
    ("model.understanding_encoder.feature_layer", "-3", ["is -3", "layers = 2", "from -2 to -1, the last"]),
    ("model.understanding_encoder.feature_layer", "0", ["is 0", "from -2 to -1, the last"]),
    ("model.understanding_encoder.activation", "quickgelu", ["'quickgelu'", "did you mean 'quick_gelu'"]),
    ("model.understanding_encoder.pixels", "0.5", ["'0.5'", "known: siglip, clip, imagenet"]),
    ("model.understanding_encoder.variant", "class_tokens", ["'class_tokens'", "did you mean 'class_token'"]),
    ("model.understanding_encoder.variant", "qk_norm,qk_norm", ["stands twice", "name each once"]),
    ("model.understanding_encoder.variant", "no_key_bias,no_qkv_bias", ["takes all three away", "leave the first out"]),
    ("model.understanding_encoder.norm_eps", "-1.0", ["-1.0", "0 or more"]),
    ("model.understanding_encoder.rotary_grid", "-1", ["is -1", "0, without rotary embeddings"]),
    ("model.understanding_encoder.tiles", "0", ["is 0", "from 1, a picture as a whole, to 36"]),
    ("model.understanding_encoder.tiles", "-4", ["is -4", "from 1, a picture as a whole, to 36"]),
    ("model.understanding_encoder.tiles", "40", ["is 40", "from 1, a picture as a whole, to 36"]),
    ("model.understanding_encoder.tiling", "intern_vl", ["'intern_vl'", "did you mean 'internvl'"]),
    ("model.understanding_encoder.tiling", "llava_hd", ["'llava_hd'", "tiles is 1; set that"]),
    ("model.understanding_encoder.pixel_shuffle", "0", ["is 0", "at least 1"]),
    ("model.understanding_encoder.pixel_shuffle", "2", ["is 2", "the grid's 3 patches a side", "nearest: 1 or 3"]),
    ("model.generation_encoder.norm_groups", "3", ["16", "norm_groups 3", "nearest: 15 or 18"]),
    ("model.generation_encoder.multipliers", "()", ["()", "at least one"]),
    ("model.generation_encoder.multipliers", "(1, 1, 1, 1, 1)", ["24", "16 must divide it", "nearest: 16 or 32"]),
    ("model.generation_encoder.decoder_norm", "spacial", ["'spacial'", "did you mean 'spatial'"]),
    ("model.generation_encoder.codebook_l2_norm", "no", ["'no'", "must be a bool"]),
    ("model.dtype", "float8", ["'float8'", "did you mean 'float"]),
    ("model.remat", "some", ["'some'", "did you mean 'none'"]),
    ("data.workers", "-1", ["-1", "0 or more"]),
    ("data.max_bad_fraction", "1.5", ["1.5", "a share lies in [0, 1]"]),
    ("data.max_bad_fraction", "nan", ["nan", "a share lies in [0, 1]"]),
    ("data.on_change", "accept", ["there is no 'on_change' here", "--accept_changes"]),
    ("data.source", "shapes", ["there is no 'source' here", "known: datasets, workers"]),
    ("data.datasets", "shapes:", ["section", "questions, scenes, sentences"]),
    ("data.datasets.question.path", "a.json", ["'question'", "did you mean 'questions'"]),
    ("data.datasets.questions.pth", "a.json", ["'pth'", "did you mean 'path'"]),
    ("data.datasets.questions.path", "", ["is empty", "name a file, a glob, a folder"]),
    ("data.datasets.questions.kind", "txt", ["'txt'", "did you mean 'text'"]),
    ("data.datasets.questions.kind", "vqa", ["'vqa'", "known: understanding, text, generation"]),
    ("data.datasets.questions.format", "jsn", ["'jsn'", "did you mean 'json'"]),
    ("data.datasets.questions.weight", "-1", ["-1", "0 or more"]),
    ("data.datasets.questions.weight", "nan", ["nan", "finite"]),
    ("data.datasets.scenes.source_ids", "1.5", ["source_ids is 1.5", "lies in [0, 1]"]),
    ("data.datasets.scenes.edit_dropout", "(0.5, 0.5, 0.5)", ["(0.5, 0.5, 0.5)", "sum is at most 1"]),
    ("data.datasets.scenes.edit_dropout", "(0.1, 0.1)", ["(0.1, 0.1)", "give three probabilities"]),
    ("data.datasets.questions.weight", "inf", ["inf", "finite"]),
    ("data.datasets.questions.weight", "much", ["'much'", "must be a number"]),
    ("data.datasets.questions.min_side", "-1", ["-1", "0 or more"]),
    ("data.datasets.questions.min_score", "nan", ["nan", "finite"]),
    ("data.datasets.questions.min_score", "5.0", ["5.0", "name its field in"]),
    ("data.datasets.sentences.prompt", "what?", ["kind text neither asks nor draws", "leave it out"]),
    ("stages.stage2.optim.end_factor", "0.1", ["0.1", "schedule=cosine"]),
    ("stages.stage2.optim.learning_rate.transformer", "-1", ["is -1", "0 or more"]),
    ("stages.stage2.optim.learning_rate.transformer", "high", ["'high'", "must be a number"]),
    ("stages.stage2.optim.weight_decay.transformer", "nan", ["nan", "finite"]),
    ("stages.stage2.optim.clip_norm.transformer", "1", ["there is no 'transformer' here"]),
    ("stages.stage2.optim.ema", "1.0", ["1.0", "in [0, 1)"]),
    ("stages.stage0.optim.ema", "0.9", ["averages its tokenizer", "set stages.stage0.options.ema"]),
    ("stages.stage2.optim.warmup_steps", "1.5", ["is 1.5", "whole number of steps, or a share below 1"]),
    ("stages.stage2.optim.decay_steps", "0.1", ["is 0.1", "schedule=constant does not read it", "schedule=wsd"]),
    ("stages.stage2.optim.schedule", "wsd", ["optim.decay_steps is 0", "or their share, such as 0.1"]),
    ("data.datasets.questions.steps", "(9, 3)", ["(9, 3)", "the first step and the one after the last"]),
    ("data.datasets.questions.steps", "(9, 9)", ["(9, 9)", "(first, end)"]),
    ("data.datasets.questions.steps", "(9,)", ["(9,)", "(first, end)"]),
    ("data.datasets.questions.steps", "(-1, 9)", ["(-1, 9)", "(first, end)"]),
    ("data.datasets.questions.steps", "(0.5, 9)", ["0.5", "whole number"]),
    ("data.datasets.questions.stages", "stage4", ["'stage4'", "did you mean 'stage"]),
    ("data.datasets.questions.image_ids", "ids", ["'ids'", "only pictures to draw have ids"]),
    ("evaluation.count", "-1", ["-1", "0 or more"]),
    ("seed", "-1", ["-1", "0 or more"]),
    ("profile", "-1", ["-1", "0 or more"]),
]  # fmt: skip


@pytest.mark.parametrize("key, value, said", ONE, ids=lambda x: x if isinstance(x, str) else "")
def test_one_fault_is_one_message_with_field_value_and_remedy(key, value, said):
    lines = refusal({key: value})
    about = key.rsplit(".", 1)[0] if "nearest" in said[-1] or "optim." in said[0] else key
    found = [line for line in lines if about in line]
    assert found, lines
    assert any(all(word in line for word in said) for line in found), found


def test_rotary_embeddings_need_heads_of_pairs_along_two_axes():
    encoder = "model.understanding_encoder"
    lines = refusal({f"{encoder}.rotary_grid": "6", f"{encoder}.width": "60"})
    (found,) = [line for line in lines if "rotary" in line]
    assert f"{encoder}.width is 60" in found and "4 * heads = 8" in found and "56 or 64" in found


def test_rows_hold_one_picture_with_all_its_tiles():
    tower, rows = "model.understanding_encoder", "stages.stage2.rows"
    lines = refusal({f"{tower}.tiles": "20"})
    made = f"({tower}.tiles makes up to 21 of a picture)"
    assert (
        f"{rows}.understanding_images is 2: ratio.understanding needs at least 21 {made}" in lines
    )
    assert f"{rows}.length is 184: one picture of understanding needs at least 197 {made}" in lines
    fits = {f"stages.stage{n}.rows.understanding_images": "21" for n in (1, 2, 3)}
    assert checked(fits | {f"{tower}.tiles": "20", f"{tower}.pixel_shuffle": "3"})


def test_pictures_that_another_encoder_reads_have_no_tiles():
    tower = "model.understanding_encoder"
    given = {"model.understanding": "vq", f"{tower}.tiles": "2", f"{tower}.pixel_shuffle": "3"}
    lines = [line for line in refusal(given) if "read by another encoder" in line]
    assert [line.split(":")[0] for line in lines] == [
        f"{tower}.tiles is 2",
        f"{tower}.pixel_shuffle is 3",
    ]


def test_a_decay_that_leaves_no_room_for_the_warm_up_is_refused():
    o = "stages.stage2.optim."
    given = {f"{o}schedule": "wsd", f"{o}decay_steps": "0.99", f"{o}warmup_steps": "50"}
    (line,) = refusal(given)
    assert all(x in line for x in (f"{o}decay_steps is 0.99", "792", "the 50 of", "800 steps"))
    assert checked(given | {f"{o}warmup_steps": "0.01"})


def test_rates_by_part_without_one_for_the_others_are_refused(values):
    o = values["stages"]["stage2"]["optim"]
    o["learning_rate"] = {"transformer": 1e-3}
    o["weight_decay"] = {"transformer": 0.1}
    built, _ = read_.resolve(values, {})
    (line,) = check_config.all_problems(built, 8)
    assert "stages.stage2.optim.learning_rate has transformer, but no default" in line
    o["learning_rate"] = None
    with pytest.raises(experiment.ConfigError, match="learning_rate is None: must be a number"):
        read_.resolve(values, {})


def test_every_format_that_can_be_read_may_be_named():
    for name in experiment.FORMATS:
        assert (
            checked({"data.datasets.questions.format": name}).data.datasets["questions"].format
            == name
        )


def test_nan_is_refused_wherever_a_number_is_wanted(values):
    def poison(node, path=()):
        for name, value in node.items():
            if isinstance(value, dict):
                yield from poison(value, (*path, name))
            elif isinstance(value, float):
                yield (*path, name)

    for path in poison(values):
        broken = copy.deepcopy(values)
        node = broken
        for name in path[:-1]:
            node = node[name]
        node[path[-1]] = float("nan")
        built, wrong = read_.resolve(broken, {})
        with pytest.raises(experiment.ConfigError) as error:
            check_config.check(built, 8, known=wrong)
        assert ".".join(path) in str(error.value) and "nan" in str(error.value)


def test_no_data_at_all_is_refused():
    (line,) = refusal(
        {f"stages.stage2.ratio.{task}": "0" for task in ("understanding", "text", "generation")}
    )
    assert "stages.stage2.ratio.text" in line and "all 0" in line and "at least one" in line


@pytest.mark.parametrize(
    "mesh, said",
    [
        ((3, 1, 2), ["data=3, fsdp=1, tensor=2", "3x1x2=6 of 8 devices", "leave one at -1"]),
        (
            (3, -1, 1),
            ["data=3, fsdp=-1", "data * tensor = 3 must divide the 8 devices; nearest: 2 or 4"],
        ),
        ((4, 4, -1), ["data * fsdp = 16 must divide the 8 devices; nearest: 8"]),
        ((-1, -1, 1), ["at most one is -1"]),
        ((0, 8, 1), ["data=0", "at least 1"]),
    ],
)
def test_a_mesh_that_does_not_hold_the_devices(mesh, said):
    (line,) = refusal(dict(zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), map(str, mesh))))
    assert all(word in line for word in said)


def test_a_mesh_that_does_not_divide_the_heads():
    lines = refusal({"mesh.tensor": "8"})
    assert (
        "model.transformer.heads is 4: mesh.tensor = 8 must divide it; nearest: mesh.tensor = 4 "
        "(or heads 8)"
    ) in lines
    assert any("model.understanding_encoder.heads is 2" in line for line in lines)
    (line,) = refusal(
        {
            "mesh.tensor": "4",
            "model.transformer.vocabulary": "450",
            "model.understanding_encoder.heads": "4",
        }
    )
    assert (
        "vocabulary is 450" in line
        and "nearest: mesh.tensor = 3 or 5 (or vocabulary 448 or 452)" in line
    )
    first, second, *_ = refusal({"mesh.data": "5", "mesh.fsdp": "1"}, devices=5)
    assert first.startswith("stages.stage0.batch_size is 16")
    assert second.startswith("stages.stage1.rows.count")


def test_a_mesh_that_does_not_divide_the_widths():
    changes = {"model.understanding_encoder.width": "66", "model.image_head_width": "100"}
    lines = refusal({**changes, "model.transformer.mlp_width": "388"})
    both = "mesh.fsdp * mesh.tensor"
    for said in (
        "understanding_encoder.width is 66: mesh.fsdp = 8 must divide it; nearest: mesh.fsdp = 6 "
        "or 11",
        "image_head_width is 100: mesh.fsdp = 8 must divide it; nearest: mesh.fsdp = 5 or 10 (or "
        "image",
        f"transformer.mlp_width is 388: {both} = 8 must divide it; nearest: {both} = 4 or 97 (or "
        "mlp_width 384",
    ):
        assert any(said in line for line in lines), (said, lines)


def test_many_faults_are_named_at_once():
    lines = refusal({
        "stages.stage1.stepz": "3", "stages.stage1.steps": "none", "stages.stage2.ratio.text": "-3",
        "stages.stage2.optim.learning_rate": "-1", "stages.stage3.trainable": "lmm", "mesh.data": "3",
        "stages.stage3.rows.count": "0", "data.datasets.scenes.format": "disk", "model.dtype": "int8",
    })  # fmt: skip
    for field in (
        "stages.stage1.stepz", "stages.stage1.steps", "stages.stage2.ratio.text", "stages.stage3.trainable",
        "stages.stage2.optim.learning_rate", "mesh", "stages.stage3.rows.count", "data.datasets.scenes.format",
        "model.dtype",
    ):  # fmt: skip
        assert sum(field in line for line in lines) == 1, (field, lines)
    assert len(lines) == 9


def test_an_experiment_needs_a_stage(values):
    built, _ = read_.resolve({**values, "stages": {}}, {})
    with pytest.raises(experiment.ConfigError, match="stages: there is none; name at least one"):
        check_config.check(built, 8)


def test_previous_needs_a_stage_before_it(values):
    del values["stages"]["stage0"]
    built, _ = read_.resolve(values, {})
    with pytest.raises(
        experiment.ConfigError, match=r"stages\.stage1\.init names 'previous', but no stage"
    ):
        check_config.check(built, 8)
