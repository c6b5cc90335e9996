"""A stage's `steps` written as epochs of a data set, "3 epochs of mine", until its records are
counted."""

import dataclasses
import math
import re

from janus_jax.common.text import near
from janus_jax.config.steps import ENDLESS

_WRITTEN = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s+epochs?\s+of\s+(\S+)\s*")


def epochs_of(steps: int | str) -> tuple[float, str] | None:
    """(how many epochs, of which data set); None where `steps` is a number, or no such text."""
    found = _WRITTEN.fullmatch(steps) if isinstance(steps, str) else None
    return (float(found[1]), found[2]) if found else None


def uncounted(experiment) -> list[str]:
    """The stages of an Experiment whose `steps` are text."""
    return [name for name, stage in experiment.stages.items() if isinstance(stage.steps, str)]


def epoch_problems(experiment) -> list[str]:
    """Which `steps` are text that no data set can be counted for."""
    problems = []
    for name in uncounted(experiment):
        steps = experiment.stages[name].steps
        epochs, of = epochs_of(steps) or (0.0, "")
        told = f"stages.{name}.steps is {steps!r}:"
        drawn = experiment.draws(name)
        if not of:
            problems.append(
                f"{told} must be a whole number, or epochs of a data set, such as '3 epochs of mine'"
            )
        elif epochs == 0:
            problems.append(f"{told} must be more than 0 epochs")
        elif of not in drawn:
            problems.append(f"{told} the stage draws from no data set {of!r}{near(of, drawn)}")
    return problems


def endless(experiment):
    """The experiment with every text in place of `steps` as steps without end."""
    stages = {name: experiment.stages[name] for name in uncounted(experiment)}
    stages = {name: dataclasses.replace(stage, steps=ENDLESS) for name, stage in stages.items()}
    return dataclasses.replace(experiment, stages=experiment.stages | stages)


def steps_until(amount: float, rates: dict[int, float]) -> int | None:
    """The steps that it takes until `amount` is drawn; None where it never is.

    rates: the first step of each phase, in order -> how much each of its steps draws.
    """
    for (first, rate), end in zip(rates.items(), [*list(rates)[1:], ENDLESS], strict=True):
        if rate * (end - first) >= amount:
            return first + max(math.ceil(amount / rate - 1e-6), 1)
        amount -= rate * (end - first)
    return None
