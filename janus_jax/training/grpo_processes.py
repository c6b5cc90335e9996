"""Rollouts of several processes: each draws and scores its share of a step's groups with its own devices,
and all of them have all groups then, in the order of one process."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding

from janus_jax.distributed import arrays, processes
from janus_jax.model import sharding as sh
from janus_jax.training.grpo_batch import Group
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState
from janus_jax.weights.table import stacked


def own_state(plan: StagePlan, state: TrainState) -> TrainState:
    """A state whose weights lie on this process's devices, whole: of one process itself. All call it.
    Only its `model()` is of use."""
    if jax.process_count() == 1:
        return state

    def gathered(path, x):
        name = ".".join(str(key.key) for key in path)
        pieces = list(arrays.pieces(x, stacked(name)))
        return np.stack(pieces) if stacked(name) else pieces[0]

    parts = [jax.tree.map_with_path(gathered, x) for x in (state.trainable, state.frozen)]
    with sh.mesh_context(sh.make_mesh(1, -1, 1, jax.local_devices())):
        like = plan.state()
        put = lambda x, to: arrays.put(x, to.sharding)
        trainable, frozen = jax.tree.map(put, parts, [like.trainable, like.frozen])
    return like.replace(trainable=trainable, frozen=frozen)


def shared(groups: list[Group], fill: Callable) -> list[Group]:
    """The groups, filled: each process fills its share of them and is told of the others'.

    groups: the same on all processes. fill: (some of them) -> nothing, enters their outputs and rewards.
    Raises what `fill` raises, on the other processes `processes.Others`.
    """
    index, of = jax.process_index(), jax.process_count()
    own = groups[index::of]
    processes.all_or_none(lambda: fill(own) if own else None)
    if of > 1:
        for process, told in enumerate(processes.all_gather([_told(group) for group in own])):
            for group, values in zip(groups[process::of], told, strict=True):
                _enter(group, *values)
    return groups


def _told(group: Group) -> list:
    """What JSON holds of a group's outputs and rewards; float32 and NaN come back as they are."""
    outputs = [[ids.tolist(), told.tolist()] for ids, told in group.outputs]
    by_name = {name: x.tolist() for name, x in group.by_name.items()}
    return [outputs, group.rewards.tolist(), by_name]


def _enter(group: Group, outputs: list, rewards: list, by_name: dict):
    group.outputs = [(np.array(i, np.int32), np.array(x, np.float32)) for i, x in outputs]
    group.rewards = np.array(rewards, np.float32)
    group.by_name = {name: np.array(x, np.float32) for name, x in by_name.items()}


def put_rows(batch: dict) -> dict:
    """A step's batch (numpy), which every process has whole, as global arrays split over the batch
    axes."""
    sharding = NamedSharding(jax.sharding.get_mesh(), sh.BATCH)
    return {name: arrays.put(x, sharding) for name, x in batch.items()}
