"""The stages of a config, one after the other: weights in, data in, steps, weights out."""

import pathlib
from contextlib import closing, contextmanager, suppress

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from janus_jax.checkpoint.history import HISTORY, plain_values
from janus_jax.checkpoint.inspect import ASIDE, stage_directory
from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.common.files import has_weights
from janus_jax.common.text import listed
from janus_jax.config.lengths import by_part
from janus_jax.config.schema import Experiment
from janus_jax.data.processor import Processor
from janus_jax.distributed import arrays, processes, signals, xla_flags
from janus_jax.distributed.watchdog import WATCH
from janus_jax.model import low_rank
from janus_jax.model import sharding as sh
from janus_jax.model.config import to_dict
from janus_jax.model.generation_encoder import normalise
from janus_jax.training import ema, probes, stage_mixture
from janus_jax.training.evaluations import Evaluations
from janus_jax.training.log import Log
from janus_jax.training.loop import Run, loop
from janus_jax.training.meter import Meter
from janus_jax.training.preflight_finetune import with_first_losses
from janus_jax.training.run_dir import changed_before, run_id
from janus_jax.training.spikes import PATIENCE, LossMonitor
from janus_jax.training.stage_plan import StagePlan, learns, shape
from janus_jax.training.validation import Validation
from janus_jax.weights.adapter_export import remember_bases
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.reader import flatten
from janus_jax.weights.table import WeightsError


class OutOfMemory(Exception):
    """The step of stage `stage` asks for more than a device's memory; the cause is JAX's own
    error."""

    def __init__(self, stage: str):
        super().__init__(stage)
        self.stage = stage


def train(
    experiment: Experiment, sources: dict, processor, workdir, log: Log, show, sampler=None
) -> pathlib.Path:
    """Runs all stages that are not done yet. Returns the last one's weights directory. Raises
    OutOfMemory.

    Args:
        experiment: the config.
        sources: the data sets, opened, by name.
        processor: the tokenizer and template.
        workdir: where all of the run goes.
        log: progress and metrics.
        show: opens what each evaluation shows of a stage: (its plan, sources, processor, workdir,
            log) -> Evaluations.show.
        sampler: the module sample/rollouts.py, for tasks that draw with the weights of a step.
    """
    opened = sources, processor, (directory := pathlib.Path(workdir)), log, show, sampler

    def done(name: str) -> bool:
        wanted = [directory / name]
        if experiment.stages[name].optim.ema:
            wanted.append(directory / name / ema.DIRECTORY)
        there = lambda: all(map(has_weights, wanted))
        # The first process looks for all: another may not see yet what is there, and remember that.
        return processes.all_gather(processes.is_lead() and there())[0]

    for name in experiment.stages:
        if done(name):
            continue
        WATCH.at(f"preparing {name}")
        log.say(headline(experiment, name))
        try:
            run_stage(StagePlan.of(experiment, name), *opened)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise OutOfMemory(name) from error
    return directory / name


def headline(experiment: Experiment, name: str) -> str:
    """A stage in a line, before it begins."""
    stage = experiment.stages[name]
    ratio = ":".join(f"{value:g}" for value in vars(stage.ratio).values())
    trains = learns(stage)
    rates = by_part(stage.optim.learning_rate)
    if len(rates) > 1:
        each = ", ".join(f"{part} {rate:g}" for part, rate in rates.items())
        trains += f"; learning rates: {each}"
    return f"{name}: {stage.steps} steps, {shape(stage)}, ratio {ratio}, training {trains}"


def run_stage(plan: StagePlan, sources: dict, processor, workdir, log: Log, show, sampler=None):
    """One column of Table 1. show, sampler: see `train`."""
    experiment = plan.experiment
    name = plan.name
    stage = plan.stage
    plan = plan.task.for_devices(plan, log.say)
    data = plan.task.batches(plan, sources, processor, workdir, log.say)
    options = {}
    if sh.platform() == "gpu":
        size = jax.sharding.get_mesh().size
        options = xla_flags.of_step(size, experiment.deterministic, xla_flags.ADDED)
    step = jax.jit(plan.task.step(plan), donate_argnums=0, compiler_options=options)
    step = probes.beside(plan, step, options)
    step = with_first_losses(plan, step, directories(plan, workdir), log.say)
    step = data.around(step, sampler, initial_state, directories) if data.around else step
    # Closed also where the loop fails: a process that ends while a checkpoint is being written
    # cannot finish it.
    with (
        saving(checkpoints(experiment, name, data.mixture, workdir, log)) as checkpointer,
        Meter(name, stage.steps, log.say, workdir, experiment.profile) as meter,
        closing(data),
    ):
        phases = stage_mixture.phases(plan, data.mixture)
        patience = min(PATIENCE, max(stage.steps // 4, 100))  # short stages are warned too
        how = phases, data.alarms, patience, stage_mixture.loss_begins(plan)
        monitor = LossMonitor(name, stage.spikes, log.say, *how)
        opened = plan, sources, processor, workdir
        validation = Validation(*opened, log.say)
        shown = show(*opened, log)
        e = Evaluations(experiment, stage.steps, checkpointer, validation, shown, log.say)
        run = Run(name, stage, step, plan.rates, data, monitor, checkpointer, meter, log, e)
        WATCH.stage(name)
        state, aside = begin(plan, run, processor, workdir)
        e.starts(state, aside, log)
        state = loop(run, state)
    signals.STOP.raise_if_stopped()
    WATCH.at(f"exporting {name}")
    params = state.params | on_devices(aside)
    plan.task.export(plan, workdir / name, params, processor)
    if average := ema.averaged(state.opt_state):
        plan.task.export(plan, workdir / name / ema.DIRECTORY, params | average, processor)
        log.say(f"  the average of its weights: {workdir / name / ema.DIRECTORY}")
    for line in data.stats.report():
        log.say(line)


def begin(plan: StagePlan, run: Run, processor: Processor, workdir: pathlib.Path):
    """(the state to go on from, host arrays of the children that the step never asks for).

    The state is that of the last checkpoint. Only where there is none are the weights of `init`
    read. They are saved as step 0, because a spike can come before the first checkpoint.
    """
    weights = directories(plan, workdir)
    aside = run.checkpointer.directory / ASIDE
    state = run.restore(plan.state())
    if plan.adapted:
        weights = remember_bases(run.checkpointer.directory, weights, anew=state is None)
    if state is not None:
        params = read_aside(plan, aside, weights, run.log.say)
        require_ids(plan, state.params | params, run.data.with_ids, aside)
        return state, params
    WATCH.at(f"preparing the weights of {plan.name}")
    state, params, named = initial_state(plan, weights, processor.tokenizer, run.log.say)
    tokenizer = named.get("generation_encoder", "drawn at random")
    require_ids(plan, state.params | params, run.data.with_ids, tokenizer)
    if plan.without:
        export(aside, on_devices(params))
    WATCH.at("saving step 0")
    run.save(0, state)
    return state, params


def initial_state(plan: StagePlan, weights: list, tokenizer, say):
    """What a stage begins with: (its train state, host arrays of the children that the state is
    without, child -> the directory that it was read from).

    Args:
        plan: the stage.
        weights: the directories of its `init`; later ones win, what none holds is drawn at random.
        tokenizer: the run's, which a whole model among them must have too.
        say: hears where each child is from.
    """
    state = plan.state()
    like = plan.state(without=()).params
    params = low_rank.unscaled(like)
    fresh = set(params) - {"reference"}  # which is a copy of what learns, see below
    named = {}
    for directory in weights:
        params, children = import_weights(
            directory, params, partly=True, config=plan.model, tokenizer=tokenizer, say=say
        )
        fresh -= set(children)
        named |= dict.fromkeys(children, directory)
        say(f"  {', '.join(children)} <- {directory}")
    if "generation_embedding" in fresh and "generation_encoder" not in fresh:
        # The ids' table starts as the codes themselves, of unit length but where they are summed.
        codes = jnp.array(params["generation_encoder"]["codebook"])
        how = "" if plan.model.generation_encoder.depth > 1 else "normalised "
        params["generation_embedding"] = {"table": normalise(codes) if how else codes}
        say(f"  generation_embedding <- the tokenizer's {how}codebook")
        fresh.remove("generation_embedding")
    if fresh:
        names = tuple(sorted(fresh))
        params |= plan.task.init_random(plan.experiment.seed, plan.model, names, plan.options)
        say(f"  {', '.join(sorted(fresh))} <- random")
    params = low_rank.kept_as(plan.with_reference(params, like), like)
    aside = {name: jax.tree.map(np.asarray, params[name]) for name in plan.without}
    trainable = {name: params[name] for name in state.trainable}
    state = state.replace(
        step=arrays.put(np.int32(0), state.step.sharding),
        nonfinite_updates=arrays.put(np.int32(0), state.nonfinite_updates.sharding),
        trainable=trainable,
        frozen={name: params[name] for name in state.frozen},
        opt_state=jax.jit(plan.tx.init)(trainable),
    )
    return state, aside, named


def directories(plan: StagePlan, workdir: pathlib.Path) -> list:
    """The weights directories of the stage's `init`, in order."""
    previous = plan.experiment.previous(plan.name)
    return [workdir / previous if path == "previous" else path for path in plan.stage.init]


def read_aside(plan: StagePlan, aside: pathlib.Path, weights: list, say) -> dict:
    """Host arrays, by child, of the weights that the step never asks for: those that the stage has
    laid aside, or, where these are gone or damaged, those that it began with.

    Raises WeightsError where none of the directories has them any more.
    """
    if not plan.without:
        return {}
    whole = plan.state(without=()).params
    wanted = {name: whole[name] for name in plan.without}
    failed = []
    for directory in (aside, *reversed(weights)):
        params = None
        try:
            params, _ = import_weights(directory, wanted, partly=True, config=plan.model, say=say)
        except (WeightsError, processes.Others) as error:
            failed.append(str(error))
        # What one process cannot read, no process takes.
        if not any(processes.all_gather(params is None)):
            for text in failed:
                say(f"WARNING: {text}\n  {', '.join(wanted)} <- {directory} instead")
            return jax.tree.map(np.asarray, params)
    raise WeightsError(
        f"the weights of {', '.join(wanted)} that stage {plan.name} began with are nowhere any more; "
        f"put back what one of these names:{listed(failed)}"
    )


def on_devices(params: dict) -> dict:
    """Host arrays, the same on all processes, as global arrays that are whole on every device."""
    whole = NamedSharding(jax.sharding.get_mesh(), sh.REPLICATED)
    return jax.tree.map(lambda x: arrays.put(x, whole), params)


def require_ids(plan: StagePlan, params: dict, sources: list, named):
    """Raises SourceError unless stored ids are those of the tokenizer that the stage has.

    Args:
        plan: the stage.
        params: whole arrays, generation_encoder among them where there are sources.
        sources: `image_ids.WithIds`.
        named: where the tokenizer was read from.
    """

    def compare():
        for source in sources:
            sizes = to_dict(plan.model.generation_encoder)
            source.ids.require(flatten(params["generation_encoder"]), sizes, str(named))

    processes.all_or_none(compare)


@contextmanager
def saving(checkpointer: Checkpointer):
    """Waits at the end for a save under way. Not after an error of one of several processes: it is
    to be told first, and what is half-written goes when the run begins again."""
    try:
        yield checkpointer
    except Exception:
        if jax.process_count() == 1:
            WATCH.at("saving: a checkpoint under way")
            with suppress(FloatingPointError):  # the first error is the one to tell
                checkpointer.close()
        raise
    checkpointer.close()


def checkpoints(experiment: Experiment, name: str, mixture, directory, log: Log) -> Checkpointer:
    """Where the stage `name` saves. Each checkpoint says of which run and config it is, what its
    data sets held, and what changed before."""
    run = {"run": run_id(directory), "config": plain_values(experiment)}
    run |= {"data": stage_mixture.contents(mixture), HISTORY: changed_before(directory)}
    policy = experiment.checkpoints
    where = stage_directory(directory, name)
    return Checkpointer(where, run, policy.keep, policy.keep_every, log.say)
