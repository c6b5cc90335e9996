"""Drawing with a diffusion head: MAR's sampling, and pictures that depend on nothing else than their
prompt, seed and number."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from support import mar, tiny
from support.mesh import on_mesh

from janus_jax.model.low_rank import linears
from janus_jax.sample import decode, latents
from janus_jax.sample import generate as drawing
from janus_jax.sample.programs import row_keys
from janus_jax.sample.reading import Prompt
from janus_jax.sample.understand import understand
from janus_jax.serve.engine import Engine

KL = dataclasses.replace(
    tiny.CONFIG.generation_encoder, latent="kl", code_dim=4, z_channels=4, latent_scale=0.5
)
CONFIG = tiny.small(
    generation_encoder=KL, image_head="diffusion", image_head_layers=2, denoising_steps=6
)
PROMPTS = ["a red circle", "two blue squares and a cross"]
N = KL.tokens


@pytest.fixture(scope="module")
def model():
    with on_mesh():
        yield tiny.make_model(CONFIG)


def drawn(model, prompts=PROMPTS, **how):
    given = dict(cfg_scale=2.0, temperature=0.9, seed=3) | how
    return drawing._drawn(model, tiny.processor(), prompts, **given)[0]


def close(got, want):
    """A head at random makes large latents: beside the largest of a picture."""
    want = np.asarray(want)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max(), rtol=1e-4)


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_the_steps_are_those_of_the_oracle(count):
    steps = latents.respaced(count)[0]
    assert steps.tolist() == ([999] if count == 1 else mar.space(count))


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_latent_is_taken_out_of_noise_as_the_oracle_does(model, temperature):
    rng = np.random.default_rng(0)
    count, scale = 8, 2.5
    hidden = rng.normal(size=(4, 32)).astype(np.float32)
    keys = row_keys(np.array([1, 1, 2, 2], np.uint32), np.zeros(4, np.int32))
    mix = np.tile(np.float32([[scale, 1 - scale]]), (2, 2, 1))
    with on_mesh():
        draw = jax.jit(latents.denoised, static_argnums=5)
        heat = np.full(4, temperature, np.float32)
        got = np.asarray(draw(model.image_head, keys, hidden, mix, heat, count))
    np.testing.assert_array_equal(got[::2], got[1::2])
    noises = []
    for i in reversed(range(count + 1)):
        each = [jax.random.normal(jax.random.fold_in(key, i), (4,)) for key in keys[::2]]
        noises.append(torch.tensor(np.stack(each)))
    head = mar.Head(tiny.numbers(nnx.to_pure_dict(nnx.state(model.image_head))))
    rows = torch.tensor(hidden)
    want = mar.sample(head, rows[::2], rows[1::2], scale, temperature, noises).numpy()
    close(got[::2], want)


def test_each_latent_follows_from_those_before(model):
    """Drawn without noise between the steps, each latent is what the model that reads the whole row at
    once draws at its place."""
    found = drawn(model, cfg_scale=1.0, temperature=0.0)
    assert found.shape == (2, N, 4) and len(np.unique(found[0, :, 0])) == N
    with on_mesh():
        words = np.asarray(tiny.processor().request(PROMPTS[0]))
        n = len(words) + N
        tokens, own = np.zeros((2, 1, n), np.int32)
        tokens[0, : len(words)] = words
        own[0, len(words) :] = 1 + np.arange(N)
        batch = {
            "tokens": tokens, "understanding_images": np.zeros((1, 0, 16, 16, 3), np.float32),
            "generation_slots": own, "positions": np.arange(n)[None],
            "segment_ids": np.ones((1, n), int),
        }  # fmt: skip
        hidden = model(tiny.put(batch), tiny.put({"latents": found[:1]})["latents"])[
            0, len(words) - 1 : -1
        ]
        keys = row_keys(np.full(N, 3, np.uint32), np.zeros(N, np.int32))
        keys = jax.vmap(jax.random.fold_in)(keys, np.arange(N))
        mix = np.tile(np.eye(2, dtype=np.float32), (N // 2, 1, 1))
        draw = jax.jit(latents.denoised, static_argnums=5)
        want = draw(model.image_head, keys, hidden, mix, np.zeros(N, np.float32), 6)
    close(found[0], want)


def test_a_picture_depends_on_its_prompt_seed_and_number_alone(model):
    both = drawn(model, images_per_prompt=2)
    alone = drawn(model, PROMPTS[1:], first=1)
    close(both[3:], alone)
    assert np.abs(both[0] - both[1]).max() > 0.1
    cold = drawn(model, PROMPTS[1:], first=1, temperature=0.5)
    free = drawn(model, PROMPTS[1:], first=1, cfg_scale=1.0)
    assert np.abs(alone - cold).max() > 1e-2 and np.abs(alone - free).max() > 1e-3


def test_pictures_are_the_same_on_a_mesh_of_all_axes(model):
    one = drawn(model)
    with on_mesh(2, 2, 2):
        other = drawn(tiny.make_model(CONFIG))
    close(one, other)


def test_generate_decodes_latents_and_the_model_still_answers(model):
    said = []
    with on_mesh():
        (picture,) = drawing.generate(
            model,
            tiny.processor(),
            PROMPTS[0],
            progress=lambda done, total: said.append((done, total)),
        )
        found = drawing.decode_ids(model, np.zeros((1, N, 4)))
        want = model.generation_encoder.render(np.zeros((1, *KL.grid, 4), np.float32))
        np.testing.assert_allclose(found, want, atol=1e-5)
        assert picture.size == (16, 16) and said == [(N, N)]
        messages = [{"role": "user", "content": "what is there?"}]
        understand(model, tiny.processor(), messages, max_new_tokens=2, temperature=0.0)
        with pytest.raises(
            ValueError, match="generate_ids: this model's image_head is 'diffusion'"
        ):
            drawing.generate_ids(model, tiny.processor(), PROMPTS)


def test_latents_that_are_not_finite_are_told(model):
    broken = nnx.clone(model)
    broken.image_head.latent_out.bias = nnx.Param(np.full(4, np.nan, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        drawn(broken)


def test_what_only_ids_can_do_is_refused(model):
    prompt = Prompt(np.zeros(3, np.int32))
    with on_mesh(), pytest.raises(ValueError, match="'diffusion', which draws latents and no ids"):
        decode.image_ids(model, [(prompt, prompt)], [0], [0], 1.0, 1.0, N)
    served = Engine(model, tiny.processor(), rows=2)
    try:
        with pytest.raises(
            ValueError, match="'diffusion', which draws latents and no ids: an engine"
        ):
            served.draw("a red circle")
    finally:
        served.close()
    assert not [name for name in linears(CONFIG) if name.startswith("image_head")]


@pytest.mark.parametrize("how", [{"temperature": -1.0}, {"cfg_scale": float("nan")}])
def test_numbers_out_of_range_are_named(model, how):
    with on_mesh(), pytest.raises(ValueError, match=f"{next(iter(how))} is .*: must be a finite"):
        drawn(model, **how)
