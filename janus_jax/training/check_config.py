"""Every value of a config that is impossible, told at once: by itself, on so many devices, for the
task of its stage."""

from janus_jax.common import float32
from janus_jax.common.text import near
from janus_jax.config.schema import ConfigError, Experiment
from janus_jax.config.validate import batch_problems, value_problems
from janus_jax.training import task


def all_problems(experiment: Experiment, devices: int) -> list[str]:
    """Every value of a config that is impossible: by itself, beside the others, on so many devices,
    for its task."""
    found = value_problems(experiment, devices)
    for name, stage in experiment.stages.items():
        path = f"stages.{name}"
        if stage.task not in task.NAMES:
            found.append(f"{path}.task is {stage.task!r}: unknown{near(stage.task, task.NAMES)}")
            continue
        how = task.load(stage.task)
        for option, value in stage.options.items():
            if option not in how.OPTIONS:
                known = (
                    near(option, how.OPTIONS) if how.OPTIONS else f"; task {stage.task} has none"
                )
                found.append(f"{path}.options.{option}: unknown{known}")
            elif not (value >= 0 and float32.finite(value)):
                found.append(
                    f"{path}.options.{option} is {value}: must be a finite number in float32, 0 or more"
                )
        found += how.problems(experiment, name)
        found += batch_problems(experiment, name, devices, how.PACKS)
    return found


def check(experiment: Experiment, devices: int, known: list[str] = ()) -> Experiment:
    """The experiment; raises ConfigError naming every impossible value, after the problems already
    `known`."""
    found = [*known, *all_problems(experiment, devices)]
    if found:
        raise ConfigError.of(found)
    return experiment
