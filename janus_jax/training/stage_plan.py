"""One stage, worked out: what the loop, the checks before it and `plan` all have to know, made in
one place."""

import dataclasses
import functools
import importlib
from collections.abc import Callable

import jax
import optax

from janus_jax.config.schema import Experiment, Stage
from janus_jax.data.kept import kinds_kept
from janus_jax.model import sharding as sh
from janus_jax.model.config import CHILDREN, JanusConfig
from janus_jax.training import optim, task
from janus_jax.training.state import TrainState, new_state


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """Stage `name` of an experiment. model: the experiment's, perhaps with the attention of these
    devices. held_out: draws the records that are held out of training instead of those that are not.
    """

    experiment: Experiment
    name: str
    model: JanusConfig
    held_out: bool = False

    @classmethod
    def of(cls, experiment: Experiment, name: str) -> "StagePlan":
        return cls(experiment, name, experiment.model)

    def on_held_out(self) -> "StagePlan":
        """The stage over its held-out records, of all its data sets at all steps, with nothing of
        an example left to chance."""
        e = self.experiment
        stage = dataclasses.replace(self.stage, condition_dropout=0.0, first_sentence=0.0)
        lines = {name: dataclasses.replace(d, steps=()) for name, d in e.data.datasets.items()}
        # How many bad records are too many is for training to judge, by all that it reads.
        data = dataclasses.replace(e.data, datasets=lines, workers=0, max_bad_fraction=1.0)
        experiment = dataclasses.replace(e, data=data, stages=e.stages | {self.name: stage})
        return dataclasses.replace(self, experiment=experiment, held_out=True)

    @property
    def stage(self) -> Stage:
        return self.experiment.stages[self.name]

    @property
    def task(self) -> task.Task:
        return task.load(self.stage.task)

    @property
    def options(self) -> dict[str, float | str]:
        return task.options(self.stage)

    @property
    def keeps(self) -> tuple[str, ...]:
        """The kinds of example that stay in the stage's batches."""
        return kinds_kept(self.options.get("keep", ""))

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        return optim.make(self.stage.optim, self.stage.steps)

    @property
    def rates(self) -> Callable:
        """Count of updates -> the learning rates to log, by name."""
        return functools.partial(optim.logged, optim.schedules(self.stage.optim, self.stage.steps))

    @property
    def without(self) -> tuple[str, ...]:
        """The children that wait on the host: the step never asks for them."""
        return self.task.without(self.experiment, self.name)

    @functools.cached_property
    def adapted(self) -> dict[str, int]:
        """Child -> numbers of the low-rank pairs beside its linear maps, of task lora."""
        if "rank" not in self.options:
            return {}
        pairs = self.traced_state().trainable["lora"]
        return {name: sum(x.size for x in jax.tree.leaves(x)) for name, x in pairs.items()}

    def traced_state(self, without: tuple[str, ...] | None = None) -> TrainState:
        """The shapes of the train state as traced on the current mesh, whose devices need not be
        there.

        without: children that it leaves out; None: those of the stage.
        """
        without = self.without if without is None else without
        mesh = jax.sharding.get_abstract_mesh()
        learns = self.stage.trainable if self.task.NARROWS else ()
        how = without, learns, tuple(self.options.items())
        whole = _traced(self.stage.task, self.model, *how, mesh)
        children = ({}, {})  # frozen, trainable
        for name, part in whole.params.items():
            # What is no part of the model, a task sorts itself.
            own = name in (*CHILDREN, *self.model.children)
            learns = self.stage.trainable if own else whole.trainable
            children[name in learns][name] = part
        frozen, trainable = children
        init = functools.partial(new_state, whole.graphdef, tx=self.tx)
        return jax.eval_shape(init, trainable, frozen)

    def with_reference(self, params: dict, like: dict) -> dict:
        """The weights that the stage begins with, and their copy where the task keeps one."""
        if "reference" not in like:
            return params
        kept = importlib.import_module("janus_jax.training.frozen_reference")
        return params | {"reference": kept.copied(params, like["reference"])}

    def state(self, without: tuple[str, ...] | None = None) -> TrainState:
        """`traced_state` with shardings on the devices of the current mesh; nothing is computed."""
        return sh.concrete(self.traced_state(without))


@functools.lru_cache(maxsize=8)
def _traced(
    name: str, model: JanusConfig, without: tuple[str, ...], learns: tuple[str, ...], options, mesh
) -> TrainState:
    """The shapes of a task's state on `mesh`, the current one, without moments. Most stages differ
    in what learns alone, and share it: tracing a model takes seconds."""
    how = dict(trainable=learns, without=without, options=dict(options))
    init = functools.partial(task.load(name).init_state, model=model, tx=optax.identity(), **how)
    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))


def learns(stage: Stage) -> str:
    """The parts that learn, in words."""
    pairs = ()
    if "rank" in task.load(stage.task).OPTIONS:
        o = task.options(stage)
        pairs = (f"lora (pairs of rank {o['rank']:g} beside {o['targets']})",)
    return ", ".join((*pairs, *stage.trainable))


def shape(stage: Stage) -> str:
    """What a step of a stage takes, in words."""
    if stage.rows is None:
        return f"batches of {stage.batch_size} images"
    return f"{stage.rows.count} rows of {stage.rows.length} for batch_size {stage.batch_size}"
