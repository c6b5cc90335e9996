"""Pixel shuffle between understanding encoder and adaptor, against transformers' InternVL; and the
model of before where it is off."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from support import quick, tiny
from support.mesh import on_mesh
from transformers.models.internvl.modeling_internvl import InternVLModel

from janus_jax.config.read import resolve
from janus_jax.config.schema import Ratio, Rows
from janus_jax.data.processor import Processor
from janus_jax.model import batch as bt
from janus_jax.model import flops
from janus_jax.model.config import to_dict
from janus_jax.model.pixel_shuffle import pixel_shuffle

TOWER = tiny.CONFIG.understanding_encoder


def shuffled(**changes):
    return tiny.small(understanding_encoder=dataclasses.replace(TOWER, **changes))


@pytest.mark.parametrize("side, times", [(4, 2), (6, 2), (8, 4), (4, 4)])
def test_it_is_internvls(side, times, one_device):
    x = np.random.default_rng(0).normal(size=(2, side * side, 5)).astype(np.float32)
    theirs = InternVLModel.pixel_shuffle(
        None, torch.from_numpy(x).reshape(2, side, side, 5), 1 / times
    )
    want = theirs.reshape(2, -1, 5 * times**2).numpy()
    np.testing.assert_array_equal(pixel_shuffle(jnp.asarray(x), times), want)


@pytest.mark.parametrize("variant", [(), ("class_token", "no_final_norm")])
def test_fewer_and_wider_features_reach_the_adaptor(variant, one_device):
    """Of SigLIP, and of a ViT whose class token stands before the patches."""
    config = shuffled(pixel_shuffle=2, variant=variant)
    assert (TOWER.tokens, config.understanding_encoder.tokens) == (16, 4)
    model = tiny.make_model(config)
    assert model.understanding_adaptor.fc1.kernel.shape == (4 * TOWER.width, 32)
    assert model.understanding_encoder.positions.shape == (16, TOWER.width)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    found = jax.jit(lambda m, x: m.embed_images(x))(model, images)
    by_hand = lambda m, x: m.understanding_adaptor(pixel_shuffle(m.understanding_encoder(x), 2))
    np.testing.assert_array_equal(found, jax.jit(by_hand)(model, images))
    assert found.shape == (2, 4, 32)


def test_each_tile_is_read_at_its_own_slots(one_device):
    """The tiles of one picture in a packed row: what changes one moves the hidden states from its
    slots on, and none before."""
    config = shuffled(pixel_shuffle=2, tiles=4)
    model = tiny.make_model(config)
    n = config.understanding_encoder.tokens
    shapes = bt.shapes(1, 32, 5, 0, config)
    batch = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
    batch["understanding_slots"][0, 2 : 2 + 5 * n] = 1 + np.arange(5 * n)
    batch["segment_ids"][:] = 1
    batch["positions"][:] = np.arange(32)
    none = np.zeros((1, 0), np.int32)
    run = jax.jit(lambda m, b: m(b, none))
    before = np.asarray(run(model, batch))
    for k in range(5):
        other = batch | {"understanding_images": batch["understanding_images"].copy()}
        other["understanding_images"][0, k] = 255
        moved = np.abs(np.asarray(run(model, other)) - before).max(-1)[0]
        first = 2 + k * n  # causal: nothing before the tile's slots moves
        assert (moved[:first] == 0).all() and (moved[first : first + n] > 0).all()


def test_features_and_gradients_are_the_same_on_a_mesh_of_all_axes():
    """Of rows whose pictures have five tiles each, packed as training does."""
    config = shuffled(pixel_shuffle=2, tiles=4)
    base = tiny.processor()
    processor = Processor(base.tokenizer, base.template, config.understanding_encoder.tokens, 16)
    record = {"messages": quick.dialogue(quick.asked("what is it?"), "a red circle")}
    source = quick.Listed(*[record] * 16)
    only = {"understanding": 1, "text": 0, "generation": 0}
    rows = Rows(8, 64, 5, 0)
    batch, _ = next(tiny.batches({"understanding": source}, processor, config, rows, only))
    assert (batch["understanding_slots"].max(1) == 20).all()

    def loss(model, batch):
        ((_, features),) = model.read(batch, np.zeros((8, 0), np.int32))
        return (features * jnp.arange(20)[:, None]).mean(), features

    found = {}
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            run = jax.jit(jax.grad(loss, has_aux=True, allow_int=True))
            grads, features = run(tiny.make_model(config), tiny.put(batch))
            kernels = (
                grads.understanding_adaptor.fc1.kernel,
                grads.understanding_encoder.patch_kernel,
            )
            found[mesh] = [np.asarray(x[...]) for x in (features, *kernels)]
    for one, other in zip(*found.values()):
        scale = np.abs(one).max()
        assert scale > 0 and np.abs(one - other).max() < 2e-5 * scale


def test_off_the_model_the_files_and_the_program_are_those_of_before(one_device):
    """Off, `embed_images` is the adaptor on the encoder, operation by operation."""
    model = tiny.make_model()
    images = np.zeros((2, 16, 16, 3), np.float32)
    plain = lambda m, x: m.understanding_adaptor(m.understanding_encoder(x))
    traced = [
        jax.jit(f).lower(model, images).as_text() for f in (lambda m, x: m.embed_images(x), plain)
    ]
    assert traced[0] == traced[1]
    written = to_dict(tiny.CONFIG)["understanding_encoder"]
    assert not {"tiles", "tiling", "pixel_shuffle"} & written.keys()
    values = tiny.WORLD | {"stages": {}, "model": to_dict(tiny.CONFIG)}
    path = "model.understanding_encoder."
    asked = {f"{path}tiles": "4", f"{path}tiling": "llava_hd", f"{path}pixel_shuffle": "2"}
    experiment, wrong = resolve(values, asked)
    assert not wrong
    assert experiment.model == shuffled(tiles=4, tiling="llava_hd", pixel_shuffle=2)


def test_work_is_counted_by_tiles_and_patches():
    config = shuffled(pixel_shuffle=2, tiles=4)
    batch = {
        "segment_ids": np.ones((1, 32)), "positions": np.arange(32)[None],
        "text_targets": np.full((1, 32), bt.IGNORE), "image_targets": np.zeros((1, 32)),
        "understanding_slots": np.arange(32)[None] % 21, "generation_slots": np.zeros((1, 32)),
    }  # fmt: skip
    batch["understanding_slots"][0, 21:] = 0
    work = flops.of_batch(batch, config)
    assert work.understanding_images == 5
    found = flops.count(config, ("understanding_adaptor",), work)
    one = flops.count(tiny.CONFIG, (), dataclasses.replace(work, understanding_images=1))
    assert found["understanding_encoder"] == 5 * one["understanding_encoder"]
    # A quarter of the tokens, four times as wide into the first matrix; its input needs no gradient.
    first, second = 2 * 4 * (4 * 32) * 32, 2 * 4 * 32 * 32
    # A plan takes every picture to have all its tiles.
    stage = types.SimpleNamespace(rows=Rows(8, 512, 20, 0), ratio=Ratio(1, 0, 0), supervise="all")
    assert flops.lengths(stage, config)["understanding"] == 5 * 4 + flops.UNDERSTANDING_TEXT
    expected = flops.expected(stage, config)
    assert expected.understanding_images == pytest.approx(5 * 8 * 512 / (20 + 110))
    assert expected.text == pytest.approx(110 * 8 * 512 / (20 + 110))
    assert found["understanding_adaptor"] == 5 * (2 * first + 3 * second)
