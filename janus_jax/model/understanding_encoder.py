"""Figure 2, "Und. Encoder": the SigLIP vision tower (paper section 3.1; arXiv 2303.15343), or another
ViT in its place (section 3.5; model/vit.py).

All patches after the final LayerNorm are returned; the attention-pooling head that checkpoints
carry is not part of Janus' computation and is not built.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.attention import full
from janus_jax.model.config import DIFFERENCES, UnderstandingEncoderConfig
from janus_jax.model.kernels import precision
from janus_jax.model.layers import MLP, Attention, stack, through_layers, weight


def layer_norm(width: int, dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=1e-6, dtype=dtype, use_fast_variance=False, rngs=rngs)


class EncoderBlock(nnx.Module):
    def __init__(self, config: UnderstandingEncoderConfig, dtype, rngs: nnx.Rngs):
        self.norm1 = layer_norm(config.width, dtype, rngs)
        self.attention = Attention(config.width, config.heads, dtype, rngs, bias=True)
        self.norm2 = layer_norm(config.width, dtype, rngs)
        self.mlp = MLP(config.width, config.mlp_width, config.width, dtype, rngs)

    def __call__(self, x, attend):  # [B, N, C]
        x = x + self.attention(self.norm1(x), attend)
        return x + self.mlp(self.norm2(x))


class UnderstandingEncoder(nnx.Module):
    """Pictures of one size to continuous features; `attention` as in attention.full."""

    def __init__(
        self, config: UnderstandingEncoderConfig, dtype, remat: str, attention: str, rngs: nnx.Rngs
    ):
        p = config.patch_size
        c = config.width
        self.patch_kernel = weight(rngs, (p, p, 3, c), sh.W_HWIC, (3 * p * p) ** -0.5)
        self.patch_bias = nnx.Param(jnp.zeros(c))
        self.positions = weight(rngs, (config.patches, c), sh.W_NC, c**-0.5)
        self.blocks = stack(lambda rngs: EncoderBlock(config, dtype, rngs), config.layers, rngs)
        self.norm = layer_norm(c, dtype, rngs)
        self.dtype = jnp.dtype(dtype)
        self.remat = remat
        self.kind = attention
        self.patch = p
        self.size = config.image_size

    def embedded(self, images):  # [B, H, W, 3] in [-1, 1] -> [B, N, C], patches in their places
        s = self.size
        if images.shape[1:] != (s, s, 3):
            raise ValueError(f"images {images.shape}: the tower reads [B, {s}, {s}, 3]")
        kernel, positions = (
            jax.sharding.reshard(w[...].astype(self.dtype), sh.REPLICATED)
            for w in (self.patch_kernel, self.positions)
        )
        x = jax.lax.conv_general_dilated(
            images.astype(self.dtype), kernel, (self.patch,) * 2, "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=precision(self.dtype),
        )  # fmt: skip
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        if self.patch_bias is not None:
            x = x + self.patch_bias.astype(self.dtype)
        return jax.sharding.reshard(x + positions, sh.ACT_BTD)

    def __call__(self, images):  # [B, H, W, 3] in [-1, 1] -> [B, N, C]
        attend = functools.partial(full, kind=self.kind)
        x = through_layers(self.blocks, self.embedded(images), self.remat, attend)
        return self.norm(x)


def is_siglip(config: UnderstandingEncoderConfig) -> bool:
    return all(getattr(config, x) == getattr(UnderstandingEncoderConfig, x) for x in DIFFERENCES)


def encoder(config: UnderstandingEncoderConfig, *how):
    """SigLIP's, or another ViT, whose file is loaded where it is used; how: as the class has it."""
    if is_siglip(config):
        return UnderstandingEncoder(config, *how)
    return importlib.import_module("janus_jax.model.vit").ViT(config, *how)
