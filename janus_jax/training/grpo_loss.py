"""The loss of GRPO (arXiv 2402.03300, equation 3): drawings or answers of one prompt are compared with
each other, and those above the group's mean become likelier.

Of each id with log-probability `now`, `old` where it was drawn and `reference` under the reference:
ratio = exp(now - old), and the loss is
    -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A) + kl * (exp(d) - d - 1),
d = reference - now, averaged as `token_weights` says. The second term is the estimator k3 of the
Kullback-Leibler divergence from the reference (equation 4 there).
"""

import jax.numpy as jnp
import numpy as np

AVERAGES = ("example", "token", "length")
SCALES = ("deviation", "none")
LEAST = 1e-6  # added to a group's deviation; rewards that are this close are equal
KINDS = ("drawing", "answering")


def advantages(rewards: np.ndarray, scale: str = "deviation") -> np.ndarray:
    """float32 [groups, G] of rewards float32 [groups, G]: the difference to the group's mean, divided
    by its standard deviation (GRPO), or as it is (scale "none": Dr. GRPO, arXiv 2503.20783, where
    the division favours prompts that are nearly always right or wrong). 0 in a group of equal
    rewards."""
    rewards = np.asarray(rewards, np.float64)
    found = rewards - rewards.mean(1, keepdims=True)
    if scale == "deviation":
        found = found / (rewards.std(1, keepdims=True) + LEAST)
    return np.where(spread(rewards)[:, None], found, 0).astype(np.float32)


def spread(rewards: np.ndarray) -> np.ndarray:
    """bool [groups]: whether the rewards [groups, G] of a group differ, so that it teaches
    something."""
    return np.ptp(rewards, axis=1) > LEAST


def token_weights(lengths: np.ndarray, most: np.ndarray, average: str) -> np.ndarray:
    """float32 [n]: what a token of each example counts in the loss.

    lengths: supervised tokens of each example, 0 for those that are left out; most: the most that
        it could have.
    average: "example": the mean over examples of the mean over their tokens (GRPO); "token": the
        mean over all tokens (DAPO, arXiv 2503.14476); "length": the sum over an example's tokens
        divided by the most it could have, so that long answers count no less a token (Dr. GRPO).
    """
    there = lengths > 0
    count = max(int(there.sum()), 1)
    if average == "token":
        each = np.full(len(lengths), 1 / max(int(lengths.sum()), 1))
    elif average == "length":
        each = 1 / (count * most)
    else:
        each = 1 / (count * np.maximum(lengths, 1))
    return np.where(there, each, 0).astype(np.float32)


def k3(now, reference):
    """The estimator k3 of the divergence from the reference, for each token: never negative, and
    without bias (equation 4)."""
    d = reference - now
    return jnp.exp(d) - d - 1


def grpo_loss(now, batch, clip_low: float, clip_high: float, kl: float):
    """(loss, metrics), float32 scalars; a part of a step's rows gives its part of the sum.

    now: float32 [B, T], log-probabilities of what is supervised.
    batch: with float32 [B, T] "old", "reference" (log-probabilities), "advantages", "weights" (see
        `token_weights`, 0 where nothing is supervised) and "shares" (1 / supervised tokens of the
        kind in the whole step, 0 elsewhere).
    Of each of KINDS metrics have the policy's entropy (the mean of -log p of what it drew, which has
    no bias), the divergence from the reference and the share of tokens whose ratio is clipped.
    """
    there = batch["weights"] > 0
    now = jnp.where(there, now, 0.0)
    old = jnp.where(there, batch["old"], 0.0)
    a = batch["advantages"]
    ratio = jnp.exp(now - old)
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    policy = -jnp.minimum(ratio * a, clipped * a)
    divergence = k3(now, jnp.where(there, batch["reference"], 0.0)) if kl else jnp.zeros_like(now)
    loss = (batch["weights"] * (policy + kl * divergence)).sum()
    cut = ((ratio > 1 + clip_high) & (a > 0)) | ((ratio < 1 - clip_low) & (a < 0))
    metrics = {}
    draws = batch["image_targets"] > 0
    for kind, own in zip(KINDS, (draws, ~draws)):
        share = jnp.where(own, batch["shares"], 0.0)
        for name, x in {"entropy": -old, "kl": divergence, "clipped": cut}.items():
            metrics[f"{name}_{kind}"] = (share * x).sum()
    return loss, metrics
