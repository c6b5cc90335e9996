"""Drawing all image tokens at once."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh

import janus_jax
from janus_jax.data import masked as rows
from janus_jax.data.packing import assemble
from janus_jax.distributed import arrays
from janus_jax.model import batch as bt
from janus_jax.sample import masked
from janus_jax.sample.generate import generate, generate_ids
from janus_jax.serve.engine import Engine
from janus_jax.training.step import train_step
from janus_jax.weights import parts
from janus_jax.weights.load import export

N = tiny.CONFIG.generation_encoder.tokens
PROMPTS = ["a red circle", "two blue squares and a cross", "a green star"]
CONFIG = tiny.small(drawing="masked")
LENGTH = 64  # of the rows that the model that trains reads: of one shape, so compiled once


@pytest.fixture
def model(one_device):
    return tiny.make_model(CONFIG)


@jax.jit
def logits(model, batch, ids):
    return model.image_head(model(batch, ids))


def logits_of(model, prompt: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Of a picture's tokens, [N, C], ids -1 masked, by the model that trains, from one packed row."""
    holder = tiny.processor().tokenizer.placeholder
    known = ids >= 0
    spans = [
        (prompt.tolist(), bt.TEXT, 0),
        *[([holder], bt.GENERATION_SLOT, int(not here)) for here in known],
    ]
    example = bt.sequence(spans, "generation", generation_images=[0])
    row = rows.drawn_row(assemble([example], LENGTH), CONFIG)
    side = CONFIG.understanding_encoder.image_size
    batch = {name: x[None] for name, x in row.items()}
    batch["understanding_images"] = np.zeros((1, 0, side, side, 3), np.float32)
    found = np.asarray(logits(model, batch, np.maximum(ids, 0)[None]), np.float64)[0]
    return found[len(prompt) :][:N]


@pytest.mark.parametrize("scale", [pytest.param(1.0, marks=pytest.mark.slow), 3.0])
def test_every_step_keeps_what_the_model_that_trains_finds_likeliest(model, scale):
    steps = 5
    left = masked.schedule(N, steps)
    drawn = generate_ids(
        model, tiny.processor(), PROMPTS, cfg_scale=scale, temperature=0.0, steps=steps
    )
    for prompt, found in zip(PROMPTS, drawn):
        words = tiny.processor().request(prompt)
        ids = np.full(N, -1)
        for k in range(steps):
            one = logits_of(model, words, ids)
            other = logits_of(model, tiny.processor().unconditional(words), ids)
            guided = scale * one + (1 - scale) * other
            likely = guided.max(-1) - np.log(np.exp(guided - guided.max(-1, keepdims=True)).sum(-1))
            likely = likely - guided.max(-1)
            trust = np.where(ids >= 0, np.inf, likely)
            kept = np.argsort(trust)[left[k] :]
            ids[kept] = np.where(ids[kept] >= 0, ids[kept], guided.argmax(-1)[kept])
        assert (ids == found).all()


@pytest.mark.parametrize("steps", [1, 5, 12, N])
def test_the_schedule_finds_at_least_one_token_a_step_and_all_at_last(steps):
    left = [N, *masked.schedule(N, steps)]
    assert len(left) == steps + 1 and left[-1] == 0 and max(np.diff(left)) < 0


def test_the_schedule_is_a_cosine():
    assert masked.schedule(576, 8) == [564, 532, 478, 407, 320, 220, 112, 0]


def test_a_draw_depends_on_its_seed_number_and_prompt_alone(model):
    draw = functools.partial(generate_ids, model, tiny.processor(), steps=4, cfg_scale=2.0)
    many = draw(PROMPTS, seed=[1, 2, 3], images_per_prompt=2)
    assert (draw(PROMPTS[1], seed=2, first=1)[0] == many[3]).all()
    assert (many[2] != many[3]).any() and ((many >= 0) & (many < 64)).all()


@pytest.mark.slow
def test_all_meshes_draw_the_same():
    drawn = []
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            model = tiny.make_model(CONFIG)
            how = dict(cfg_scale=2.0, temperature=0.0, steps=6)
            drawn.append(generate_ids(model, tiny.processor(), PROMPTS, **how))
    assert (drawn[0] == drawn[1]).all()


@pytest.mark.slow
def test_the_step_learns_what_is_masked_and_gives_the_same_on_a_mesh_of_all_axes():
    rng = np.random.default_rng(0)
    some = []
    for i in range(8):
        drawn = tiny.example("generation", i)
        row = tiny.row([drawn, tiny.example("understanding", i)])
        hidden = rows.mask(drawn, rng) | {"from": drawn["from"]}
        made = assemble([hidden, tiny.example("understanding", i)], tiny.LENGTH)
        some.append(row | rows.drawn_row(made, CONFIG))
    batch = {key: np.stack([row[key] for row in some]) for key in some[0]}
    found = {}
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            state = tiny.make_state(tiny.TX, tiny.ALL, CONFIG)
            put = arrays.put_batch(batch)
            step = jax.jit(functools.partial(train_step, tx=tiny.TX))
            losses = []
            for _ in range(4 if mesh == (1, 1, 1) else 1):
                state, metrics = step(state, put)
                losses.append(float(metrics["generation_loss"]))
            found[mesh] = {key: float(x) for key, x in metrics.items()}, losses
    (_, one), (_, other) = found.values()
    assert other[0] == pytest.approx(one[0], rel=2e-5) and one[-1] < 0.9 * one[0]


def test_pictures_are_drawn_and_their_progress_told(model):
    told = []
    (picture,) = generate(
        model, tiny.processor(), PROMPTS[0], steps=3, progress=lambda *x: told.append(x)
    )
    assert (
        picture.size == (16, 16) and told == sorted(told) and told[-1] == (N, N) and len(told) == 3
    )


def test_weights_come_back_as_masked_ones(model, tmp_path):
    export(tmp_path, nnx.to_pure_dict(nnx.state(model)), CONFIG, tiny.processor())
    loaded, processor = janus_jax.load(tmp_path, dtype="float32")
    assert loaded.config.drawing == "masked"
    draw = lambda model: generate_ids(model, processor, PROMPTS, steps=3, temperature=0.0)
    assert (draw(loaded) == draw(model)).all()


# What cannot be done


def test_steps_of_a_model_that_draws_one_after_the_other_are_refused(one_device):
    with pytest.raises(ValueError, match=r"steps is 8: this model draws one id after the other"):
        generate(tiny.make_model(), tiny.processor(), PROMPTS[0], steps=8)


@pytest.mark.parametrize("steps", [0, -1, N + 1, 2.5, True, "8"])
def test_steps_that_no_picture_can_be_drawn_in_are_refused(model, steps):
    with pytest.raises(ValueError, match=rf"steps is .*from 1 to {N}"):
        generate(model, tiny.processor(), PROMPTS[0], steps=steps)


def test_the_server_says_that_it_does_not_draw_so(model):
    engine = Engine(model, tiny.processor(), rows=2)
    try:
        with pytest.raises(
            ValueError,
            match="drawing is 'masked', all image tokens at once: an engine, and a server",
        ):
            engine.draw(PROMPTS[0])
    finally:
        engine.close()


def test_other_programs_have_no_place_for_it():
    assert parts.ablated(tiny.CONFIG) == []
    (problem,) = parts.ablated(CONFIG)
    assert "drawing is 'masked': other programs' Janus knows 'causal' alone" in problem


def test_weights_that_are_not_finite_are_told(model):
    head = model.image_head.fc2
    head.kernel[...] = head.kernel[...] * np.nan
    with pytest.raises(ValueError, match="not finite"):
        generate_ids(model, tiny.processor(), PROMPTS[0], steps=3)
