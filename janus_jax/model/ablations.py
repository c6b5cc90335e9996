"""Janus whose adaptors read other features, or that has another image head: the ablations of the paper's
Table 5, latents, and tokens of several codes.

Experiment A understands a picture by the VQ tokenizer's codes; B and C by the semantic decoder's
features of these, which B also reads of the ids drawn so far. The two adaptors stay apart. What
nothing reads is left out. With `image_head` "diffusion" (paper section 3.5) a picture's tokens are
latents of a KL tokenizer: where others have ids, int32 [B, N], they stand as float32 [B, N, C]. With
"depth" each token is several codes, int32 [B, N, d], and is read as the sum of their embeddings.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.adaptors import Adaptor
from janus_jax.model.config import CHILDREN, JanusConfig
from janus_jax.model.depth_head import DepthHead
from janus_jax.model.diffusion_head import DiffusionHead
from janus_jax.model.janus import Janus
from janus_jax.model.kl_tokenizer import KlTokenizer
from janus_jax.model.residual_quantizer import ResidualEncoder
from janus_jax.model.semantic_decoder import SemanticDecoder


class Ablated(Janus):
    """Janus with the features that `JanusConfig.understanding` and `generation` name, and with its
    `image_head`."""

    def __init__(self, config: JanusConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        for name in set(CHILDREN) - set(config.children):
            if hasattr(self, name):
                delattr(self, name)
        if config.image_head == "diffusion":
            self.generation_encoder = KlTokenizer(config.generation_encoder, rngs)
            self.image_head = DiffusionHead(config, rngs)
        if config.image_head == "depth":
            self.generation_encoder = ResidualEncoder(config.generation_encoder, rngs)
            self.image_head = DepthHead(config, rngs)
        d = config.transformer.width
        seen, drawn = config.read_widths
        self.understanding_adaptor = Adaptor(seen, d, config.dtype, rngs)
        self.generation_adaptor = Adaptor(drawn, d, config.dtype, rngs)
        if "semantic_decoder" in config.children:
            self.semantic_decoder = SemanticDecoder(
                config.generation_encoder, config.semantic_decoder, config.dtype, config.remat, rngs
            )

    def codes(self, ids):  # int32 [B, N] -> [B, N, code_dim], of unit length, float32
        """The tokenizer's codes, as they are: the language model does not train them."""
        return jax.lax.stop_gradient(self.generation_encoder.codes(ids))

    def embed_images(self, images):  # [B, H, W, 3] in [-1, 1] -> [B, N, D]
        if self.config.understanding == "siglip":
            return super().embed_images(images)
        codes = self.codes(self.generation_encoder.encode(images))
        semantic = self.config.understanding == "semantic"
        return self.understanding_adaptor(self.semantic_decoder(codes) if semantic else codes)

    def gathered(self):
        return super().gathered() if self.config.understanding == "siglip" else self

    def embed_image_ids(self, ids):  # int32 [B, N], [B, N, d] or latents -> [B, N, D]
        if self.config.image_head == "diffusion":
            return self.generation_adaptor(ids)
        if self.config.image_head == "depth":
            b, n, d = ids.shape
            codes = self.generation_embedding(ids.reshape(b, n * d))
            return self.generation_adaptor(codes.reshape(b, n, d, -1).sum(2))
        if self.config.generation == "embedding":
            return super().embed_image_ids(ids)
        # Each picture of a row by itself.
        n = min(self.config.generation_encoder.tokens, ids.shape[1])
        own = jnp.asarray(ids).reshape(-1, n, out_sharding=sh.BATCH)
        x = self.generation_adaptor(self.semantic_decoder(self.codes(own)))
        return x.reshape(*ids.shape, -1, out_sharding=sh.ACT_BTD)

    def embed_drawn(self, ids, at, cache):  # int32 [B, 1], int32 [B] -> [B, 1, D], cache
        if self.config.generation == "embedding":
            return super().embed_drawn(ids, at, cache)
        x, cache = self.semantic_decoder.cached(self.codes(ids), at, cache)
        return self.generation_adaptor(x), cache

    def blank_drawn(self, rows: int) -> list:
        semantic = self.config.generation == "semantic"
        return self.semantic_decoder.blank_cache(rows) if semantic else []
