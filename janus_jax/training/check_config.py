"""Every value of a config that is impossible, told at once: by itself, on so many devices, for the
task of its stage."""

from janus_jax.common import float32
from janus_jax.common.text import near
from janus_jax.config.epochs import endless, epoch_problems
from janus_jax.config.held_out import holdout_of
from janus_jax.config.optim import optim_problems
from janus_jax.config.schema import ConfigError, Experiment
from janus_jax.config.validate import batch_problems, value_problems
from janus_jax.training import task


def all_problems(experiment: Experiment, devices: int) -> list[str]:
    """Every value of a config that is impossible: by itself, beside the others, on so many devices,
    for its task."""
    found = epoch_problems(experiment)
    experiment = endless(experiment)
    found += value_problems(experiment, devices) + evaluation_problems(experiment)
    for name, stage in experiment.stages.items():
        path = f"stages.{name}"
        found += optim_problems(path, stage)
        if stage.task not in task.NAMES:
            found.append(f"{path}.task is {stage.task!r}: unknown{near(stage.task, task.NAMES)}")
            continue
        how = task.load(stage.task)
        before = len(found)
        for option, value in stage.options.items():
            if option not in how.OPTIONS:
                known = (
                    near(option, how.OPTIONS) if how.OPTIONS else f"; task {stage.task} has none"
                )
                found.append(f"{path}.options.{option}: unknown{known}")
            elif isinstance(value, str) != isinstance(how.OPTIONS[option], str):
                wanted = "text" if isinstance(how.OPTIONS[option], str) else "a number"
                found.append(f"{path}.options.{option} is {value!r}: must be {wanted}")
            elif not isinstance(value, str) and not (value >= 0 and float32.finite(value)):
                found.append(
                    f"{path}.options.{option} is {value}: must be a finite number in float32, 0 or more"
                )
        if stage.optim.ema and "ema" in how.OPTIONS:
            found.append(
                f"{path}.optim.ema is {stage.optim.ema}: task {stage.task} averages its tokenizer by an "
                f"option of its own; set {path}.options.ema instead"
            )
        if len(found) == before:
            found += how.problems(experiment, name)
        found += batch_problems(experiment, name, devices, how.PACKS)
    return found


def evaluation_problems(experiment: Experiment) -> list[str]:
    """What of `evaluation` and `checkpoints.best` does not go together."""
    e = experiment.evaluation
    best = experiment.checkpoints.best
    found = [
        f"evaluation.{name} is {value}: must be a finite number in float32, 0 or more"
        for name, value in vars(e).items()
        if not isinstance(value, tuple) and not (value >= 0 and float32.finite(value))
    ]
    if e.holdout >= 1:
        found.append(f"evaluation.holdout is {e.holdout}: a share below 1, such as 0.01")
    held = {name: _kinds_held_out(experiment, name) for name in experiment.stages}
    shown = {"benchmarks": e.benchmarks, "prompts": e.prompts, "questions": e.questions}
    if e.every > 0 and not any(held.values()) and not any(shown.values()):
        found.append(
            f"evaluation.every is {e.every}, and evaluation.holdout 0: nothing is held out of "
            "training to evaluate on; set evaluation.holdout, such as 0.01, or holdout of a data set"
        )
    for name, kinds in held.items() if best.startswith("validation_") and e.every else ():
        kind = best.removeprefix("validation_").removesuffix("_loss")
        drawn = {line.kind for line in experiment.draws(name).values()}
        if not kinds or (kind in drawn and kind not in kinds):
            what = f"of its {kind}" if kinds else "of its data"
            found.append(
                f"checkpoints.best is {best!r}: in stages.{name} nothing {what} is held out to "
                "measure it by; set evaluation.holdout, or holdout of a data set"
            )
    if e.patience and not best:
        found.append(
            f"evaluation.patience is {e.patience}: name the metric that must become better in "
            "checkpoints.best, such as validation_loss"
        )
    if best and not e.every:
        found.append(
            f"checkpoints.best is {best!r}, and evaluation.every 0: nothing measures it; set "
            "evaluation.every"
        )
    tasks = {stage.task for stage in experiment.stages.values()} & set(task.NAMES)
    known = {name for one in tasks for name in task.load(one).VALIDATES}
    names = sorted(f"validation_{name}" for name in known)
    for asked in e.benchmarks:
        name = asked.partition("=")[0].partition("@")[0]
        names += [f"understanding/{name}", f"generation/{name}"]
    shown["at_start"] = e.at_start
    found += [
        f"evaluation.{name}, and evaluation.every 0: when? set evaluation.every"
        for name, asked in shown.items()
        if asked and not e.every
    ]
    if best and tasks and best not in names:
        found.append(f"checkpoints.best is {best!r}: unknown{near(best, names)}")
    return found


def _kinds_held_out(experiment: Experiment, stage: str) -> set[str]:
    """The kinds of example of which the stage's data sets hold some out of training."""
    lines = experiment.draws(stage).items()
    return {line.kind for name, line in lines if holdout_of(experiment, name)}


def check(experiment: Experiment, devices: int, known: list[str] = ()) -> Experiment:
    """The experiment; raises ConfigError naming every impossible value, after the problems already
    `known`."""
    found = [*known, *all_problems(experiment, devices)]
    if found:
        raise ConfigError.of(found)
    return experiment
