"""Residual quantisation: the ids and sums of an oracle, and one code a token as it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support import rq, tiny
from support.mesh import on_mesh

from janus_jax.model import flops
from janus_jax.model import sharding as sh
from janus_jax.model.generation_encoder import GenerationEncoder, tokenizer
from janus_jax.model.residual_quantizer import ResidualEncoder
from janus_jax.training.codebook_use import Use, counted
from janus_jax.training.tokenizer_loss import single

CONFIG = dataclasses.replace(
    tiny.CONFIG.generation_encoder, channels=4, multipliers=(1, 1), norm_groups=2, depth=3,
    codebook_l2_norm=False,
)  # fmt: skip
H, W = CONFIG.grid


@pytest.fixture(scope="module")
def model():
    with on_mesh():
        abstract = jax.eval_shape(lambda: tokenizer(CONFIG, nnx.Rngs(0)))
        graphdef, state = nnx.split(abstract)
        yield nnx.merge(graphdef, tiny.drawn(sh.concrete(nnx.to_pure_dict(state)), 0))


def vectors():
    return np.random.default_rng(1).normal(size=(2, H, W, CONFIG.code_dim)).astype(np.float32)


def test_ids_and_sums_are_the_oracles(model, one_device):
    z = vectors()
    codebook = torch.tensor(np.asarray(model.codebook[...]))
    want, sums = rq.quantised(torch.tensor(z.reshape(-1, CONFIG.code_dim)), codebook, 3)
    ids = jax.jit(lambda m, z: m.nearest(z))(model, z)
    assert ids.shape == (2, H, W, 3) and ids.dtype == jnp.int32
    np.testing.assert_array_equal(ids.reshape(-1, 3), want.numpy())
    got = np.asarray(model.codes(ids)).reshape(-1, CONFIG.code_dim)
    np.testing.assert_allclose(got, sums[:, -1].numpy(), atol=1e-5)
    left = np.linalg.norm(z.reshape(-1, 1, CONFIG.code_dim) - sums.numpy(), axis=-1)
    assert left[:, 2].mean() < 0.9 * left[:, 0].mean()  # it is a finer one


@pytest.mark.slow
def test_pictures_become_ids_of_all_depths_and_come_back(model, one_device):
    pictures = np.random.default_rng(2).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    z = jax.jit(lambda m, x: m.latents(x))(model, pictures)
    ids = jax.jit(lambda m, x: m.encode(x))(model, pictures)
    want, sums = rq.quantised(
        torch.tensor(np.asarray(z).reshape(-1, CONFIG.code_dim)),
        torch.tensor(np.asarray(model.codebook[...])), 3,
    )  # fmt: skip
    np.testing.assert_array_equal(ids, want.numpy()[None])
    painted = jax.jit(lambda m, x: m.decode(x, (H, W)))(model, ids)
    code = sums[:, -1].numpy().reshape(1, H, W, -1)
    np.testing.assert_allclose(painted, jax.jit(lambda m, x: m.render(x))(model, code), atol=1e-5)


def test_losses_of_the_partial_sums_and_their_gradients_are_the_oracles(model, one_device):
    z = vectors()
    graphdef, weights = nnx.split(model)

    def ours(codebook, z, commits: bool):
        own = nnx.merge(graphdef, weights)
        own.codebook = nnx.Param(codebook)
        target, codes = single(own, z, own.nearest(jax.lax.stop_gradient(z)))
        still = jax.lax.stop_gradient
        a, b = (target, still(codes)) if commits else (still(target), codes)
        return jnp.mean((a - b) ** 2)

    book = np.asarray(model.codebook[...])
    found = jax.jit(jax.value_and_grad(ours, (0, 1)), static_argnums=2)
    for commits in (False, True):
        got, grads = found(book, z, commits)
        leaves = torch.tensor(z.reshape(-1, CONFIG.code_dim)), torch.tensor(book)
        flat, codes = (x.requires_grad_() for x in leaves)
        want = rq.losses(flat, codes, 3)[commits]
        want.backward()
        assert float(got) == pytest.approx(want.item(), rel=1e-5)
        learns, still = (flat, codes) if commits else (codes, flat)
        assert still.grad is None and not np.asarray(grads[not commits]).any()
        ours_ = np.asarray(grads[commits]).reshape(learns.shape)
        assert np.abs(ours_).max() > 0
        np.testing.assert_allclose(ours_, learns.grad.numpy(), atol=1e-7, rtol=1e-5)


def test_every_code_of_a_token_counts_as_used(one_device):
    use = nnx.to_pure_dict(nnx.state(Use(8)))
    ids = jnp.asarray([[[[0, 5], [2, 5]]]], jnp.int32)
    use, metrics = counted(use, ids, jnp.int32(4), jnp.bool_(False))
    assert np.asarray(use["last"]).tolist() == [4, 0, 4, 0, 0, 4, 0, 0]
    assert float(metrics["codes_used"]) == 3


def test_one_code_a_token_is_the_tokenizer_as_it_was(one_device):
    one = dataclasses.replace(CONFIG, depth=1)
    kind = lambda config: type(jax.eval_shape(lambda: tokenizer(config, nnx.Rngs(0))))
    assert kind(one) is GenerationEncoder and kind(CONFIG) is ResidualEncoder
    step = flops.vq_encode(CONFIG) - flops.vq_encode(one)
    assert step == 2 * 2 * H * W * CONFIG.codebook_size * CONFIG.code_dim
