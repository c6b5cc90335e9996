"""The image head of continuous latents: MAR's diffusion loss (arXiv 2406.11838, section 3.2), in place
of logits over a codebook.

A small MLP takes noise out of one token's latent, told by the transformer's hidden state which latent
it is. The schedule is Nichol and Dhariwal's cosine (arXiv 2102.09672, section 3.2); what is learned
is the noise, by its mean squared error (MAR's equation 2). The network is that of MAR's
models/diffloss.py, without the variances that it also predicts: they are the posterior's here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.model.layers import Linear, take

STEPS = 1000  # of the noise schedule
DRAWS = 4  # of step and noise for each latent that is learned
FREQUENCIES = 256  # of a step's embedding
EPS = 1e-6  # of the norms


def kept_shares() -> np.ndarray:
    """The share of a latent's variance that is left after each step, float64 [STEPS], falling."""
    at = lambda t: np.cos((t / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
    t = np.arange(STEPS)
    return np.cumprod(1 - np.minimum(1 - at(t + 1) / at(t), 0.999))


def standardised(x):  # [B, N, W] -> [B, N, W], LayerNorm without weights, in float32
    x = x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + EPS)


def zeroed(linear: Linear) -> Linear:
    """The map with weights of 0, where training is to begin with nothing."""
    linear.kernel = nnx.Param(0 * linear.kernel[...])
    return linear


class DenoisingBlock(nnx.Module):
    """A residual MLP that the condition shifts, scales and gates (adaLN-Zero, arXiv 2212.09748)."""

    def __init__(self, width: int, dtype, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.fc1 = Linear(width, width, sh.W_DF, sh.ACT_BTF, dtype, rngs)
        self.fc2 = Linear(width, width, sh.W_FD, sh.ACT_BTD, dtype, rngs)
        self.modulation = zeroed(Linear(width, 3 * width, sh.W_DD, sh.ACT_BTD, dtype, rngs))

    def __call__(self, x, condition):  # [B, N, W], [B, N, W] -> [B, N, W]
        shift, scale, gate = jnp.split(self.modulation(nnx.silu(condition)), 3, axis=-1)
        h = standardised(x) * self.scale + self.bias
        h = self.fc2(nnx.silu(self.fc1(h * (1 + scale) + shift)))
        return x + gate * h


class DiffusionHead(nnx.Module):
    """Hidden states and noisy latents to noise. C is the latents' width, W `image_head_width`."""

    def __init__(self, config: JanusConfig, rngs: nnx.Rngs):
        c = config.generation_encoder.code_dim
        w = config.image_head_width
        d = config.transformer.width
        inner = lambda d_in: Linear(d_in, w, sh.W_DD, sh.ACT_BTD, config.dtype, rngs)
        self.latent_width = c
        self.latent_in = inner(c)
        self.condition_in = inner(d)
        self.step1 = inner(FREQUENCIES)
        self.step2 = inner(w)
        self.res = nnx.List([
            DenoisingBlock(w, config.dtype, rngs) for _ in range(config.image_head_layers)
        ])  # fmt: skip
        self.modulation = zeroed(Linear(w, 2 * w, sh.W_DD, sh.ACT_BTD, config.dtype, rngs))
        self.latent_out = zeroed(Linear(w, c, sh.W_DD, sh.ACT_BTD, config.dtype, rngs))

    def __call__(self, x, steps, hidden):
        """The noise that is in latents x [B, N, C], float32, after `steps` int32 [B, N], 0 to STEPS - 1;
        hidden [B, N, D]: float32 [B, N, C]."""
        half = FREQUENCIES // 2
        rates = jnp.exp(-jnp.log(10000.0) * jnp.arange(half) / half)
        angles = steps[..., None].astype(jnp.float32) * rates
        step = self.step1(jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1))
        condition = self.step2(nnx.silu(step)) + self.condition_in(hidden)
        x = self.latent_in(x)
        for block in self.res:
            x = block(x, condition)
        shift, scale = jnp.split(self.modulation(nnx.silu(condition)), 2, axis=-1)
        return self.latent_out(standardised(x) * (1 + scale) + shift).astype(jnp.float32)

    def loss(self, x, latents, batch, token_losses=None):
        """The squared error of the noise, the mean over DRAWS and channels, summed over the latents to
        predict: float32.

        x: hidden states [B, T, D]. latents: float32 [B, G*N, C]. batch: as in model.batch, with
            `noise`, uint32 [B], a number for each row that says which noise it draws.
        """
        there, hidden = predicting(x, batch["image_targets"], latents.shape[1])
        keys = jax.vmap(functools.partial(jax.random.key, impl="threefry2x32"))(batch["noise"])
        latents = jax.lax.stop_gradient(latents)

        def add(total, draw):
            steps, noise = drawn(jax.vmap(jax.random.fold_in, (0, None))(keys, draw), latents)
            error = jnp.square(self(noised(latents, steps, noise), steps, hidden) - noise).mean(-1)
            return total + jnp.where(there, error, 0).sum(), None

        # One draw after the other, so that a device holds what the backward pass needs of one.
        total, _ = jax.lax.scan(jax.checkpoint(add), jnp.float32(0), jnp.arange(DRAWS))
        return total / DRAWS


def predicting(x, targets, count: int):
    """Whether each of a row's `count` latents is to be predicted, bool [B, count], and the hidden state
    that predicts it, [B, count, D]. x: [B, T, D]; targets: a batch's image_targets, int32 [B, T]."""

    def own(x, targets):
        rows, t = targets.shape
        places = (
            jnp.full((rows, 1 + count), t).at[jnp.arange(rows)[:, None], targets].set(jnp.arange(t))
        )
        at = places[:, 1:]
        there = at < t
        return there, jnp.take_along_axis(x, jnp.where(there, at, 0)[..., None], axis=1)

    return sh.per_device(own, (sh.ACT_BTD, sh.BATCH), (sh.BATCH, sh.ACT_BTD))(x, targets)


def drawn(keys, latents):
    """A step and noise for each latent: int32 [B, N], float32 [B, N, C]; a key a row."""

    def one(key, latents):
        first, second = jax.random.split(key)
        steps = jax.random.randint(first, latents.shape[:1], 0, STEPS)
        return steps, jax.random.normal(second, latents.shape)

    return sh.per_device(jax.vmap(one), (sh.BATCH, sh.BATCH), (sh.BATCH, sh.BATCH))(keys, latents)


def noised(latents, steps, noise):
    """Latents after so many steps of the schedule: [B, N, C], [B, N], [B, N, C] -> [B, N, C]."""
    share = take(jnp.asarray(kept_shares()[:, None], jnp.float32), steps)  # [B, N, 1]
    return jnp.sqrt(share) * latents + jnp.sqrt(1 - share) * noise
