"""The leaves of other image heads than Janus' own, which only this project's layout has."""

from janus_jax.model.config import JanusConfig
from janus_jax.model.depth_head import layer_sizes
from janus_jax.model.diffusion_head import FREQUENCIES
from janus_jax.weights.table import linear, same


def diffusion_shapes(c: JanusConfig) -> dict[str, tuple]:
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


def depth_shapes(c: JanusConfig) -> dict[str, tuple]:
    """Of model.depth_head.DepthHead, by their paths."""
    a = "image_head"
    box = layer_sizes(c)
    w, f = box.width, box.mlp_width
    vq = c.generation_encoder
    rows = linear(f"{a}.hidden_in", "", c.transformer.width, w)
    rows += linear(f"{a}.codes_in", "", vq.code_dim, w)
    rows += linear(f"{a}.fc2", "", w, vq.codebook_size)
    rows += same(f"{a}.codes.table", "", vq.codebook_size, vq.code_dim)
    rows += same(f"{a}.positions", "", vq.depth, w) + same(f"{a}.norm.scale", "", w)
    for at in (f"{a}.blocks.{i}" for i in range(box.layers)):
        for name, d_in, d_out in (
            *((f"attention.{x}", w, w) for x in "qkvo"), ("gate", w, f), ("up", w, f), ("down", f, w),
        ):  # fmt: skip
            rows += linear(f"{at}.{name}", "", d_in, d_out, bias=False)
        rows += same(f"{at}.norm1.scale", "", w) + same(f"{at}.norm2.scale", "", w)
    return {row.ours: row.our_shape for row in rows}


SHAPES = {"diffusion": diffusion_shapes, "depth": depth_shapes}  # by `image_head`
