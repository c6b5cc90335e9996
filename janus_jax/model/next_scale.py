"""Janus that draws a picture scale by scale, coarse to fine (VAR, arXiv 2404.02905, section 3.1), in
the rows that it understands in (paper section 3.5, causal and parallel attention together).

A token of a scale reads what the coarser scales have said of its place: the tokenizer's codes of these,
added up and averaged to the scale's grid. So it needs no embedding of ids; of the first scale nothing
is known, and zeros are read. A learned vector for each of a picture's N places says which scale and
place it is: tokens of one scale are computed at once, and the transformer's rotary positions tell only
how far apart two of them are in their order (VAR adds two such vectors, of the scale and of the place).
"""

import jax
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.adaptors import Adaptor
from janus_jax.model.config import JanusConfig
from janus_jax.model.janus import Janus
from janus_jax.model.layers import weight
from janus_jax.model.multiscale import MultiscaleTokenizer

STD = 0.02  # of the places' vectors at first, that of the text's embeddings


class ScaleAdaptor(Adaptor):
    """An `Adaptor` that adds the vectors of the places."""

    def __init__(self, d_in: int, width: int, places: int, dtype, rngs: nnx.Rngs):
        super().__init__(d_in, width, dtype, rngs)
        self.positions = weight(rngs, (places, width), sh.W_NC, STD)

    def __call__(self, x, first: int = 0):  # [B, n, C] at places first... -> [B, n, D]
        n = x.shape[1]
        x = super().__call__(x)
        positions = jax.sharding.reshard(self.positions[...].astype(x.dtype), sh.REPLICATED)
        return jax.sharding.reshard(x + positions[first : first + n], sh.ACT_BTD)


class NextScale(Janus):
    """Janus with a `MultiscaleTokenizer`, whose N ids of a picture lie one scale after the other."""

    def __init__(self, config: JanusConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        vq = config.generation_encoder
        del self.generation_embedding
        self.generation_encoder = MultiscaleTokenizer(vq, rngs)
        self.generation_adaptor = ScaleAdaptor(
            vq.code_dim, config.transformer.width, vq.tokens, config.dtype, rngs
        )

    def embed_image_ids(self, ids):  # int32 [B, G*N] -> [B, G*N, D], what each is predicted from
        own = ids.reshape(-1, self.config.generation_encoder.tokens, out_sharding=sh.BATCH)
        known = jax.lax.stop_gradient(self.generation_encoder.before(own))
        x = self.generation_adaptor(known)
        return x.reshape(*ids.shape, -1, out_sharding=sh.ACT_BTD)
