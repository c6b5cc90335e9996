"""Stage 0: the VQ tokenizer's own training (LlamaGen, arXiv 2406.06525, section 2.1).

Reconstruction (MSE), codebook, commitment and entropy losses. The perceptual (LPIPS) and adversarial (PatchGAN) terms
of the paper's recipe are further summands of `tokenizer_loss` and are not built yet: small drawn pictures do
without them.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.batch import pixels
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.generation_encoder import normalise as normalise_codes
from janus_jax.train_state import TrainState, start, update


class Tokenizer(nnx.Module):
    """Holds the encoder as a child named as in `Janus`, so that its weights are handed on by name."""

    def __init__(self, config: GenerationEncoderConfig, rngs: nnx.Rngs):
        self.generation_encoder = GenerationEncoder(config, rngs)


def init_state(key, config: GenerationEncoderConfig, tx) -> TrainState:
    graphdef, params = nnx.split(Tokenizer(config, nnx.Rngs(key)))
    return start(graphdef, nnx.to_pure_dict(params), {}, tx)


def entropy_loss(model: GenerationEncoder, z):
    """Low when each position is sure of its code and all codes are used alike (temperature 0.01)."""
    affinity = 2.0 * jnp.einsum("bhwc,nc->bhwn", z, normalise_codes(model.codebook[...])) / 0.01
    logp = jax.nn.log_softmax(affinity)
    p = jnp.exp(logp)
    mean = p.mean((0, 1, 2))
    return -(p * logp).sum(-1).mean() + (mean * jnp.log(mean + 1e-5)).sum()


def tokenizer_loss(model: GenerationEncoder, images, commitment: float, entropy: float):
    """images uint8 [B, H, W, 3] -> (loss, metrics). Gradients pass straight through the nearest code."""
    x = pixels(images)
    z = model.latents(x)
    ids = model.nearest(jax.lax.stop_gradient(z))
    codes = model.codes(ids)
    straight = z + jax.lax.stop_gradient(codes - z)
    terms = {
        "reconstruction": jnp.mean((model.render(straight) - x) ** 2),
        "codebook": jnp.mean((codes - jax.lax.stop_gradient(z)) ** 2),
        "commitment": commitment * jnp.mean((jax.lax.stop_gradient(codes) - z) ** 2),
    }
    if entropy:
        terms["entropy"] = entropy * entropy_loss(model, z)
    used = (ids[..., None] == jnp.arange(model.codebook.shape[0])).any((0, 1, 2)).sum()
    return sum(terms.values()), terms | {"codes_used": used.astype(jnp.float32)}


def train_step(state: TrainState, images, tx, commitment: float, entropy: float) -> tuple[TrainState, dict]:
    """Pure; jitted, with the state donated, in train.py."""
    return update(
        state, tx, lambda model: tokenizer_loss(model.generation_encoder, images, commitment, entropy)
    )
