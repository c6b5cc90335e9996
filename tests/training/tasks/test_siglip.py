"""A stage that trains an understanding encoder on pairs: every mesh, a run that is killed, what it
hands on, what it refuses."""

import dataclasses
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from support import quick, tiny, traced
from support.batches import told_and_made
from support.logs import Plain
from support.mesh import on_mesh
from support.rehearsal import refusal

from janus_jax.checkpoint import evaluated
from janus_jax.config.read import resolve
from janus_jax.data.image_text_pairs import ImageTextPairs
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import shapes_sources
from janus_jax.distributed import processes
from janus_jax.model.janus import abstract
from janus_jax.model.siglip import CHILDREN
from janus_jax.training import check_config
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import initial_state, run_stage
from janus_jax.training.tasks import siglip
from janus_jax.weights.convert import to_layout
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError
from janus_jax.weights.tensors import read_safetensors

STEPS = 4
MODEL = tiny.small(
    understanding_encoder=dataclasses.replace(tiny.CONFIG.understanding_encoder, layers=1),
    remat="none",
)
SOURCES = {"pairs": shapes_sources.ShapesGeneration(0, 40)}


def values(model=MODEL, **changes) -> dict:
    """A config of one stage. changes: of its stage."""
    stage = {
        "task": "siglip",
        "trainable": CHILDREN,
        "init": (),
        "steps": STEPS,
        "batch_size": 16,
        "ratio": {"understanding": 0, "text": 0, "generation": 1},
        "options": {"text_length": 12},
        "optim": {"learning_rate": 1e-3, "eps": 1e-3, "weight_decay": 0.1},
        "checkpoint_every": 1,
        "log_every": 1,
        **changes,
    }
    return {
        "model": dataclasses.asdict(model),
        "template": {"user": "User", "assistant": "Assistant"},
        "data": {"datasets": {"pairs": {"kind": "generation", "path": "shapes:"}}},
        "stages": {"one": stage},
        "evaluation": {"every": 2, "holdout": 0.2},
    }


def plan_of(**changes) -> StagePlan:
    return StagePlan.of(resolve(values(**changes), {})[0], "one")


# What learns.


def zeros(tree):
    return jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), tree)


def drawn(params: dict) -> dict:
    """With numbers of numpy: what draws them otherwise compiles for seconds."""
    towers = {name: x for name, x in params.items() if name != "contrast"}
    return tiny.drawn(towers, 0) | {"contrast": zeros(params["contrast"])}


@functools.cache
def stepped(*mesh: int):
    """(metrics, numbers of the state) after a step on a mesh."""
    plan = plan_of()
    with on_mesh(*mesh):
        state = plan.state()
        state = zeros(state).replace(trainable=drawn(state.trainable))
        data = siglip.batches(plan, SOURCES, tiny.processor(), pathlib.Path(), print)
        state, metrics = jax.jit(siglip.step(plan))(state, data.next_batch(0)[0])
        found = jax.jit(siglip.validate(plan))(state, data.next_batch(1)[0])
        return tiny.numbers((metrics, found)), tiny.numbers(state.trainable)


@pytest.mark.slow
def test_a_step_is_the_same_on_a_mesh_of_all_axes():
    for got, want in zip(stepped(2, 2, 2), stepped(1, 1, 1), strict=True):
        assert got.keys() == want.keys()
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=2e-4, atol=2e-6, err_msg=name)


class Killed(Exception):
    pass


class Dying(Plain):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 2:
            raise Killed


def trained(workdir, weights, log=Plain) -> dict:
    """Runs the stage, or what is left of it; the arrays that it hands on."""
    workdir.mkdir(exist_ok=True)
    tiny.processor().tokenizer.save(workdir)
    shows_nothing = lambda *_: lambda *_: {}
    with on_mesh():
        plan = plan_of(init=(str(weights),))
        run_stage(plan, SOURCES, tiny.processor(), workdir, log(workdir), shows_nothing)
    found = read_safetensors(workdir / "one" / "model.safetensors")
    return {name: tensor.read() for name, tensor in found.items()}


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    with traced.once(siglip):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(work directory of a run that nothing stopped, what it hands on)."""
    root = tmp_path_factory.mktemp("siglip")
    with on_mesh():
        params = drawn(plan_of().state().params)
        export(root / "weights", params, None, tiny.processor(), part_of=MODEL)
    return root / "whole", trained(root / "whole", root / "weights")


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bits(whole, tmp_path):
    weights = whole[0].with_name("weights")
    with pytest.raises(Killed):
        trained(tmp_path / "run", weights, Dying)
    tiny.same_bits(trained(tmp_path / "run", weights), whole[1])
    found = [evaluated.records(w / "checkpoints" / "one") for w in (tmp_path / "run", whole[0])]
    assert found[0] == found[1] and [record["step"] for record in found[0]] == [2, 4]
    assert all(0 <= record["validation_image_to_text_accuracy"] <= 1 for record in found[0])


def test_janus_takes_the_encoder_over_by_name(whole, one_device):
    params = nnx.to_pure_dict(nnx.state(abstract(MODEL)))
    with_shardings = nnx.to_pure_dict(nnx.state(tiny.make_model(MODEL)))
    read, children = import_weights(
        whole[0] / "one", with_shardings, partly=True, config=MODEL, tokenizer=None
    )
    assert children == ["understanding_encoder"] and params.keys() == read.keys()
    got = tiny.numbers({"understanding_encoder": read["understanding_encoder"]})
    tiny.same_bits(got, {name: whole[1][name] for name in got})


def test_an_encoder_of_other_heads_is_not_taken_over(whole, one_device):
    """No shape tells how many there are: the directory says it."""
    other = dataclasses.replace(MODEL.understanding_encoder, heads=4)
    config = dataclasses.replace(MODEL, understanding_encoder=other)
    params = nnx.to_pure_dict(nnx.state(tiny.make_model(config)))
    with pytest.raises(WeightsError, match="heads is 8 there, 4 here"):
        import_weights(whole[0] / "one", params, partly=True, config=config)


def test_a_checkpoint_of_the_stage_holds_what_it_hands_on(whole):
    last = open_source(whole[0] / "checkpoints" / "one").require()
    assert {name.split(".")[0] for name in last.leaves} == set(CHILDREN)
    tiny.same_bits({name: last.read(name) for name in last.leaves}, whole[1])


def test_big_visions_file_brings_the_same_bits_back(whole, tmp_path):
    source = open_source(whole[0] / "one")
    to_layout(source, tmp_path / "npz", "siglip")
    with np.load(tmp_path / "npz" / "model.npz") as stored:
        shapes = {name: stored[name].shape for name in stored.files}
    width = MODEL.understanding_encoder.width
    block = "params/txt/Encoder_0/encoderblock_0/MultiHeadDotProductAttention_0"
    assert shapes[f"{block}/query/kernel"] == (width, 8, width // 8)
    assert shapes["params/img/MAPHead_0/probe"] == (1, 1, width)
    assert shapes["params/txt/pos_embedding"] == (1, 12, width) and shapes["params/t"] == (1,)
    back = open_source(tmp_path / "npz").require()
    tiny.same_bits({name: back.read(name) for name in back.leaves}, whole[1])
    to_layout(back, tmp_path / "ours", "janus_jax")
    again = open_source(tmp_path / "ours").require()
    tiny.same_bits({name: again.read(name) for name in again.leaves}, whole[1])
    assert again.unshaped == {"understanding_encoder.heads": 8}
    # Alone, without the tokenizer of its texts, the file is an encoder of pictures.
    shutil.copy(tmp_path / "npz" / "model.npz", tmp_path / "model.npz")
    alone = open_source(tmp_path / "model.npz").require()
    held = {name.split(".")[0] for name in alone.leaves}
    assert held == {"understanding_encoder", "pooling_head"}
    assert "no tokenizer.json" in alone.ignored["params/t"]


def test_training_goes_on_from_big_visions_file(whole, tmp_path):
    to_layout(open_source(whole[0] / "one"), tmp_path / "npz", "siglip")
    said = []
    for path in (whole[0] / "one", tmp_path / "npz"):
        with on_mesh():
            state, *_ = initial_state(plan_of(), [path], tiny.processor().tokenizer, said.append)
        tiny.same_bits(tiny.numbers(state.trainable), whole[1])
    assert not [line for line in said if "random" in line]


# What is refused.


def refused(model=MODEL, **changes) -> list[str]:
    experiment = resolve(values(model, **changes), {})[0]
    return check_config.all_problems(experiment, 8)


def test_a_stage_with_nothing_wrong_has_no_problems():
    assert refused() == []


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"ratio": {"understanding": 0, "text": 1, "generation": 1}}, "ratio.text is 1"),
        ({"batch_size": 4}, "batch_size is 4: mesh.data * mesh.fsdp = 1 * 8 = 8 must divide it"),
        ({"batch_size": 1}, "batch_size is 1: a picture is told apart"),
        ({"options": {"text_length": 2.5}}, "text_length is 2.5: a whole number"),
        ({"options": {"text_length": 1}}, "text_length is 1: a whole number of tokens, at least 2"),
        ({"trainable": ("transformer",)}, "trainable has transformer: task siglip has no such"),
        ({"accumulate": 2}, "accumulate is 2: task siglip reads no such field"),
    ],
)
def test_a_value_that_the_task_cannot_work_with_is_refused(changes, told):
    found = refused(**changes)
    assert any(told in line for line in found), found


def test_another_encoder_than_siglip_is_refused():
    encoder = dataclasses.replace(MODEL.understanding_encoder, variant=("class_token",))
    (found,) = refused(dataclasses.replace(MODEL, understanding_encoder=encoder))
    assert "understanding_encoder.variant is ('class_token',): task siglip trains SigLIP" in found
    assert "leave it out" in found


def test_a_mesh_that_cannot_split_the_encoder_is_refused_also_where_janus_would_read_codes():
    tower = dataclasses.replace(MODEL.understanding_encoder, heads=4)
    model = dataclasses.replace(MODEL, understanding="vq", understanding_encoder=tower)
    experiment = resolve(values(model) | {"mesh": {"tensor": 8}}, {})[0]
    found = check_config.all_problems(experiment, 8)
    told = [line for line in found if "understanding_encoder.heads" in line]
    assert len(told) == 1 and "mesh.tensor = 8 must divide it" in told[0], told


def test_a_process_whose_texts_are_all_the_same_ends_the_run_of_all(monkeypatch, tmp_path):
    told = []

    def gathered(value):
        told.append(value)
        return [value, None]

    monkeypatch.setattr(processes, "all_gather", gathered)
    same = np.zeros((2, 2, 3)), np.ones(4, np.int32), 4, False, [0], []
    monkeypatch.setattr(ImageTextPairs, "_picks", lambda *_: [same] * 64)
    plan = plan_of()
    with on_mesh(), pytest.raises(SourceError, match="all become the ids"):
        plan.task.batches(plan, SOURCES, tiny.processor(), tmp_path, print)
    assert len(told) == 1 and "all become the ids" in told[0][0]


def test_pictures_to_draw_that_are_smaller_than_the_encoder_reads_are_refused():
    small = dataclasses.replace(MODEL.generation_encoder, image_size=8)
    found = refused(dataclasses.replace(MODEL, generation_encoder=small))
    assert [line for line in found if "generation_encoder.image_size, 8" in line], found


def test_a_text_tower_of_another_tokenizer_is_refused(whole, tmp_path):
    """Its ids would mean other words."""
    config = tmp_path / "config.py"
    text = json.dumps(values() | {"evaluation": {}})
    config.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads('''{text}'''))\n"
    )
    other = tmp_path / "other"
    shutil.copytree(whole[0] / "one", other)
    quick.processor().tokenizer.save(other)
    tokenizer = {"tokenizer": str(whole[0]), "stages.one.init": f"('{other}',)"}
    assert "ids" in refusal(ValueError, str(config), tmp_path / "run", tokenizer, devices=8)
    (other / "tokenizer.json").unlink()
    told = refusal(ValueError, str(config), tmp_path / "run", tokenizer, devices=8)
    assert "a text tower and no tokenizer.json" in told


def test_the_batch_that_is_planned_for_is_that_of_the_data():
    told, made = told_and_made(plan_of(), SOURCES, tiny.processor())
    assert told == made
