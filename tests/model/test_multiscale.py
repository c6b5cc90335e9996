"""The multi-scale residual VQ tokenizer against VAR's algorithms 1 and 2, written in torch, and the
model that reads and predicts its ids."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from support import tiny
from support.mesh import on_mesh
from support.outputs import pictures
from support.scales import CONFIG, SCALES, N

from janus_jax.distributed import arrays
from janus_jax.model import flops
from janus_jax.model.multiscale import MultiscaleTokenizer
from janus_jax.training.tasks import vq
from janus_jax.training.tokenizer_loss import tokenizer_terms

VAR = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # the paper's, at 256 pixels
SHARED = {VAR: [0, 0, 1, 1, 1, 2, 2, 3, 3, 3], SCALES: [0, 2, 3]}


@pytest.fixture(autouse=True)
def mesh(one_device):
    return one_device


def tokenizer(scales) -> MultiscaleTokenizer:
    config = dataclasses.replace(
        CONFIG.generation_encoder, image_size=2 * scales[-1], multipliers=(1, 1), scales=scales,
        codebook_size=32, z_channels=8,
    )  # fmt: skip
    module = MultiscaleTokenizer(config, nnx.Rngs(3))
    rng = np.random.default_rng(4)
    for conv in module.phi:
        conv.bias[...] = jnp.asarray(rng.normal(size=conv.bias.shape), jnp.float32)
    return module


def theirs(module, z: np.ndarray, scales):
    """Algorithm 1: ids of each scale, and the sum after each; the rest is carried along."""
    codes = torch.tensor(np.asarray(module.codebook[...])).double()
    rest = torch.tensor(z).double().permute(0, 3, 1, 2)
    total = torch.zeros_like(rest)
    side = scales[-1]
    found, sums = [], []
    for k, s in enumerate(scales):
        low = F.interpolate(rest, size=(s, s), mode="area")
        flat = low.permute(0, 2, 3, 1).reshape(-1, low.shape[1])
        ids = torch.cdist(flat, codes).argmin(1).reshape(len(z), s, s)
        h = codes[ids].permute(0, 3, 1, 2)
        h = F.interpolate(h, size=(side, side), mode="bicubic") if s < side else h
        conv = module.phi[SHARED[scales][k]]
        kernel, bias = (torch.tensor(np.asarray(x[...])).double() for x in (conv.kernel, conv.bias))
        h = 0.5 * h + 0.5 * F.conv2d(h, kernel.permute(3, 2, 0, 1), bias, padding=1)
        total = total + h
        rest = rest - h
        found.append(ids.reshape(len(z), -1).numpy())
        sums.append(total.permute(0, 2, 3, 1).numpy())
    return found, sums


@pytest.mark.parametrize("scales", [SCALES, VAR])
def test_ids_and_sums_are_those_of_the_paper_s_algorithm(scales):
    module = tokenizer(scales)
    z = np.random.default_rng(5).normal(size=(3, scales[-1], scales[-1], 8)).astype(np.float32)
    ids, looked, sums = jax.jit(lambda z: module.quantised(z))(z)
    wanted, totals = theirs(module, z, scales)
    n = sum(s * s for s in scales)
    assert ids.shape == (3, n, 1) and looked.shape == (3, n, 1, 8)
    assert (np.asarray(ids)[..., 0] == np.concatenate(wanted, 1)).all()
    np.testing.assert_allclose(sums, np.stack(totals), atol=1e-5)
    # What a scale reads is the sum of those before, as large as it is: algorithm 2's.
    before = jax.jit(lambda ids: module.before(ids))(ids[..., 0])
    known = [np.zeros_like(totals[0]), *totals[:-1]]
    read = [
        F.interpolate(torch.tensor(x).permute(0, 3, 1, 2), size=(s, s), mode="area")
        .permute(0, 2, 3, 1).reshape(3, s * s, 8).numpy()
        for x, s in zip(known, scales)
    ]  # fmt: skip
    np.testing.assert_allclose(before, np.concatenate(read, 1), atol=1e-5)


def test_a_picture_is_painted_of_the_last_sum():
    module = tokenizer(SCALES)
    images = pictures(3, 2, 8, 8)
    run = jax.jit(lambda x: (module.encode(x), module.quantised(module.latents(x))[2][-1]))
    ids, total = run(images)
    assert ids.shape == (2, N) and len(np.unique(ids)) > 4
    found, wanted = jax.jit(lambda i, t: (module.decode(i), module.render(t)))(ids, total)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.slow
def test_the_terms_are_means_over_the_scales_and_reach_all_that_learns():
    module = tokenizer(SCALES)
    batch = {"images": np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)}
    graphdef, params = nnx.split(module)

    def loss(params):
        terms, painted = tokenizer_terms(nnx.merge(graphdef, params), batch, vq.OPTIONS)
        return sum(terms.values()), (terms, painted.ids)

    (_, (terms, ids)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    z = np.asarray(module.latents(batch["images"] / np.float32(127.5) - 1))
    _, sums = theirs(module, z, SCALES)
    wanted = np.mean([((total - z) ** 2).mean() for total in sums])
    assert float(terms["codebook"]) == pytest.approx(wanted, rel=1e-4)
    assert float(terms["commitment"]) == pytest.approx(vq.OPTIONS["commitment"] * wanted, rel=1e-4)
    assert ids.shape == (2, N, 1)
    moved = {name: np.abs(x).max() for name, x in tiny.numbers(nnx.to_pure_dict(gradients)).items()}
    still = {
        f"phi.{i}.{leaf}" for i in {*range(4)} - {*SHARED[SCALES]} for leaf in ("kernel", "bias")
    }
    assert {name for name, x in moved.items() if x == 0} == still


@pytest.mark.slow
def test_images_to_ids_and_what_they_are_predicted_from_are_the_same_on_all_meshes():
    images = np.random.default_rng(2).integers(0, 256, (8, 2, 16, 16, 3), np.uint8)
    slots = np.tile(np.arange(1, 2 * N + 1, dtype=np.int32), (8, 1))
    found = []
    for mesh in ((1, 1, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            model = tiny.make_model(CONFIG)
            names = ("tokens", "generation_slots", "image_targets", "ahead")
            batch = dict.fromkeys(names, slots) | {"generation_images": images}
            ids = jax.jit(lambda m, b: m.image_ids(b))(model, arrays.put_batch(batch))
            read = jax.jit(lambda m, ids: m.embed_image_ids(ids))(model, ids)
            found.append((np.asarray(ids), np.asarray(read)))
    (one, x), (other, y) = found
    assert one.shape == (8, 2 * N) and (one == other).all() and x.shape == (8, 2 * N, 32)
    np.testing.assert_allclose(x, y, atol=1e-5)
    # The second picture of a row by itself.
    with on_mesh():
        model = tiny.make_model(CONFIG)
        alone = model.generation_encoder.encode(images[:, 1] / np.float32(127.5) - 1)
    assert (alone == one[:, N:]).all()


def test_a_picture_costs_the_distances_of_all_its_ids():
    plain = dataclasses.replace(CONFIG.generation_encoder, scales=())
    more = flops.vq_encode(CONFIG.generation_encoder) - flops.vq_encode(plain)
    c = plain.code_dim
    assert more == 2 * (N - plain.tokens) * c * 64 + len(SCALES) * 2 * 16 * 9 * c * c
