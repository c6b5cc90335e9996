"""Model FLOPs of other image heads than Janus' own, by the conventions of flops.py. Loaded where a model
has one."""

from janus_jax.model.config import JanusConfig
from janus_jax.model.depth_head import layer_sizes
from janus_jax.model.diffusion_head import DRAWS, FREQUENCIES


def denoise(c: JanusConfig) -> float:
    """Forward FLOPs of the noise in one latent, once: what tells the step and the hidden state, the
    blocks, and the maps in and out."""
    w = c.image_head_width
    condition = FREQUENCIES * w + w * w + c.transformer.width * w
    maps = c.image_head_layers * 5 * w * w + 2 * w * w + 2 * c.generation_encoder.code_dim * w
    return 2 * (condition + maps)


def diffusion(c: JanusConfig) -> float:
    """Forward FLOPs of the loss of one latent."""
    return DRAWS * denoise(c)


def depth(c: JanusConfig) -> float:
    """Forward FLOPs of the loss of one token: of its hidden state, d - 1 sums of codes, and d places of
    the layers and of the logits."""
    box = layer_sizes(c)
    d = c.generation_encoder.depth
    w = box.width
    layer = 2 * d * (4 * w * w + 3 * w * box.mlp_width) + 4 * w * d * (d + 1) / 2
    read = 2 * w * (c.transformer.width + (d - 1) * c.generation_encoder.code_dim)
    return read + box.layers * layer + 2 * d * w * c.generation_encoder.codebook_size


A_TOKEN = {"diffusion": diffusion, "depth": depth}  # by `image_head`
