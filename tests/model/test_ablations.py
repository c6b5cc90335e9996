"""Whose features the two adaptors read (the paper's Table 5): the VQ tokenizer's codes, or those of
the semantic decoder, computed for a whole picture or while it is drawn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.configs import checked
from support.mesh import on_mesh

from janus_jax.distributed import arrays
from janus_jax.model import config as sizes
from janus_jax.model import flops
from janus_jax.model.serving import serving
from janus_jax.sample.generate import generate_ids
from janus_jax.training.step import train_step
from janus_jax.training.tasks import janus

FROZEN = ("generation_encoder", "semantic_decoder")
SMALL = sizes.SemanticDecoderConfig(width=32, mlp_width=64, layers=2, heads=8)
EXPERIMENTS = {
    "A": ("vq", "embedding"),
    "B": ("semantic", "semantic"),
    "D": ("siglip", "embedding"),
}
N = tiny.CONFIG.generation_encoder.tokens
IDS = np.random.default_rng(0).integers(0, 64, (2, N)).astype(np.int32)


def config(name: str) -> sizes.JanusConfig:
    understanding, generation = EXPERIMENTS[name]
    return tiny.small(understanding=understanding, generation=generation, semantic_decoder=SMALL)


@pytest.fixture(scope="module")
def semantic():
    with on_mesh():
        yield tiny.make_model(config("B"))


def test_a_model_has_the_children_that_its_adaptors_read(one_device):
    held = lambda name: set(nnx_children(tiny.make_model(config(name))))
    janus = held("D")
    assert janus == set(tiny.CONFIG.children) and "semantic_decoder" not in janus
    assert held("A") == janus - {"understanding_encoder"}
    whole = janus | {"semantic_decoder"}
    assert held("B") == whole - {"understanding_encoder", "generation_embedding"}


def nnx_children(model):
    return [name for name in sizes.CHILDREN if hasattr(model, name)]


def test_the_vq_tokenizers_codes_are_what_experiment_a_understands(one_device):
    model = tiny.make_model(config("A"))
    images = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    ids = jax.jit(lambda encoder, x: encoder.encode(x))(model.generation_encoder, images)
    table = np.asarray(model.generation_encoder.codebook[...])
    codes = table[np.asarray(ids)] / np.linalg.norm(table[np.asarray(ids)], axis=-1, keepdims=True)
    ours = np.asarray(jax.jit(lambda model, x: model.embed_images(x))(model, images))
    np.testing.assert_allclose(ours, model.understanding_adaptor(jnp.asarray(codes)), atol=1e-5)


def test_a_place_of_the_semantic_decoder_sees_no_later_code(semantic):
    other = IDS.copy()
    other[:, 9:] = (other[:, 9:] + 1) % 64
    features = [np.asarray(semantic.semantic_decoder(semantic.codes(ids))) for ids in (IDS, other)]
    np.testing.assert_array_equal(features[0][:, :9], features[1][:, :9])
    assert (features[0][:, 9:] != features[1][:, 9:]).any(-1).all()


def test_features_code_by_code_are_those_of_the_whole_picture(semantic):
    whole = np.asarray(semantic.embed_image_ids(IDS))
    served = serving(semantic)
    cache = served.blank_drawn(2)
    step = jax.jit(served.embed_drawn)
    for i in range(N):
        one, cache = step(jnp.asarray(IDS[:, i : i + 1]), jnp.full(2, i), cache)
        np.testing.assert_allclose(one[:, 0], whole[:, i], atol=2e-6)


def test_a_row_of_two_pictures_reads_each_by_itself(semantic):
    both = semantic.embed_image_ids(IDS.reshape(1, -1))
    alone = semantic.embed_image_ids(IDS)
    np.testing.assert_allclose(np.asarray(both).reshape(2, N, -1), alone, atol=1e-6)


@jax.jit
def image_logits(model, batch, ids):
    return model.image_head(model(batch, ids))


@pytest.mark.parametrize("mesh", [pytest.param((1, 1, 1), marks=pytest.mark.slow), (1, 2, 2)])
def test_a_picture_drawn_greedily_is_the_likeliest_of_the_whole_row(mesh):
    """Every id that the engine drew is the argmax of the model that reads all ids at once."""
    with on_mesh(*mesh):
        model = tiny.make_model(config("B"))
        prompts = ["a red circle", "two blue squares and a cross"]
        drawn = generate_ids(
            model, tiny.processor(), prompts, cfg_scale=1.0, temperature=0.0, seed=3
        )
    with on_mesh():
        model = tiny.make_model(config("B"))
        for prompt, ids in zip(prompts, np.asarray(drawn)):
            words = np.asarray(tiny.processor().request(prompt))
            n, at = 64, len(words)
            tokens, own = np.zeros((2, 1, n), np.int32)
            tokens[0, :at] = words
            own[0, at : at + N] = 1 + np.arange(N)
            batch = {
                "tokens": tokens,
                "understanding_images": np.zeros((1, 0, 16, 16, 3), np.float32),
                "generation_slots": own,
                "positions": np.arange(n)[None],
                "segment_ids": (np.arange(n) < at + N)[None].astype(int),
            }
            logits = np.asarray(image_logits(model, batch, ids[None]))[0, at - 1 : at - 1 + N]
            likely = logits.max(-1) - logits[np.arange(N), ids]
            assert likely.max() < 1e-5 and len(set(ids.tolist())) > 1


@pytest.mark.parametrize("name", ["B", *(pytest.param(x, marks=pytest.mark.slow) for x in "AD")])
def test_the_loss_and_its_gradient_are_the_same_on_a_mesh_of_all_axes(name):
    rows = [
        tiny.row([tiny.example("understanding", 2 * i), tiny.example("generation", 2 * i + 1)])
        for i in range(8)
    ]
    batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    flames = [child for child in config(name).children if child not in FROZEN]
    found = {}
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            state = tiny.make_state(tiny.TX, flames, config(name))
            put = arrays.put_batch(batch)
            step = jax.jit(functools.partial(train_step, tx=tiny.TX))
            _, metrics = step(state, put)
            found[mesh] = {key: float(x) for key, x in metrics.items()}
    one, other = found.values()
    assert one["understanding_loss"] > 1 and one["generation_loss"] > 1
    assert one["grad_norm/understanding_adaptor"] > 0 and one["grad_norm/generation_adaptor"] > 0
    assert other == pytest.approx(one, rel=2e-5, abs=1e-6)


def test_what_is_trained_by_other_tasks_is_refused():
    experiment = checked()
    stage = dataclasses.replace(experiment.stages["stage2"], trainable=("semantic_decoder",))
    model = dataclasses.replace(experiment.model, understanding="semantic")
    changed = dataclasses.replace(experiment, model=model, stages={"stage2": stage})
    (problem,) = janus.problems(changed, "stage2")
    assert "tasks vq and semantic" in problem
    stage = dataclasses.replace(stage, trainable=("understanding_encoder", "transformer"))
    (problem,) = janus.problems(dataclasses.replace(changed, stages={"stage2": stage}), "stage2")
    assert "understanding_encoder" in problem and "'semantic'" in problem


def test_flops_count_what_is_read(one_device):
    work = dict(tokens=0, pairs=0, text=0, image=N, understanding_images=1, generation_images=0)
    counted = {name: flops.count(config(name), (), flops.Work(**work)) for name in EXPERIMENTS}
    assert counted["A"]["understanding_encoder"] == counted["B"]["understanding_encoder"] == 0
    assert counted["A"]["generation_encoder"] == counted["B"]["generation_encoder"] > 0
    assert counted["D"]["generation_encoder"] == 0 and "semantic_decoder" not in counted["A"]
    assert counted["B"]["semantic_decoder"] > 0
