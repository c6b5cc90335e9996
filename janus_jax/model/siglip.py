"""SigLIP whole (arXiv 2303.15343): the understanding tower with what trains it on pairs of a picture
and a text.

As big_vision has it (models/vit.py, models/proj/image_text/, commit 0127fb6), but for the MLPs' exact
GELU, which Janus' tower has. The text tower has the image tower's width, MLP width, layers and heads,
as in the paper's B with B and L with L. Letters: B pairs, N patches, T tokens, C the towers' width.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.adaptors import Embedding
from janus_jax.model.attention import plain
from janus_jax.model.config import JanusConfig, UnderstandingEncoderConfig
from janus_jax.model.layers import MLP, Attention, Linear, stack, through_layers, weight
from janus_jax.model.understanding_encoder import EncoderBlock, UnderstandingEncoder, layer_norm

CHILDREN = ("understanding_encoder", "pooling_head", "text_tower", "contrast")


class PoolingHead(nnx.Module):
    """Attention pooling: a learned probe attends to the patches, then an MLP beside a skip."""

    def __init__(self, config: UnderstandingEncoderConfig, dtype, rngs: nnx.Rngs):
        c = config.width
        self.probe = weight(rngs, (1, c), sh.W_NC, c**-0.5)
        self.attention = Attention(c, config.heads, dtype, rngs, bias=True)
        self.norm = layer_norm(c, dtype, rngs)
        self.mlp = MLP(c, config.mlp_width, c, dtype, rngs)

    def __call__(self, x):  # [B, N, C] -> [B, C]
        a = self.attention
        b, _, c = x.shape
        probe = jax.sharding.reshard(self.probe[...].astype(x.dtype), sh.REPLICATED)
        probe = jnp.broadcast_to(probe, (b, 1, c), out_sharding=sh.ACT_BTD)
        heads = lambda y: y.reshape(b, -1, a.heads, c // a.heads)
        x = a.o(plain(heads(a.q(probe)), heads(a.k(x)), heads(a.v(x))).reshape(b, 1, c))
        return (x + self.mlp(self.norm(x)))[:, 0]


class TextTower(nnx.Module):
    """Texts of exactly `length` tokens, the last of them end of sentence, whose place is the
    text's. All tokens see all, padding too."""

    def __init__(
        self,
        config: UnderstandingEncoderConfig,
        vocabulary: int,
        length: int,
        dtype,
        remat: str,
        rngs: nnx.Rngs,
    ):
        c = config.width
        self.embedding = Embedding(vocabulary, c, sh.W_VD, dtype, rngs, std=c**-0.5)
        self.positions = weight(rngs, (length, c), sh.W_NC, c**-0.5)
        self.blocks = stack(lambda rngs: EncoderBlock(config, dtype, rngs), config.layers, rngs)
        self.norm = layer_norm(c, dtype, rngs)
        self.head = Linear(c, c, sh.W_DD, sh.ACT_BTD, dtype, rngs)
        self.remat = remat

    def __call__(self, tokens):  # int32 [B, T] -> [B, C]
        x = self.embedding(tokens)
        positions = jax.sharding.reshard(self.positions[...].astype(x.dtype), sh.REPLICATED)
        x = jax.sharding.reshard(x + positions, sh.ACT_BTD)
        x = through_layers(self.blocks, x, self.remat, plain)
        return self.head(self.norm(x[:, -1:]))[:, 0]


class Contrast(nnx.Module):
    """What makes a logit of a cosine: exp(t) * cosine + b (paper, section 3.2)."""

    def __init__(self):
        self.t = nnx.Param(jnp.full(1, math.log(10.0)))
        self.b = nnx.Param(jnp.full(1, -10.0))


class SigLIP(nnx.Module):
    """Its children are named as in `Janus`, which takes the understanding encoder over by name."""

    def __init__(self, config: JanusConfig, text_length: int, rngs: nnx.Rngs):
        tower = config.understanding_encoder
        how = config.dtype, config.remat
        self.understanding_encoder = UnderstandingEncoder(tower, *how, config.attention, rngs)
        self.pooling_head = PoolingHead(tower, config.dtype, rngs)
        vocabulary = config.transformer.vocabulary
        self.text_tower = TextTower(tower, vocabulary, text_length, *how, rngs)
        self.contrast = Contrast()

    def embed_images(self, images):  # [B, H, W, 3] in [-1, 1] -> float32 [B, C] of length 1
        return unit(self.pooling_head(self.understanding_encoder(images)))

    def embed_texts(self, tokens):  # int32 [B, T] -> float32 [B, C] of length 1
        return unit(self.text_tower(tokens))


def unit(x):  # [B, C] -> float32 [B, C]
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + 1e-16)
