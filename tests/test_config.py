"""Every shipped config is sound, every impossible one is refused with all its faults at once, no field is dead."""

import ast
import copy
import dataclasses
import pathlib
import typing

import numpy as np
import pytest
from safetensors.numpy import save_file

import janus_jax
from janus_jax import checks, experiment, identity
from janus_jax.data import catalog
from janus_jax.model.config import differences

ROOT = pathlib.Path(janus_jax.__file__).parent
CONFIGS = sorted((ROOT.parent / "configs").glob("*.py"))
QUICKSTART = str(ROOT.parent / "configs" / "quickstart.py")


def checked(overrides=None, devices=8, files=False, path=QUICKSTART):
    """The quick start's config with overrides, read and checked as main does."""
    built, wrong = experiment.read(path, overrides)
    return checks.check(built, devices, files=files, known=wrong)


def refusal(overrides=None, **options):
    """The problems that a config is refused with, one line each."""
    with pytest.raises(experiment.ConfigError) as error:
        checked(overrides, **options)
    title, *lines = str(error.value).split("\n")
    assert title == f"{len(lines)} problem(s) in the config:"
    return [line.removeprefix("  - ") for line in lines]


@pytest.fixture
def values():
    """The quick start as a plain dict."""
    return copy.deepcopy(dataclasses.asdict(experiment.read(QUICKSTART)[0]))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_sound(path):
    built, wrong = experiment.read(str(path))
    assert not wrong
    assert checks.check(built, 8, files=False) is built
    assert built.stages and all(stage.steps > 0 for stage in built.stages.values())


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
    assert built.stages["stage1"].init == () and built.mesh.tensor == 2 and built.model.dtype == "bfloat16"
    assert built.model.generation_encoder.multipliers == (1, 2, 2)
    plain = experiment.read(QUICKSTART)[0]
    assert differences(dataclasses.asdict(plain), dataclasses.asdict(built))
    assert built.stages["stage2"].optim == plain.stages["stage2"].optim


def test_command_line_is_split():
    argv = ["main", "--config=a.py", "--config.seed=3", "--workdir", "w", "--config.data.on_change", "accept"]
    rest, overrides = experiment.split_flags(argv)
    assert rest == ["main", "--config=a.py", "--workdir", "w"]
    assert overrides == {"seed": "3", "data.on_change": "accept"}


ONE = [  # an override, and what its message says besides: the field, the value, the remedy
    ("stages.stage2.step", "9", ["'step'", "did you mean 'steps'"]),
    ("stages.stage9.steps", "9", ["'stage9'", "did you mean 'stage"]),
    ("sed", "1", ["did you mean 'seed'"]),
    ("seed.more", "1", ["there is no 'more' here"]),
    ("mesh", "8", ["section", "data, fsdp, tensor"]),
    ("stages.stage2.steps", "many", ["'many'", "whole number"]),
    ("stages.stage2.steps", "1.5", ["1.5", "whole number"]),
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
    ("stages.stage2.optim.warmup_steps", "5000", ["5000", "longer than the 850 steps", "lower it"]),
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
    ("stage0.spikes.sigma", "1e999", ["inf", "finite"]),
    ("stages.stage2.spikes.sigmas", "6", ["'sigmas'", "did you mean 'sigma'"]),
    ("stages.stage2.trainable", "transfromer", ["'transfromer'", "did you mean 'transformer'"]),
    ("stages.stage2.trainable", "()", ["empty", "nothing would be learned"]),
    ("stages.stage2.supervise", "answer", ["'answer'", "did you mean 'answers'"]),
    ("stages.stage2.condition_dropout", "1.5", ["1.5", "[0, 1]"]),
    ("stages.stage2.rows.count", "12", ["12", "8 must divide it", "nearest: 8 or 16"]),
    ("stages.stage2.rows.length", "40", ["40", "at least 44"]),
    ("stages.stage2.rows.pictures", "0", ["0", "at least 1"]),
    ("stages.stage2.rows.bins", "16", ["there is no 'bins' here", "known: count, length, pictures, images"]),
    ("model.transformer.heads", "3", ["128", "2 * heads = 6", "nearest: 126 or 132"]),
    ("model.transformer.layers", "0", ["is 0", "at least 1"]),
    ("model.understanding_encoder.patch_size", "5", ["24", "patch_size 5", "nearest: 20 or 25"]),
    ("model.understanding_encoder.patch_size", "0", ["is 0", "at least 1"]),
    ("model.generation_encoder.norm_groups", "3", ["16", "norm_groups 3", "nearest: 15 or 18"]),
    ("model.generation_encoder.multipliers", "()", ["()", "at least one"]),
    ("model.dtype", "float8", ["'float8'", "did you mean 'float"]),
    ("model.remat", "some", ["'some'", "did you mean 'none'"]),
    ("data.workers", "-1", ["-1", "0 or more"]),
    ("data.max_bad_fraction", "1.5", ["1.5", "a share lies in [0, 1]"]),
    ("data.max_bad_fraction", "nan", ["nan", "a share lies in [0, 1]"]),
    ("data.on_change", "accpet", ["'accpet'", "did you mean 'accept'"]),
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
    ("data.datasets.questions.weight", "inf", ["inf", "finite"]),
    ("data.datasets.questions.weight", "much", ["'much'", "must be a number"]),
    ("data.datasets.questions.min_side", "-1", ["-1", "0 or more"]),
    ("data.datasets.questions.min_score", "nan", ["nan", "finite"]),
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
    about = key if "nearest" not in said[-1] else key.rsplit(".", 1)[0]
    found = [line for line in lines if about in line]
    assert found, lines
    assert any(all(word in line for word in said) for line in found), found


@pytest.mark.parametrize(
    "changes, step",
    [
        ({"weight": "0"}, 0),  # all weights of the kind
        ({"steps": "(0, 100)"}, 100),
        ({"steps": "(100, 900)"}, 0),
        ({"stages": "stage1,stage3"}, 0),
    ],
)
def test_a_kind_that_is_asked_for_has_data_in_every_step(changes, step):
    lines = refusal({f"data.datasets.sentences.{field}": value for field, value in changes.items()})
    expected = (
        f"stages.stage2: from step {step} on no data.datasets is of kind 'text', of which the ratio asks 3"
    )
    assert lines[0].startswith(expected) and "widen the `steps`" in lines[0]
    # Stage 1 asks for none, and stage 3 may end before the change or be the one that is served.
    assert not any(line.startswith("stages.stage1") for line in lines)


def test_two_data_sets_of_a_kind_may_take_turns(values):
    text = values["data"]["datasets"].pop("sentences")
    first, second = text | {"steps": (0, 100)}, text | {"steps": (100, 900)}
    values["data"]["datasets"] |= {"first": first, "second": second, "idle": text | {"weight": 0.0}}
    built, wrong = experiment.resolve(values, {})
    assert checks.check(built, 8, files=False, known=wrong) is built
    values["data"]["datasets"]["second"]["steps"] = (101, 900)
    built, _ = experiment.resolve(values, {})
    with pytest.raises(
        experiment.ConfigError, match=r"stage2: from step 100 on no data\.datasets is of kind 'text'"
    ):
        checks.check(built, 8, files=False)


def test_every_format_that_can_be_read_may_be_named():
    for name in catalog.FORMATS:
        assert checked({"data.datasets.questions.format": name}).data.datasets["questions"].format == name


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
        built, wrong = experiment.resolve(broken, {})
        with pytest.raises(experiment.ConfigError) as error:
            checks.check(built, 8, files=False, known=wrong)
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
        ((3, -1, 1), ["data=3, fsdp=-1", "data * tensor = 3 must divide the 8 devices; nearest: 2 or 4"]),
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
        "model.transformer.heads is 4: mesh.tensor = 8 must divide it; nearest: mesh.tensor = 4 (or heads 8)"
    ) in lines
    assert any("model.understanding_encoder.heads is 2" in line for line in lines)
    (line,) = refusal(
        {"mesh.tensor": "4", "model.transformer.vocabulary": "450", "model.understanding_encoder.heads": "4"}
    )
    assert "vocabulary is 450" in line and "nearest: mesh.tensor = 3 or 5 (or vocabulary 448 or 452)" in line
    assert refusal({"mesh.data": "5", "mesh.fsdp": "1"}, devices=5)[0].startswith("stages.stage1.rows.count")


def test_a_mesh_that_does_not_divide_the_widths():
    changes = {"model.understanding_encoder.width": "66", "model.image_head_width": "100"}
    lines = refusal({**changes, "model.transformer.mlp_width": "388"})
    both = "mesh.fsdp * mesh.tensor"
    for said in (
        "understanding_encoder.width is 66: mesh.fsdp = 8 must divide it; nearest: mesh.fsdp = 6 or 11",
        "image_head_width is 100: mesh.fsdp = 8 must divide it; nearest: mesh.fsdp = 5 or 10 (or image",
        f"transformer.mlp_width is 388: {both} = 8 must divide it; nearest: {both} = 4 or 97 (or mlp_width 384",
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


def test_faults_of_form_in_the_file_are_named_at_once(values):
    values["modle"] = values.pop("model")
    values["stages"]["stage1"]["steps"] = "60"
    values["stages"]["stage2"]["trainable"] = "transformer"
    values["stages"]["stage3"]["optim"] = 3e-4
    values["mesh"]["fsdp"] = 2.5
    del values["data"]["datasets"]["questions"]["path"]
    with pytest.raises(experiment.ConfigError) as error:
        experiment.resolve(values, {"sed": "1"})
    for said in (
        "modle: unknown field; did you mean 'model'?", "model: missing", "data.datasets.questions.path: missing",
        "stages.stage1.steps is '60': must be a whole number", "--config.sed",
        "stages.stage2.trainable is 'transformer': must be a tuple", "mesh.fsdp is 2.5",
        "stages.stage3.optim is 0.0003: must be a section with learning_rate",
    ):  # fmt: skip
        assert said in str(error.value)
    assert str(error.value).startswith("8 problem(s)")


@pytest.mark.parametrize("stages", [3, "stage1", ("stage1",), None])
def test_stages_that_are_no_section_are_refused(values, stages):
    with pytest.raises(experiment.ConfigError, match=r"stages is .*: must be a section"):
        experiment.resolve({**values, "stages": stages}, {})


def test_an_experiment_needs_a_stage(values):
    built, _ = experiment.resolve({**values, "stages": {}, "stage0": None}, {})
    with pytest.raises(experiment.ConfigError, match="stages: there is none; name at least one"):
        checks.check(built, 8, files=False)


def test_previous_needs_a_stage_before_it(values):
    built, _ = experiment.resolve({**values, "stage0": None}, {})
    with pytest.raises(experiment.ConfigError, match=r"stages\.stage1\.init names 'previous', but no stage"):
        checks.check(built, 8, files=False)


def test_missing_files_are_named(tmp_path):
    lines = refusal({"stages.stage1.init": "no/weights", "tokenizer": "no/tokenizer"}, files=True)
    assert len(lines) == 2  # the data's are looked for as they are opened, see test_formats.py
    assert "no tokenizer.json in no/tokenizer" in lines[0]
    assert lines[1].startswith("stages.stage1.init: ") and "no/weights: no such path here" in lines[1]
    save_file({"generation_embedding.table": np.zeros((64, 8), np.float32)}, tmp_path / "model.safetensors")
    checked({"stages.stage1.init": str(tmp_path)}, files=True)
    save_file({"lm_head.weight": np.zeros((64, 8), np.float32)}, tmp_path / "model.safetensors")
    assert all(str(tmp_path) in x for x in refusal({"stages.stage1.init": str(tmp_path)}, files=True))


def test_unknown_config_file_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT.parent)
    with pytest.raises(experiment.ConfigError) as error:
        experiment.read("configs/quickstrat.py")
    assert "configs/quickstrat.py: no such file; did you mean 'configs/quickstart.py'?" in str(error.value)
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(experiment.ConfigError, match=r"empty\.py: defines no get_config"):
        experiment.read(str(empty))


def schema(kind=experiment.Experiment):
    """Every dataclass of the schema, from the outermost in."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        for inner in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(inner):
                yield from schema(inner)


def test_every_field_of_the_schema_is_read_somewhere():
    """By name, as an attribute, outside of the schema and its checks."""
    read = set()
    for path in ROOT.rglob("*.py"):
        if path.name not in ("experiment.py", "checks.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    read.add(node.attr)
    kinds = set(schema()) - {experiment.Ratio}  # by its kinds' names, as a dict
    assert len(kinds) >= 13
    dead = {
        f"{kind.__name__}.{f.name}" for kind in kinds for f in dataclasses.fields(kind) if f.name not in read
    }
    assert dead == set()


def test_a_run_may_be_watched_otherwise_when_it_goes_on(tmp_path):
    plain = experiment.read(QUICKSTART)[0]
    identity.same_run(plain, tmp_path)
    (tmp_path / "checkpoints").mkdir()
    identity.same_run(dataclasses.replace(plain, profile=5, wandb="mine"), tmp_path)
    with pytest.raises(experiment.ConfigError, match="seed: 0 -> 5"):
        identity.same_run(dataclasses.replace(plain, seed=5), tmp_path)


def test_what_changes_memory_only_may_change_in_a_work_directory(tmp_path):
    """The flags that a stage which does not fit is told to take, after its first checkpoint was written."""
    path = str(pathlib.Path(__file__).parent.parent / "configs/quickstart.py")
    overrides = {"model.remat": "full", "model.attention": "blockwise", "stages.stage2.accumulate": "2"}
    identity.same_run(experiment.read(path)[0], tmp_path)
    (tmp_path / "checkpoints").mkdir()
    identity.same_run(experiment.read(path, overrides)[0], tmp_path)
    with pytest.raises(experiment.ConfigError, match=r"stages\.stage2\.steps"):
        identity.same_run(experiment.read(path, {"stages.stage2.steps": "7"})[0], tmp_path)


def test_a_run_goes_on_with_other_data_only_where_that_is_accepted(tmp_path):
    path = str(QUICKSTART)
    identity.same_run(experiment.read(path)[0], tmp_path)
    (tmp_path / "checkpoints").mkdir()
    more = {"data.workers": "3", "data.max_bad_fraction": "0.5"}
    identity.same_run(experiment.read(path, more)[0], tmp_path)
    other = {"data.datasets.questions.weight": "2.0", "stages.stage2.ratio.text": "1"}
    with pytest.raises(experiment.ConfigError) as error:
        identity.same_run(experiment.read(path, other)[0], tmp_path)
    for line in (
        "data.datasets.questions.weight: 1.0 -> 2.0",
        "stages.stage2.ratio.text: 3.0 -> 1.0",
        "=accept",
    ):
        assert line in str(error.value)
    accept = {"data.on_change": "accept"}
    identity.same_run(experiment.read(path, other | accept)[0], tmp_path)
    with pytest.raises(experiment.ConfigError, match=r"image_ids: given or taken away"):
        identity.same_run(
            experiment.read(path, accept | {"data.datasets.scenes.image_ids": "ids"})[0], tmp_path
        )
    with pytest.raises(experiment.ConfigError, match=r"seed: 0 -> 1"):
        identity.same_run(experiment.read(path, accept | {"seed": "1"})[0], tmp_path)
