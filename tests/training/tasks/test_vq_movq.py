"""Task vq on a tokenizer with spatial norms and free codes (MoVQ's): it learns, and what it hands on
gives the same ids and pictures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny

from janus_jax.data.images import generation_image
from janus_jax.data.toy import shapes_sources
from janus_jax.model import sharding as sh
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.training import optim
from janus_jax.training.tasks import vq
from janus_jax.training.tokenizer_loss import entropy_loss
from janus_jax.weights.load import export, placed
from janus_jax.weights.source import open_source

MOVQ = dataclasses.replace(
    tiny.CONFIG.generation_encoder, multipliers=(1, 1), channels=4, z_channels=4, norm_groups=2,
    code_dim=4, decoder_norm="spatial", codebook_l2_norm=False,
)  # fmt: skip
MODEL = dataclasses.replace(tiny.CONFIG, generation_encoder=MOVQ)
OPTIONS = vq.OPTIONS | {"entropy": 0.01}
STEPS = 12
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def learned():
    """(the losses of reconstruction by step, the state after them, the pictures, all norms' kernels
    before)."""
    numbers = dataclasses.replace(tiny.OPTIM, learning_rate=1e-2, eps=1e-8, weight_decay=0.0)
    tx = optim.make(numbers, STEPS, each=True)
    source = shapes_sources.ShapesPictures(0, 8)
    images = np.stack([generation_image(source.image(i), MOVQ.image_size) for i in range(8)])
    with sh.mesh_context(sh.make_mesh(1, 1, 1, jax.devices()[:1])):
        state = vq.init_state(jax.random.key(0), MODEL, tx, options=OPTIONS)
        before = gammas(state)
        step = jax.jit(functools.partial(vq.vq_step, tx=tx, options=OPTIONS))
        losses = []
        for _ in range(STEPS):
            state, metrics = step(state, tiny.put({"images": images}))
            losses.append(float(metrics["reconstruction"]))
        yield losses, state, images, before


def gammas(state) -> dict:
    found = tiny.numbers(state.trainable)
    return {name: x for name, x in found.items() if ".gamma." in name or ".beta." in name}


def test_the_loss_falls_and_all_that_norms_read_of_the_codes_is_learned(learned):
    losses, state, _, before = learned
    assert np.mean(losses[-3:]) < 0.8 * losses[0] and int(state.nonfinite_updates) == 0
    now = gammas(state)
    assert len(now) > 20 and all((now[name] != before[name]).any() for name in before)


def test_what_it_hands_on_gives_the_same_ids_and_pictures(learned, tmp_path):
    _, state, images, _ = learned
    params = {"generation_encoder": state.trainable["generation_encoder"]}
    export(tmp_path / "tokenizer", params, part_of=MODEL)
    source = open_source(tmp_path / "tokenizer").require()
    assert source.unshaped["generation_encoder.codebook_l2_norm"] is False
    ours = state.model().generation_encoder
    graphdef, weights = nnx.split(jax.eval_shape(lambda: GenerationEncoder(MOVQ, nnx.Rngs(1))))
    shapes = sh.concrete(nnx.to_pure_dict(weights))
    again = nnx.merge(graphdef, placed(source, shapes, "generation_encoder."))
    seen = jnp.asarray(images / 127.5 - 1, jnp.float32)

    @jax.jit
    def there_and_back(module):
        ids = module.encode(seen)
        return ids, module.decode(ids, MOVQ.grid)

    for got, want in zip(there_and_back(again), there_and_back(ours)):
        np.testing.assert_array_equal(got, want)


def test_the_entropy_of_free_codes_is_that_of_their_distances(learned):
    _, state, _, _ = learned
    model = state.model().generation_encoder
    z = np.random.default_rng(0).normal(0, 0.1, (2, 3, 3, 4))
    codes = np.asarray(model.codebook[...], np.float64)
    logits = -((z[..., None, :] - codes) ** 2).sum(-1) / 0.01
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    mean = p.mean((0, 1, 2))
    want = -(p * np.log(p + 1e-300)).sum(-1).mean() + (mean * np.log(mean + 1e-5)).sum()
    got = jax.jit(entropy_loss)(model, jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-4)
