"""The log-probability of what a packed row supervises, as the decoder draws it: text tokens under the
text head, image ids under the image head, each given what stands before it in its segment.

Where guidance draws a picture (paper section 3.4), its id is drawn from softmax(logits / temperature)
of the logits cfg_scale * conditional + (1 - cfg_scale) * unconditional. The unconditional branch is a
segment of the same row, the picture's twin: the same ids behind a prompt of pad, which supervises
nothing. The last map of the image head is linear, so the mixture is taken of what it reads.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.model.kernels import precision
from janus_jax.training.loss import rows_at_once, token_losses


def log_probabilities(model, batch, image_ids, temperature: float = 1.0):
    """Float32 [B, T]: log p of the token or image id that each position is to predict; 0 where it
    predicts nothing.

    batch: as in model.batch; image_ids: int32 [B, G*N], as `Janus.image_ids` gives them.
    temperature: above 0, a number or a scalar array. Differentiable in the model.
    """
    return _of_hidden(model, model(batch, image_ids), batch, image_ids, temperature)


def guided(model, batch, image_ids, cfg_scale: float, temperature: float = 1.0):
    """`log_probabilities` with image ids as guidance draws them; text is not guided.

    batch: with "twins" beside, int32 [B, T]: 1 + the place of the same id in the unconditional twin
        for each position that predicts an image id (see `twin_places`), 0 elsewhere.
    cfg_scale, a number or a scalar array: as of `generate`, 1 is the conditional branch alone, 0
        the unconditional.
    """
    hidden = model(batch, image_ids)
    return _of_hidden(model, hidden, batch, image_ids, temperature, cfg_scale)


def by_segment(values, segments, n: int):
    """Float32 [B, n]: the sums of values [B, T] over the segments 1 to n of each row; segments: int32
    [B, T], "segment_ids" of a batch."""
    numbers = jnp.arange(1, n + 1)
    return jnp.where(segments[:, None] == numbers[:, None], values[:, None], 0.0).sum(-1)


def twin_places(segment_ids: np.ndarray, image_targets: np.ndarray, pairs) -> np.ndarray:
    """The "twins" of a row, int32 [T], see `guided`.

    segment_ids, image_targets: of the row, int32 [T]; pairs: (segment of a picture, segment of its
        twin), which end alike: prompts may differ in length.
    """
    out = np.zeros(len(segment_ids), np.int32)
    for own, twin in pairs:
        ends = [int(np.flatnonzero(segment_ids == number)[-1]) for number in (own, twin)]
        at = np.flatnonzero((segment_ids == own) & (image_targets > 0))
        out[at] = 1 + at + ends[1] - ends[0]
    return out


def _of_hidden(model, hidden, batch, ids, temperature, cfg_scale=None):
    found = token_log_probabilities(
        model.text_head.linear, hidden, batch["text_targets"], temperature
    )
    if not ids.shape[1]:
        return found

    def of_ids(linear, x, targets):
        if cfg_scale is not None:
            there = jnp.maximum(batch["twins"] - 1, 0)[..., None]
            other = jnp.take_along_axis(x, there, axis=1).astype(jnp.float32)
            x = (cfg_scale * x.astype(jnp.float32) + (1 - cfg_scale) * other).astype(x.dtype)
        return (token_log_probabilities(linear, x, targets, temperature),)

    return found + model.image_head.loss(hidden, ids, batch, of_ids)


def token_log_probabilities(linear, x, targets, temperature: float = 1.0):
    """Float32 [B, T]: log p of each target under softmax(linear(x) / temperature), 0 where it is
    IGNORE.

    linear: a `layers.Linear`, [D, V]; x [B, T, D]; targets int32 [B, T]. As in `loss.token_losses`
        the logits of supervised tokens alone are made, chunk by chunk; for gradients they are made
        again, since a token's weight is not known before its probability is.
    """
    v = linear.kernel.shape[1]
    bias = linear.bias[...] if linear.bias is not None else jnp.zeros(v, out_sharding=sh.B_F)
    x = x.astype(jnp.float32) / temperature  # of inputs rather than of whole vocabularies
    return _picked(linear.kernel[...], bias / temperature, x.astype(linear.dtype), targets)


@dataclasses.dataclass(frozen=True)
class _Map:
    """What `token_losses` reads of a linear map."""

    kernel: jax.Array
    bias: jax.Array
    dtype: jnp.dtype


@jax.custom_vjp
def _picked(kernel, bias, x, targets):
    return -token_losses(_Map(kernel, bias, x.dtype), x, targets)[1]


def _forward(*given):
    wanted = tuple(x.perturbed for x in given[:3])
    values = tuple(x.value for x in given)
    # Residuals hold arrays alone: a frozen head, which has no gradient to make, is a None among ().
    return _picked(*values), (values, [() if want else None for want in wanted])


def _backward(kept, cotangent):
    values, marks = kept
    wanted = tuple(mark is not None for mark in marks)
    if not any(wanted) or isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    specs = sh.W_DF, sh.B_F, sh.ACT_BTD
    out = tuple(spec for spec, want in zip(specs, wanted) if want)
    local = functools.partial(_gradients, wanted=wanted)
    found = iter(sh.per_device(local, (*specs, sh.BATCH, sh.BATCH), out)(*values, cotangent))
    made = (next(found) if want else None for want in wanted)
    return *(None if g is None else g.astype(v.dtype) for g, v in zip(made, values)), None


_picked.defvjp(_forward, _backward, symbolic_zeros=True)


def _gradients(kernel, bias, x, targets, weights, wanted):
    """Of the sum of weights * log p, of one device, as `loss._local` lies: by kernel, bias and x,
    those that are wanted."""
    shape = x.shape
    dtype = x.dtype
    x, targets, weights = x.reshape(-1, shape[-1]), targets.reshape(-1), weights.reshape(-1)
    kernel = sh.gather_rows(kernel.astype(dtype))
    n, v = len(targets), kernel.shape[1]
    chunk = rows_at_once(n, v)
    there = targets != bt.IGNORE
    count = there.sum()
    if sh.tensor_shards() > 1:
        count = sh.largest(count)
    order = jnp.pad(jnp.argsort(~there, stable=True), (0, -n % chunk), constant_values=n)
    product = functools.partial(
        jnp.matmul, precision=precision(dtype), preferred_element_type=jnp.float32
    )

    def add(i, carry):
        d_kernel, d_bias, d_x = carry
        at = jax.lax.dynamic_slice_in_dim(order, i * chunk, chunk)
        own = x.at[at].get(mode="fill", fill_value=0)
        target = targets.at[at].get(mode="fill", fill_value=bt.IGNORE)[:, None]
        weight = weights.at[at].get(mode="fill", fill_value=0)[:, None]
        hit = target - sh.tensor_index() * v == jnp.arange(v)
        logits = product(own, kernel) + bias
        top = sh.largest_of_vocabulary(logits.max(-1))[:, None]
        total = sh.sum_of_vocabulary(jnp.exp(logits - top).sum(-1))[:, None]
        error = jnp.where(target == bt.IGNORE, 0, weight * (hit - jnp.exp(logits - top) / total))
        d_bias = d_bias + error.sum(0) if wanted[1] else d_bias
        error = error.astype(dtype)
        d_kernel = d_kernel + product(own.T, error) if wanted[0] else d_kernel
        if wanted[2]:
            back = sh.sum_of_vocabulary(product(error, kernel.T)).astype(dtype)
            d_x = d_x.at[at].set(back, mode="drop")
        return d_kernel, d_bias, d_x

    kinds = (kernel, jnp.float32), (bias, jnp.float32), (x, dtype)
    start = tuple(jnp.zeros(a.shape if w else (), kind) for (a, kind), w in zip(kinds, wanted))
    d_kernel, d_bias, d_x = jax.lax.fori_loop(0, -(-count // chunk), add, start)
    gradients = (
        lambda: sh.sum_to_rows(d_kernel),
        lambda: sh.sum_over_rows(d_bias),
        lambda: d_x.reshape(shape),
    )
    return tuple(make() for make, want in zip(gradients, wanted) if want)
