"""Drawing tokens of several codes: each follows from those before it, under guidance at each depth, and a
picture depends on its prompt, seed and number alone."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from support import rq, tiny
from support.mesh import on_mesh

from janus_jax.model.low_rank import linears
from janus_jax.sample import codes, decode
from janus_jax.sample import generate as drawing
from janus_jax.sample.cache import put
from janus_jax.sample.programs import row_keys
from janus_jax.sample.reading import Prompt

VQ = dataclasses.replace(
    tiny.CONFIG.generation_encoder, channels=4, multipliers=(1, 1, 1), norm_groups=2, depth=3,
    codebook_l2_norm=False,
)  # fmt: skip
CONFIG = tiny.small(generation_encoder=VQ, image_head="depth", image_head_layers=2)
PROMPTS = ["a red circle", "two blue squares and a cross"]
N = VQ.tokens


@pytest.fixture(scope="module")
def model():
    with on_mesh():
        yield tiny.make_model(CONFIG)


def drawn(model, prompts=PROMPTS, **how):
    given = dict(cfg_scale=2.0, temperature=1.0, seed=3) | how
    return drawing.generate_ids(model, tiny.processor(), prompts, **given)


def test_codes_are_drawn_in_turn_under_guidance_as_the_oracle_does(model):
    scale = 2.5
    hidden = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    mix = np.tile(np.float32([[scale, 1 - scale]]), (2, 2, 1))
    seeds, numbers = np.array([1, 1, 2, 2], np.uint32), np.zeros(4, np.int32)
    with on_mesh():
        draw = jax.jit(
            lambda model, seeds, numbers, *how: codes.token(model, row_keys(seeds, numbers), *how)
        )
        rows = lambda heat: put((seeds, numbers, hidden, mix, np.full(4, heat, np.float32)))
        cold, warm = (np.asarray(draw(model, *rows(heat))) for heat in (0.0, 1.0))
    np.testing.assert_array_equal(cold[::2], cold[1::2])
    np.testing.assert_array_equal(warm[::2], warm[1::2])
    head = rq.Head(tiny.numbers(nnx.to_pure_dict(nnx.state(model.image_head))), heads=8)
    rows = torch.tensor(hidden)
    want = [head.likeliest(a, b, scale).tolist() for a, b in zip(rows[::2], rows[1::2])]
    assert cold[::2].tolist() == want
    assert (warm != cold).any()


def test_what_the_language_model_reads_is_the_sum_of_the_codes(model):
    ids = np.random.default_rng(3).integers(0, VQ.codebook_size, (1, 2, 3))
    table = np.asarray(model.generation_embedding.table[...])
    with on_mesh():
        got = jax.jit(lambda m, ids: m.embed_image_ids(ids))(model, ids)
        want = jax.jit(lambda m, x: m.generation_adaptor(x))(model, table[ids].sum(2))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_each_code_is_the_likeliest_of_the_model_that_reads_the_row_at_once(model):
    """Greedy drawing is the argmax of teacher-forced logits."""
    found = drawn(model, PROMPTS[:1], cfg_scale=1.0, temperature=0.0)
    assert found.shape == (1, N, 3) and found.dtype == np.int32 and len(np.unique(found)) > 3
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

        def logits(model, batch, ids):
            hidden = model(batch, ids)[:, len(words) - 1 : -1]
            return model.image_head(hidden, ids)

        given = tiny.put({"ids": found})["ids"]
        want = np.asarray(jax.jit(logits)(model, tiny.put(batch), given)).argmax(-1)
    np.testing.assert_array_equal(found.reshape(1, -1), want)


@pytest.mark.slow
def test_a_picture_depends_on_its_prompt_seed_and_number_alone(model):
    both = drawn(model, images_per_prompt=2)
    np.testing.assert_array_equal(both[3:], drawn(model, PROMPTS[1:], first=1))
    assert (both[0] != both[1]).any() and (both[1] != both[3]).any()
    assert len({tuple(token) for token in both.reshape(-1, 3).tolist()}) > N


@pytest.mark.slow
def test_pictures_are_the_same_on_a_mesh_of_all_axes(model):
    one = drawn(model)
    with on_mesh(2, 2, 2):
        np.testing.assert_array_equal(drawn(tiny.make_model(CONFIG)), one)


@pytest.mark.slow
def test_generate_paints_the_sums_and_tells_of_tokens(model):
    said = []
    tell = lambda done, total: said.append((done, total))
    with on_mesh():
        (picture,) = drawing.generate(
            model, tiny.processor(), PROMPTS[0], progress=tell, cfg_scale=1.0, seed=3
        )
    assert picture.size == (16, 16) and said == [(N, N)]


def test_logits_that_are_not_finite_are_told(model):
    broken = nnx.clone(model)
    with on_mesh():
        broken.image_head.fc2.bias = nnx.Param(np.nan * model.image_head.fc2.bias[...])
    with pytest.raises(ValueError, match="not finite"):
        drawn(broken, PROMPTS[:1], cfg_scale=1.0)


def test_what_draws_one_id_a_token_is_refused(model):
    prompt = Prompt(np.zeros(3, np.int32))
    with on_mesh(), pytest.raises(ValueError, match="'depth', several codes a token: an engine"):
        decode.image_ids(model, [(prompt, prompt)], [0], [0], 1.0, 1.0, N)
    with on_mesh(), pytest.raises(ValueError, match="steps is 4: this model draws one"):
        drawn(model, steps=4)
    assert not [name for name in linears(CONFIG) if name.startswith("image_head")]
