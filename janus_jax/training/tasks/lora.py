"""Training pairs of narrow matrices beside the linear maps of a Janus that stays as it is (LoRA, arXiv
2106.09685). In all else it is task janus: the same data, loss and step.

The state has a part that the model has not, `lora`, which learns. What `trainable` names learns whole.
The rest is the base: without moments, in the type that option `base` says. The VQ tokenizer stays in
float32, norms and biases too.
"""

import functools
import types

import jax
import jax.numpy as jnp
import optax

from janus_jax.checkpoint.inspect import stage_directory
from janus_jax.config.schema import Experiment
from janus_jax.model import low_rank_layers
from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.model.janus import build
from janus_jax.model.keys import Keys
from janus_jax.training import lora_options
from janus_jax.training.loss import counts, janus_loss
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState, new_state, split, update
from janus_jax.training.tasks import janus
from janus_jax.weights.adapter_export import begun_with, export_adapter
from janus_jax.weights.load import CAST
from janus_jax.weights.table import VQ

PACKS = True
NARROWS = True
TEACHERS = ()
OPTIONS = lora_options.OPTIONS
VALIDATES = janus.VALIDATES
without = janus.without
for_devices = janus.for_devices
batches = janus.batches
batch_shapes = janus.batch_shapes
read_first = janus.read_first


def problems(experiment: Experiment, name: str) -> list[str]:
    return janus.problems(experiment, name) + lora_options.lora_problems(experiment, name)


def init_state(key, model: JanusConfig, tx, trainable, without=(), options=OPTIONS):
    how = lora_options.adaptation(OPTIONS | options, model, trainable)
    janus_model = build(model, Keys(key))
    for name in without:
        delattr(janus_model, name)
    if how.int8:
        low_rank_layers.scaled(janus_model, set(model.children) - {*trainable, VQ})
    low_rank_layers.attach(janus_model, how.paths, how.rank, how.scaling, how.dropout, key)
    graphdef, learns, base = split(janus_model, (*trainable, "lora"))

    def narrowed(path, x):
        cast = path[0].key != VQ and path[-1].key.endswith(CAST) and x.dtype == jnp.float32
        return x.astype(how.dtype) if cast else x

    return new_state(graphdef, learns, jax.tree.map_with_path(narrowed, base), tx)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw_pairs(key, model: JanusConfig, options: tuple) -> dict:
    how = dict(tx=optax.identity(), trainable=(), options=dict(options))
    return init_state(key, model, **how).trainable["lora"]


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    """Pairs of all that `targets` names, also of children that learn whole: those are left out by
    who asks."""
    children = tuple(name for name in names if name != "lora")
    drawn = janus.init_random(seed, model, children) if children else {}
    if "lora" in names:
        drawn["lora"] = _draw_pairs(jax.random.key(seed + 4), model, tuple(options.items()))
    return drawn


def step(plan: StagePlan):
    def lora_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        """Pure. What dropout leaves out follows from the seed, the step and the microbatch."""
        key = jax.random.fold_in(jax.random.key(plan.experiment.seed), state.step)
        parts = plan.stage.accumulate
        if parts == 1:
            with_pairs = functools.partial(low_rank_layers.with_pairs, key=key)
            return update(state, plan.tx, lambda model: janus_loss(with_pairs(model), batch))
        counted = counts(batch)

        def of_part(model, part):
            key, batch = part
            return janus_loss(low_rank_layers.with_pairs(model, key), batch, counted)

        split_batch = jax.tree.map(lambda x: sh.parts(x, parts), batch)
        return update(state, plan.tx, of_part, (jax.random.split(key, parts), split_batch))

    return lora_step


def validate(plan: StagePlan):
    sums = janus.validate(plan)

    def sums_with_pairs(state, batch):
        model = low_rank_layers.with_pairs(state.model())
        return sums(types.SimpleNamespace(model=lambda: model), batch)

    return sums_with_pairs


def export(plan: StagePlan, directory, params: dict, processor):
    """An adapter of the weights that the stage began with (`weights/adapter.py`)."""
    workdir = next(p.parent for p in (directory, *directory.parents) if p.name == plan.name)
    begun = begun_with(stage_directory(workdir, plan.name))
    how = dict(trainable=plan.stage.trainable, begun=begun, options=plan.options)
    export_adapter(directory, params, **how, config=plan.experiment.model, processor=processor)
