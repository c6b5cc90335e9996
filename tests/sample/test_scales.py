"""Drawing scale by scale."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh
from support.scales import ALL, CONFIG, SCALES, N, processor

import janus_jax
from janus_jax.data import scales as rows
from janus_jax.data.packing import assemble
from janus_jax.distributed import arrays
from janus_jax.eval.during import redrawn
from janus_jax.model import batch as bt
from janus_jax.sample.generate import generate, generate_ids
from janus_jax.serve.engine import Engine
from janus_jax.serve.process import warm
from janus_jax.training.step import train_step
from janus_jax.weights.load import export

PROMPTS = ["a red circle", "two blue squares and a cross", "a green star"]


@pytest.fixture(scope="module")
def made():
    with on_mesh():
        return tiny.make_model(CONFIG)


@pytest.fixture
def model(made, one_device):
    return made


def teacher_forced(model, prompts: list[np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The logits [B, N, C] of pictures' ids [B, N] by the model that trains, each in a packed row of its
    own behind its prompt."""
    length = max(map(len, prompts)) + N
    made = []
    for prompt in prompts:
        holder = processor().tokenizer.placeholder
        spans = [(prompt.tolist(), bt.TEXT, 0), ([holder] * N, bt.GENERATION_SLOT, 1)]
        example = bt.sequence(spans, "generation", generation_images=[0])
        made.append(rows.drawn_row(assemble([example], length), CONFIG))
    batch = {name: np.stack([row[name] for row in made]) for name in made[0]}
    side = CONFIG.understanding_encoder.image_size
    batch["understanding_images"] = np.zeros((len(made), 0, side, side, 3), np.float32)
    run = jax.jit(lambda model, batch, ids: model.image_head(model(batch, ids)))
    logits = np.asarray(run(model, arrays.put_batch(batch), arrays.put_batch({"": ids})[""]))
    at = [row["image_targets"] > 0 for row in made]
    return np.stack([own[here] for own, here in zip(logits, at)]).astype(np.float64)


def test_the_likeliest_ids_of_every_scale_are_those_of_the_model_that_trains(model):
    words = [processor().request(prompt) for prompt in PROMPTS]
    other = [processor().unconditional(x) for x in words]
    for scale in (1.0, 3.0):
        drawn = generate_ids(model, processor(), PROMPTS, cfg_scale=scale, temperature=0.0)
        one = teacher_forced(model, words, drawn)
        logits = one
        if scale != 1:
            logits = scale * one + (1 - scale) * teacher_forced(model, other, drawn)
        assert drawn.shape == (3, N) and (logits.argmax(-1) == drawn).all()
        assert len(np.unique(drawn)) > len(SCALES)


@pytest.mark.slow
def test_a_draw_depends_on_its_seed_number_and_prompt_alone(model):
    draw = functools.partial(generate_ids, model, processor(), cfg_scale=2.0)
    many = draw(PROMPTS, seed=[1, 2, 3], images_per_prompt=2)
    assert (draw(PROMPTS[1], seed=2, first=1)[0] == many[3]).all()
    assert (many[2] != many[3]).any() and ((many >= 0) & (many < 64)).all()


def test_pictures_are_drawn_and_their_progress_told(model):
    told = []
    (picture,) = generate(model, processor(), PROMPTS[0], progress=lambda *x: told.append(x))
    assert picture.size == (16, 16) and told == [(1, N), (5, N), (N, N)]


@pytest.mark.slow
def test_all_meshes_draw_the_same():
    drawn = []
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            how = dict(cfg_scale=2.0, temperature=0.0)
            drawn.append(generate_ids(tiny.make_model(CONFIG), processor(), PROMPTS, **how))
    assert (drawn[0] == drawn[1]).all()


@pytest.mark.slow
def test_the_step_learns_and_gives_the_same_on_a_mesh_of_all_axes():
    some = []
    for i in range(8):
        prompt = processor().request(PROMPTS[i % 3]).tolist()
        holder = processor().tokenizer.placeholder
        spans = [(prompt, bt.TEXT, 0), ([holder] * N, bt.GENERATION_SLOT, 1)]
        drawn = bt.sequence(spans, "generation", generation_images=[0])
        understood = tiny.example("understanding", i)
        row = tiny.row([understood, tiny.example("generation", i)])
        some.append(row | rows.drawn_row(assemble([drawn, understood], tiny.LENGTH), CONFIG))
    batch = {key: np.stack([row[key] for row in some]) for key in some[0]}
    found = {}
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            state = tiny.make_state(tiny.TX, ALL, CONFIG)
            put = arrays.put_batch(batch)
            step = jax.jit(functools.partial(train_step, tx=tiny.TX))
            losses = []
            for _ in range(4 if mesh == (1, 1, 1) else 1):
                state, metrics = step(state, put)
                losses.append(float(metrics["generation_loss"]))
            found[mesh] = losses
    one, other = found.values()
    assert other[0] == pytest.approx(one[0], rel=2e-5) and one[-1] < 0.9 * one[0]


# What cannot be done


def test_steps_are_refused(model):
    with pytest.raises(
        ValueError, match="steps is 8: this model draws all ids of a scale in one step"
    ):
        generate(model, processor(), PROMPTS[0], steps=8)


def test_the_server_says_that_it_does_not_draw_so(model):
    engine = Engine(model, processor(), rows=2)
    try:
        with pytest.raises(
            ValueError, match="drawing is 'scales', all image tokens of a scale at once"
        ):
            engine.draw(PROMPTS[0])
    finally:
        engine.close()


def test_weights_that_are_not_finite_are_told(one_device):
    model = tiny.make_model(CONFIG)
    head = model.image_head.fc2
    head.kernel[...] = head.kernel[...] * np.nan
    with pytest.raises(ValueError, match="not finite"):
        generate_ids(model, processor(), PROMPTS[0])


def test_weights_come_back(model, tmp_path):
    export(tmp_path, nnx.to_pure_dict(nnx.state(model)), CONFIG, processor())
    loaded, own = janus_jax.load(tmp_path, dtype="float32")
    draw = lambda model: generate_ids(model, own, PROMPTS, temperature=0.0)
    assert loaded.config.drawing == "scales" and (draw(loaded) == draw(model)).all()


def test_questions_are_answered_and_the_server_starts(model):
    said = [{"role": "user", "content": "what is it?"}]
    answer = janus_jax.understand(model, processor(), said, max_new_tokens=2)
    assert isinstance(answer, str)
    engine = Engine(model, processor(), rows=2)
    try:
        warm(engine)
        given = engine.answer(said, max_new_tokens=2).result()
        assert given.text == answer
    finally:
        engine.close()


def test_the_models_own_square_may_be_named(model):
    one, other = (
        np.asarray(generate(model, processor(), PROMPTS[0], seed=3, size=size)[0])
        for size in (None, (16, 16))
    )
    assert one.shape == (16, 16, 3) and np.array_equal(one, other)


def test_a_sheet_shows_what_the_tokenizer_makes_of_pictures(model):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    tokenizer = model.generation_encoder
    made = tokenizer.decode(tokenizer.encode(bt.pixels(pictures)))
    wanted = np.clip(127.5 * np.asarray(made) + 128, 0, 255).astype(np.uint8)
    shown = np.stack([np.asarray(p) for p in redrawn(model, pictures)])
    assert np.abs(shown.astype(int) - wanted).max() <= 1
