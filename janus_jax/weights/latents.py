"""The leaves of a diffusion head, which only this project's own layout has."""

from janus_jax.model.config import JanusConfig
from janus_jax.model.diffusion_head import FREQUENCIES
from janus_jax.weights.table import linear, same


def head_shapes(c: JanusConfig) -> dict[str, tuple]:
    """Of model.diffusion_head.DiffusionHead, by their paths."""
    a = "image_head"
    w = c.image_head_width
    latent = c.generation_encoder.code_dim
    rows = []
    for name, d_in, d_out in (
        ("latent_in", latent, w), ("condition_in", c.transformer.width, w), ("step1", FREQUENCIES, w),
        ("step2", w, w), ("modulation", w, 2 * w), ("latent_out", w, latent),
    ):  # fmt: skip
        rows += linear(f"{a}.{name}", "", d_in, d_out)
    for i in range(c.image_head_layers):
        for name, d_out in (("fc1", w), ("fc2", w), ("modulation", 3 * w)):
            rows += linear(f"{a}.res.{i}.{name}", "", w, d_out)
        rows += same(f"{a}.res.{i}.scale", "", w) + same(f"{a}.res.{i}.bias", "", w)
    return {row.ours: row.our_shape for row in rows}
