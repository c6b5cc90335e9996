"""SigLIP beside transformers' with the same weights: embeddings, logits, loss and gradients."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from support import siglip_oracle as oracle
from support import tiny
from support.mesh import on_mesh

from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.model.keys import Keys
from janus_jax.model.pairs import pair_loss
from janus_jax.model.siglip import SigLIP
from janus_jax.weights.load import import_weights

BATCH = 4


@pytest.fixture(scope="module")
def theirs():
    return oracle.their_model()


@pytest.fixture(scope="module")
def pairs():
    """(images [B, H, W, 3] in [-1, 1], tokens [B, T])."""
    rng = np.random.default_rng(0)
    side = oracle.TOWER.image_size
    images = rng.uniform(-1, 1, (BATCH, side, side, 3)).astype(np.float32)
    return images, rng.integers(2, 384, (BATCH, oracle.LENGTH)).astype(np.int32)


def imported(arrays: dict, directory) -> tuple:
    """(definition, params) of ours with arrays in big_vision's layout."""
    directory.mkdir()
    np.savez(directory / "two_towers.npz", **arrays)
    tiny.processor().tokenizer.save(directory)
    make = lambda: SigLIP(oracle.CONFIG, oracle.LENGTH, Keys(jax.random.key(0)))
    graphdef, state = nnx.split(jax.eval_shape(make))
    shapes = sh.concrete(nnx.to_pure_dict(state))
    params, children = import_weights(
        directory, shapes, partly=True, config=oracle.CONFIG, say=lambda _: None
    )
    assert set(children) == set(shapes)
    return graphdef, params


def loss_of(model: SigLIP, images, tokens):
    embedded = model.embed_images(images), model.embed_texts(tokens)
    return pair_loss(*embedded, tokens, model.contrast.t[...], model.contrast.b[...]), embedded


def test_siglip_computes_what_transformers_does(theirs, pairs, tmp_path, one_device):
    images, tokens = pairs
    out = theirs(
        input_ids=torch.from_numpy(tokens.astype(np.int64)),
        pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2)),
        return_loss=True,
    )
    theirs.zero_grad()
    out.loss.backward()
    heads = oracle.TOWER.heads
    weights = oracle.big_vision(oracle.tensors(theirs), heads)
    gradients = oracle.big_vision(oracle.tensors(theirs, lambda p: p.grad), heads)
    graphdef, params = imported(weights, tmp_path / "weights")
    _, want = imported(gradients, tmp_path / "gradients")

    def loss(params, images, tokens):
        return loss_of(nnx.merge(graphdef, params), images, tokens)

    put = lambda x: jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), sh.BATCH))
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (of_images, of_texts)), got = step(params, put(images), put(tokens))
    near = lambda a, b, share: np.abs(a - b).max() < share * np.abs(b).max()
    for ours, embeds in ((of_images, out.image_embeds), (of_texts, out.text_embeds)):
        assert near(np.asarray(ours), embeds.detach().numpy(), 1e-4)
    t, b = (float(params["contrast"][name][0]) for name in ("t", "b"))
    logits = np.exp(t) * np.asarray(of_texts) @ np.asarray(of_images).T + b
    assert near(logits, out.logits_per_text.detach().numpy(), 1e-4)
    assert abs(float(value) - out.loss.item()) < 1e-5 * abs(out.loss.item())
    ours, theirs_ = tiny.numbers(got), tiny.numbers(want)
    # A key's bias moves all of a query's scores alike: its gradient is rounding.
    different = [
        name
        for name in theirs_
        if not name.endswith(".k.bias") and not near(ours[name], theirs_[name], 1e-4)
    ]
    assert not different, different


def test_its_encoder_is_that_of_janus():
    facts = lambda module: jax.tree.map(
        lambda x: (x.shape, x.dtype), nnx.to_pure_dict(nnx.state(module))
    )
    with on_mesh():
        ours = jax.eval_shape(lambda: SigLIP(oracle.CONFIG, 6, Keys(jax.random.key(0))))
        janus = abstract(oracle.CONFIG)
        assert facts(ours.understanding_encoder) == facts(janus.understanding_encoder)
