"""Table 1 to optax: AdamW, global-norm clipping, warm-up and a schedule."""

import jax
import optax

from janus_jax.config.lengths import in_steps
from janus_jax.config.schema import Optim


def schedule(optim: Optim, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 over the warm-up, then as `optim.schedule` says."""
    peak = optim.learning_rate
    warmup = in_steps(optim.warmup_steps, steps)
    left = max(steps - warmup, 1)
    falls = in_steps(optim.decay_steps, steps) or left
    straight = optax.linear_schedule(peak, optim.end_factor * peak, falls, left - falls)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, left, optim.end_factor),
        "linear": straight,
        "wsd": straight,
    }[optim.schedule]
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make(optim: Optim, steps: int, each: bool = False) -> optax.GradientTransformation:
    """Clip, then AdamW. each: every child's gradient is clipped by its own norm, not by that of all;
    the state is the same. Weight decay reaches matrices and tables of embeddings. It does not reach
    norms, biases, the tower's positions (as is usual for ViTs) and the VQ tokenizer's codebook, of
    whose codes the direction alone counts."""
    clip = optax.clip_by_global_norm(optim.clip_norm)
    own = lambda grads: {name: clip.update(part, None)[0] for name, part in grads.items()}
    return optax.chain(
        optax.stateless(lambda grads, _: own(grads)) if each else clip,
        optax.adamw(
            schedule(optim, steps),
            optim.b1,
            optim.b2,
            optim.eps,
            weight_decay=optim.weight_decay,
            mask=decays,
            mu_dtype=optim.mu_dtype,
        ),
    )


def decays(params):
    """True for the leaves that weight decay reaches, by their name."""
    names = ("kernel", "patch_kernel", "table")
    return jax.tree.map_with_path(lambda path, _: path[-1].key in names, params)
