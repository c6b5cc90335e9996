"""The image head of tokens that are several codes: the depth transformer of RQ-Transformer (arXiv
2203.01941, section 3.2), in place of logits over one code.

A small causal transformer goes over the d codes of one token: its first place reads the language
model's hidden state, place j the sum of the embeddings of the codes before j, and predicts code j.
The codes of the same token only; what came before is in the hidden state.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.adaptors import Embedding
from janus_jax.model.batch import IGNORE
from janus_jax.model.config import JanusConfig, TransformerConfig
from janus_jax.model.diffusion_head import predicting
from janus_jax.model.kernels import einsum
from janus_jax.model.layers import REMAT, Linear, weight
from janus_jax.model.transformer import TransformerBlock


def layer_sizes(config: JanusConfig) -> TransformerConfig:
    """Of its layers: those of the language model but for their number and width, with heads and MLP in
    proportion."""
    llm = config.transformer
    w = config.image_head_width
    return dataclasses.replace(
        llm, width=w, layers=config.image_head_layers, heads=llm.heads * w // llm.width,
        mlp_width=llm.mlp_width * w // llm.width,
    )  # fmt: skip


class DepthHead(nnx.Module):
    """Hidden states and codes to logits of each code. W is `image_head_width`, D the language model's
    width, d the tokenizer's `depth`. Its table of codes is its own, beside `generation_embedding`."""

    def __init__(self, config: JanusConfig, rngs: nnx.Rngs):
        vq = config.generation_encoder
        w = config.image_head_width
        c = vq.code_dim
        box = layer_sizes(config)
        self.depth = vq.depth
        self.remat = config.remat
        self.hidden_in = Linear(
            config.transformer.width, w, sh.W_DD, sh.ACT_BTD, config.dtype, rngs
        )
        self.codes = Embedding(vq.codebook_size, c, sh.REPLICATED, config.dtype, rngs, std=c**-0.5)
        self.codes_in = Linear(c, w, sh.W_DD, sh.ACT_BTD, config.dtype, rngs)
        self.positions = weight(rngs, (vq.depth, w), sh.REPLICATED, 0.02)
        self.blocks = nnx.List([
            TransformerBlock(box, config.dtype, rngs) for _ in range(box.layers)
        ])  # fmt: skip
        self.norm = nnx.RMSNorm(w, epsilon=box.norm_eps, dtype=config.dtype, rngs=rngs)
        self.fc2 = Linear(w, vq.codebook_size, sh.W_DF, sh.ACT_BTV, config.dtype, rngs)

    def __call__(self, hidden, ids):
        """Logits of each code given those before it: hidden [B, N, D], ids int32 [B, N, d], of which the
        last is not read; float32 [B, N * d, codebook]."""
        return self.fc2(self.features(hidden, ids)).astype(jnp.float32)

    def features(self, hidden, ids):  # as `__call__` -> [B, N * d, W], what `fc2` makes logits of
        b, n, d = ids.shape
        codes = self.codes(ids.reshape(b, n * d)).reshape(b, n, d, -1)
        before = jnp.cumsum(codes[:, :, :-1], 2)
        before = self.codes_in(before.reshape(b, n * (d - 1), -1)).reshape(b, n, d - 1, -1)
        x = jnp.concatenate([self.hidden_in(hidden)[:, :, None], before], 2)
        x = (x + self.positions[...].astype(x.dtype)).reshape(b, n * d, -1)
        layer = jax.checkpoint(lambda block, x: block(x, over(d), None), policy=REMAT[self.remat])
        for block in self.blocks:
            x = layer(block, x)
        return self.norm(x)

    def loss(self, x, ids, batch, token_losses):
        """The cross-entropy of the codes, the mean over depth, summed over the tokens to predict: nats a
        code, float32.

        x: hidden states [B, T, D]. ids: int32 [B, G*N, d]. batch: as in model.batch.
        """
        there, hidden = predicting(x, batch["image_targets"], ids.shape[1])
        targets = jnp.where(there[..., None], ids, IGNORE).reshape(len(ids), -1)
        return token_losses(self.fc2, self.features(hidden, ids), targets)[0] / self.depth


def over(d: int):
    """Causal attention within each d neighbours: q, k, v [B, N * d, H, K] -> [B, N * d, H, K]."""

    def attend(q, k, v):
        b, t, *heads = q.shape
        q, k, v = (x.reshape(b, t // d, d, *heads) for x in (q, k, v))
        scores = einsum("bnihk,bnjhk->bnhij", q, k) * q.shape[-1] ** -0.5
        seen = jnp.arange(d) <= jnp.arange(d)[:, None]
        weights = jax.nn.softmax(jnp.where(seen, scores, -1e30)).astype(v.dtype)
        y = einsum("bnhij,bnjhk->bnihk", weights, v)
        return y.astype(v.dtype).reshape(b, t, *heads)

    return attend
