"""Figure 2, "Text De-Tokenizer" head and "Image Decoder" head: hidden states (after the norm) to
logits."""

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.batch import IGNORE
from janus_jax.model.layers import Linear


class TextHead(nnx.Module):
    """One linear map without bias, never tied to the embeddings."""

    def __init__(self, width: int, vocabulary: int, dtype, rngs: nnx.Rngs):
        self.linear = Linear(width, vocabulary, sh.W_DF, sh.ACT_BTV, dtype, rngs, bias=False)

    def __call__(self, x):  # [B, T, D] -> float32 [B, T, V]
        return self.linear(x).astype(jnp.float32)


class ImageHead(nnx.Module):
    """Linear, exact GELU, Linear to the image codebook."""

    def __init__(self, width: int, hidden: int, codebook: int, dtype, rngs: nnx.Rngs):
        self.fc1 = Linear(width, hidden, sh.W_DD, sh.ACT_BTD, dtype, rngs)
        self.fc2 = Linear(hidden, codebook, sh.W_DF, sh.ACT_BTV, dtype, rngs)

    def __call__(self, x):  # [B, T, D] -> float32 [B, T, codebook]
        return self.fc2(self.features(x)).astype(jnp.float32)

    def loss(self, x, ids, batch, token_losses):  # [B, T, D], [B, G*N] -> summed, float32
        at = batch["image_targets"]
        targets = jnp.where(at > 0, jnp.take_along_axis(ids, jnp.maximum(at - 1, 0), 1), IGNORE)
        return token_losses(self.fc2, self.features(x), targets)[0]

    def features(self, x):  # [B, T, D] -> [B, T, hidden], what `fc2` makes logits of
        return jax.nn.gelu(self.fc1(x), approximate=False)
