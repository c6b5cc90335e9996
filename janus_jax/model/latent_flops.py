"""Model FLOPs of a diffusion head, by the conventions of flops.py. Loaded where a model has one."""

from janus_jax.model.config import JanusConfig
from janus_jax.model.diffusion_head import DRAWS, FREQUENCIES


def denoise(c: JanusConfig) -> float:
    """Forward FLOPs of the noise in one latent, once: what tells the step and the hidden state, the
    blocks, and the maps in and out."""
    w = c.image_head_width
    condition = FREQUENCIES * w + w * w + c.transformer.width * w
    maps = c.image_head_layers * 5 * w * w + 2 * w * w + 2 * c.generation_encoder.code_dim * w
    return 2 * (condition + maps)


def head(c: JanusConfig, latents: float) -> float:
    """Forward FLOPs of the loss of so many latents."""
    return latents * DRAWS * denoise(c)
