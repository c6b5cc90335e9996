"""The VQ tokenizer against transformers', and against the original's rule where the two differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support import tiny
from support.compiled import products
from support.mesh import on_mesh
from support.outputs import TOLERANCE, integers, long, nchw, nhwc, pictures, run, same

from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.training.tasks import vq
from janus_jax.training.tokenizer_loss import tokenizer_terms


def their_latents(theirs, images):
    vq = theirs.model.vqmodel
    return vq.quant_conv(vq.encoder(nchw(images)))


@pytest.mark.parametrize(
    "size", [(16, 16), (16, 24), (18, 22)]
)  # square; not; an odd size after one level
def test_vq_latents(theirs, ours, size):
    images = pictures(3, 2, *size)

    def latents(m, x):
        return m.generation_encoder.quant_conv(m.generation_encoder.encoder(x))

    same(run(latents, ours, images), nhwc(their_latents(theirs, images)))


def test_vq_decode(theirs, ours):
    ids = integers(4, 64, 3, 16)
    got = run(lambda m, ids: m.generation_encoder.decode(ids, (4, 4)), ours, ids)
    same(got, theirs.decode_image_tokens(long(ids)))


def test_vq_decode_reads_rows_then_columns(theirs, ours):
    """Theirs decodes squares only, so the grid is laid out here."""
    ids = integers(5, 64, 2, 12)
    codes = torch.nn.functional.normalize(
        theirs.model.vqmodel.quantize.embedding(long(ids)), dim=-1
    )
    grid = codes.reshape(2, 3, 4, 8).permute(0, 3, 1, 2)
    want = theirs.model.vqmodel.decoder(theirs.model.vqmodel.post_quant_conv(grid))
    got = run(lambda m, ids: m.generation_encoder.decode(ids, (3, 4)), ours, ids)
    assert got.shape == (2, 12, 16, 3)
    same(got, nhwc(want))


def rule(z, codebook):
    """The quantiser of the original code, in float64: z [B, h, w, C] and the raw codebook, both
    divided by max(norm, 1e-12); the first code at the least |z|^2 + |e|^2 - 2 z e. Returns ids [B,
    h * w] and how much further the second best code is."""
    z, e = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
            for x in (z.astype(np.float64), codebook.astype(np.float64)))  # fmt: skip
    flat = z.reshape(-1, z.shape[-1])
    distance = (flat**2).sum(1, keepdims=True) + (e**2).sum(1) - 2 * flat @ e.T
    best = np.sort(distance, axis=1)
    return distance.argmin(1).reshape(len(z), -1), best[:, 1] - best[:, 0]


@pytest.fixture(scope="module")
def encoded(models):
    """Pictures, our ids, the rule's ids and theirs."""
    _, theirs, ours = models
    images = pictures(6, 8, 16, 24)
    with on_mesh():
        got = run(lambda m, x: m.generation_encoder.encode(x), ours, images)
    z, codebook = (
        nhwc(their_latents(theirs, images)),
        theirs.model.vqmodel.quantize.embedding.weight.numpy(),
    )
    want, margin = rule(z, codebook)
    assert margin.min() > TOLERANCE, "a near tie: choose another seed"
    assert len(np.unique(want)) > 10, "pictures that use few codes show nothing"
    return got, want, theirs.model.vqmodel.encode(nchw(images)).image_tokens.reshape(8, -1).numpy()


def test_vq_encode_normalises_both_sides(encoded):
    got, want, _ = encoded
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, want)


def test_vq_encode_of_transformers_does_not_normalise(encoded):
    """Why the test above does not use theirs: transformers leaves latents and codebook as they are
    when it encodes (it normalises when it decodes). We take the original code's side; should this
    test fail, theirs has changed and can be the oracle."""
    _, want, theirs = encoded
    assert (want != theirs).mean() > 0.1


def test_vq_nearest_takes_the_first_of_equal_codes(ours):
    def nearest(m, z):
        twice = nnx.clone(m.generation_encoder)
        twice.codebook = nnx.Param(jnp.concatenate([m.generation_encoder.codebook[...]] * 2))
        return twice.nearest(z)

    z = np.asarray(ours.generation_encoder.codes(jnp.arange(64)))[None, None]
    np.testing.assert_array_equal(run(nearest, ours, z)[0, 0], np.arange(64))


def test_no_product_of_the_tokenizer_is_rounded_on_any_platform(one_device):
    """TPUs and GPUs round the operands of a product that does not forbid it. Encoding, decoding and
    their gradients, under a caller who asks for rounding."""
    config = tiny.CONFIG.generation_encoder
    model = jax.eval_shape(lambda: GenerationEncoder(config, nnx.Rngs(0)))
    images = jax.ShapeDtypeStruct((2, config.image_size, config.image_size, 3), np.uint8)
    options = vq.OPTIONS | {"entropy": 0.1}

    def loss(model, images):
        return sum(tokenizer_terms(model, {"images": images}, options)[0].values())

    with jax.default_matmul_precision("bfloat16"):
        traced = jax.jit(nnx.grad(loss)).trace(model, images)
        for platform in ("cpu", "tpu", "cuda"):
            found = products(traced.lower(lowering_platforms=(platform,)))
            assert len(found) > 100
            assert [x for x in found if x.count("HIGHEST") != 2] == []
