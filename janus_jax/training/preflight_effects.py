"""Settings that a config gives and that change nothing, so that whoever gave them does not think they
do."""

import math

from janus_jax.config.held_out import holdout_of
from janus_jax.config.schema import Dataset, Experiment, Stage
from janus_jax.training.report import Report

TEXT_HAS_NONE = {"images": "", "min_side": 0, "names": "", "image_ids": ""}  # field -> not given


def settings_without_effect(experiment: Experiment) -> Report:
    """Warnings of what is given and does nothing: the field, why, and what would. Data sets that no
    stage draws are only told: a share of 0 is how a config is made to leave one out."""
    report = Report()
    for name, why in undrawn(experiment).items():
        report.tell("data", f"{name}: not read; {why}")
    for name, d in experiment.data.datasets.items():
        report.warnings += [
            f"data.datasets.{name}.{field} is {getattr(d, field)!r}: kind text has no pictures, "
            "nothing reads it"
            for field, unset in TEXT_HAS_NONE.items()
            if d.kind == "text" and getattr(d, field) != unset
        ]
    report.warnings += _begin_too_late(experiment)
    for name, stage in experiment.stages.items():
        report.warnings += _of_stage(name, stage, experiment)
    held = [name for name in experiment.data.datasets if holdout_of(experiment, name)]
    if held and not experiment.evaluation.every:
        report.warnings.append(
            f"holdout of {', '.join(held)}, and evaluation.every is 0: records are kept from training "
            "and nothing is evaluated on them; set evaluation.every, or holdout to 0"
        )
    return report


def undrawn(experiment: Experiment) -> dict[str, str]:
    """The data sets that no stage draws, by name, with the reason in words."""
    drawn = {name for stage in experiment.stages for name in experiment.draws(stage)}
    return {
        name: "its weight is 0"
        if d.weight == 0
        else f"ratio.{d.kind} is 0 in {', '.join(d.stages or experiment.stages)}"
        for name, d in experiment.data.datasets.items()
        if name not in drawn
    }


def _begin_too_late(experiment: Experiment) -> list[str]:
    """The data sets whose `steps` begin when every stage that could draw them has ended."""
    found = []
    for name, d in experiment.data.datasets.items():
        ends = {
            s: experiment.stages[s].steps for s in experiment.stages if name in experiment.draws(s)
        }
        counted = all(isinstance(end, int) for end in ends.values())  # else in epochs, as yet
        if d.steps and ends and counted and d.steps[0] >= max(ends.values()):
            told = ", ".join(f"{stage} ends at step {end:,}" for stage, end in ends.items())
            found.append(
                f"data.datasets.{name}.steps is {d.steps}, and {told}: none of its records is drawn; "
                "let its steps begin earlier, or give it weight 0"
            )
    return found


def _of_edits(line: Dataset) -> bool:
    return bool(line.target) or line.path == "shapes:edits"


def _of_stage(name: str, stage: Stage, experiment: Experiment) -> list[str]:
    """What of a stage's own fields does nothing."""
    path = f"stages.{name}"
    found = []
    every = experiment.checkpoints.keep_every
    if every and every % stage.checkpoint_every:
        both = math.lcm(every, stage.checkpoint_every)
        found.append(
            f"checkpoints.keep_every is {every}: {path} saves every {stage.checkpoint_every} steps, so "
            f"that only each {both:,}th stays; give a multiple of checkpoint_every"
        )
    rows = stage.rows
    for kind in ("understanding", "generation") if rows else ():
        slots = f"{kind}_images"
        edits = kind == "understanding" and any(map(_of_edits, experiment.draws(name).values()))
        if getattr(rows, slots) and not getattr(stage.ratio, kind) and not edits:
            found.append(
                f"{path}.rows.{slots} is {getattr(rows, slots)} and ratio.{kind} 0: these slots stay "
                "empty and cost time and memory; set it to 0"
                + (
                    ", or for edits name their target (of answers that draw, users' pictures fill them)"
                    if kind == "understanding"
                    else ""
                )
            )
    defaults = {
        "condition_dropout": Stage.condition_dropout,
        "first_sentence": Stage.first_sentence,
    }
    for field, default in defaults.items() if rows and not stage.ratio.generation else ():
        if getattr(stage, field) not in (default, 0):
            found.append(
                f"{path}.{field} is {getattr(stage, field):g} and ratio.generation 0: only captions "
                "to draw are left out or cut"
            )
    if rows and experiment.data.workers > rows.count:
        found.append(
            f"data.workers is {experiment.data.workers}: {path} has {rows.count} rows a step, and a "
            "worker makes one or more; the rest are not started"
        )
    return found
