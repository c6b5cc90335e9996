"""What a VQ tokenizer learns from (LlamaGen, arXiv 2406.06525, section 2.1): what it paints back
against what it saw, its codes, and a discriminator that learns beside it.

The formulas are those of LlamaGen's tokenizer_image/vq_loss.py and vq_model.py, but for the
non-saturating loss: there the arguments of the cross-entropy are swapped, so that its discriminator
would never look at a reconstruction. Here it is what its name says.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model.batch import pixels
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.kernels import einsum
from janus_jax.training.perceptual import lpips

RECONSTRUCTION_LOSSES = ("l2", "l1")
DISCRIMINATOR_LOSSES = ("hinge", "vanilla", "non-saturating")
GENERATOR_LOSSES = ("hinge", "non-saturating")
WEIGHTINGS = ("fixed", "adaptive")


@dataclasses.dataclass(frozen=True)
class Painted:
    """One pass of the tokenizer, for all that judges it.

    seen: the pictures, float32 [B, H, W, 3].
    image: what was painted back, float32 [B, H, W, 3].
    hidden: what the decoder's last convolution read, float32 [B, H, W, C].
    ids: int32 [B, h, w]; [B, h, w, d] of tokens with several codes; [B, N, 1] of scales.
    codes: of these ids, float32 [B, h, w, code_dim]; gradients pass straight to the latents.
    """

    seen: jax.Array
    image: jax.Array
    hidden: jax.Array
    ids: jax.Array
    codes: jax.Array


def entropy_loss(model: GenerationEncoder, z):
    """Low when each position is sure of its code and all codes are used alike (temperature
    0.01)."""
    codes = model.unit(model.codebook[...])
    affinity = 2.0 * einsum("bhwc,nc->bhwn", z, codes)
    if not model.l2_norm:  # the lengths of the codes count too
        affinity = affinity - (codes * codes).sum(-1)
    logp = jax.nn.log_softmax(affinity / 0.01)
    p = jnp.exp(logp)
    mean = p.mean((0, 1, 2))
    return -(p * logp).sum(-1).mean() + (mean * jnp.log(mean + 1e-5)).sum()


def quantised(model: GenerationEncoder, z):
    """Latents z [B, h, w, C] as codes: ids int32 [B, h, w]; the vectors that were looked up, [B, h, w,
    C]; and what the codes make of z, [B, h, w, C], or [K, B, h, w, C] after each of K scales, whose ids
    are those of `MultiscaleTokenizer.quantised`."""
    if hasattr(model, "scales"):
        return model.quantised(z)
    ids = model.nearest(jax.lax.stop_gradient(z))
    return ids, z, model.codes(ids)


def redrawn(model: GenerationEncoder, images):
    """Pictures [B, H, W, 3] in [-1, 1] as the tokenizer gives them back: its ids, and pictures alike."""
    z = model.latents(images)
    ids, _, codes = quantised(model, z)
    return ids, model.render(codes if codes.ndim == z.ndim else codes[-1])


def tokenizer_terms(model: GenerationEncoder, batch: dict, options: dict) -> tuple[dict, Painted]:
    """(the summands of the tokenizer's loss but the discriminator's, weighted, float32 scalars by
    name; what was painted). Gradients pass straight through the nearest code. Of tokens with several
    codes each pulls at what the codes before it leave, and is pulled by it: the mean over depth of
    RQ-VAE's commitment to its partial sums (arXiv 2203.01941, section 3.1). Of several scales the
    codebook and commitment terms are means over the sums after each (VAR, arXiv 2404.02905).

    batch: images, uint8 [B, H, W, 3], and, where the perceptual term is on, lpips, the weights of
        `perceptual.lpips`.
    options: of task vq.
    """
    x = pixels(batch["images"])
    z = model.latents(x)
    ids, looked, codes = quantised(model, z)
    whole = codes if codes.ndim == z.ndim else codes[-1]
    straight = z + jax.lax.stop_gradient(whole - z)
    hidden = model.decoder.features(model.post_quant_conv(straight), straight)
    image = model.decoder.conv_out(hidden)
    if ids.ndim > z.ndim - 1:
        z, codes = single(model, z, ids)
        looked = z
    terms = {
        "reconstruction": reconstruction_loss(x, image, options["reconstruction_loss"]),
        "codebook": jnp.mean((codes - jax.lax.stop_gradient(z)) ** 2),
        "commitment": options["commitment"] * jnp.mean((jax.lax.stop_gradient(codes) - z) ** 2),
    }
    if options["entropy"]:
        terms["entropy"] = options["entropy"] * entropy_loss(model, looked)
    if "lpips" in batch:
        terms["perceptual"] = perceptual_loss(batch, x, image, options)
    return terms, Painted(x, image, hidden, ids, straight)


def single(model, z, ids):
    """What each of a token's codes was chosen for, and the code, float32 [B, h, w * d, code_dim] both.
    The codes before are constants there: the first carries gradients to z, the second to the codebook.

    model: a `model.residual_quantizer.ResidualEncoder`; z: [B, h, w, code_dim]; ids: int32 [B, h, w, d].
    """
    before = jax.lax.stop_gradient(model.residuals(z, ids) - z[..., None, :])
    flat = lambda x: x.reshape(*x.shape[:2], -1, x.shape[-1])
    return flat(z[..., None, :] + before), flat(model.each(ids))


def reconstruction_loss(x, image, kind: str):
    return jnp.mean((image - x) ** 2 if kind == "l2" else jnp.abs(image - x))


def perceptual_loss(batch: dict, x, image, options: dict):
    return options["perceptual_weight"] * lpips(batch["lpips"], x, image).mean()


def discriminator_loss(real, fake, kind: str):
    """Logits of the pictures and of what was painted, of any shape -> float32. kind: of
    DISCRIMINATOR_LOSSES; the last two are one formula, by LlamaGen's two names."""
    if kind == "hinge":
        return 0.5 * (jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean())
    return 0.5 * (jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean())


def generator_loss(fake, kind: str):
    """Logits of what was painted -> float32. kind: of GENERATOR_LOSSES."""
    return -fake.mean() if kind == "hinge" else jax.nn.softplus(-fake).mean()


def adversarial(
    discriminator, model: GenerationEncoder, batch: dict, painted: Painted, step, options: dict
):
    """(what the tokenizer's loss has more, what the discriminator's loss is, metrics, the statistics
    of the discriminator's passes in LlamaGen's order). Gradients of the first reach the tokenizer
    alone, of the second the discriminator alone; both are 0 before `discriminator_start`.

    Args:
        discriminator: a module of discriminators.py.
        model: the tokenizer that painted.
        batch: see `tokenizer_terms`.
        painted: what it painted of the batch.
        step: int32, of this update, from 1.
        options: of task vq.
    """
    graphdef, weights = nnx.split(discriminator)
    still = nnx.merge(graphdef, jax.tree.map(jax.lax.stop_gradient, weights))
    judge = lambda image: generator_loss(still(image)[0], options["generator_loss"])
    # The compiler computes this pass and the second one over the same picture once.
    shown, first = still(painted.image)
    real, second = discriminator(painted.seen)
    fake, third = discriminator(jax.lax.stop_gradient(painted.image))
    started = step >= options["discriminator_start"]
    weight = jnp.where(started, options["discriminator_weight"], 0.0)
    metrics = {}
    whole = weight
    if options["weighting"] == "adaptive":
        metrics["adaptive_weight"] = adaptive_weight(model, batch, painted, judge, options)
        whole = weight * metrics["adaptive_weight"]
    gain = whole * generator_loss(shown, options["generator_loss"])
    loss = discriminator_loss(real, fake, options["discriminator_loss"])
    metrics |= {
        "adversarial": gain,
        "discriminator_loss": loss,
        "logits_real": real.mean(),
        "logits_fake": fake.mean(),
    }
    return gain, weight * loss, metrics, (first, second, third)


def adaptive_weight(model: GenerationEncoder, batch: dict, painted: Painted, judge, options: dict):
    """How much stronger the reconstruction and perceptual terms pull at the decoder's last kernel
    than the discriminator does, float32 in [0, 1e4], without a gradient.

    judge: image -> the generator's adversarial loss.
    """
    still = jax.lax.stop_gradient
    image, hidden = still(painted.image), still(painted.hidden)

    def pictured(image):
        loss = reconstruction_loss(painted.seen, image, options["reconstruction_loss"])
        return loss + (
            perceptual_loss(batch, painted.seen, image, options) if "lpips" in batch else 0
        )

    graphdef, weights = nnx.split(model.decoder.conv_out)
    _, pull = jax.vjp(lambda w: nnx.merge(graphdef, w)(hidden), jax.tree.map(still, weights))
    force = lambda loss: jnp.linalg.norm(pull(still(jax.grad(loss)(image)))[0]["kernel"][...])
    return still(jnp.clip(force(pictured) / (force(judge) + 1e-4), 0.0, 1e4))
