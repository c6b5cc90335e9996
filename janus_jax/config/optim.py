"""Which numbers of the optimiser a stage may not have."""

from janus_jax.config.lengths import in_steps
from janus_jax.config.sizes import finite, named

SCHEDULES = ("constant", "cosine", "linear", "wsd")
FALLING = ("linear", "wsd")  # those that read decay_steps
MU_DTYPES = ("float32", "bfloat16")


def optim_problems(path: str, stage) -> list[str]:
    """What of the `optim` of a schema.Stage at `path` is impossible."""
    o = stage.optim
    path = f"{path}.optim"
    numbers = ("learning_rate", "weight_decay", "end_factor", "clip_norm", "eps")
    problems = finite(path, o, numbers)
    problems += [
        f"{path}.{n} is {getattr(o, n)}: must be in [0, 1)"
        for n in ("b1", "b2")
        if not 0 <= getattr(o, n) < 1
    ]
    if o.clip_norm == 0:
        problems.append(
            f"{path}.clip_norm is 0: no gradient would pass; give a norm over 0, such as 1"
        )
    problems += named(f"{path}.schedule", o.schedule, SCHEDULES)
    problems += named(f"{path}.mu_dtype", o.mu_dtype, MU_DTYPES)
    if o.end_factor and o.schedule == "constant":
        problems.append(
            f"{path}.end_factor is {o.end_factor}: {path}.schedule=constant falls nowhere; take "
            "schedule=cosine, linear or wsd, or leave it out"
        )
    return problems + _length_problems(path, o, stage.steps)


def _length_problems(path: str, o, steps: int) -> list[str]:
    """What of the lengths of the schedule's parts, and of all together, is impossible."""
    problems = finite(path, o, ("warmup_steps", "decay_steps"))
    problems += [
        f"{path}.{n} is {getattr(o, n)}: must be a whole number of steps, or a share below 1"
        for n in ("warmup_steps", "decay_steps")
        if getattr(o, n) > 1 and getattr(o, n) % 1
    ]
    if problems:
        return problems
    if o.decay_steps and o.schedule not in FALLING:
        problems.append(
            f"{path}.decay_steps is {o.decay_steps:g}: {path}.schedule={o.schedule} does not read "
            f"it; take schedule=wsd, or leave it out"
        )
    if o.schedule == "wsd" and not o.decay_steps:
        problems.append(
            f"{path}.decay_steps is 0: wsd falls in its last steps; give how many, or their share, "
            "such as 0.1"
        )
    warmup, decay = in_steps(o.warmup_steps, steps), in_steps(o.decay_steps, steps)
    if warmup > steps:
        problems.append(
            f"{path}.warmup_steps is {o.warmup_steps:g}: longer than the {steps} steps; lower it, "
            "or raise steps"
        )
    elif o.schedule in FALLING and warmup + decay > steps:
        problems.append(
            f"{path}.decay_steps is {o.decay_steps:g}: {decay} steps after the {warmup} of "
            f"warmup_steps are more than the {steps} steps; lower one of them, or raise steps"
        )
    return problems
