"""Figure 2, wired. Every label of the figure is one child (`model.config.CHILDREN`)."""

import copy
import importlib

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.model.adaptors import Adaptor, Embedding
from janus_jax.model.config import JanusConfig
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.heads import ImageHead, TextHead
from janus_jax.model.keys import Keys
from janus_jax.model.layers import filled, of_filled, with_whole_weights
from janus_jax.model.transformer import Transformer
from janus_jax.model.understanding_encoder import encoder


class Janus(nnx.Module):
    """One autoregressive transformer with two eyes (arXiv 2410.13848, section 3.1)."""

    def __init__(self, config: JanusConfig, rngs: nnx.Rngs):
        llm = config.transformer
        vq = config.generation_encoder
        d = llm.width
        dtype = config.dtype
        how = dtype, config.remat, config.attention, rngs
        self.text_embedding = Embedding(llm.vocabulary, d, sh.W_VD, dtype, rngs, std=0.02)
        self.understanding_encoder = encoder(config.understanding_encoder, *how)
        self.understanding_adaptor = Adaptor(config.read_widths[0], d, dtype, rngs)
        self.generation_encoder = GenerationEncoder(vq, rngs)
        self.generation_embedding = Embedding(
            vq.codebook_size, vq.code_dim, sh.REPLICATED, dtype, rngs, std=vq.code_dim**-0.5
        )
        self.generation_adaptor = Adaptor(vq.code_dim, d, dtype, rngs)
        self.transformer = Transformer(llm, *how)
        self.text_head = TextHead(d, llm.vocabulary, dtype, rngs)
        self.image_head = ImageHead(d, config.image_head_width, vq.codebook_size, dtype, rngs)
        self.config = config
        if config.senses:
            importlib.import_module("janus_jax.model.senses.wiring").add(self, rngs)

    def embed_images(self, images):  # [B, H, W, 3] in [-1, 1] -> [B, N, D]
        x = self.understanding_encoder(images)
        if (times := self.config.understanding_encoder.pixel_shuffle) > 1:
            x = importlib.import_module("janus_jax.model.pixel_shuffle").pixel_shuffle(x, times)
        return self.understanding_adaptor(x)

    def gathered(self):  # itself with its tower's weights whole
        whole = copy.copy(self)
        tower = self.understanding_encoder
        whole.understanding_encoder = with_whole_weights(tower, self.config.dtype)
        return whole

    def embed_image_ids(self, ids):  # int32 [B, N] -> [B, N, D]
        return self.generation_adaptor(self.generation_embedding(ids))

    def embed_drawn(self, ids, at, cache):  # int32 [B, 1], int32 [B] -> [B, 1, D], cache
        """`embed_image_ids` at places `at` of pictures whose earlier ids the cache knows."""
        return self.embed_image_ids(ids), cache

    def blank_drawn(self, rows: int) -> list:  # of `embed_drawn`, before the first id
        return []

    def image_ids(self, batch):  # a batch as in model.batch -> int32 [B, G*N]
        """Those that the batch brings, or those of its images that exist, by the frozen
        tokenizer."""
        brought = "image_ids" in batch
        images = batch["image_ids" if brought else "generation_images"]
        if images.shape[1] == 0:
            return jnp.zeros((len(images), 0), jnp.int32)
        if brought:
            return images.reshape(len(images), -1)
        n = self.config.generation_encoder.tokens
        if "generation_sizes" in batch:
            sized = importlib.import_module("janus_jax.model.sized")
            how = self.config.generation_encoder, images, batch["generation_sizes"]
            ids = sized.image_ids(self.generation_encoder, *how)
            return ids.reshape(len(ids), -1)
        encode = lambda x: self.generation_encoder.encode(bt.pixels(x))
        ids = of_filled(encode, images, filled(bt.image_slots(batch), n))
        return ids.reshape(len(ids), -1, *ids.shape[3:])

    def read(self, batch, image_ids):
        """What slots read: (their kind, features [B, K, D]) of each kind that the batch brings."""
        images = batch["understanding_images"]
        if images.shape[1]:
            seeing = self.gathered() if images.shape[1] > 1 else self
            encode = lambda images: seeing.embed_images(floats(images))
            tokens = self.config.understanding_encoder.tokens
            features = of_filled(encode, images, filled(batch["understanding_slots"], tokens))
            d = self.config.transformer.width
            yield "understanding", features.reshape(len(images), -1, d, out_sharding=sh.BATCH)
        if image_ids.shape[1]:
            yield "generation", self.embed_image_ids(image_ids)
        if self.config.senses:
            yield from importlib.import_module("janus_jax.model.senses.wiring").read(self, batch)

    def embed(self, batch, image_ids):
        """Text embeddings, overwritten where a slot says so: [B, T, D].

        batch: as in model.batch; its understanding_images [B, M, H, W, 3] may be pixels as floats,
            and a row's own come first among its M. image_ids: int32 [B, G*N].
        """
        x = self.text_embedding(batch["tokens"])
        for kind, features in self.read(batch, image_ids):
            x = overwrite(x, features, batch[f"{kind}_slots"])
        return x

    def __call__(self, batch, image_ids):
        """Packed rows to hidden states [B, T, D] after the final norm. See `embed`."""
        x = self.embed(batch, image_ids)
        return self.transformer(x, batch["positions"], batch["segment_ids"], batch.get("ahead"))


def floats(images):
    """Pixels in [-1, 1] of uint8 images; floats are pixels already."""
    return bt.pixels(images) if images.dtype == jnp.uint8 else images


def overwrite(x, features, slots):
    """x [B, T, D] with features[b, slots[b, t] - 1] wherever slots[b, t] > 0."""
    taken = jnp.take_along_axis(features, jnp.maximum(slots - 1, 0)[..., None], axis=1)
    return jnp.where((slots > 0)[..., None], taken.astype(x.dtype), x)


def build(config: JanusConfig, rngs: nnx.Rngs) -> Janus:
    """Janus, an ablation of it, or one that draws scales; their files are loaded where they are used."""
    if config.is_janus:
        return Janus(config, rngs)
    if config.drawing == "scales":
        return importlib.import_module("janus_jax.model.next_scale").NextScale(config, rngs)
    return importlib.import_module("janus_jax.model.ablations").Ablated(config, rngs)


def abstract(config: JanusConfig) -> Janus:
    """The model's shapes and shardings on the current mesh, nothing allocated."""
    return jax.eval_shape(lambda: build(config, Keys(jax.random.key(0))))
