"""The loop. Stage 0 if asked for, then each stage: weights in, data in, steps, weights out."""

import dataclasses
import functools
import json
import math
import pathlib
from contextlib import closing, contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from janus_jax import feed, hosts
from janus_jax import optim as optims
from janus_jax import sharding as sh
from janus_jax import train_state as ts
from janus_jax.checkpoint import Checkpointer, run_id
from janus_jax.data.processor import Processor
from janus_jax.experiment import Experiment, Stage
from janus_jax.guard import Guard
from janus_jax.log import Log
from janus_jax.meter import Meter, facts, numbers
from janus_jax.model import attention
from janus_jax.model.generation_encoder import normalise
from janus_jax.tokenizer_training import vq
from janus_jax.watchdog import WATCH
from janus_jax.weights import FILE, export, import_weights


class OutOfMemory(Exception):
    """The step of stage `stage` asks for more than a device's memory; the cause is JAX's own error."""

    def __init__(self, stage: str):
        super().__init__(stage)
        self.stage = stage


def loop(
    log: Log, name: str, config, shapes, begin, step_fn, data, next_batch, checkpointer: Checkpointer, schedule,
    meter: Meter,
):  # fmt: skip
    """Steps of one stage, from its last checkpoint (or the start) to its end. Returns the final state.

    config has steps, log_every, checkpoint_every, spikes. shapes: of the state, with shardings; begin(): the state
    where there is no checkpoint. data: a pipeline.Batches, or None. next_batch(i): batch i and its facts (meter.py).
    """
    # Resume: the latest sound checkpoint, with the data and the guard where they were.
    guard = Guard(name, config.spikes, log.say)
    WATCH.stage(name)
    state = checkpointer.restore(shapes, data, guard)
    if state is shapes:
        WATCH.at(f"preparing the weights of {name}")
        state = begin()
        WATCH.at("saving step 0")
        checkpointer.save(0, state, data, guard)  # a spike can come before the first checkpoint
    step = int(state.step)
    log.stage(name, config.steps, step)
    save = lambda: checkpointer.save(step, state, data, guard)

    while step < config.steps:
        # One step. The arrays are made while the last step computes.
        WATCH.draw(step + 1)
        batch = meter.draw(next_batch, step + guard.skipped)
        step += 1
        WATCH.at("step", step)
        state, metrics = meter.run(step_fn, state, batch, step)
        WATCH.done(metrics["loss"])
        guard.watch(step, metrics)
        stops = hosts.NOTICE.reached()
        logs = step % config.log_every == 0 or step in (1, config.steps)
        saves = step % config.checkpoint_every == 0 or step == config.steps or stops
        checkpointer.check()
        if logs or saves:
            saves = checkpointer.due() or saves  # the last save has failed

        # Enter what was read, of all processes, and judge it.
        if (logs or saves) and data is not None:
            data.settle(hosts.gather)

        # Judge the losses; from a spike go back to the last checkpoint, and pass over what led to it.
        spike = None
        if logs or saves:
            spike = guard.judge()
            meter.rest()  # the devices are done, and what follows is no part of a step's time
        if spike:
            WATCH.at("restoring after the spike of step", step)
            state = checkpointer.restore(state, data, guard)
            step = int(state.step)
            ahead = guard.roll_back(spike, step)
            for _ in range(ahead if data is not None else 0):
                next(data)
            log.stage(name, config.steps, step)
            meter.restart()
            continue

        # Log.
        if logs:
            values = numbers(metrics)
            if guard.in_a_row:  # the step was left out, and said so
                values = {key: value for key, value in values.items() if math.isfinite(value)}
            rate = float(schedule(max(step - 1 - guard.left_out, 0)))
            read = data.ledger.metrics(step) if data is not None else {}
            log.write(step, values | meter.read() | guard.counts() | read | {"learning_rate": rate})

        # Save.
        if saves:
            WATCH.at("saving step", step)
            save()
            log.curves(now=stops or step == config.steps)
        if stops:
            checkpointer.settle(save)
            raise hosts.Preempted(f"{name}: {hosts.NOTICE.name()}; saved step {step} of {config.steps}")
    checkpointer.settle(save)
    return state


def run_stage0(experiment: Experiment, sources: dict, directory: pathlib.Path, log: Log):
    """The VQ tokenizer from nothing, on the pictures of the generation source."""
    config, model = experiment.stage0, experiment.model
    tx = optims.make(config.optim, config.steps)
    init = functools.partial(vq.init_state, config=model.generation_encoder, tx=tx)
    key = jax.random.key(experiment.seed)
    shapes, begin = sh.concrete(jax.eval_shape(init, key)), lambda: jax.jit(init)(key)
    step_fn = jax.jit(
        functools.partial(vq.train_step, tx=tx, commitment=config.commitment, entropy=config.entropy),
        donate_argnums=0,
    )
    pictures = feed.open_pictures(experiment, sources, directory, log)
    part = {"images": config.batch_size / jax.process_count()}
    next_batch = lambda i: (sh.put_batch({"images": pictures[i]})["images"], part)
    schedule = optims.schedule(config.optim, config.steps)
    with (
        saving(checkpoints(experiment, "stage0", directory, log)) as checkpointer,
        Meter("stage0", config.steps, log.say, directory, experiment.profile) as meter,
    ):
        state = loop(
            log, "stage0", config, shapes, begin, step_fn, None, next_batch, checkpointer, schedule, meter
        )
    hosts.NOTICE.settle()
    WATCH.at("exporting stage0")
    export(directory / "stage0", state.params)
    for line in pictures.ledger.report():
        log.say(line)


@contextmanager
def saving(checkpointer: Checkpointer):
    """Waits at the end for a save under way. Not after an error of one of several processes: it is to be told first,
    and what is half-written goes when the run begins again."""
    try:
        yield checkpointer
    except Exception:
        if jax.process_count() == 1:
            WATCH.at("saving: a checkpoint under way")
            checkpointer.close()
        raise
    checkpointer.close()


def checkpoints(experiment: Experiment, name: str, directory, log: Log) -> Checkpointer:
    """Where the stage `name` saves. Each checkpoint says of which run and config it is."""
    run = {"run": run_id(directory), "config": json.loads(json.dumps(dataclasses.asdict(experiment)))}
    policy = experiment.checkpoints
    return Checkpointer(directory / "checkpoints" / name, run, policy.keep, policy.keep_every, log.say)


def stage_shapes(experiment: Experiment, stage: Stage, tx, without=()) -> ts.TrainState:
    """Of the train state that a stage begins with, with shardings; nothing is computed."""
    init = functools.partial(
        ts.init_state, config=experiment.model, tx=tx, flames=stage.trainable, without=without
    )
    return sh.concrete(jax.eval_shape(init, jax.random.key(0)))


def init_stage(experiment: Experiment, stage: Stage, tx, previous, log: Log, without=(), tokenizer=None):
    """(the train state, host arrays of the children that it is `without`): the weights of each directory in
    `stage.init`, by child; what none of them holds is drawn at random."""
    key, model = jax.random.key(experiment.seed + 1), experiment.model
    state, whole = (stage_shapes(experiment, stage, tx, names) for names in (without, ()))
    params, fresh = whole.params, set(whole.params)
    for directory in directories(stage, previous):
        params, children = import_weights(
            directory, params, partly=True, config=model, tokenizer=tokenizer, say=log.say
        )
        fresh -= set(children)
        log.say(f"  {', '.join(children)} <- {directory}")
    if "generation_embedding" in fresh and "generation_encoder" not in fresh:
        # The ids' table starts as the codes themselves, of unit length.
        codes = normalise(jnp.asarray(params["generation_encoder"]["codebook"]))
        params["generation_embedding"] = {"table": codes}
        log.say("  generation_embedding <- the tokenizer's normalised codebook")
        fresh.remove("generation_embedding")
    if fresh:
        params |= jax.jit(ts.draw, static_argnums=(1, 2))(key, model, tuple(sorted(fresh)))
        log.say(f"  {', '.join(sorted(fresh))} <- random")
    aside = {name: jax.tree.map(np.asarray, params[name]) for name in without}
    trainable = {name: params[name] for name in state.trainable}
    frozen = {name: params[name] for name in state.frozen}
    step, left_out = (sh.put(np.int32(0), x.sharding) for x in (state.step, state.left_out))
    state = state.replace(
        step=step,
        left_out=left_out,
        trainable=trainable,
        frozen=frozen,
        opt_state=jax.jit(tx.init)(trainable),
    )
    return state, aside


def directories(stage: Stage, previous) -> list:
    """The weights directories of `stage.init`, in order."""
    return [previous if directory == "previous" else directory for directory in stage.init]


def run_stage(
    experiment: Experiment, name: str, sources, processor: Processor, previous, directory, log: Log
):
    """One column of Table 1."""
    stage = experiment.stages[name]
    tx = optims.make(stage.optim, stage.steps)
    model, llm = experiment.model, experiment.model.transformer
    heads, size = llm.heads, llm.width // llm.heads
    kind = attention.working(model.attention, stage.rows.length, heads, size, model.dtype, log.say)
    hosts.same({"attention kernel": kind})
    here = dataclasses.replace(experiment, model=dataclasses.replace(model, attention=kind))
    data = feed.open_data(experiment, name, sources, processor, directory, log)
    with_ids = [entry.source for entry in data.mixture.entries if entry.ids]
    # Where pictures to draw come as ids, the VQ tokenizer takes no part in the step: it waits on the host.
    without = ("generation_encoder",) if with_ids else ()
    shapes, aside = stage_shapes(here, stage, tx, without), {}
    begin = lambda: init_stage(here, stage, tx, previous, log, tokenizer=processor.tokenizer)[0]
    if with_ids:
        shapes, aside = init_stage(here, stage, tx, previous, log, without, processor.tokenizer)
        begin = lambda: shapes
        begun_with = directories(stage, previous)
        hosts.together(lambda: feed.require_ids(model, begun_with, aside["generation_encoder"], with_ids))
    step_fn = jax.jit(functools.partial(ts.train_step, tx=tx, accumulate=stage.accumulate), donate_argnums=0)
    of = sh.batch_share()[1]

    def next_batch(_):
        batch = next(data)
        # This process's part of the step's; a share that several processes feed counts once.
        part = of / jax.process_count()
        seen = {key: part * n for key, n in facts(batch, experiment.model, stage.trainable).items()}
        return sh.put_batch(batch), seen

    schedule = optims.schedule(stage.optim, stage.steps)
    # Closed also where the loop fails: a process that ends while a checkpoint is being written cannot finish it.
    with (
        saving(checkpoints(experiment, name, directory, log)) as checkpointer,
        Meter(name, stage.steps, log.say, directory, experiment.profile) as meter,
        closing(data),
    ):
        state = loop(
            log, name, stage, shapes, begin, step_fn, data, next_batch, checkpointer, schedule, meter
        )
    hosts.NOTICE.settle()
    WATCH.at(f"exporting {name}")
    back = jax.tree.map(lambda x: sh.put(x, NamedSharding(jax.sharding.get_mesh(), sh.REPLICATED)), aside)
    export(directory / name, state.params | back, experiment.model, processor)
    for line in data.ledger.report():
        log.say(line)


def train(experiment: Experiment, sources: dict, processor: Processor, workdir, log: Log) -> pathlib.Path:
    """Runs all stages that are not done yet. Returns the last one's weights directory. Raises OutOfMemory."""
    directory, previous = pathlib.Path(workdir), None
    # The first process looks for all: another may not see yet what is there, and remember that.
    done = lambda name: hosts.gather(hosts.first() and (directory / name / FILE).is_file())[0]
    if experiment.stage0:
        previous = directory / "stage0"
        if not done("stage0"):
            log.say("stage0: the VQ tokenizer learns to draw back what it sees")
            run_stage0(experiment, sources, directory, log)
    for name, stage in experiment.stages.items():
        if not done(name):
            shape = f"about {stage.batch_size} examples in {stage.rows.count} rows of {stage.rows.length}"
            ratio = ":".join(f"{value:g}" for value in vars(stage.ratio).values())
            WATCH.at(f"preparing {name}")
            log.say(
                f"{name}: {stage.steps} steps, {shape}, ratio {ratio}, training {', '.join(stage.trainable)}"
            )
            try:
                run_stage(experiment, name, sources, processor, previous, directory, log)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                raise OutOfMemory(name) from error
        previous = directory / name
    return previous
