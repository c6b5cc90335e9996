"""The diffusion head (MAR's loss): the same numbers as a torch oracle, on every mesh and in parts, and
noise that depends on the row alone."""

import dataclasses
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support import mar, tiny
from support.mesh import on_mesh

from janus_jax.distributed import arrays
from janus_jax.model import config as sizes
from janus_jax.model import diffusion_head as dh
from janus_jax.model import flops
from janus_jax.model.janus import abstract
from janus_jax.training.loss import janus_loss
from janus_jax.training.step import train_step

KL = dataclasses.replace(tiny.CONFIG.generation_encoder, latent="kl", code_dim=4, z_channels=4)
CONFIG = tiny.small(generation_encoder=KL, image_head="diffusion", image_head_layers=2)
FLAMES = tuple(name for name in CONFIG.children if name != "generation_encoder")
N = KL.tokens


@pytest.fixture(scope="module")
def batch():
    """Two pictures to draw in each row, and none to understand."""
    rows = [
        tiny.row([tiny.example("generation", 2 * i), tiny.example("generation", 2 * i + 1)])
        for i in range(8)
    ]
    batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    batch["understanding_images"] = batch["understanding_images"][:, :0]
    return batch | {"noise": np.arange(8, dtype=np.uint32)}


def test_a_model_of_latents_has_no_table_of_ids(one_device):
    held = [name for name in sizes.CHILDREN if hasattr(abstract(CONFIG), name)]
    assert set(held) == set(CONFIG.children) == set(tiny.CONFIG.children) - {"generation_embedding"}


def test_the_schedule_is_the_oracles():
    np.testing.assert_allclose(dh.kept_shares(), np.cumprod(1 - mar.betas()), rtol=1e-12)


def test_the_loss_and_all_its_gradients_are_the_oracles(one_device):
    """On equal steps and noise, of a row with an example of each kind."""
    model = tiny.make_model(CONFIG)
    rng = np.random.default_rng(0)
    row = {k: x[None] for k, x in tiny.row([tiny.example("generation", 1)]).items()}
    hidden = rng.normal(size=(1, tiny.LENGTH, 32)).astype(np.float32)
    latents = rng.normal(size=(1, 2 * N, 4)).astype(np.float32)
    batch = tiny.put({"image_targets": row["image_targets"], "noise": np.array([5], np.uint32)})
    graphdef, weights = nnx.split(model.image_head)
    of = lambda weights, hidden: nnx.merge(graphdef, weights).loss(hidden, latents, batch)
    got, grads = jax.jit(jax.value_and_grad(of, (0, 1)))(weights, hidden)

    head = mar.Head(tiny.numbers(nnx.to_pure_dict(weights)))
    c = torch.tensor(hidden[0], requires_grad=True)
    key = jax.random.key(5, impl="threefry2x32")
    (at,) = np.nonzero(row["image_targets"][0])
    assert len(at) == N
    want = 0
    for draw in range(4):
        t, noise = dh.drawn(jax.random.fold_in(key, draw)[None], jnp.asarray(latents))
        t, noise = (torch.tensor(np.asarray(x)[0, :N]) for x in (t, noise))
        want = want + mar.loss(head, torch.tensor(latents[0, :N]), c[at], t.long(), noise).sum() / 4
    want.backward()
    assert float(got) == pytest.approx(want.item(), rel=1e-5)
    ours = tiny.numbers(nnx.to_pure_dict(grads[0]))
    both = {name: (ours[name], x.grad.numpy()) for name, x in head.leaves.items()}
    both["hidden"] = np.asarray(grads[1][0]), c.grad.numpy()
    for name, (got, want) in both.items():
        atol = 1e-5 * np.abs(want).max()
        assert atol > 0
        np.testing.assert_allclose(got, want, atol=atol, rtol=1e-5, err_msg=name)


def test_a_new_head_predicts_no_noise(one_device):
    """Its last map begins with 0, as MAR's: the loss is the noise's own size."""
    head = dh.DiffusionHead(CONFIG, nnx.Rngs(0))
    x, hidden = jnp.ones((1, 3, 4)), jnp.ones((1, 3, 32))
    assert not np.asarray(head(x, jnp.zeros((1, 3), jnp.int32), hidden)).any()


@pytest.mark.slow
def test_the_loss_and_its_gradient_are_the_same_on_all_meshes_and_in_parts(batch):
    found = []
    for mesh, parts in (((1, 1, 1), 2), ((2, 2, 2), 1)):
        with on_mesh(*mesh):
            state = tiny.make_state(tiny.TX, FLAMES, CONFIG)
            step = jax.jit(functools.partial(train_step, tx=tiny.TX, accumulate=parts))
            _, metrics = step(state, arrays.put_batch(batch))
            found.append({key: float(x) for key, x in metrics.items()})
    one, other = found
    assert one["generation_loss"] > 0.5 and one["grad_norm/generation_adaptor"] > 0
    assert one["tokens_generation"] > 0.1
    assert other == pytest.approx(one, rel=2e-5, abs=1e-6)


def test_noise_is_that_of_a_rows_number_and_of_nothing_else(batch, one_device):
    model = tiny.make_model(CONFIG)
    of = jax.jit(lambda model, batch: janus_loss(model, batch)[1]["generation_loss"])
    few = {k: x[:2] for k, x in batch.items()}
    turned = {k: x[::-1] for k, x in few.items()}
    other = few | {"noise": few["noise"] + 2}
    a, b, c = (float(of(model, tiny.put(x))) for x in (few, turned, other))
    assert a == pytest.approx(b, rel=1e-6) and abs(a - c) > 1e-3


@pytest.mark.processes
def test_a_model_without_meets_nothing_of_it():
    """Not a module of it is loaded, from the config to the traced step."""
    code = """
import sys, jax
from janus_jax.config.sizes import model_problems
from janus_jax.model import presets, sharding as sh
from janus_jax.training import init, optim, step
from janus_jax.sample import generate
from janus_jax.weights import own
config = presets.quickstart()
assert not model_problems(config, "") and own.our_shapes(config)
with sh.mesh_context(sh.make_mesh(1, 1, 1, jax.devices()[:1])):
    jax.eval_shape(lambda key: init.build(config, init.Keys(key)), jax.random.key(0))
names = "diffusion", "latent", "kl_tokenizer", "ablations", "depth", "residual", "image_heads", "head_flops"
print([name for name in sys.modules if name.startswith("janus_jax") and any(x in name for x in names)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_flops_count_the_head_and_the_tokenizer():
    work = flops.Work(
        tokens=0, pairs=0, text=0, image=N, understanding_images=0, generation_images=1
    )
    frozen = flops.count(CONFIG, (), work)
    w = CONFIG.image_head_width
    condition = 256 * w + w * w + 32 * w  # of one latent's step and hidden state
    draw = 4 * w + 2 * (5 * w * w) + 2 * w * w + 4 * w
    assert frozen["image_head"] == 2 * N * 4 * (condition + draw)
    assert flops.count(CONFIG, ("image_head",), work)["image_head"] == 3 * frozen["image_head"]
    vq = flops.count(tiny.CONFIG, (), work)["generation_encoder"]
    assert 0 < frozen["generation_encoder"] < vq  # no attention at the lowest level, no codes
