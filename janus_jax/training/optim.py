"""Table 1 to optax: AdamW, global-norm clipping, warm-up and a cosine or constant schedule."""

import jax
import optax

from janus_jax.config.schema import Optim


def schedule(optim: Optim, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 over the warm-up, then as `optim.schedule` says."""
    peak = optim.learning_rate
    left = max(steps - optim.warmup_steps, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, left, optim.end_factor),
    }[optim.schedule]
    if not optim.warmup_steps:
        return after
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, optim.warmup_steps), after], [optim.warmup_steps]
    )


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
    matrix = lambda path, _: path[-1].key in names or path[0].key == "lora"
    return jax.tree.map_with_path(matrix, params)
