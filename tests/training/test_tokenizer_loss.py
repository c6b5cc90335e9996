"""The loss of the tokenizer and of its discriminator against torch's, term by term and gradient by
gradient; and twenty steps of both beside torch's two optimisers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support import adversarial_oracle as theirs
from support import oracle, perceptual
from support.outputs import nchw, split

from janus_jax.config import schema
from janus_jax.model.batch import pixels
from janus_jax.training import optim, tokenizer_loss
from janus_jax.training.tasks import vq
from janus_jax.weights.reader import flatten

CONFIG = oracle.tiny_config()
CONFIG = dataclasses.replace(
    CONFIG,
    generation_encoder=dataclasses.replace(
        CONFIG.generation_encoder, multipliers=(1, 1), res_blocks=1, codebook_size=8, code_dim=4
    ),
    understanding_encoder=dataclasses.replace(CONFIG.understanding_encoder, patch_size=4),
)  # fmt: skip
SIDE = CONFIG.generation_encoder.image_size
CHOSEN = {
    "discriminator": "patchgan",
    "discriminator_width": 4,
    "discriminator_layers": 2,
    "discriminator_start": 1,
    "entropy": 0.01,
    "lpips": "a file",
    "perceptual_weight": 0.7,
}
# Rounding stays rounding where gradients are nearly zero.
OPTIM = schema.Optim(learning_rate=1e-3, clip_norm=1.0, b1=0.9, b2=0.95, eps=1e-3)


def options(**changes) -> dict:
    return vq.OPTIONS | CHOSEN | changes


def images(seed: int, count: int = 2):
    shape = (count, SIDE, SIDE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def as_tree(leaves: dict, tree: dict) -> dict:
    put = lambda path, _: jnp.asarray(leaves[".".join(str(key.key) for key in path)])
    return jax.tree.map_with_path(put, tree)


def pair(chosen: dict):
    """(a run of torch's, our state with the same weights, what our batches hold of LPIPS)."""
    torch.manual_seed(1)
    tokenizer = theirs.Tokenizer(CONFIG)
    discriminator = theirs.PatchGan(4, 2)
    # A mean far from 0, so that no digits cancel in it.
    torch.nn.init.constant_(discriminator.main[-1].bias, 0.3)
    weights = perceptual.vgg() | perceptual.heads()
    run = theirs.Trained(tokenizer, discriminator, chosen, OPTIM, weights)
    ours = {}
    for name, x in weights.items():
        if name.startswith("lin"):
            ours[name[:4]] = x[0, :, 0, 0].numpy()
        else:
            place = name.removeprefix("features.")
            ours[place] = (x.permute(2, 3, 1, 0) if x.ndim == 4 else x).numpy()
    tx = optim.make(OPTIM, 20, each=True)
    state = vq.init_state(jax.random.key(0), CONFIG, tx, options=chosen)
    trainable = {
        "generation_encoder": as_tree(tokenizer.leaves(), state.trainable["generation_encoder"]),
        "discriminator": as_tree(theirs.leaves_of(discriminator), state.trainable["discriminator"]),
    }
    return run, state.replace(trainable=trainable), ours


def near(got, want, what="", tolerance=1e-5):
    want = np.asarray(want)
    np.testing.assert_allclose(
        got, want, rtol=tolerance, atol=tolerance * np.abs(want).max(), err_msg=what
    )


@pytest.mark.parametrize("kind", tokenizer_loss.DISCRIMINATOR_LOSSES)
def test_a_discriminators_loss_is_torchs(kind):
    real, fake = np.random.default_rng(0).normal(0, 2, (2, 3, 4, 4, 1)).astype(np.float32)
    a, b = (torch.from_numpy(x).requires_grad_(True) for x in (real, fake))
    want = theirs.discriminator_loss(kind, a, b)
    want.backward()
    loss = lambda real, fake: tokenizer_loss.discriminator_loss(real, fake, kind)
    got, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(real, fake)
    near(got, want.detach())
    near(grads[0], a.grad)
    near(grads[1], b.grad)


@pytest.mark.parametrize("kind", tokenizer_loss.GENERATOR_LOSSES)
def test_a_generators_loss_is_torchs(kind):
    fake = np.random.default_rng(0).normal(0, 2, (3, 4, 4, 1)).astype(np.float32)
    x = torch.from_numpy(fake).requires_grad_(True)
    want = theirs.generator_loss(kind, x)
    want.backward()
    loss = lambda x: tokenizer_loss.generator_loss(x, kind)
    got, grad = jax.jit(jax.value_and_grad(loss))(fake)
    near(got, want.detach())
    near(grad, x.grad)


@pytest.fixture(autouse=True)
def plainly():
    """oneDNN's convolutions of one thread are 1e-3 off where a gradient's norm divides."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(dict(weighting="fixed"), marks=pytest.mark.slow),
        dict(
            weighting="adaptive", discriminator_loss="vanilla", generator_loss="non-saturating",
            reconstruction_loss="l1",
        ),
    ],
    ids=["fixed", "adaptive"],
)  # fmt: skip
def test_every_term_and_gradient_is_torchs(chosen, one_device):
    chosen = options(**chosen)
    run, state, lpips = pair(chosen)
    x = images(0)

    @jax.jit
    def ours(trainable, frozen, pictures):
        def loss(trainable):
            model = nnx.merge(state.graphdef, trainable, frozen)
            tokenizer = model.generation_encoder
            batch = {"images": pictures, "lpips": lpips}
            terms, painted = tokenizer_loss.tokenizer_terms(tokenizer, batch, chosen)
            judged = model.discriminator, tokenizer, batch, painted, 1, chosen
            gain, other, metrics, _ = tokenizer_loss.adversarial(*judged)
            return sum(terms.values()) + gain + other, terms | metrics

        return jax.grad(loss, has_aux=True)(trainable)

    grads, metrics = ours(state.trainable, state.frozen, *split(x))
    seen = nchw(np.asarray(pixels(x)))
    terms, image = theirs.generator_terms(
        run.tokenizer, run.discriminator, seen, 1, chosen, run.lpips
    )
    for name, want in terms.items():
        near(metrics[name], want.detach(), name)
    sum(terms.values()).backward()
    of_tokenizer = {
        ours.removeprefix("generation_encoder."): transform(p.grad.numpy())
        for (ours, (_, transform)), p in zip(
            run.tokenizer.names.items(), run.tokenizer.parameters(), strict=True
        )
    }
    run.discriminator.zero_grad()
    logits = run.discriminator(seen), run.discriminator(image.detach())
    loss = theirs.discriminator_loss(chosen["discriminator_loss"], *logits)
    (chosen["discriminator_weight"] * loss).backward()
    near(metrics["discriminator_loss"], loss.detach())
    of_discriminator = dict(
        theirs.as_ours(name, p.grad) for name, p in run.discriminator.named_parameters()
    )
    for child, wanted in (
        ("generation_encoder", of_tokenizer), ("discriminator", of_discriminator),
    ):  # fmt: skip
        got = flatten(grads[child])
        largest = max(np.abs(x).max() for x in wanted.values())
        for name, want in wanted.items():
            np.testing.assert_allclose(
                got[name], want, rtol=1e-4, atol=1e-5 * largest, err_msg=f"{child}: {name}"
            )


@pytest.mark.slow
def test_fourteen_steps_are_those_of_torchs_two_optimisers(one_device):
    """The discriminator counts from the eighth."""
    chosen = options(discriminator_start=8, ema=0.9, entropy=0.0)
    run, state, lpips = pair(chosen)
    tx = optim.make(OPTIM, 14, each=True)
    lpips = {name: jnp.asarray(x) for name, x in lpips.items()}
    step = jax.jit(lambda state, batch: vq.vq_step(state, batch, tx, chosen), donate_argnums=0)
    for i in range(1, 15):  # further on Adam makes steps of what is rounding
        x = images(i)
        state, metrics = step(state, {"images": jnp.asarray(x), "lpips": lpips})
        wanted = run.iterate(nchw(np.asarray(pixels(x))), i)
        assert (wanted["adversarial"] == 0) == (i < 8)
        for name, want in wanted.items():
            assert float(metrics[name]) == pytest.approx(want, rel=1e-3, abs=1e-5), (i, name)
    for child, module in (
        ("generation_encoder", run.tokenizer.leaves()),
        ("discriminator", theirs.leaves_of(run.discriminator)),
    ):
        got = flatten(state.trainable[child])
        for name, want in module.items():
            np.testing.assert_allclose(got[name], want, rtol=1e-3, atol=2e-5, err_msg=name)
    for p, average in zip(run.players[0], run.ema, strict=True):
        p.data.copy_(average)
    got = flatten(state.frozen["ema"])
    for name, want in run.tokenizer.leaves().items():
        np.testing.assert_allclose(got[name], want, rtol=1e-3, atol=2e-5, err_msg=name)
