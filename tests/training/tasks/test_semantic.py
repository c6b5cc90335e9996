"""The semantic tokenizer learns what its teacher says: the loss beside PyTorch's, every mesh, a run
that is killed, a stage without a teacher."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support import ids, semantic_oracle, tiny, traced
from support.batches import told_and_made
from support.logs import Plain
from support.mesh import on_mesh
from support.paths import CONFIGS

from janus_jax.config.read import read, resolve
from janus_jax.distributed import arrays
from janus_jax.model import sharding as sh
from janus_jax.model.batch import pixels
from janus_jax.model.config import (
    GenerationEncoderConfig,
    SemanticDecoderConfig,
    UnderstandingEncoderConfig,
)
from janus_jax.model.janus import abstract
from janus_jax.model.keys import Keys
from janus_jax.model.understanding_encoder import UnderstandingEncoder
from janus_jax.training import check_config
from janus_jax.training.preflight_weights import look_at_weights
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import initial_state, run_stage
from janus_jax.training.tasks import semantic
from janus_jax.training.tokenizer_loss import tokenizer_terms
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.table import WeightsError
from janus_jax.weights.tensors import read_safetensors

STEPS = 3
LEARNS = ("generation_encoder", "semantic_decoder", "semantic_head")
TEACHER = "understanding_encoder"
# Stride 2 and 16 tokens: the fewest convolutions that compile.
MODEL = tiny.small(
    understanding_encoder=UnderstandingEncoderConfig(4, 1, 32, 64, layers=1, heads=8),
    generation_encoder=GenerationEncoderConfig(4, 8, (1,), 1, 16, 4, codebook_size=64),
    semantic_decoder=SemanticDecoderConfig(width=24, mlp_width=48, layers=2, heads=4),
    remat="none",
)
SOURCES = {"pictures": ids.Pictures(50)}


def values(*init, **changes) -> dict:
    """A config of one semantic stage. changes: of its stage."""
    stage = {
        "task": "semantic",
        "trainable": LEARNS[:2],
        "init": tuple(map(str, init)),
        "steps": STEPS,
        "batch_size": 8,
        "ratio": {"understanding": 0, "text": 0, "generation": 1},
        "optim": {"learning_rate": 1e-3, "eps": 1e-3},
        "checkpoint_every": 1,
        "log_every": 1,
        **changes,
    }
    return {
        "model": dataclasses.asdict(MODEL),
        "template": {"user": "User", "assistant": "Assistant"},
        "data": {"datasets": {"pictures": {"kind": "generation", "path": "shapes:pictures"}}},
        "stages": {"one": stage},
        "evaluation": {"every": STEPS, "holdout": 0.1},
    }


def plan_of(*init, **changes) -> StagePlan:
    return StagePlan.of(resolve(values(*init, **changes), {})[0], "one")


def state_of(plan: StagePlan):
    state = plan.state()
    zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
    return jax.tree.map(zeros, state).replace(
        trainable=tiny.drawn(state.trainable, 0), frozen=drawn(state.frozen, 0)
    )


def drawn(params: dict, seed: int) -> dict:
    """Numbers of numpy, the same on every mesh; nothing was counted yet."""
    zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
    weights = tiny.drawn({name: x for name, x in params.items() if name != "use"}, seed)
    return weights | {"use": jax.tree.map(zeros, params["use"])}


def pictures(count: int = 8) -> np.ndarray:
    source = SOURCES["pictures"]
    side = MODEL.generation_encoder.image_size
    return np.stack([np.resize(source.image(i), (side, side, 3)) for i in range(count)])


@functools.cache
def tokenizer() -> semantic.SemanticTokenizer:
    with on_mesh():
        graphdef, state = nnx.split(
            jax.eval_shape(
                lambda: semantic.SemanticTokenizer(MODEL, semantic.OPTIONS, Keys(jax.random.key(0)))
            )
        )
        return nnx.merge(graphdef, drawn(sh.concrete(nnx.to_pure_dict(state)), 3))


def test_the_semantic_loss_and_its_gradients_are_torchs(one_device):
    """The codes' gradient goes straight to the encoder's latents, and nowhere else."""
    graphdef, params = nnx.split(tokenizer())
    params = nnx.to_pure_dict(params)
    still = {"use": params.pop("use")}  # whole numbers
    batch = {"images": jnp.asarray(pictures(2))}

    def loss(params, moved):
        model = nnx.merge(graphdef, params, still)
        _, painted = tokenizer_terms(model.generation_encoder, batch, semantic.OPTIONS)
        painted = dataclasses.replace(painted, codes=painted.codes + moved)
        more, _ = semantic.semantic_terms(model, painted, {"semantic": 1.0})
        return more["semantic"], (painted.codes, model.understanding_encoder(painted.seen))

    shape = (2, *MODEL.generation_encoder.grid, MODEL.generation_encoder.code_dim)
    grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, (codes, taught)), (ours, of_codes) = jax.jit(grad)(params, jnp.zeros(shape))
    double = lambda x: torch.tensor(np.asarray(x, np.float64))
    theirs = {name: semantic_oracle.tensors(params[name]) for name in LEARNS[1:]}
    flat = double(codes).reshape(2, 16, -1).requires_grad_()
    heads = MODEL.semantic_decoder.heads
    want = semantic_oracle.loss(flat, *theirs.values(), double(taught), heads)
    want.backward()
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    assert float(value) == pytest.approx(want.item(), rel=1e-5) and 0.5 < value < 1.5
    near(np.asarray(of_codes).reshape(2, 16, -1), flat.grad.numpy())
    for name, tree in theirs.items():
        wanted = tiny.numbers(semantic_oracle.gradients(tree))
        for leaf, got in tiny.numbers(ours[name]).items():
            near(got, wanted[leaf], err_msg=leaf)

    def latents(vq):
        model = nnx.merge(graphdef, params | {"generation_encoder": vq}, still)
        return model.generation_encoder.latents(pixels(batch["images"]))

    pulled = jax.jit(lambda vq: jax.vjp(latents, vq)[1](of_codes)[0])(params["generation_encoder"])
    vq = tiny.numbers(ours["generation_encoder"])
    for leaf, got in tiny.numbers(pulled).items():
        near(vq[leaf], got, err_msg=leaf)
    assert np.abs(vq["encoder.conv_in.kernel"]).max() > 1e-6 and not vq["codebook"].any()
    assert not any(x.any() for x in tiny.numbers(ours[TEACHER]).values())


# Meshes.


@functools.cache
def stepped(mesh: tuple):
    """(metrics, weights) after two steps, on a mesh."""
    with on_mesh(*mesh):
        plan = plan_of()
        step = jax.jit(plan.task.step(plan), donate_argnums=0)
        state = state_of(plan)
        batch = arrays.put_batch({"images": pictures()})
        taught = tiny.numbers(state.frozen[TEACHER])
        for _ in range(2):
            state, metrics = step(state, batch)
        tiny.same_bits(state.frozen[TEACHER], taught)
        return jax.device_get(metrics), tiny.numbers(state.trainable)


@pytest.mark.slow
def test_a_mesh_takes_the_same_steps_of_the_semantic_tokenizer():
    (metrics, weights), (want, theirs) = stepped((2, 4, 1)), stepped((1, 1, 1))
    assert {
        "loss",
        "reconstruction",
        "semantic",
        "cosine",
        "grad_norm/semantic_head",
    } <= metrics.keys()
    for name, x in want.items():
        assert metrics[name] == pytest.approx(x, rel=1e-5, abs=1e-6), name
    for name, x in theirs.items():
        np.testing.assert_allclose(weights[name], x, atol=1e-5, rtol=0, err_msg=name)


# A run.


class Killed(Exception):
    pass


class Dying(Plain):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 2:
            raise Killed


@pytest.fixture(autouse=True, scope="module")
def traced_once():
    with traced.once(semantic):
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Directories with the weights of SigLIP's tower, and of the others."""
    root = tmp_path_factory.mktemp("weights")
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tokenizer()))
        export(root / "siglip", {TEACHER: params[TEACHER]})
        export(root / "others", {name: params[name] for name in LEARNS}, part_of=MODEL)
    return root / "siglip", root / "others"


def trained(plan: StagePlan, workdir, log=Plain) -> dict:
    """Runs the stage, or what is left of it, and gives the arrays that it hands on."""
    workdir.mkdir(exist_ok=True)
    with on_mesh():
        run_stage(plan, SOURCES, tiny.processor(), workdir, log(workdir), lambda *_: lambda *_: {})
    found = read_safetensors(workdir / "one" / "model.safetensors")
    return {name: tensor.read() for name, tensor in found.items()}


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits_and_hands_on_what_janus_reads(weights, tmp_path):
    plan = plan_of(*weights)
    whole = trained(plan, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(plan, tmp_path / "run", Dying)
    tiny.same_bits(trained(plan, tmp_path / "run"), whole)
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    told = {name for line in lines for name in line}
    assert {"cosine", "validation_semantic", "validation_reconstruction"} <= told
    # The best checkpoint is the one of the least loss, which no cosine is.
    assert "validation_cosine" not in told
    # The teacher is where it was; a second phase takes the head, Janus the rest.
    assert {name.split(".")[0] for name in whole} == set(LEARNS)
    janus = dataclasses.replace(MODEL, understanding="semantic", generation="semantic")
    with on_mesh():
        shapes = sh.concrete(nnx.to_pure_dict(nnx.state(abstract(janus))))
        params, held = import_weights(tmp_path / "run" / "one", shapes, partly=True, config=janus)
        assert held == ["generation_encoder", "semantic_decoder"]
        for name, x in tiny.numbers({name: params[name] for name in held}).items():
            np.testing.assert_array_equal(x, whole[name], err_msg=name)
        again = plan_of(tmp_path / "run" / "one", weights[0])
        _, _, named = initial_state(again, list(again.stage.init), None, print)
        assert set(named) == {*LEARNS, "understanding_encoder"}


# What is refused before a step.


def problems(*init, model=MODEL, **changes) -> list[str]:
    """Of the fields, each without the words before it."""
    given = values(*init, **changes) | {"model": dataclasses.asdict(model)}
    experiment, wrong = resolve(given, {})
    return [*wrong, *check_config.all_problems(experiment, 1)]


def box(name: str, **changes):
    return dataclasses.replace(
        MODEL, **{name: dataclasses.replace(getattr(MODEL, name), **changes)}
    )


def test_a_config_whose_teacher_does_not_fit_is_refused():
    assert problems("siglip") == []
    (told,) = problems("siglip", model=box(TEACHER, image_size=6))
    assert "understanding_encoder.image_size is 6, model.generation_encoder.image_size 4" in told
    (told,) = problems("siglip", model=box(TEACHER, patch_size=2))
    assert "understanding_encoder.patch_size is 2" in told and "patches of 1" in told
    (told,) = problems("siglip", model=box("semantic_decoder", heads=5))
    assert "semantic_decoder.width is 24" in told and "5" in told


def test_a_semantic_stage_that_cannot_be_is_refused():
    (told,) = problems()
    assert "stages.one.init is empty" in told and "weights/siglip_l16_384" in told
    (told,) = problems("siglip", trainable=("generation_encoder", TEACHER))
    assert "set it to ('generation_encoder', 'semantic_decoder')" in told
    (told,) = problems("siglip", options={"ema": 0.99})
    assert "stages.one.options.ema is 0.99" in told
    (told,) = problems("siglip", options={"semantic": 0.0})
    assert "stages.one.options.semantic is 0" in told and "that is task vq" in told
    (told,) = problems("siglip", accumulate=2)
    assert "task semantic reads no such field" in told


def found_of(*init, before=None, given=None) -> list[str]:
    """What is wrong with the weights of a run of two stages or one."""
    given = given or values(*init)
    if before:
        given["stages"] = {"zero": given["stages"]["one"] | before, **given["stages"]}
    (_, _), report = look_at_weights(
        resolve(given, {})[0], pathlib.Path("nowhere"), pathlib.Path(), 1
    )
    return report.config


def test_a_run_without_its_teacher_is_refused_before_it_begins(weights, tmp_path):
    siglip, others = map(str, weights)
    assert found_of(siglip) == [] and found_of(others, siglip) == []
    (told,) = found_of(others)
    assert f"stages.one.init ({others}) holds no understanding_encoder" in told
    assert "weights/siglip_l16_384" in told
    # A stage of the same task does not hand its teacher on.
    (told,) = found_of("previous", before={"init": (siglip,)})
    assert "stages.one.init (previous) holds no understanding_encoder" in told
    assert found_of("previous", siglip, before={"init": (siglip,)}) == []
    # Weights that are not there are told as such, and nothing is guessed about them.
    (told,) = found_of(str(tmp_path / "siglip"))
    assert "holds no" not in told


def test_a_teacher_of_another_resolution_is_refused_with_what_to_change(weights, tmp_path):
    tower = box(TEACHER, image_size=8).understanding_encoder
    with on_mesh():
        module = jax.eval_shape(
            lambda: UnderstandingEncoder(tower, "float32", "none", "plain", Keys(jax.random.key(0)))
        )
        shapes = sh.concrete(nnx.to_pure_dict(nnx.state(module)))
        export(tmp_path / "larger", {TEACHER: tiny.drawn(shapes, 0)})
    told = "\n".join(found_of(str(tmp_path / "larger")))
    assert "understanding_encoder.tokens is 64 there, 16 here" in told
    assert "set its image_size, and model.generation_encoder's, to 8" in told


def test_a_semantic_decoder_of_other_heads_is_refused_though_its_shapes_are_the_same(weights):
    siglip, others = map(str, weights)
    given = values(others, siglip)
    given["model"] = dataclasses.asdict(box("semantic_decoder", heads=8))
    told = "\n".join(found_of(given=given))
    assert f"{others} does not fit" in told and "semantic_decoder.heads is 4 there, 8 here" in told


def test_a_teacher_is_never_drawn_at_random():
    with pytest.raises(WeightsError, match="holds understanding_encoder, the teacher"):
        semantic.init_random(0, MODEL, ("semantic_head", TEACHER))


@pytest.mark.parametrize("target, devices", [("", 4), ("h100:8", 8), ("v5e:8x8", 64)])
def test_the_config_is_the_appendixs_on_every_target(target, devices):
    built, wrong = read(f"{CONFIGS / 'semantic_tokenizer.py'}{':' * bool(target)}{target}", {})
    check_config.check(built, devices, known=wrong)
    box = built.model.semantic_decoder
    assert (box.layers, box.heads, box.width) == (12, 12, 768)
    assert built.model.generation_encoder.grid == (24, 24)
    epochs = {name: stage.steps * 128 for name, stage in built.stages.items()}
    assert epochs["imagenet"] == pytest.approx(40 * 1_281_167, rel=1e-4)
    assert epochs["text_to_image"] == pytest.approx(50e6, rel=1e-4)
    for stage in built.stages.values():
        o = stage.optim
        assert (o.learning_rate, o.schedule, stage.batch_size) == (1e-4, "constant", 128)
        assert stage.options["semantic"] == 0.25 and "weights/siglip_l16_384" in stage.init


def test_the_batch_that_is_planned_for_is_that_of_the_data():
    told, made = told_and_made(plan_of(), SOURCES)
    assert told == made and told.keys() == {"images"}
