"""Understanding encoders other than SigLIP (paper section 3.5): one ViT whose differences are fields
of `UnderstandingEncoderConfig`.

What a word of `variant` adds or takes away:

    class_token    a learned token before the patches, with a place of its own; not returned
    pre_norm       a norm before the layers (CLIP, arXiv 2103.00020)
    no_patch_bias  the patches' map has no bias (CLIP)
    no_qkv_bias    the maps of queries, keys and values have none (InternViT-6B, arXiv 2312.14238)
    no_key_bias    that of keys has none (EVA-02)
    qk_norm        RMSNorm over the whole width of queries and of keys (InternViT-6B)
    layer_scale    each part's result times a learned vector (InternViT; arXiv 2103.17239)
    rms_norm       RMSNorm in place of LayerNorm (InternViT-6B)
    sub_norm       a norm before the last map of attention and MLP (EVA-02, arXiv 2303.11331)
    no_final_norm  the last layer's result as it is (CLIP, InternViT)

Letters: B pictures, N patches, S tokens (N, and the class token), C width, F MLP width, H heads, K
head size.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.attention import full
from janus_jax.model.config import UnderstandingEncoderConfig
from janus_jax.model.layers import Linear, rope_table, stack, through_layers, weight
from janus_jax.model.understanding_encoder import UnderstandingEncoder

SCALE = 0.1  # where layer scales begin
ROPE_THETA = 10000.0
ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "swiglu": jax.nn.silu,  # of the gate
}
# Mean and deviation of a channel, of pixels in [0, 1], that the encoders' own pictures have.
PIXELS = {
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def norm_of(config: UnderstandingEncoderConfig, width: int, dtype, rngs: nnx.Rngs):
    how = {"epsilon": config.norm_eps, "dtype": dtype, "rngs": rngs, "use_fast_variance": False}
    kind = nnx.RMSNorm if "rms_norm" in config.variant else nnx.LayerNorm
    return kind(width, **how)


class ViTAttention(nnx.Module):
    """Attention of all tokens to all."""

    def __init__(self, config: UnderstandingEncoderConfig, dtype, rngs: nnx.Rngs):
        c = config.width
        bias = "no_qkv_bias" not in config.variant
        biases = bias, bias and "no_key_bias" not in config.variant, bias
        self.q, self.k, self.v = (
            Linear(c, c, sh.W_DF, sh.ACT_BTF, dtype, rngs, bias) for bias in biases
        )
        self.o = Linear(c, c, sh.W_FD, sh.ACT_BTD, dtype, rngs)
        self.q_norm, self.k_norm = (
            nnx.RMSNorm(c, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
            if "qk_norm" in config.variant
            else nnx.data(None)
            for _ in range(2)
        )
        sub_norm = "sub_norm" in config.variant
        self.sub_norm = norm_of(config, c, dtype, rngs) if sub_norm else nnx.data(None)
        self.heads = config.heads

    def __call__(self, x, attend, rope):  # [B, S, C] -> [B, S, C]
        b, s, c = x.shape
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.q_norm is not None:
            q = over_width(self.q_norm, q)
            k = over_width(self.k_norm, k)
        q, k, v = (y.reshape(b, s, self.heads, c // self.heads) for y in (q, k, v))
        if rope is not None:
            q = rotate_pairs(q, rope)
            k = rotate_pairs(k, rope)
        x = attend(q, k, v).reshape(b, s, c)
        return self.o(x if self.sub_norm is None else over_width(self.sub_norm, x))


class ViTMLP(nnx.Module):
    """Two linear maps with the activation between them; for `swiglu` times a third, the gate."""

    def __init__(self, config: UnderstandingEncoderConfig, dtype, rngs: nnx.Rngs):
        c = config.width
        f = config.mlp_width
        self.fc1 = Linear(c, f, sh.W_DF, sh.ACT_BTF, dtype, rngs)
        self.fc2 = Linear(f, c, sh.W_FD, sh.ACT_BTD, dtype, rngs)
        gated = config.activation == "swiglu"
        self.gate = Linear(c, f, sh.W_DF, sh.ACT_BTF, dtype, rngs) if gated else nnx.data(None)
        sub_norm = "sub_norm" in config.variant
        self.sub_norm = norm_of(config, f, dtype, rngs) if sub_norm else nnx.data(None)
        self.activation = config.activation

    def __call__(self, x):  # [B, S, C] -> [B, S, C]
        activation = ACTIVATIONS[self.activation]
        h = self.fc1(x)
        h = activation(h) if self.gate is None else activation(self.gate(x)) * h
        return self.fc2(h if self.sub_norm is None else over_width(self.sub_norm, h))


class ViTBlock(nnx.Module):
    def __init__(self, config: UnderstandingEncoderConfig, dtype, rngs: nnx.Rngs):
        c = config.width
        self.norm1 = norm_of(config, c, dtype, rngs)
        self.attention = ViTAttention(config, dtype, rngs)
        self.norm2 = norm_of(config, c, dtype, rngs)
        self.mlp = ViTMLP(config, dtype, rngs)
        scaled = "layer_scale" in config.variant
        self.scale1, self.scale2 = (
            nnx.Param(jnp.full(c, SCALE)) if scaled else nnx.data(None) for _ in range(2)
        )

    def __call__(self, x, attend, rope):  # [B, S, C] -> [B, S, C]
        x = x + times(self.attention(self.norm1(x), attend, rope), self.scale1)
        return x + times(self.mlp(self.norm2(x)), self.scale2)


class ViT(UnderstandingEncoder):
    """Pictures to continuous features of their patches, as `UnderstandingEncoder`, in all that it
    has in common with it the same numbers."""

    def __init__(
        self, config: UnderstandingEncoderConfig, dtype, remat: str, attention: str, rngs: nnx.Rngs
    ):
        p = config.patch_size
        c = config.width
        has = config.variant
        self.patch_kernel = weight(rngs, (p, p, 3, c), sh.W_HWIC, (3 * p * p) ** -0.5)
        self.patch_bias = nnx.data(None) if "no_patch_bias" in has else nnx.Param(jnp.zeros(c))
        self.positions = weight(rngs, (config.patches, c), sh.W_NC, c**-0.5)
        self.blocks = stack(lambda rngs: ViTBlock(config, dtype, rngs), config.depth, rngs)
        final = "no_final_norm" not in has
        self.norm = norm_of(config, c, dtype, rngs) if final else nnx.data(None)
        self.pre_norm = norm_of(config, c, dtype, rngs) if "pre_norm" in has else nnx.data(None)
        self.class_token, self.class_position = (
            weight(rngs, (1, c), sh.W_NC, c**-0.5) if "class_token" in has else nnx.data(None)
            for _ in range(2)
        )
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.remat = remat
        self.kind = attention
        self.patch = p
        self.size = config.image_size

    def embedded(self, images):  # [B, H, W, 3] in [-1, 1] -> [B, S, C]
        if self.config.pixels != "siglip":
            mean, std = (np.asarray(x, np.float32) for x in PIXELS[self.config.pixels])
            images = (images.astype(jnp.float32) * 0.5 + (0.5 - mean)) / std
        x = super().embedded(images)
        if self.class_token is not None:
            one = replicated(self.class_token, x.dtype) + replicated(self.class_position, x.dtype)
            one = jnp.broadcast_to(one, (len(x), *one.shape), out_sharding=sh.ACT_BTD)
            x = jnp.concatenate([one, x], axis=1)
        return x if self.pre_norm is None else self.pre_norm(x)

    def __call__(self, images):  # [B, H, W, 3] in [-1, 1] -> [B, N, C]
        attend = functools.partial(full, kind=self.kind)
        rope = rope_of_grid(self.config) if self.config.rotary_grid else None
        x = through_layers(self.blocks, self.embedded(images), self.remat, attend, rope)
        x = x[:, -self.config.patches :]
        return x if self.norm is None else self.norm(x)


def rope_of_grid(config: UnderstandingEncoderConfig):
    """cos and sin of the angles of a picture's tokens (EVA-02), each float32 [1, S, 1, K/2]: the first
    half of them by the patch's row, the second by its column, as if the picture had the grid of
    `rotary_grid` rows that the encoder learned with. The class token is not turned."""
    side = config.image_size // config.patch_size
    places = jnp.arange(side, dtype=jnp.float32) / side * config.rotary_grid
    rows, columns = jnp.repeat(places, side), jnp.tile(places, side)
    half = config.width // config.heads // 2
    angles = [rope_table(x[None], half, ROPE_THETA) for x in (rows, columns)]
    cos, sin = (jnp.concatenate(pair, axis=-1) for pair in zip(*angles))
    first = [(0, 0), (int("class_token" in config.variant), 0), (0, 0), (0, 0)]
    return jnp.pad(cos, first, constant_values=1.0), jnp.pad(sin, first)


def rotate_pairs(x, rope):
    """Rotary embedding in the interleaved layout: dim 2i pairs with 2i + 1. x [B, S, H, K]."""
    cos, sin = rope
    a, b = (x[..., i::2].astype(jnp.float32) for i in range(2))
    turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def over_width(norm, x):
    """A norm of features [B, S, F] that the heads or the MLP have split."""
    split = jax.typeof(x).sharding.spec
    return jax.sharding.reshard(norm(jax.sharding.reshard(x, sh.ACT_BTD)), split)


def times(x, scale):  # [B, S, C], a parameter [C] or None -> [B, S, C]
    return x if scale is None else x * replicated(scale, x.dtype)


def replicated(param, dtype):
    return jax.sharding.reshard(param[...].astype(dtype), sh.REPLICATED)
