"""A task is how a stage learns. Each is one file of tasks/, found by the name that a stage gives
it."""

import importlib
import pathlib
from collections.abc import Callable
from typing import Protocol

from janus_jax.config.schema import Experiment

NAMES = sorted(p.stem for p in (pathlib.Path(__file__).parent / "tasks").glob("[a-z]*.py"))


class Task(Protocol):
    """What a file of tasks/ defines, as functions of the module. `plan` is a
    stage_plan.StagePlan. One that reads other records than single ones also has ENCODER, a class of
    encoders -> the one of its records, see stage_mixture.encoder; one whose batches are made with
    the weights of their step has ROLLS, true, and StageData.around."""

    PACKS: bool
    """Whether a step's examples are packed into `rows`; otherwise a step has `batch_size` images."""

    TEACHERS: tuple[str, ...]
    """The children that its stages learn from: given by `init`, never drawn, not handed on."""

    NARROWS: bool
    """Whether the arrays of its state differ where other children learn: those that do not are kept
    in narrower types."""

    OPTIONS: dict[str, float | str]
    """The numbers and words that `options` of a stage may give, with their defaults."""

    def problems(experiment: Experiment, name: str) -> list[str]:
        """What of a stage's values this task cannot work with, a line each, beginning with the
        field."""

    def without(experiment: Experiment, name: str) -> tuple[str, ...]:
        """The children of the model of which the stage has weights that its step never asks for."""

    def init_state(key, model, tx, trainable, without, options):
        """A TrainState with random weights: what a stage's state looks like. Only ever traced. What
        it holds that is no child of the model, it sorts into trainable and frozen itself."""

    def init_random(seed: int, model, names: tuple[str, ...], options) -> dict:
        """Random weights of some children, the same whichever others are drawn."""

    def for_devices(plan, say: Callable):
        """The plan as it runs on these devices; `say` hears what was chosen."""

    def step(plan) -> Callable:
        """(state, batch) -> (state, metrics), pure; metrics are float32 scalars, `loss` among
        them."""

    VALIDATES: tuple[str, ...]
    """The names of what `validate` can give, `loss` among them."""

    def validate(plan) -> Callable:
        """(state, batch) -> name of a mean loss -> (its sum over the batch, of how many), float32
        scalars; pure. Names are of VALIDATES; the batch is one of `batches`."""

    def batches(plan, sources: dict, processor, workdir, say: Callable):
        """The stage's data, opened: a stage_data.StageData."""

    def batch_shapes(plan) -> dict:
        """A step's whole batch as `batches` gives it, in ShapeDtypeStructs on the current mesh."""

    def read_first(plan, processor) -> Callable:
        """(line of the data set, source, index) -> in words what a record is to this stage. Raises
        what makes a record unusable."""

    def export(plan, directory, params: dict, processor):
        """Writes what the stage hands on, a weights directory."""


def load(name: str) -> Task:
    """The task of that name, one of NAMES."""
    return importlib.import_module(f"janus_jax.training.tasks.{name}")


def options(stage) -> dict[str, float | str]:
    """All options of a stage's task: those that it gives, the rest by default."""
    return load(stage.task).OPTIONS | stage.options
