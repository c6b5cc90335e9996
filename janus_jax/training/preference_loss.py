"""Losses of pairs of a chosen thing c and a rejected one r, of a policy p and a frozen reference q.

With s(y) = log p(y) - log q(y), summed over the tokens of y:

    dpo     -log sigmoid(beta * (s(c) - s(r)))                   arXiv 2305.18290, equation 7
    ipo     (s(c) - s(r) - 1 / (2 beta))^2                       arXiv 2310.12036, equation 17
    simpo   -log sigmoid(beta * (m(c) - m(r)) - gamma)           arXiv 2405.14734, equation 6

m(y) is the mean of log p over the tokens of y: simpo has no reference. The reward of y is beta * s(y),
or beta * m(y). `sft` adds the mean cross-entropy of the tokens of all chosen ones, which keeps their
probability from falling together with that of the rejected ones.
"""

import jax
import jax.numpy as jnp

from janus_jax.model import batch as bt
from janus_jax.training.log_probabilities import by_segment

LOSSES = ("dpo", "ipo", "simpo")
OPTIONS = {
    "loss": "dpo",  # one of LOSSES
    "beta": 0.1,  # how far the policy may go from its reference: less is farther
    "gamma": 0.0,  # of simpo, the margin that the chosen one's reward must have
    "sft": 0.0,  # weight of the cross-entropy of the chosen ones
    # Empty: the weights that the stage begins with, kept frozen; else a folder of stored ones, which
    # `janus-jax data reference` makes.
    "reference": "",
}


def needs_reference(options: dict) -> bool:
    return options["loss"] != "simpo"


def preference_losses(policy, reference, tokens, options: dict):
    """(the loss of each pair [...], the rewards of its two halves [..., 2]), float32.

    policy, reference: log-probabilities of the chosen and the rejected one, [..., 2]; tokens: over
        how many each is summed; options: of the task.
    """
    beta = options["beta"]
    if options["loss"] == "simpo":
        rewards = beta * policy / jnp.maximum(tokens, 1)
    else:
        rewards = beta * (policy - reference)
    margins = rewards[..., 0] - rewards[..., 1]
    if options["loss"] == "ipo":
        return jnp.square(margins / beta - 1 / (2 * beta)), rewards
    return -jax.nn.log_sigmoid(margins - options["gamma"]), rewards


def of_halves(values, batch, most: int):
    """Float32 [B, P, 2]: sums of values [B, T] over the halves of each pair; most: P, of a row."""
    sums = by_segment(values, batch["segment_ids"], 2 * most)
    return sums.reshape(len(sums), most, 2)


def facts(batch, most: int) -> dict:
    """Of each pair of a batch: "tokens" of its halves that are predicted, float32 [B, P, 2], and by
    kind whether it is one of it, [B, P]."""
    supervised = (batch["text_targets"] != bt.IGNORE) | (batch["image_targets"] > 0)
    begins = jnp.where(batch["positions"] == 0, batch["tasks"], 0)
    codes = of_halves(begins.astype(jnp.float32), batch, most)[..., 0]
    kinds = {kind: codes == 1 + i for i, kind in enumerate(bt.TASKS)}
    return {"tokens": of_halves(supervised.astype(jnp.float32), batch, most)} | kinds


def pair_counts(batch, most: int) -> dict:
    """How many pairs of each kind a batch has, how many "tokens" of each and of the "chosen" ones
    are predicted; float32 scalars, of parts of a batch to be added up."""
    of = facts(batch, most)
    tokens = of["tokens"].sum(-1)
    return {
        "pairs": {kind: of[kind].sum().astype(jnp.float32) for kind in bt.TASKS},
        "tokens": {kind: jnp.where(of[kind], tokens, 0).sum() for kind in bt.TASKS},
        "chosen": of["tokens"][..., 0].sum(),
    }


def preference_loss(policy, reference, batch, counted: dict, options: dict, kinds=bt.TASKS):
    """(loss, metrics): the mean over pairs, metrics float32 scalars.

    policy, reference: float32 [B, P, 2], as of `of_halves`.
    batch: on devices.
    counted: `pair_counts` of the whole step: what the parts of a batch give adds up.
    options: of the task.
    kinds: those of which there are metrics of their own.
    """
    of = facts(batch, policy.shape[1])
    each, rewards = preference_losses(policy, reference, of["tokens"], options)
    measured = {
        "loss": each,
        "accuracy": (rewards[..., 0] > rewards[..., 1]).astype(jnp.float32),
        "margin": rewards[..., 0] - rewards[..., 1],
        "logp_chosen": policy[..., 0],
        "logp_rejected": policy[..., 1],
    }
    pairs = counted["pairs"]
    total = jnp.maximum(sum(pairs.values()), 1.0)
    there = sum(of[kind] for kind in bt.TASKS) > 0
    metrics = {name: jnp.where(there, x, 0).sum() / total for name, x in measured.items()}
    for kind in kinds:
        count = jnp.maximum(pairs[kind], 1.0)
        sums = {name: jnp.where(of[kind], x, 0).sum() for name, x in measured.items()}
        metrics |= {f"{kind}_{name}": x / count for name, x in sums.items()}
    loss = metrics.pop("loss")
    metrics["sft_loss"] = -policy[..., 0].sum() / jnp.maximum(counted["chosen"], 1.0)
    here = pair_counts(batch, policy.shape[1])["tokens"]
    predicted = jnp.maximum(sum(counted["tokens"].values()), 1.0)
    metrics |= {f"tokens_{kind}": n / predicted for kind, n in here.items()}
    metrics["supervised_tokens"] = sum(here.values())
    metrics["preference_loss"] = loss
    return loss + options["sft"] * metrics["sft_loss"], metrics
