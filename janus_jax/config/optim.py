"""Which numbers of the optimiser a stage may not have."""

import types

from janus_jax.common.text import near
from janus_jax.config.lengths import DEFAULT, by_part, in_steps
from janus_jax.config.sizes import finite, named

SCHEDULES = ("constant", "cosine", "linear", "wsd")
FALLING = ("linear", "wsd")  # those that read decay_steps
BY_PART = ("learning_rate", "weight_decay")
MU_DTYPES = ("float32", "bfloat16")


def part_problems(path: str, optim, learns) -> list[str]:
    """Which numbers by part are of parts that do not learn, so that they would change nothing.

    path: of the stage.
    optim: its schema.Optim.
    learns: the parts that do.
    """
    given = {f"{name}.{part}": part for name in BY_PART for part in by_part(getattr(optim, name))}
    return [
        f"{path}.optim.{field}: the stage trains no {part}{near(part, [DEFAULT, *learns])}"
        for field, part in given.items()
        if part not in (DEFAULT, *learns)
    ]


def optim_problems(path: str, stage) -> list[str]:
    """What of the `optim` of a schema.Stage at `path` is impossible."""
    o = stage.optim
    path = f"{path}.optim"
    problems = finite(path, o, ("end_factor", "clip_norm", "eps"))
    for name in BY_PART:
        value = getattr(o, name)
        parts = {name: value}
        if isinstance(value, dict):
            parts = {f"{name}.{part}": x for part, x in value.items()}
        problems += finite(path, types.SimpleNamespace(**parts), parts)
        if isinstance(value, dict) and name == "learning_rate" and DEFAULT not in value:
            problems.append(
                f"{path}.learning_rate has {', '.join(value) or 'no part'}, but no {DEFAULT}: give it, "
                "the rate of all other parts"
            )
    problems += [
        f"{path}.{n} is {getattr(o, n)}: must be in [0, 1)"
        for n in ("b1", "b2", "ema")
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
    # Of shares as they are: rounded up, both may be a step too long, which the schedule cuts.
    both = sum(x if x >= 1 else x * steps for x in (o.warmup_steps, o.decay_steps))
    if warmup > steps:
        problems.append(
            f"{path}.warmup_steps is {o.warmup_steps:g}: longer than the {steps} steps; lower it, "
            "or raise steps"
        )
    elif o.schedule in FALLING and both > steps + 1e-6:
        problems.append(
            f"{path}.decay_steps is {o.decay_steps:g}: {decay} steps after the {warmup} of "
            f"warmup_steps are more than the {steps} steps; lower one of them, or raise steps"
        )
    return problems
