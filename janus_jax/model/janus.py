"""Figure 2, wired. Every label of the figure is one child (`model.config.CHILDREN`)."""

import copy

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax import sharding as sh
from janus_jax.model.adaptors import Adaptor, Embedding
from janus_jax.model.config import JanusConfig
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.heads import ImageHead, TextHead
from janus_jax.model.layers import Int8Linear, causal_mask, layer
from janus_jax.model.transformer import Transformer, Unrolled
from janus_jax.model.understanding_encoder import UnderstandingEncoder


class Janus(nnx.Module):
    """One autoregressive transformer with two eyes (arXiv 2410.13848, section 3.1)."""

    def __init__(self, config: JanusConfig, rngs: nnx.Rngs):
        llm, vq, tower, dtype = (
            config.transformer, config.generation_encoder, config.understanding_encoder, config.dtype,
        )  # fmt: skip
        d = llm.width
        self.text_embedding = Embedding(llm.vocabulary, d, sh.W_VD, dtype, rngs, std=0.02)
        self.understanding_encoder = UnderstandingEncoder(tower, dtype, config.remat, rngs)
        self.understanding_adaptor = Adaptor(tower.width, d, dtype, rngs)
        self.generation_encoder = GenerationEncoder(vq, rngs)
        self.generation_embedding = Embedding(
            vq.codebook_size, vq.code_dim, sh.REPLICATED, dtype, rngs, std=vq.code_dim**-0.5
        )
        self.generation_adaptor = Adaptor(vq.code_dim, d, dtype, rngs, sh.W_CF)
        self.transformer = Transformer(llm, dtype, config.remat, rngs)
        self.text_head = TextHead(d, llm.vocabulary, dtype, rngs)
        self.image_head = ImageHead(d, config.image_head_width, vq.codebook_size, dtype, rngs)
        self.config = config

    def embed_pictures(self, images):  # [B, H, W, 3] in [-1, 1] -> [B, N, D]
        return self.understanding_adaptor(self.understanding_encoder(images))

    def embed_image_ids(self, ids):  # int32 [B, N] -> [B, N, D]
        return self.generation_adaptor(self.generation_embedding(ids))

    def embed(self, tokens, pictures, image_ids, picture_slots, image_slots):
        """Text embeddings, overwritten where a slot says so.

        tokens int32 [B, T]; pictures [B, M, H, W, 3]; image_ids int32 [B, G*N]; slots int32 [B, T], 0 for
        text, else 1 + the index into the row's M*N picture tokens or G*N image ids. Returns [B, T, D].
        """
        x = self.text_embedding(tokens)
        b, m = pictures.shape[:2]
        if m:
            flat = pictures.reshape(b * m, *pictures.shape[2:], out_sharding=sh.BATCH)
            features = self.embed_pictures(flat).reshape(b, -1, x.shape[-1], out_sharding=sh.BATCH)
            x = overwrite(x, features, picture_slots)
        if image_ids.shape[1]:
            x = overwrite(x, self.embed_image_ids(image_ids), image_slots)
        return x

    def __call__(self, tokens, pictures, image_ids, picture_slots, image_slots, positions, segment_ids):
        """Packed rows to hidden states [B, T, D] after the final norm (see `embed`; positions and
        segment_ids int32 [B, T])."""
        x = self.embed(tokens, pictures, image_ids, picture_slots, image_slots)
        return self.transformer(x, positions, causal_mask(segment_ids))


def overwrite(x, features, slots):
    """x [B, T, D] with features[b, slots[b, t] - 1] wherever slots[b, t] > 0."""
    taken = jnp.take_along_axis(features, jnp.maximum(slots - 1, 0)[..., None], axis=1)
    return jnp.where((slots > 0)[..., None], taken.astype(x.dtype), x)


def abstract(config: JanusConfig) -> Janus:
    """The model's shapes and shardings on the current mesh, nothing allocated."""
    return jax.eval_shape(lambda: Janus(config, nnx.Rngs(0)))


def serving(model: Janus, int8: bool = False, layers=None) -> Janus:
    """The model with an `Unrolled` transformer and the tower's layers in a list, and with int8 heads and
    transformer if asked; the rest is shared. A model that has one already is returned as it is.

    layers(box) gives the layers of the box of that name one by one, by default those of the model.
    """
    if isinstance(model.transformer, Unrolled):
        return model
    if layers is None:
        boxes = {"transformer": model.transformer, "understanding_encoder": model.understanding_encoder}
        count = lambda blocks: len(jax.tree.leaves(blocks)[0])
        layers = lambda box: (layer(boxes[box].blocks, i) for i in range(count(boxes[box].blocks)))
    stacked, kind = model.transformer, jax.jit(Int8Linear) if int8 else lambda linear: linear
    served, head = copy.copy(model), model.image_head
    served.transformer = Unrolled(stacked.config, stacked.dtype, layers("transformer"), stacked.norm, int8)
    served.understanding_encoder = copy.copy(model.understanding_encoder)
    served.understanding_encoder.blocks = nnx.List(layers("understanding_encoder"))
    served.text_head, served.image_head = copy.copy(model.text_head), copy.copy(head)
    served.text_head.linear = kind(model.text_head.linear)
    served.image_head.fc1, served.image_head.fc2 = kind(head.fc1), kind(head.fc2)
    return served
