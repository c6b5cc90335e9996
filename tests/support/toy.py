"""A stage of one small matrix: what the loop, the monitor and the checkpoints do is tried on it, in
no time."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from support.logs import Plain

from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.config import schema
from janus_jax.config.schema import Spikes
from janus_jax.training import loop, optim
from janus_jax.training import state as train_state
from janus_jax.training.evaluations import Evaluations
from janus_jax.training.meter import Meter
from janus_jax.training.spikes import LossMonitor

TX = optim.make(schema.Optim(learning_rate=0.01, warmup_steps=5), 60)
BAD, HUGE = float("nan"), 1e4


class Toy(nnx.Module):
    """Flame and snowflake: y = x @ (flame + snow)."""

    def __init__(self, width: int):
        self.flame = nnx.Linear(width, width, rngs=nnx.Rngs(0))
        self.snow = nnx.Linear(width, width, rngs=nnx.Rngs(1))


def toy_state(width: int = 4):
    return train_state.new_state(*train_state.split(Toy(width), ("flame",)), TX)


def state_at(step: int):
    return toy_state().replace(step=jnp.int32(step))


def save_one(again, step: int = 10):
    """Saves the toy's state of one step by a Checkpointer that `again()` opens."""
    checkpointer = again()
    checkpointer.save(step, state_at(step))
    checkpointer.close()


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def toy_loss(model, batch):
    """batch: x [B, W], and `factor` of the loss: a NaN or a spike in it comes through to the
    gradient."""
    loss = jnp.mean((model.flame(batch["x"]) + model.snow(batch["x"])) ** 2) * batch["factor"]
    return loss, {"size": jnp.abs(batch["x"]).max()}


@functools.cache
def toy_step():
    return jax.jit(
        lambda state, batch: train_state.update(state, TX, lambda m: toy_loss(m, batch)),
        donate_argnums=0,
    )


def toy_batch(index: int, factor: float = 1.0) -> dict:
    x = np.random.default_rng(index).normal(size=(8, 4)).astype(np.float32)
    return {"x": jnp.asarray(x), "factor": jnp.float32(factor)}


class Counting:
    """0, 1, 2, ... with a position that is saved, in the place of pipeline.Batches."""

    def __init__(self):
        self.at, self.stats = 0, self

    def __next__(self):
        self.at += 1
        return self.at - 1

    def get_state(self, gather):
        return {"streams": {"0": self.at}}

    def set_state(self, state):
        self.at = state["streams"]["0"]
        return []

    def sync_counts(self, gather):
        assert gather(1) == [1]

    def metrics(self, step):
        return {}


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the loop reads of a stage."""

    steps: int = 30
    log_every: int = 7
    checkpoint_every: int = 10
    spikes: Spikes = dataclasses.field(default_factory=lambda: Spikes(window=8))


class Killed(Exception):
    pass


class Run:
    """One process of a stage in a directory. factors: batch index -> factor of its loss. It records
    the indices of the batches that were trained on."""

    def __init__(
        self,
        directory,
        factors=None,
        stage: Stage = Stage(),
        has_data=True,
        kill_at: int = 0,
        profile=0,
        phases=((0, ""),),
        **evaluation,
    ):
        self.profile = profile
        self.phases = phases
        self.log, self.seen = Plain(directory), []
        self.said = []
        self.log.say = self.said.append
        self.stage, self.factors, self.kill_at, self.steps = stage, factors or {}, kill_at, 0
        self.data = Counting() if has_data else None
        self.checkpointer = Checkpointer(directory / "checkpoints", say=self.said.append)
        self.evaluations = evaluations(self, **evaluation)

    def next_batch(self, i: int):
        index = next(self.data) if self.data is not None else i
        assert index == i, "the data is where the monitor counts it"
        if self.kill_at and len(self.seen) == self.kill_at:
            raise Killed
        self.seen.append(index)
        return toy_batch(index, self.factors.get(index, 1.0)), {}

    def __call__(self):
        try:
            with Meter(
                "toy", self.stage.steps, self.said.append, self.log.workdir, self.profile
            ) as meter:
                schedules = optim.schedules(schema.Optim(learning_rate=0.01, warmup_steps=5), 60)
                data = types.SimpleNamespace(next_batch=self.next_batch, position=self.data)
                monitor = LossMonitor("toy", self.stage.spikes, self.said.append, self.phases)
                run = loop.Run(
                    name="toy",
                    config=self.stage,
                    step=toy_step(),
                    rates=functools.partial(optim.logged, schedules),
                    data=data,
                    monitor=monitor,
                    checkpointer=self.checkpointer,
                    meter=meter,
                    log=self.log,
                    evaluations=self.evaluations,
                )
                state = run.restore(toy_state())
                if state is None:
                    state = toy_state()
                    run.save(0, state)
                self.evaluations.starts(state, {}, self.log)
                return loop.loop(run, state)
        finally:
            self.checkpointer.close()
            self.log.close()


def evaluations(run: Run, best: str = "", validate=None, **how) -> Evaluations:
    """Of a run: how: fields of the config's `evaluation`; validate: by default a norm of what
    learns."""
    experiment = types.SimpleNamespace(
        evaluation=schema.Evaluation(**how), checkpoints=schema.Checkpoints(best=best)
    )
    size = lambda state: {"validation_loss": float(optax.tree.norm(state.trainable))}
    nothing = lambda step, state, aside: {}
    return Evaluations(
        experiment, run.stage.steps, run.checkpointer, validate or size, nothing, run.said.append
    )


def records(directory) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def schedule_count(state) -> int:
    return max(int(x) for x in jax.tree.leaves(state.opt_state) if x.dtype == jnp.int32)
