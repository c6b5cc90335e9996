"""Drawing against a loop without a cache, and pictures that do not depend on the company they are
asked in."""

import copy
import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh
from support.sampling import LENGTH, PROMPTS, WORDS, N, draw, forward, make, picture, said

from janus_jax import generate, understand
from janus_jax.sample import reading
from janus_jax.sample.generate import decode_ids, generate_ids, to_pil
from janus_jax.sample.understand import understand_batch


def images_by_hand(model, prompt: str, combine):
    """Greedy ids, the whole row run anew for each; `combine` (conditional, unconditional
    logits)."""
    tokens = tiny.processor().tokenizer
    spans = tiny.processor().drawing(prompt)
    conditional = np.concatenate([span[0] for span in spans])
    middle = [tokens.pad] * (len(conditional) - 2)
    unconditional = np.array([tokens.bos, *middle, tokens.begin_of_image])
    assert conditional[0] == tokens.bos and conditional[-1] == tokens.begin_of_image
    n, table = len(conditional), np.asarray(model.text_embedding.table[...])
    x = np.zeros((2, LENGTH, table.shape[1]), np.float32)
    x[:, :n] = table[np.stack([conditional, unconditional])]
    ids = []
    for i in range(N):
        hidden = forward(model, x)[:, n + i - 1 : n + i]
        logits = np.asarray(model.image_head(hidden))[:, 0]
        ids.append(int(combine(*logits).argmax()))
        x[:, n + i] = np.asarray(model.embed_image_ids(jnp.array([[ids[-1]]])))[0, 0]
    return ids


@pytest.mark.parametrize(
    "scale, combine",
    [(1.0, lambda c, u: c), (0.0, lambda c, u: u), (5.0, lambda c, u: 5 * c - 4 * u)],
    ids=["conditional", "unconditional", "guided"],
)
def test_greedy_ids_are_those_of_a_loop_without_cache(model, scale, combine):
    for prompt in (PROMPTS[0], PROMPTS[3]):
        want = images_by_hand(model, prompt, combine)
        assert len(set(want)) > 2, "ids that do not vary show nothing"
        assert draw(model, [prompt], cfg_scale=scale, temperature=0.0)[0].tolist() == want


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_said_and_give_no_picture_and_no_answer(model, value):
    broken = nnx.clone(model)
    for kernel in (broken.image_head.fc2.kernel, broken.text_head.linear.kernel):
        kernel[...] = kernel[...] * value
    for numbers in ({"temperature": 0.0}, {"temperature": 1.0}):
        with pytest.raises(
            ValueError, match="logits are not finite: its weights hold NaN or overflow"
        ):
            draw(broken, PROMPTS[:1], **numbers)
        with pytest.raises(ValueError, match="logits are not finite"):
            understand(broken, tiny.processor(), said("what?"), max_new_tokens=2, **numbers)


def test_guidance_and_prompt_matter(model):
    by_scale = [
        draw(model, PROMPTS[0], cfg_scale=s, temperature=0.0).tolist() for s in (0.0, 1.0, 5.0)
    ]
    assert by_scale[0] != by_scale[1] != by_scale[2]
    ids = draw(model, PROMPTS[:2], cfg_scale=1.0, temperature=0.0)
    assert ids[0].tolist() != ids[1].tolist()


def test_seeds_move_the_draw_at_temperature_one_only(model):
    cold = [draw(model, PROMPTS[0], temperature=0.0, seed=s).tolist() for s in (0, 1)]
    assert cold[0] == cold[1]
    warm = [draw(model, PROMPTS[0], seed=s).tolist() for s in (0, 0, 1)]
    assert warm[0] == warm[1] != warm[2]


def test_a_draw_does_not_depend_on_its_company(model):
    alone = [draw(model, prompt, seed=7)[0].tolist() for prompt in PROMPTS]
    together = draw(model, PROMPTS, seed=7).tolist()
    assert together == alone
    twice = draw(model, PROMPTS[:2], seed=7, images_per_prompt=2).tolist()
    assert twice[::2] == alone[:2]
    assert twice[1] != twice[0] and twice[3] != twice[2]
    assert draw(model, PROMPTS[:2], seed=7, first=1).tolist() == twice[1::2]
    seeded = draw(model, PROMPTS, seed=[7, 1, 2, 7]).tolist()
    assert [seeded[0], seeded[3]] == [alone[0], alone[3]] and seeded[1] != alone[1]


def test_a_much_longer_neighbour_changes_nothing(model, processor):
    """It is read in longer stretches, and makes the cache longer."""
    long = "a red circle " * 100
    assert len(processor.request(long)) > reading.SHORT, "it is read in longer stretches"
    alone = draw(model, PROMPTS[0], seed=7)[0].tolist()
    assert draw(model, [PROMPTS[0], long], seed=7)[0].tolist() == alone
    asked = [said("what?", picture(1)), said(long, *map(picture, range(3)))]
    numbers = dict(max_new_tokens=WORDS)
    alone = [understand(model, processor, c, **numbers) for c in asked]
    assert len(set(alone)) == 2
    assert understand_batch(model, processor, asked, **numbers) == alone


@pytest.mark.slow  # test_engine.py has one mesh
def test_eight_devices_draw_what_one_draws(model, processor):
    want = draw(model, PROMPTS[:3], seed=3).tolist()
    pictures = generate(model, processor, PROMPTS[:3], seed=3)
    answer = understand(model, processor, said("what is it?", picture(1)), max_new_tokens=WORDS)
    with on_mesh(1, 4, 2):
        split = make()
        assert generate_ids(split, processor, PROMPTS[:3], seed=3).tolist() == want
        for a, b in zip(generate(split, processor, PROMPTS[:3], seed=3), pictures):
            np.testing.assert_allclose(np.asarray(a, int), np.asarray(b, int), atol=1)
        assert (
            understand(split, processor, said("what is it?", picture(1)), max_new_tokens=WORDS)
            == answer
        )


def test_generate_gives_pictures_in_order(model, processor):
    pictures = generate(model, processor, PROMPTS[:2], seed=7, images_per_prompt=2)
    ids = draw(model, PROMPTS[:2], seed=7, images_per_prompt=2)
    assert [p.size for p in pictures] == [(16, 16)] * 4 and all(p.mode == "RGB" for p in pictures)
    for one, picture_ in zip(ids, pictures):
        want = (np.clip(decode_ids(model, one[None])[0], -1, 1) + 1) / 2 * 255
        np.testing.assert_allclose(np.asarray(picture_, int), np.floor(want), atol=1)
    assert len({p.tobytes() for p in pictures}) == 4


def test_a_prompt_that_cannot_be_drawn_leaves_the_others_of_its_batch(model, processor):
    options = dict(images_per_prompt=2, return_exceptions=True)
    got = generate(
        model, processor, ["", PROMPTS[0], b"x", PROMPTS[1]], seed=[5, 6, 7, 8], **options
    )
    want = generate(model, processor, PROMPTS[:2], seed=[6, 8], images_per_prompt=2)
    errors = got[:2] + got[4:6]
    assert all(isinstance(error, ValueError) for error in errors)
    assert "prompts[0]" in str(errors[0]) and "prompts[2]" in str(errors[2])
    for a, b in zip(got[2:4] + got[6:], want, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert len(generate(model, processor, ["", ""], **options)) == 4


def test_the_processor_says_how_its_weights_draw_best(model, processor):
    tuned = copy.copy(processor)
    tuned.cfg_scale, tuned.temperature = 2.0, 0.0
    want = draw(model, PROMPTS[:2], cfg_scale=2.0, temperature=0.0).tolist()
    assert generate_ids(model, tuned, PROMPTS[:2], seed=5).tolist() == want
    explicit = generate_ids(model, tuned, PROMPTS[:2], cfg_scale=0.0, temperature=0.0).tolist()
    assert explicit == draw(model, PROMPTS[:2], cfg_scale=0.0, temperature=0.0).tolist() != want


def test_progress_reaches_the_end(model):
    seen = []
    draw(model, PROMPTS[:2], progress=lambda *where: seen.append(where))
    assert seen[-1] == (2 * N, 2 * N) and seen == sorted(seen)
    assert {total for _, total in seen} == {2 * N}


def test_to_pil_clips_and_truncates():
    values = np.array([-2, -1, 0, 0.5, 0.999, 1, 3], np.float32)  # 0 -> 127.5, 0.999 -> 254.87
    (picture,) = to_pil(np.repeat(values[None, None, :, None], 3, -1))
    assert [picture.getpixel((x, 0))[0] for x in range(7)] == [0, 0, 127, 191, 254, 255, 255]
    assert len(to_pil(np.zeros((3, 2, 2, 3), np.float16))) == 3
    with pytest.raises(ValueError, match=r"shape \(2, 2, 3\).*images\[None\]"):
        to_pil(np.zeros((2, 2, 3)))
    broken = np.zeros((3, 2, 2, 3))
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"NaN in picture 1 \(1 of 3\)"):
        to_pil(broken)
