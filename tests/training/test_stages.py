"""A stage that was stopped goes on by its work directory alone, to the same bits."""

import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pytest
from flax import nnx
from support import ids, tiny, traced
from support.logs import Plain
from support.mesh import on_mesh

from janus_jax.checkpoint import evaluated
from janus_jax.config.read import resolve
from janus_jax.data import image_ids
from janus_jax.training import run_dir
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import run_stage, train
from janus_jax.training.tasks import janus
from janus_jax.weights.load import export, load
from janus_jax.weights.table import NoWeightsError, WeightsError
from janus_jax.weights.tensors import read_safetensors

STEPS = 4


class Killed(Exception):
    pass


class Dying(Plain):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 2:
            raise Killed


def plan_of(weights) -> StagePlan:
    """A stage that learns to draw stored ids, from a directory of weights."""
    lines = {"draw": {"kind": "generation", "path": "shapes:", "image_ids": "ids"}}
    stage = {
        "trainable": ("image_head",),
        "init": (str(weights),),
        "steps": STEPS,
        "batch_size": 4,
        "rows": {
            "count": 2,
            "length": 96,
            "understanding_images": 0,
            "generation_images": 2,
        },
        "ratio": {"understanding": 0, "text": 0, "generation": 1},
        "optim": {
            "learning_rate": {"default": 1e-4, "image_head": 1e-3},
            "schedule": "wsd",
            "warmup_steps": 0.25,
            "decay_steps": 0.5,
            "ema": 0.5,
        },
        "checkpoint_every": 1,
        "log_every": 1,
    }
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        "template": {"user": "User", "assistant": "Assistant"},
        "data": {"datasets": lines},
        "stages": {"one": stage},
        "evaluation": {"every": 2, "holdout": 0.1},
    }
    return StagePlan.of(resolve(values, {})[0], "one")


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    with traced.once(janus):
        yield


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """(weights to begin with, the stage's sources)."""
    root = tmp_path_factory.mktemp("begun")
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0)))
        export(root / "weights", params, tiny.CONFIG, tiny.processor())
    ids.make(root / "ids", root / "weights")
    return root / "weights", {"draw": image_ids.attach(ids.Pictures(50), root / "ids")}


def shows_nothing(*_):
    return lambda *_: {}


def trained(weights, sources, workdir, log=Plain):
    """Runs the stage, or what is left of it, and gives the arrays that it hands on, and their
    averages."""
    workdir.mkdir(exist_ok=True)
    tiny.processor().tokenizer.save(workdir)
    with on_mesh():
        run_stage(plan_of(weights), sources, tiny.processor(), workdir, log(workdir), shows_nothing)
    read = lambda path: read_safetensors(path / "model.safetensors").items()
    handed_on = {name: tensor.read() for name, tensor in read(workdir / "one")}
    average = {f"ema.{name}": tensor.read() for name, tensor in read(workdir / "one" / "ema")}
    return handed_on | average


@pytest.fixture(scope="module")
def killed(begun, tmp_path_factory):
    """(what the stage hands on when nothing stops it, a directory with a run that was stopped after
    step 2 and with the weights that it began with)."""
    weights, sources = begun
    root = tmp_path_factory.mktemp("killed")
    whole = trained(weights, sources, root / "whole")
    shutil.copytree(weights, root / "one" / "weights")
    with pytest.raises(Killed):
        trained(root / "one" / "weights", sources, root / "one" / "run", Dying)
    return whole, root / "one"


@pytest.fixture
def stopped(killed, tmp_path):
    """(the same, in a directory of its own; the stage's `init` stays where the run had it)."""
    shutil.copytree(killed[1] / "run", tmp_path / "run")
    return killed[0], tmp_path / "run", killed[1] / "weights"


@contextlib.contextmanager
def gone(path):
    path.rename(path.with_name("elsewhere"))
    yield
    path.with_name("elsewhere").rename(path)


def test_a_stage_with_stored_ids_goes_on_when_its_init_is_gone(begun, stopped):
    whole, run, weights = stopped
    with gone(weights):
        went_on = trained(weights, begun[1], run)
    tiny.same_bits(went_on, whole)
    found = evaluated.records(run / "checkpoints" / "one")
    assert [record["step"] for record in found] == [2, 4]
    assert found == evaluated.records(weights.parents[1] / "whole" / "checkpoints" / "one")
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name, peak in (("learning_rate", 1e-4), ("learning_rate/image_head", 1e-3)):
        rates = [record[name] for record in logged]
        assert rates == pytest.approx([0, peak, peak, peak / 2])
    # The tokenizer, which the step never asks for, is handed on as it came.
    first = read_safetensors(begun[0] / "model.safetensors")["generation_encoder.codebook"].read()
    assert np.array_equal(went_on["generation_encoder.codebook"], first)


def test_the_average_is_a_whole_model_beside_what_is_handed_on(begun, killed):
    whole, one = killed
    moved = [
        name
        for name in whole
        if not name.startswith("ema.") and not np.array_equal(whole[name], whole[f"ema.{name}"])
    ]
    assert moved and all(name.startswith("image_head.") for name in moved)
    first = read_safetensors(begun[0] / "model.safetensors")
    for name in moved:  # it lies between where the stage began and where it ended
        start = first[name].read()
        assert np.abs(whole[f"ema.{name}"] - start).sum() < np.abs(whole[name] - start).sum()
    with on_mesh():
        load(one.parent / "whole" / "one" / "ema", unrolled=False)


def test_a_stage_whose_average_was_not_written_yet_is_not_done(begun, killed, tmp_path):
    whole, one = killed
    shutil.copytree(one.parent / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "one" / "ema")
    experiment = plan_of(one / "weights").experiment
    with on_mesh():
        train(
            experiment,
            begun[1],
            tiny.processor(),
            tmp_path / "run",
            Plain(tmp_path / "run"),
            shows_nothing,
        )
    found = read_safetensors(tmp_path / "run" / "one" / "ema" / "model.safetensors")
    for name, tensor in found.items():
        assert np.array_equal(tensor.read(), whole[f"ema.{name}"]), name


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_stage_whose_tokenizer_aside_is_lost_takes_it_from_its_init(harm, begun, stopped, capsys):
    whole, run, weights = stopped
    aside = run / "checkpoints" / "one" / "aside"
    if harm == "missing":
        shutil.rmtree(aside)
    else:
        content = bytearray((aside / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (aside / "model.safetensors").write_bytes(content)
    tiny.same_bits(trained(weights, begun[1], run), whole)
    told = capsys.readouterr().out
    assert f"WARNING: {aside}" in told and f"generation_encoder <- {weights} instead" in told


def test_a_stage_whose_tokenizer_is_nowhere_says_where_it_was(begun, stopped):
    _, run, weights = stopped
    shutil.rmtree(run / "checkpoints" / "one" / "aside")
    with gone(weights), pytest.raises(WeightsError) as error:
        trained(weights, begun[1], run)
    assert "generation_encoder that stage one began with are nowhere" in str(error.value)
    assert str(run / "checkpoints" / "one" / "aside") in str(error.value)
    assert str(weights) in str(error.value)


def test_a_checkpoint_of_stored_ids_is_a_whole_model_when_its_init_is_gone(begun, stopped):
    _, run, weights = stopped
    with gone(weights), on_mesh():
        model, _ = load(run / "checkpoints" / "one", unrolled=False)
    first = read_safetensors(begun[0] / "model.safetensors")["generation_encoder.codebook"].read()
    assert np.array_equal(np.asarray(model.generation_encoder.codebook[...]), first)


def test_a_stage_that_begins_needs_its_init(begun, tmp_path):
    _, sources = begun
    with pytest.raises(NoWeightsError, match="nowhere"):
        trained(tmp_path / "nowhere", sources, tmp_path / "run")
    assert not run_dir.changes_since(plan_of(begun[0]).experiment, tmp_path / "run").lines()
