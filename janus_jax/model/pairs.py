"""The sigmoid loss over all pairs of a batch, and who finds whose text, in chunks (SigLIP, arXiv
2303.15343, section 3.3).

Each device keeps its images; the texts travel from device to device until all have met. A device
holds the scores of its own images and one device's texts at a time, and makes gradients of them at
once: those of texts travel with the texts, and come home with them.

Pairs whose texts are the same token for token are positives too, where SigLIP counts all but the
diagonal as negatives: in a batch of short captions many are the same, and their pictures are no
negatives. Letters: B pairs of the batch, b of a device, T tokens, C width.
"""

import jax
import jax.numpy as jnp

from janus_jax.model import sharding as sh
from janus_jax.model.kernels import einsum

SPLIT = (sh.BATCH, sh.BATCH, sh.BATCH, sh.REPLICATED, sh.REPLICATED)


@jax.custom_vjp
def pair_loss(images, texts, tokens, t, b):
    """The mean over images of the sum over texts of -log sigmoid(+-(exp(t) * cosine + b)).

    Args:
        images: float32 [B, C], of length 1.
        texts: float32 [B, C], of length 1; row i belongs to image i.
        tokens: int32 [B, T], of the texts.
        t: float32 [1], the logarithm of the temperature.
        b: float32 [1], the bias.
    """
    return _forward(images, texts, tokens, t, b)[0]


def _forward(images, texts, tokens, t, b):
    out = (sh.REPLICATED, sh.BATCH, sh.BATCH, sh.REPLICATED, sh.REPLICATED)
    loss, *gradients = sh.per_device(_loss_of_device, SPLIT, out)(images, texts, tokens, t, b)
    return loss, gradients


def _backward(gradients, g):
    images, texts, t, b = (g * x for x in gradients)
    return images, texts, None, t, b


pair_loss.defvjp(_forward, _backward)


def _loss_of_device(x, y, tokens, t, b):
    """(loss, its gradients by x, y, t and b) from a device's images and texts."""
    scale = jnp.exp(t)

    def meet(totals, travelling):
        y, others, dy = travelling
        loss, dx, dt, db = totals
        cosine = einsum("ic,jc->ij", x, y)
        sign = jnp.where(same_rows(tokens, others), 1.0, -1.0)
        z = sign * (scale * cosine + b)
        g = -sign * jax.nn.sigmoid(-z)  # of the loss by each logit
        loss = loss + jax.nn.softplus(-z).sum()
        dx = dx + scale * einsum("ij,jc->ic", g, y)
        dy = dy + scale * einsum("ij,ic->jc", g, x)
        return (loss, dx, dt + (g * cosine).sum() * scale, db + g.sum()), (y, others, dy)

    zero = jnp.zeros_like(t)
    totals = (jnp.float32(0), jnp.zeros_like(x), zero, zero)
    totals, (_, _, dy) = _round(meet, totals, (y, tokens, jnp.zeros_like(y)))
    loss, dx, dt, db = totals
    count = len(x) * sh.batch_shards()
    loss, dt, db = (sh.sum_over_rows(value) / count for value in (loss, dt, db))
    return loss, dx / count, dy / count, dt, db


def hits(queries, keys, tokens):
    """Which queries are nearest to a key of their own text: bool [B].

    Args:
        queries: float32 [B, C], embeddings of images, or of texts.
        keys: float32 [B, C], of the others; row i belongs to query i.
        tokens: int32 [B, T], of the texts; equal ones are one text.
    """

    def of_device(x, y, tokens):
        def meet(best, travelling):
            y, others = travelling
            cosine = einsum("ic,jc->ij", x, y)
            same = same_rows(tokens, others)
            of = lambda mask: jnp.where(mask, cosine, -jnp.inf).max(1)
            return (jnp.maximum(best[0], of(same)), jnp.maximum(best[1], of(~same))), travelling

        none = jnp.full(len(x), -jnp.inf)
        (own, other), _ = _round(meet, (none, none), (y, tokens))
        return own > other

    return sh.per_device(of_device, (sh.BATCH,) * 3, sh.BATCH)(queries, keys, tokens)


def same_rows(a, b):  # int32 [n, T], [m, T] -> bool [n, m]
    return (a[:, None] == b).all(-1)


def _round(meet, totals, travelling):
    """`meet(totals, travelling)` once with what each device sent on its way to the next; all of it
    ends where it began."""
    count = sh.batch_shards()
    ring = [(i, (i + 1) % count) for i in range(count)]

    def turn(both, _):
        totals, travelling = meet(*both)
        return (totals, jax.lax.ppermute(travelling, sh.ROWS, ring)), None

    return jax.lax.scan(turn, (totals, travelling), length=count)[0]
