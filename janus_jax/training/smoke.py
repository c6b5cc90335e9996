"""A config shrunk for a first try, `--smoke`: the same model, batch and data in a few steps of every
stage, so that what would stop a run after hours stops it after a minute."""

import itertools
import math
import pathlib

from janus_jax.config.read import read
from janus_jax.config.schema import Experiment, Optim
from janus_jax.training import task

STEPS = 10
COUNT = 2  # drawings, questions, and items of a benchmark
_BEGINS = ("discriminator_start", "probe_every")  # options that count steps


def shrunk(config: str, overrides: dict[str, str]) -> dict[str, str]:
    """`overrides` of a config, dotted path -> text, with those that shrink what it is with them.
    Raises ConfigError as `read` does."""
    return overrides | flags(read(config, overrides)[0])


def flags(experiment: Experiment) -> dict[str, str]:
    """Dotted path -> text of all that shrinks an experiment: few steps, warm-up and decay in
    proportion, no checkpoint on the way, one small evaluation a stage."""
    out = {}
    for name, stage in experiment.stages.items():
        own = {"checkpoint_every": STEPS, "log_every": 1}
        whole = stage.steps if isinstance(stage.steps, int) else None
        if whole is None or whole > STEPS:
            own["steps"] = STEPS
            own |= _lengths(stage.optim, whole)
            given = task.options(stage) if stage.task in task.NAMES else {}
            if not given.get("discriminator"):
                given.pop("discriminator_start", None)
            late = [key for key in _BEGINS if given.get(key, 0) > STEPS]
            own |= {f"options.{key}": STEPS // 2 for key in late}
        out |= {f"stages.{name}.{field}": str(value) for field, value in own.items()}
    # Each is drawn from the first step on.
    lines = experiment.data.datasets.items()
    out |= {f"data.datasets.{name}.steps": "()" for name, line in lines if line.steps}
    e = experiment.evaluation
    if e.every:
        out["evaluation.every"] = str(STEPS)
    if e.count > COUNT:
        out["evaluation.count"] = str(COUNT)
    if e.benchmarks:
        out["evaluation.benchmarks"] = repr(tuple(_few(asked) for asked in e.benchmarks))
    return out


def _lengths(optim: Optim, whole: int | None) -> dict[str, int]:
    """Warm-up and decay of a stage of `whole` steps (None: of epochs) as steps of STEPS, which hold
    both. What is no length of the whole is left as it is, to be refused."""

    def few(length: float, most: int) -> int:
        if not 0 < length <= (whole or math.inf):
            return 0
        # Of epochs, a tenth is a guess.
        share = length if length < 1 else length / (whole or 10 * length)
        return min(max(round(share * STEPS), 1), most)

    warmup = few(optim.warmup_steps, STEPS - 1)
    decay = few(optim.decay_steps, STEPS - warmup)
    lengths = {"optim.warmup_steps": warmup, "optim.decay_steps": decay}
    return {field: length for field, length in lengths.items() if length}


def _few(asked: str) -> str:
    """A benchmark, "NAME=DATA" or "NAME@COUNT=DATA", of COUNT items."""
    name, _, data = asked.partition("=")
    return f"{name.partition('@')[0]}@{COUNT}={data}"


def own_workdir(workdir: str) -> str:
    """Where a first try writes: beside the run's own directory, in one that is not there yet."""
    names = (f"{workdir}-smoke{n}" for n in ("", *map(str, range(2, 1000))))
    return next(itertools.dropwhile(lambda name: pathlib.Path(name).exists(), names))
