"""Masked next-token cross-entropy over text and image tokens (paper section 3.3, equation 1).

One sum over all supervised tokens of the global batch divided by their number; no weights between
tasks. A head is computed where there is something to predict for it, and nowhere else.
"""

import functools

import jax
import jax.numpy as jnp

from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.model.kernels import precision

# Bytes of float32 logits that a device holds at once: 1,024 tokens of the released vocabulary. More
# would mostly be padding where a device has about that many to learn from.
LOGITS = 400 * 2**20


def token_losses(linear, hidden, targets):
    """The sum of -log p(target) over the supervised tokens, and each token's, 0 where the target is
    IGNORE; float32.

    linear: the `layers.Linear` that makes the logits, [D, V]; hidden [B, T, D]; targets int32 [B,
        T]. Each device gathers its supervised tokens and goes through them chunk by chunk; a
        chunk's logits become its part of the gradients at once, so they are neither kept nor made
        again. Only the sum has a gradient.
    """
    v = linear.kernel.shape[1]
    bias = linear.bias[...] if linear.bias is not None else jnp.zeros(v, out_sharding=sh.B_F)
    total, losses = _summed(linear.kernel[...], bias, hidden.astype(linear.dtype), targets)
    return total, jax.lax.stop_gradient(losses)


@jax.custom_vjp
def _summed(kernel, bias, hidden, targets):
    (losses,) = _on_devices(kernel, bias, hidden, targets, (False,) * 3)
    return losses.sum(), losses


def _forward(*args):
    wanted = tuple(x.perturbed for x in args[:3])  # a frozen head has no gradient to make
    losses, *found = _on_devices(*(x.value for x in args), wanted)
    found = iter(found)
    return (losses.sum(), losses), [next(found) if want else None for want in wanted]


def _backward(gradients, cotangents):
    scale = cotangents[0]
    return *(None if g is None else (g * scale).astype(g.dtype) for g in gradients), None


_summed.defvjp(_forward, _backward, symbolic_zeros=True)


def _on_devices(kernel, bias, hidden, targets, wanted):
    """Losses [B, T], then the gradients of their sum by kernel, bias and hidden states, those that
    are wanted."""
    specs = sh.W_DF, sh.B_F, sh.ACT_BTD
    out = (sh.BATCH, *(spec for spec, want in zip(specs, wanted) if want))
    return sh.per_device(functools.partial(_local, wanted=wanted), (*specs, sh.BATCH), out)(
        kernel, bias, hidden, targets
    )


def rows_at_once(n: int, v: int) -> int:
    """Of n tokens of a device those whose v logits it makes at once."""
    return min(n, max(256, LOGITS // (4 * v) // 256 * 256))


def _local(kernel, bias, hidden, targets, wanted):
    """`_on_devices` of one device: its rows, its columns of the vocabulary, its part of the
    kernel."""
    shape = hidden.shape
    dtype = hidden.dtype
    hidden = hidden.reshape(-1, shape[-1])
    targets = targets.reshape(-1)
    kernel = sh.gather_rows(kernel.astype(dtype))  # [D, V'], cast first: half the bytes travel
    n = len(targets)
    v = kernel.shape[1]
    chunk = rows_at_once(n, v)
    first = sh.tensor_index() * v
    count = (targets != bt.IGNORE).sum()
    if sh.tensor_shards() > 1:
        # The loop's sums over the vocabulary are reached by all equally often.
        count = sh.largest(count)
    order = jnp.argsort(targets == bt.IGNORE, stable=True)
    order = jnp.pad(order, (0, -n % chunk), constant_values=n)
    exact = precision(dtype)
    product = functools.partial(jnp.matmul, precision=exact, preferred_element_type=jnp.float32)

    def add(i, carry):
        losses, d_kernel, d_bias, d_hidden = carry
        at = jax.lax.dynamic_slice_in_dim(order, i * chunk, chunk)
        h = hidden.at[at].get(mode="fill", fill_value=0)
        target = targets.at[at].get(mode="fill", fill_value=bt.IGNORE)
        there = (target != bt.IGNORE)[:, None]
        hit = (target[:, None] - first == jnp.arange(v)) & there
        logits = product(h, kernel) + bias
        top = sh.largest_of_vocabulary(logits.max(-1))[:, None]
        lse = top + jnp.log(sh.sum_of_vocabulary(jnp.exp(logits - top).sum(-1)))[:, None]
        picked = sh.sum_of_vocabulary(jnp.where(hit, logits, 0).sum(-1))
        losses = losses.at[at].set(jnp.where(there[:, 0], lse[:, 0] - picked, 0), mode="drop")
        if any(wanted):
            error = jnp.where(there, jnp.exp(logits - lse) - hit, 0)
            d_bias = d_bias + error.sum(0) if wanted[1] else d_bias
            error = error.astype(dtype)
            d_kernel = d_kernel + product(h.T, error) if wanted[0] else d_kernel
            if wanted[2]:
                back = sh.sum_of_vocabulary(product(error, kernel.T)).astype(dtype)
                d_hidden = d_hidden.at[at].set(back, mode="drop")
        return losses, d_kernel, d_bias, d_hidden

    start = [jnp.zeros(n)]
    for x, kept, want in zip((kernel, bias, hidden), (jnp.float32, jnp.float32, dtype), wanted):
        start.append(jnp.zeros(x.shape if want else (), kept))
    losses, d_kernel, d_bias, d_hidden = jax.lax.fori_loop(0, -(-count // chunk), add, tuple(start))
    gradients = (
        lambda: sh.sum_to_rows(d_kernel.astype(dtype)).astype(jnp.float32),
        lambda: sh.sum_over_rows(d_bias),
        lambda: d_hidden.reshape(shape),
    )
    return losses.reshape(shape[:2]), *(make() for make, want in zip(gradients, wanted) if want)


def counts(batch) -> dict:
    """task -> how many tokens of the batch are supervised for it, float32."""
    text = batch["text_targets"] != bt.IGNORE
    supervised = {
        "understanding": text & (batch["tasks"] == 1),
        "text": text & (batch["tasks"] == 2),
        "generation": batch["image_targets"] > 0,
    }
    return {task: there.sum().astype(jnp.float32) for task, there in supervised.items()}


def janus_loss(model, batch, counted=None):
    """(loss, metrics): the mean over supervised tokens, and means by task; metrics are float32
    scalars.

    counted: `counts` of the whole step where the batch is a part of it; what the parts give then
        adds up.
    """
    counted = counts(batch) if counted is None else counted
    ids = model.image_ids(batch)
    hidden = model(batch, ids)
    total, text = token_losses(model.text_head.linear, hidden, batch["text_targets"])
    sums = {
        task: jnp.where(batch["tasks"] == 1 + i, text, 0).sum()
        for i, task in enumerate(bt.TASKS[:2])
    }
    sums["generation"] = jnp.float32(0)
    if ids.shape[1]:
        sums["generation"] = model.image_head.loss(hidden, ids, batch, token_losses)
        total = total + sums["generation"]
    count = jnp.maximum(sum(counted.values()), 1.0)
    metrics = {f"{task}_loss": x / jnp.maximum(counted[task], 1.0) for task, x in sums.items()}
    here = counts(batch)
    metrics |= {f"tokens_{task}": n / count for task, n in here.items()}
    metrics["supervised_tokens"] = sum(here.values())
    return total / count, metrics
