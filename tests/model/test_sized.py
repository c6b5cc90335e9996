"""Pictures of several sizes in one batch: their ids, the step, and drawing them."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest
from support import tiny
from support.configs import refusal
from support.mesh import on_mesh

from janus_jax.config.schema import Rows
from janus_jax.data import sizes
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.packing import assemble
from janus_jax.distributed import arrays
from janus_jax.model import batch as bt
from janus_jax.sample import drawing
from janus_jax.sample.generate import decode_ids, generate, generate_ids
from janus_jax.training.step import train_step

VQ = dataclasses.replace(tiny.CONFIG.generation_encoder, sizes=("24x16", "16x24"))
CONFIG = tiny.small(generation_encoder=VQ)
MOST = 24
SHAPES = (40, 60), (16, 16), (60, 40)  # height, width: numbers 2, 0 and 1 of `VQ.all_sizes`


class Source:
    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        self.images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]

    def __getitem__(self, i):
        return {"captions": [f"a picture of number {i}"]}

    def image(self, i, k=0):
        return self.images[i]


def row(seed: int) -> tuple[dict, list]:
    """A row of three pictures as the row stream makes it, and the pictures, cut to their sizes."""
    encode = ExampleEncoder(tiny.processor(), CONFIG, Rows(1, 200, 0, 4), "all")
    examples, pictures = [], []
    source = Source(seed)
    shapes = bt.image_shapes(1, 0, 4, CONFIG)
    out = {name: np.zeros(shape[1:], dtype) for name, (shape, dtype) in shapes.items()}
    for i in range(3):
        record = encode.read(source, i)
        examples.append(encode("generation", record, np.random.default_rng(i)))
        found = encode.pixels("generation", source, i, record, examples[-1])
        (picture,), (number,) = found["generation_images"], found["generation_sizes"]
        out["generation_images"][i, : picture.shape[0], : picture.shape[1]] = picture
        out["generation_sizes"][i] = number
        pictures.append(picture)
    return out | sizes.sized_row(assemble(examples, 200), MOST), pictures


def batch(count: int) -> dict:
    rows = [row(i)[0] for i in range(count)]
    return {name: np.stack([one[name] for one in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def read():
    """(model, a row, its pictures, the ids that the model reads of them [4, MOST])."""
    with on_mesh():
        model = tiny.make_model(CONFIG)
        made, pictures = row(0)
        ids = jax.jit(lambda model, batch: model.image_ids(batch))(
            model, {name: x[None] for name, x in made.items()}
        )
        yield model, made, pictures, np.asarray(ids).reshape(4, MOST)


def test_ids_are_those_of_each_picture_by_itself(read):
    model, _, pictures, ids = read
    encode = jax.jit(lambda encoder, image: encoder.encode(bt.pixels(image[None]))[0])
    for own, picture in zip(ids, pictures):
        want = np.asarray(encode(model.generation_encoder, picture))
        assert (own[: len(want)] == want).all() and not own[len(want) :].any()
        assert len(set(want.tolist())) > 3
    assert not ids[3].any()


def test_what_is_predicted_is_the_next_id_of_the_same_picture(read):
    _, made, _, every = read
    targets = made["image_targets"]
    learned = every.reshape(-1)[targets[targets > 0] - 1]
    assert (learned == np.concatenate([every[0], every[1][:16], every[2]])).all()


@pytest.mark.slow
def test_the_step_learns_them_and_gives_the_same_on_a_mesh_of_all_axes():
    found = {}
    some = batch(8)
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            state = tiny.make_state(tiny.TX, tiny.ALL, CONFIG)
            step = jax.jit(functools.partial(train_step, tx=tiny.TX))
            losses = []
            for _ in range(3 if mesh == (1, 1, 1) else 1):
                state, metrics = step(state, arrays.put_batch(some))
                losses.append(float(metrics["generation_loss"]))
            found[mesh] = losses
    one, other = found.values()
    assert other[0] == pytest.approx(one[0], rel=2e-5) and one[-1] < one[0] - 0.1


@pytest.mark.parametrize("size", [pytest.param((24, 16), marks=pytest.mark.slow), "16x24", None])
def test_a_picture_is_drawn_in_its_size_as_the_model_that_trains_finds_likeliest(size, one_device):
    model = tiny.make_model(CONFIG)
    prompt = "a red circle"
    (ids,) = generate_ids(
        model, tiny.processor(), prompt, size=size, cfg_scale=1.0, temperature=0.0
    )
    number = 0 if size is None else VQ.all_sizes.index(sizes.require(size, VQ))
    words = tiny.processor().request(prompt)
    record = {"captions": [prompt], "drawn": sizes.spans(tiny.processor(), number, VQ)}
    encode = ExampleEncoder(tiny.processor(), CONFIG, Rows(1, 200, 0, 4), "all")
    example = encode("generation", record, np.random.default_rng(0))
    assert (example["tokens"][: len(words)] == words).all()
    one = {name: x[None] for name, x in sizes.sized_row(assemble([example], 100), MOST).items()}
    one["understanding_images"] = np.zeros((1, 0, 16, 16, 3), np.float32)
    hidden = model(one, np.pad(ids, (0, MOST - len(ids)))[None])
    logits = np.asarray(model.image_head(hidden))[0][one["image_targets"][0] > 0]
    assert len(ids) == len(logits) == (16 if size is None else 24)
    likely = logits.max(-1) - logits[np.arange(len(ids)), ids]
    assert likely.max() < 1e-5 and len(set(ids.tolist())) > 1


def test_pictures_have_their_size_and_say_it(one_device):
    model = tiny.make_model(CONFIG)
    (picture,) = generate(model, tiny.processor(), "a circle", size=(24, 16))
    assert picture.size == (24, 16) and picture.info["size"] == "24x16"
    ids = np.arange(24)[None] % 64
    wide = np.asarray(decode_ids(model, ids, "24x16"))
    assert wide.shape == (1, 16, 24, 3)
    assert np.abs(wide - np.asarray(model.generation_encoder.decode(ids, (4, 6)))).max() < 1e-5
    (square,) = generate(model, tiny.processor(), "a circle")
    assert square.size == (16, 16) and "size" not in square.info


# What cannot be done


def test_a_size_that_the_model_does_not_draw_is_refused(one_device):
    with pytest.raises(ValueError, match="size is 24x16: this model draws 16x16 "):
        generate(tiny.make_model(), tiny.processor(), "a circle", size=(24, 16))


@pytest.mark.parametrize("value", ["24x13", "24", "24x16,24x16", "24x24", "-24x24"])
def test_sizes_that_no_grid_fits_are_refused(value):
    (line,) = refusal({"model.generation_encoder.sizes": value})
    assert (
        line.startswith("model.generation_encoder.sizes is ") and "multiples of the stride" in line
    )


def test_rows_must_hold_the_largest_size():
    sizes_of = {"model.generation_encoder.sizes": "96x96", "stages.stage2.rows.length": "184"}
    lines = refusal(sizes_of)
    assert any(
        "rows.length is 184: one picture of generation needs at least 584" in x for x in lines
    )


def test_what_a_model_does_not_draw_in_is_told_before_anything_is_loaded(tmp_path):
    source = types.SimpleNamespace(config=CONFIG, processor=tiny.processor, paths=[])
    f = types.SimpleNamespace(
        out=str(tmp_path), n=1, seed=0, cfg_scale=None, temperature=None, model="m", dtype=None, steps=0,
        size="17x17",
    )  # fmt: skip
    with pytest.raises(ValueError, match="size is 17x17: this model draws 16x16, 24x16, 16x24"):
        drawing.Job(f, source, ["a circle"])
    f.size, f.steps = "24x16", 8
    with pytest.raises(ValueError, match="steps is 8: this model draws one id after the other"):
        drawing.Job(f, source, ["a circle"])
