"""Masked next-token cross-entropy over text and image tokens (paper section 3.3, equation 1).

One sum over all supervised tokens of the global batch divided by their number; no weights between tasks.
"""

import jax
import jax.numpy as jnp

from janus_jax import batch as bt

CHUNK = 512  # tokens of a row whose logits are held at once


def token_losses(head, hidden, targets):
    """-log p(target) at each position, float32 [B, T]; 0 where the target is IGNORE.

    hidden [B, T, D]; targets int32 [B, T]. Logits are made for CHUNK positions at a time, and made again in
    the backward pass.
    """
    b, t, d = hidden.shape
    if t <= CHUNK:
        return chunk_losses(head, hidden, targets)
    pad = -t % CHUNK
    hidden = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, pad)), constant_values=bt.IGNORE)
    chunks = hidden.reshape(b, -1, CHUNK, d).swapaxes(0, 1), targets.reshape(b, -1, CHUNK).swapaxes(0, 1)
    _, out = jax.lax.scan(jax.checkpoint(lambda _, xs: (None, chunk_losses(head, *xs))), None, chunks)
    return out.swapaxes(0, 1).reshape(b, -1)[:, :t]


def chunk_losses(head, hidden, targets):
    logits = head(hidden)  # float32 [B, C, V]; V is split, so a select and a sum instead of a gather
    hit = targets[..., None] == jnp.arange(logits.shape[-1])
    losses = jax.nn.logsumexp(logits, -1) - jnp.where(hit, logits, 0).sum(-1)
    return jnp.where(targets == bt.IGNORE, 0.0, losses)


def image_ids(model, batch):
    """int32 [B, G*N]: from the batch, or from its pictures through the frozen tokenizer, one slot at a time."""
    if "image_ids" in batch:
        return batch["image_ids"].reshape(batch["image_ids"].shape[0], -1)
    slots = bt.pixels(batch["images"]).swapaxes(0, 1)
    if slots.shape[0] == 0:
        return jnp.zeros((slots.shape[1], 0), jnp.int32)
    ids = jax.lax.map(model.generation_encoder.encode, slots)  # [G, B, N]
    return ids.swapaxes(0, 1).reshape(ids.shape[1], -1)


def janus_loss(model, batch):
    """(loss, metrics): the mean over supervised tokens, and means by task; metrics are float32 scalars."""
    ids = image_ids(model, batch)
    hidden = model(
        batch["tokens"], bt.pixels(batch["pictures"]), ids, batch["picture_slots"], batch["image_slots"],
        batch["positions"], batch["segment_ids"],
    )  # fmt: skip
    text_targets, image_slots = batch["text_targets"], batch["image_targets"]
    text = token_losses(model.text_head, hidden, text_targets)
    if ids.shape[1]:
        target = jnp.take_along_axis(ids, jnp.maximum(image_slots - 1, 0), axis=1)
        image = token_losses(model.image_head, hidden, jnp.where(image_slots > 0, target, bt.IGNORE))
    else:
        image = jnp.zeros_like(text)
    sums = {
        "understanding": (
            jnp.where(batch["tasks"] == 1, text, 0),
            (text_targets >= 0) & (batch["tasks"] == 1),
        ),
        "text": (jnp.where(batch["tasks"] == 2, text, 0), (text_targets >= 0) & (batch["tasks"] == 2)),
        "generation": (image, image_slots > 0),
    }
    sums = {task: (x.sum(), n.sum().astype(jnp.float32)) for task, (x, n) in sums.items()}
    count = sum(n for _, n in sums.values())
    loss = sum(x for x, _ in sums.values()) / jnp.maximum(count, 1.0)
    metrics = {f"{task}_loss": x / jnp.maximum(n, 1.0) for task, (x, n) in sums.items()}
    shares = {f"tokens_{task}": n / jnp.maximum(count, 1.0) for task, (_, n) in sums.items()}
    return loss, metrics | shares
