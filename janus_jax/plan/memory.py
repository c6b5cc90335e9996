"""Bytes of one chip in a training step, from tracing alone, and the fields of a config that would
save some.

Weights, moments and batch, the arguments of the step, are exact. What the forward pass keeps for
the backward pass is traced (XLA may keep less). The other temporaries are an estimate until a
compiler says more.
"""

import collections
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.config.read import resolve
from janus_jax.config.schema import ConfigError, Experiment, Stage
from janus_jax.model import sharding as sh
from janus_jax.model.config import CHILDREN
from janus_jax.model.low_rank_layers import with_pairs
from janus_jax.plan.collectives import Collective
from janus_jax.training import ema
from janus_jax.training.check_config import check
from janus_jax.training.loss import janus_loss
from janus_jax.training.stage_plan import StagePlan


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Of one chip.

    trainable: weights that learn.
    frozen: weights that do not.
    moments: the optimiser's, and counters.
    average: of the weights that learn, where it keeps one.
    batch: a step's rows.
    activations: kept for the backward pass.
    other: gradients, gathered weights and what the step holds only for a moment.
    """

    trainable: float
    frozen: float
    moments: float
    average: float
    batch: float
    activations: float
    other: float

    @property
    def arguments(self) -> float:
        return self.trainable + self.frozen + self.moments + self.average + self.batch

    @property
    def total(self) -> float:
        return self.arguments + self.activations + self.other

    def compiled(self, arguments: float, temporaries: float) -> "Bytes":
        """With a compiler's figures. What the parts lack of its arguments (padding) counts as
        frozen weights."""
        kept = min(self.activations, temporaries)
        padding = max(arguments - self.arguments, 0)
        return dataclasses.replace(
            self, frozen=self.frozen + padding, activations=kept, other=temporaries - kept
        )


@dataclasses.dataclass(frozen=True)
class Saving:
    """What would save memory.

    flag: of the command, to paste.
    saves: bytes of one chip.
    price: in words.
    """

    flag: str
    saves: float
    price: str


def lower_inputs(plan: StagePlan):
    """(the jitted step, its abstract state, its abstract batch) of a stage on the current mesh."""
    batch = plan.task.batch_shapes(plan)
    return jax.jit(plan.task.step(plan), donate_argnums=0), plan.state(), batch


def estimate(plan: StagePlan, state=None, batch=None) -> Bytes:
    """The bytes of a stage's step on the current mesh, nothing compiled.

    plan: of the stage.
    state: its abstract state, made here where it is not given.
    batch: its abstract batch, likewise.

    `other` counts float32 gradients, and the two largest weights gathered in the compute type, but
    not a layer's or a head's own scratch: it is low.
    """
    if state is None:
        _, state, batch = lower_inputs(plan)
    weights = jax.tree.leaves((state.trainable, state.frozen))
    width = jnp.dtype(plan.model.dtype).itemsize
    whole = sorted(width * x.size / sh.tensor_shards() for x in weights)[-2:]
    average = shard_bytes(ema.averaged(state.opt_state))
    kept = shard_bytes((state.opt_state, state.step, state.nonfinite_updates))
    return Bytes(
        trainable=shard_bytes(state.trainable),
        frozen=shard_bytes(state.frozen),
        moments=kept - average,
        average=average,
        batch=shard_bytes(batch),
        activations=kept_activations(state, batch, plan.stage.accumulate),
        other=shard_bytes(state.trainable) + sum(whole),
    )


def _shard_size(x) -> int:
    return math.prod(x.sharding.shard_shape(x.shape) if x.sharding is not None else x.shape)


def shard_bytes(tree) -> float:
    """Bytes of one chip's part of a tree of arrays or shapes."""
    return float(sum(_shard_size(x) * x.dtype.itemsize for x in jax.tree.leaves(tree)))


def kept_activations(state, batch: dict, parts: int = 1) -> float:
    """Bytes of one chip that the backward pass needs of the forward pass, without the weights and
    the batch themselves.

    state: the abstract state.
    batch: the abstract batch.
    parts: the microbatches that it is cut into, one of which is held at a time.
    """
    batch = {
        name: jax.ShapeDtypeStruct(
            (x.shape[0] // parts, *x.shape[1:]), x.dtype, sharding=x.sharding
        )
        for name, x in batch.items()
    }

    def backward(trainable, frozen, batch):
        model = lambda trainable: with_pairs(nnx.merge(state.graphdef, trainable, frozen))
        return jax.vjp(lambda x: janus_loss(model(x), batch)[0], trainable)[1]

    kept = jax.eval_shape(backward, state.trainable, state.frozen, batch)
    given = collections.Counter(
        (x.shape, x.dtype) for x in jax.tree.leaves((state.trainable, state.frozen, batch))
    )
    total = 0.0
    for x in jax.tree.leaves(kept):
        if given[x.shape, x.dtype] > 0:
            given[x.shape, x.dtype] -= 1
        else:
            total += _shard_size(x) * x.dtype.itemsize
    return total


def savings(experiment: Experiment, name: str, now: Bytes) -> list[Saving]:
    """The three flags that save a chip the most bytes, of those that this config can take. Where
    two save as much, the one that leaves the training as it is comes first.

    experiment: the config.
    name: of the stage.
    now: the bytes of its step.
    """
    stage = experiment.stages[name]
    mesh = jax.sharding.get_abstract_mesh().shape
    path = f"stages.{name}"
    parts = stage.accumulate
    gradients = min(now.trainable, now.other)  # float32, as the weights
    rows = (now.activations + now.other - gradients) / 2
    ways = sh.batch_shards()
    fewer = stage.rows.count // ways // 2 * ways
    wanted = [
        (f"{path}.accumulate={2 * parts}", rows - (gradients if parts == 1 else 0),
         "half the rows at a time; weights are gathered twice as often"),
        (f"mesh.fsdp={2 * mesh[sh.FSDP]} --config.mesh.data={mesh[sh.DATA] // 2}",
         (now.trainable + now.frozen + now.moments + now.average + gradients) / 2,
         "weights are gathered from more chips"),
        (f"{path}.optim.mu_dtype=bfloat16", now.moments / 4, "Adam's first moment is rounded"),
        (f"{path}.optim.ema=0", now.average, "no average of the weights is handed on"),
        (f"{path}.rows.count={fewer}", (2 * rows + now.batch) * (1 - fewer / stage.rows.count),
         "a smaller batch: other training"),
    ]  # fmt: skip
    found = [Saving(f"--config.{flag}", saves, price) for flag, saves, price in wanted if saves > 0]
    for flag, price in (
        (f"{path}.options.base=int8", "what does not learn is rounded to int8"),  # of task lora
        ("model.remat=full", "layers run forwards again in the backward pass"),
    ):
        if changed := changed_by(experiment, f"--config.{flag}"):
            then = estimate(StagePlan.of(changed, name))
            saves = now.activations + now.frozen - then.activations - then.frozen
            found.insert(0, Saving(f"--config.{flag}", saves, price))
    found = [k for k in found if k.saves > 0 and changed_by(experiment, k.flag)]
    return sorted(found, key=lambda k: -k.saves)[:3]


def changed_by(experiment: Experiment, flags: str) -> Experiment | None:
    """The experiment with flags applied, or None where it knows no such field, `check` refuses the
    value, or nothing changes."""
    overrides = dict(flag.removeprefix("--config.").split("=", 1) for flag in flags.split())
    values = dataclasses.asdict(experiment)
    try:
        changed, wrong = resolve(values, overrides)
        check(changed, jax.sharding.get_abstract_mesh().size, known=wrong)
        return changed if changed != experiment else None
    except ConfigError:
        return None


def parameters(state) -> dict[str, tuple[int, int]]:
    """child -> (trainable, frozen) numbers of parameters; the model's children, in its order, then
    what learns beside them."""
    beside = [name for name in state.params if name not in CHILDREN]
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    return {
        name: (count(state.trainable.get(name, ())), count(state.frozen.get(name, ())))
        for name in (*CHILDREN, *beside)
    }


def expected_collectives(experiment: Experiment, stage: Stage, state) -> list[Collective]:
    """What a step sends, by its shapes alone: the weights that fsdp splits, gathered forwards and
    backwards in the compute type; their gradients, scattered in float32; and the gradients' shards,
    summed over data.

    experiment: the config.
    stage: the stage.
    state: its abstract state.
    """
    mesh = jax.sharding.get_abstract_mesh().shape
    axes = tuple(mesh)
    width = jnp.dtype(experiment.model.dtype).itemsize
    places = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
    split = lambda x: sh.FSDP in jax.tree.leaves(tuple(x.sharding.spec))
    learns = jax.tree.leaves(state.trainable)
    still = jax.tree.leaves(state.frozen)
    sent = []
    for kind, axis, leaves, times, size in (
        (
            "all-gather",
            sh.FSDP,
            [x for x in learns + still if split(x)],
            2 * stage.accumulate,
            width,
        ),
        ("reduce-scatter", sh.FSDP, [x for x in learns if split(x)], stage.accumulate, 4),
        ("all-reduce", sh.DATA, learns, 1, 2 * 4),
    ):
        n = mesh[axis]
        numbers = sum(_shard_size(x) * (mesh[sh.FSDP] if axis == sh.FSDP else 1) for x in leaves)
        if n > 1 and leaves:
            group = tuple(np.moveaxis(places, axes.index(axis), -1).reshape(-1, n)[0].tolist())
            bytes_ = times * size * numbers * (n - 1) / n
            sent.append(Collective(kind, (axis,), group, times * len(leaves), bytes_))
    return sent
