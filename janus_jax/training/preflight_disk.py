"""Whether a run can write into its work directory, and whether there is room for all it will write."""

import math
import os
import pathlib
import shutil

import jax

from janus_jax.checkpoint.inspect import StageProgress, leaves
from janus_jax.common.paths import ADDRESS, NOT_HERE
from janus_jax.common.text import size
from janus_jax.config.schema import Experiment
from janus_jax.training.stage_plan import StagePlan


def place(workdir: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """(the nearest directory that is there, why nothing can be written into `workdir`)."""
    here = workdir.absolute()
    while not here.exists() and not here.is_symlink() and here != here.parent:
        here = here.parent
    if ADDRESS.match(str(workdir)):
        return here.parent, [f"--workdir={workdir}: {NOT_HERE}"]
    if not here.is_dir():
        what = "a link to nothing" if here.is_symlink() else "a file"
        return here.parent, [
            f"--workdir={workdir}: {here} is {what}; name a directory, or a new one"
        ]
    if not os.access(here, os.W_OK | os.X_OK):
        return here, [
            f"--workdir={workdir}: {here} cannot be written into (no permission, or a file system "
            f"that is read-only); name a directory that this user can write into"
        ]
    return here, []


def room(
    where: pathlib.Path,
    experiment: Experiment,
    states: dict,
    params: dict,
    starts: dict[str, StageProgress],
) -> tuple[str, list[str], list[str]]:
    """(what is needed and free, in words; problems; warnings). states: by stage; params: of the
    whole model.

    A checkpoint is written before an older one is deleted, so a stage holds one more than it keeps
    for a while; those that are there count. Refused is what has no room for two, or for the next
    one of a stage that has all it keeps.
    """
    free = shutil.disk_usage(where).free
    keep = experiment.checkpoints.keep + bool(experiment.checkpoints.best)
    lacking = {
        name: keep - min(start.held, keep) for name, start in starts.items() if not start.done
    }
    if not lacking:
        return f"nothing more is saved; {size(free)} free in {where}", [], []
    takes = {name: _bytes(leaves(states[name])) for name in lacking}
    aside = {name: StagePlan.of(experiment, name).without for name in lacking}
    weights = {
        # What is laid aside is written twice: when the stage begins, and with all it hands on.
        name: _bytes((states[name].params, 2 * [params[child] for child in aside[name]]))
        for name in lacking
    }
    for name in lacking:
        if experiment.stages[name].optim.ema:  # and all once more, averaged
            weights[name] += _bytes((states[name].params, [params[child] for child in aside[name]]))
    whole = max(takes.values()) + sum(
        (n + _kept_for_good(experiment, name)) * takes[name] + weights[name]
        for name, n in lacking.items()
    )
    told = f"{size(free)} free in {where}"
    remedy = "make room, or name a --workdir elsewhere"
    lines = []
    for name, n in lacking.items():
        if free < (need := min(2, 1 + n) * takes[name]):
            lines.append(
                f"--workdir: {told}, but {name} needs {size(need)}: a checkpoint takes "
                f"{size(takes[name])}, and one is written before an older one is deleted; {remedy}"
            )
    short = (
        [f"{told}, all stages to their end take about {size(whole)}: {remedy}"]
        if free < whole
        else []
    )
    each = ", ".join(f"{size(takes[name])} ({name})" for name in lacking)
    said = f"checkpoints of {each}; to the end about {size(whole)}"
    return f"{said}; {told}", lines, [] if lines else short


def _kept_for_good(experiment: Experiment, name: str) -> int:
    """How many of a stage's checkpoints `checkpoints.keep_every` holds back from deletion."""
    stage = experiment.stages[name]
    every = experiment.checkpoints.keep_every
    return stage.steps // math.lcm(every, stage.checkpoint_every) if every else 0


def _bytes(tree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
