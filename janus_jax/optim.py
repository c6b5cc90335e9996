"""Table 1 to optax: AdamW, global-norm clipping, warm-up and a cosine or constant schedule."""

import dataclasses

import jax
import optax


@dataclasses.dataclass(frozen=True)
class Optim:
    """One column of the paper's Table 1. `schedule` is `constant` or `cosine`; the cosine ends at
    `end_factor` times the learning rate (the paper does not say where). mu_dtype: Adam's first moment is kept in
    it; bfloat16 saves 2 bytes a trained parameter."""

    learning_rate: float
    schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    end_factor: float = 0.0
    mu_dtype: str = "float32"


SCHEDULES = ("constant", "cosine")
MU_DTYPES = ("float32", "bfloat16")


def schedule(optim: Optim, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 over the warm-up, then as `optim.schedule` says."""
    peak, left = optim.learning_rate, max(steps - optim.warmup_steps, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, left, optim.end_factor),
    }[optim.schedule]
    if not optim.warmup_steps:
        return after
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, optim.warmup_steps), after], [optim.warmup_steps]
    )


def make(optim: Optim, steps: int) -> optax.GradientTransformation:
    """Clip, then AdamW. Weight decay reaches matrices and tables, not norms and biases."""
    return optax.chain(
        optax.clip_by_global_norm(optim.clip_norm),
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
