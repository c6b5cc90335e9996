"""Task vq with several codes a token: the loss falls, more codes paint better, and the mesh does not
matter."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh

from janus_jax.data.images import generation_image
from janus_jax.data.toy import shapes_sources
from janus_jax.model.batch import pixels
from janus_jax.model.keys import Keys
from janus_jax.training import optim
from janus_jax.training.tasks import vq
from janus_jax.training.tokenizer_loss import entropy_loss, tokenizer_terms

VQ = dataclasses.replace(
    tiny.CONFIG.generation_encoder, multipliers=(1, 1), channels=4, norm_groups=2, depth=3, codebook_size=16,
    codebook_l2_norm=False,
)  # fmt: skip
MODEL = dataclasses.replace(tiny.CONFIG, generation_encoder=VQ, image_head="depth")
OPTIONS = vq.OPTIONS | {"entropy": 0.01}
STEPS = 15


def images() -> np.ndarray:
    source = shapes_sources.ShapesPictures(0, 8)
    return np.stack([generation_image(source.image(i), VQ.image_size) for i in range(8)])


@pytest.mark.slow
def test_the_loss_falls_and_is_the_same_on_a_mesh_of_all_axes():
    tx = optim.make(dataclasses.replace(tiny.OPTIM, learning_rate=1e-2, weight_decay=0.0), STEPS)
    found = {}
    for mesh, steps in (((1, 1, 1), STEPS), ((1, 2, 2), 1)):
        with on_mesh(*mesh):
            state = vq.init_state(jax.random.key(0), MODEL, tx, options=OPTIONS)
            state = state.replace(trainable=tiny.drawn(state.trainable, 1))
            step = jax.jit(functools.partial(vq.vq_step, tx=tx, options=OPTIONS))
            metrics = []
            for _ in range(steps):
                state, told = step(state, tiny.put({"images": images()}))
                metrics.append({name: float(x) for name, x in told.items()})
        found[mesh] = metrics
    one, (other,) = found[1, 1, 1], found[1, 2, 2]
    losses = [told["reconstruction"] for told in one]
    assert np.mean(losses[-3:]) < 0.7 * losses[0] and one[-1]["nonfinite_updates"] == 0
    names = ("reconstruction", "codebook", "commitment", "entropy")
    assert one[0]["loss"] == pytest.approx(sum(one[0][name] for name in names))
    assert one[0]["commitment"] == pytest.approx(0.25 * one[0]["codebook"])
    assert other == pytest.approx(one[0], rel=2e-5)


def test_entropy_counts_every_code_of_a_token(one_device):
    model = vq.Tokenizer(MODEL, OPTIONS, Keys(jax.random.key(0))).generation_encoder
    batch = {"images": images()[:2]}

    @jax.jit
    def entropies(model, batch):
        """Of the task; of every code; of the first ones alone."""
        terms, _ = tokenizer_terms(model, batch, OPTIONS)
        z = model.latents(pixels(batch["images"]))
        rest = model.residuals(z, model.nearest(z))
        each = entropy_loss(model, rest.reshape(*rest.shape[:2], -1, rest.shape[-1]))
        return terms["entropy"], each, entropy_loss(model, z)

    got, each, first = map(float, entropies(model, batch))
    assert got == pytest.approx(0.01 * each, rel=1e-5)
    assert got != pytest.approx(0.01 * first, rel=1e-3)
