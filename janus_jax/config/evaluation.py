"""What a config says of evaluation and of the checkpoints that are kept."""

import dataclasses

# What a work directory holds under these names, so that no stage can.
TAKEN = ("checkpoints", "tensorboard", "profile", "wandb", "run", "sheets", "evaluation")


# A field says whether it may differ between two starts of one run, for all inside it that says
# nothing itself (see training/compare_configs.py). What none of these marks is another run.


def free(default):
    """May differ: it changes nothing of what a step learns."""
    return dataclasses.field(default=default, metadata={"resume": "free"})


def accepted(default=dataclasses.MISSING):
    """May differ where the user says so: moments and position in the data stay good for it."""
    return dataclasses.field(default=default, metadata={"resume": "accept"})


def another_run(default):
    """May not differ, though the section that it stands in may."""
    return dataclasses.field(default=default, metadata={"resume": "another run"})


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """After the last stage: `count` drawings a task (or in all) and as many questions an answer (or
    in all), sampled at this guidance and temperature; 0 for none.

    every: steps between two evaluations while a stage trains, and one at its end; 0: none.
    at_start: whether there is one before a stage's first step as well.
    holdout: share of a data set's records that is not trained on, unless its own line says which.
    benchmarks: scored then, each "NAME=DATA", or "NAME@COUNT=DATA" for its first so many.
    prompts: drawn then, each a text, or a .txt file with one a line.
    questions: answered then, each "PICTURE: QUESTION", or a .txt file with one a line.
    patience: evaluations without a better `checkpoints.best`, after which a stage ends; 0: never.
    """

    count: int = 0
    cfg_scale: float = 5.0
    temperature: float = 1.0
    every: int = 0
    holdout: float = accepted(0.0)
    benchmarks: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    patience: int = 0
    at_start: bool = False


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """How many of a stage's latest checkpoints stay (at least 2: one may be damaged), and those
    whose step `keep_every` divides, for good; 0 for none. best: and the best by the metric of this
    name, such as "validation_loss"; empty: none."""

    keep: int = 2
    keep_every: int = 0
    best: str = ""
