"""Task vq with all that its options ask for: it goes on to the same bits, is the same on every mesh,
and hands on what a later stage begins with."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from support import perceptual, tiny, traced
from support.batches import told_and_made
from support.logs import Plain
from support.mesh import on_mesh

from janus_jax.checkpoint.inspect import leaves
from janus_jax.config.read import resolve
from janus_jax.data.toy import shapes_sources
from janus_jax.eval.tokenizer import sizes_of
from janus_jax.model import sharding as sh
from janus_jax.training import optim, stages
from janus_jax.training import perceptual as ours
from janus_jax.training.perceptual import read_lpips
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.tasks import vq
from janus_jax.weights.source import open_source
from janus_jax.weights.tensors import read_safetensors

FULL = {
    "discriminator": "patchgan",
    "discriminator_width": 4,
    "discriminator_layers": 2,
    "discriminator_start": 2,
    "ema": 0.5,
    "crop": 0.8,
    "flip": 0.5,
}
STEPS = 4
MODEL = dataclasses.replace(
    tiny.CONFIG,
    generation_encoder=dataclasses.replace(
        tiny.CONFIG.generation_encoder, multipliers=(1, 1), channels=4, z_channels=4, norm_groups=2
    ),
)


class Killed(Exception):
    pass


class Dying(Plain):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 3:
            raise Killed


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    with traced.once(vq):
        yield


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "small.pth"
    torch.save(perceptual.vgg() | perceptual.heads(), path)
    return path


def plan_of(name: str, vgg, **changes) -> StagePlan:
    stage = {
        "task": "vq",
        "trainable": ("generation_encoder",),
        "init": (),
        "steps": STEPS,
        "batch_size": 8,
        "ratio": {"understanding": 0, "text": 0, "generation": 1},
        "options": FULL | {"lpips": str(vgg)},
        "optim": {"learning_rate": 1e-3},
        "checkpoint_every": 2,
        "log_every": 1,
    }
    after = stage | {"init": ("previous",), "steps": 1}
    values = {
        "model": dataclasses.asdict(MODEL),
        "template": {"user": "User", "assistant": "Assistant"},
        "data": {"datasets": {"pictures": {"kind": "generation", "path": "shapes:pictures"}}},
        "stages": {"one": stage | changes, "two": after},
    }
    return StagePlan.of(resolve(values, {})[0], name)


def trained(plan: StagePlan, workdir, log=Plain) -> dict:
    """Runs the stage, or what is left of it, and gives the arrays that it hands on."""
    workdir.mkdir(exist_ok=True)
    tiny.processor().tokenizer.save(workdir)
    sources = {"pictures": shapes_sources.ShapesPictures(0, 60)}
    with on_mesh():
        shows_nothing = lambda *_: lambda *_: {}
        stages.run_stage(plan, sources, tiny.processor(), workdir, log(workdir), shows_nothing)
    return handed_on(workdir / plan.name)


def handed_on(directory) -> dict:
    found = read_safetensors(directory / "model.safetensors")
    return {name: tensor.read() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def whole(vgg, tmp_path_factory):
    """(a run that nothing stopped, what it hands on, what it said)."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    said = []

    class Heard(Plain):
        def say(self, text):
            said.append(text)

    return workdir, trained(plan_of("one", vgg), workdir, Heard), said


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(whole, vgg, tmp_path):
    with pytest.raises(Killed):
        trained(plan_of("one", vgg), tmp_path / "run", Dying)
    tiny.same_bits(trained(plan_of("one", vgg), tmp_path / "run"), whole[1])
    tiny.same_bits(handed_on(tmp_path / "run" / "one.ema"), handed_on(whole[0] / "one.ema"))


@pytest.mark.slow
def test_a_stage_hands_on_the_discriminator_and_the_average_is_a_tokenizer(whole):
    workdir, found, _ = whole
    children = {name.split(".")[0] for name in found}
    assert children == {"generation_encoder", "discriminator"}
    average = handed_on(workdir / "one.ema")
    assert set(average) == {name for name in found if name.startswith("generation_encoder")}
    assert all((average[name] != found[name]).any() for name in average if "kernel" in name)


@pytest.mark.slow
def test_a_checkpoint_holds_what_moves_and_nothing_of_lpips(whole, vgg, tmp_path):
    steps = {p.name for p in (whole[0] / "checkpoints" / "one").iterdir() if p.name.isdigit()}
    assert "4" in steps
    with on_mesh():
        plan = plan_of("one", vgg)
        held = leaves(plan.state())
        sources = {"pictures": shapes_sources.ShapesPictures(0, 60)}
        data = vq.batches(plan, sources, None, tmp_path, print)
        first, second = (data.next_batch(i)[0]["lpips"] for i in range(2))
    assert set(held["trainable"]) == {"generation_encoder", "discriminator"}
    assert set(held["frozen"]) == {"ema", "use"}
    assert all(first[name] is second[name] for name in read_lpips(vgg)), "sent with every batch"


@pytest.mark.slow
def test_a_later_stage_begins_with_the_tokenizer_and_its_discriminator(whole, vgg, monkeypatch):
    workdir, found, _ = whole
    begun = {}

    def loop(run, state):
        begun.update(tiny.numbers(state.trainable), step=int(state.step))
        raise Killed

    monkeypatch.setattr(stages, "loop", loop)
    with pytest.raises(Killed):
        trained(plan_of("two", vgg), workdir)
    assert begun.pop("step") == 0
    tiny.same_bits(begun, found)


def test_without_a_file_the_log_says_once_that_the_perceptual_term_is_off(
    vgg, tmp_path, one_device
):
    plan = plan_of("one", vgg, options={})
    held_out = dataclasses.replace(plan.experiment.evaluation, holdout=0.1)
    experiment = dataclasses.replace(plan.experiment, evaluation=held_out)
    plan = dataclasses.replace(plan, experiment=experiment)
    said = []
    data = vq.batches(
        plan, {"pictures": shapes_sources.ShapesPictures(0, 60)}, None, tmp_path, said.append
    )
    vq.batches(
        plan.on_held_out(),
        {"pictures": shapes_sources.ShapesPictures(0, 60)},
        None,
        tmp_path,
        said.append,
    )
    assert [line for line in said if "perceptual term is off" in line] == said and len(said) == 1
    assert set(data.next_batch(0)[0]) == {"images"}


def fresh(options: dict, tx):
    """A state of random numbers, the same on every mesh; nothing is compiled."""
    rng = np.random.default_rng(0)
    init = functools.partial(vq.init_state, model=MODEL, tx=tx, options=options)
    state = sh.concrete(jax.eval_shape(init, jax.random.key(0)))
    put = lambda x, value: jax.device_put(np.asarray(value, x.dtype), x.sharding)
    zeros = jax.tree.map(lambda x: put(x, np.zeros(x.shape)), state)
    draw = lambda x: put(x, rng.normal(0, max(x.size, 1) ** -0.25, x.shape))
    return zeros.replace(trainable=jax.tree.map(draw, state.trainable))


@functools.cache
def stepped(mesh: tuple) -> tuple[dict, dict]:
    """(metrics of the second step, all that learned or counted) on a mesh."""
    options = vq.OPTIONS | FULL | {"entropy": 0.01, "discriminator_start": 1}
    tx = optim.make(tiny.OPTIM, 10, each=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    with on_mesh(*mesh):
        state = fresh(options, tx)
        step = jax.jit(functools.partial(vq.vq_step, tx=tx, options=options))
        for batch in images:
            state, metrics = step(state, tiny.put({"images": batch}))
        return {k: float(x) for k, x in metrics.items()}, tiny.numbers(
            {**state.trainable, **state.frozen}
        )


@pytest.mark.slow
def test_a_mesh_takes_the_same_step():
    """The statistics of a batch are those of all devices."""
    metrics, numbers = stepped((2, 4, 1))
    wanted, weights = stepped((1, 1, 1))
    for name, want in wanted.items():
        assert metrics[name] == pytest.approx(want, rel=1e-4, abs=1e-5), name
    for name, want in weights.items():
        np.testing.assert_allclose(numbers[name], want, atol=2e-5, rtol=0, err_msg=name)


@pytest.mark.slow
def test_an_update_that_is_not_finite_changes_neither_player(one_device):
    options = vq.OPTIONS | FULL | {"entropy": 0.01, "discriminator_start": 1}
    tx = optim.make(tiny.OPTIM, 10, each=True)
    state = fresh(options, tx)
    kernel = state.trainable["discriminator"]["main"]["0"]["kernel"]
    state.trainable["discriminator"]["main"]["0"]["kernel"] = kernel.at[0, 0, 0, 0].set(jnp.nan)
    step = jax.jit(functools.partial(vq.vq_step, tx=tx, options=options))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    new, metrics = step(state, tiny.put({"images": images}))
    assert int(new.nonfinite_updates) == 1 and int(new.step) == 1
    old = {**state.trainable, "ema": state.frozen["ema"], "moments": state.opt_state}
    kept = {**new.trainable, "ema": new.frozen["ema"], "moments": new.opt_state}
    tiny.same_bits(tiny.numbers(kept), tiny.numbers(old))
    assert np.isfinite(metrics["reconstruction"]) and float(metrics["codes_used"]) > 0


def test_each_player_is_clipped_by_its_own_norm():
    tx = optim.make(dataclasses.replace(tiny.OPTIM, clip_norm=1.0), 10, each=True)
    grads = {"a": {"kernel": jnp.full(4, 100.0)}, "b": {"kernel": jnp.full(4, 0.1)}}
    clipped, _ = tx.update(grads, tx.init(grads), jax.tree.map(jnp.zeros_like, grads))
    both = optim.make(dataclasses.replace(tiny.OPTIM, clip_norm=1.0), 10)
    assert jax.tree.structure(both.init(grads)) == jax.tree.structure(tx.init(grads))
    together, _ = both.update(grads, both.init(grads), jax.tree.map(jnp.zeros_like, grads))
    np.testing.assert_allclose(clipped["a"]["kernel"], together["a"]["kernel"], rtol=1e-3)
    assert float(optax.tree.norm(clipped["b"])) > 2.5 * float(optax.tree.norm(together["b"]))


def test_the_batch_that_is_planned_for_is_that_of_the_data(vgg, monkeypatch):
    """With LPIPS's weights, whole on each device; the file's widths are smaller than VGG16's."""
    monkeypatch.setattr(ours, "WIDTHS", perceptual.WIDTHS)
    sources = {"pictures": shapes_sources.ShapesPictures(0, 60)}
    told, made = told_and_made(plan_of("one", vgg), sources)
    assert told == made and told["lpips"].keys() == read_lpips(vgg).keys()


@pytest.mark.slow
def test_a_checkpoint_says_for_which_pictures_its_tokenizer_is(whole):
    """Its run's config does; what the stage hands on leaves it to --size."""
    path = whole[0] / "checkpoints" / "one"
    flags = types.SimpleNamespace(weights=str(path), size=0)
    assert sizes_of(flags, open_source(path), None) == MODEL.generation_encoder
