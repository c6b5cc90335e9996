"""The loop: a stage's steps, its log and its checkpoints, straight down."""

import dataclasses
import math
from collections.abc import Callable

from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.distributed import processes, signals
from janus_jax.distributed.watchdog import WATCH
from janus_jax.training.log import Log
from janus_jax.training.meter import Meter, numbers
from janus_jax.training.spikes import LossMonitor


@dataclasses.dataclass(frozen=True)
class Run:
    """What the loop works with.

    Args:
        name: of the stage.
        config: of the stage: steps, log_every, checkpoint_every.
        step: (state, batch) -> (state, metrics), jitted, its state donated.
        rates: count of updates -> the learning rates to log, by name.
        data: as a task opened it (stage_data.StageData).
        monitor: judges the losses.
        checkpointer: saves and restores.
        meter: measures rates.
        log: progress and metrics.
        evaluations: evaluates now and then (evaluations.Evaluations).
    """

    name: str
    config: object
    step: Callable
    rates: Callable
    data: object
    monitor: LossMonitor
    checkpointer: Checkpointer
    meter: Meter
    log: Log
    evaluations: object

    def begin(self, step: int):
        """The stage goes on from a step: what was noted of later ones is dropped."""
        self.log.stage(self.name, self.config.steps, step)
        self.evaluations.begin(step)

    def save(self, step: int, state):
        self.checkpointer.save(step, state, self.data.position, self.monitor)

    def restore(self, like):
        """The state of the last sound checkpoint, with data and monitor moved to it; None where
        there is none."""
        return self.checkpointer.restore(like, self.data.position, self.monitor)

    def record(self, step: int, metrics: dict, state, stops: bool) -> bool:
        """Writes what the steps since the last record gave and cost, and evaluates where that is
        due. Returns whether the state is to be saved for what was found."""
        found = {}
        if self.evaluations.due(step):
            if stops:  # an evaluation may take longer than the run is given
                self.save(step, state)
                self.checkpointer.wait()
            WATCH.at("evaluating step", step)
            found = self.evaluations.run(step, state)
        values = numbers(metrics)
        if self.monitor.in_a_row:  # the step was left out, and said so
            values = {key: value for key, value in values.items() if math.isfinite(value)}
        values |= self.meter.read() | self.monitor.counts()
        if self.data.position is not None:
            values |= self.data.position.stats.metrics(step)
        rates = self.rates(max(step - 1 - self.monitor.nonfinite_updates, 0))
        self.log.write(step, values | found | rates)
        return bool(found) and self.evaluations.asks_to_save(step)


def loop(run: Run, state):
    """Steps of one stage, from where `state` stands to its end. Returns the final state.

    Raises signals.Preempted where it was told to stop, and has saved.
    """
    config = run.config
    data = run.data.position
    monitor = run.monitor
    meter = run.meter
    log = run.log
    step = int(state.step)
    run.begin(step)
    save = lambda: run.save(step, state)

    while step < config.steps and not run.evaluations.over():
        # One step. The arrays are made while the last step computes.
        WATCH.begin_step(step + 1)
        batch = meter.next_batch(run.data.next_batch, step + monitor.skipped_batches)
        step += 1
        WATCH.at("step", step)
        state, metrics = meter.run(run.step, state, batch, step)
        WATCH.done(metrics["loss"])
        monitor.watch(step, metrics)
        stops = signals.STOP.should_stop()
        logs = step % config.log_every == 0 or step in (1, config.steps)
        logs = logs or run.evaluations.due(step)
        saves = step % config.checkpoint_every == 0 or step == config.steps or stops
        run.checkpointer.poll()
        if logs or saves:
            saves = run.checkpointer.due() or saves  # the last save has failed

        # Enter what was read, of all processes, and judge it.
        if (logs or saves) and data is not None:
            data.sync_counts(processes.all_gather)

        # Judge the losses; from a spike go back to the last checkpoint, and pass over what led to
        # it.
        spike = None
        if logs or saves:
            spike = monitor.judge()
            meter.rest()  # the devices are done, and what follows is no part of a step's time
        if spike:
            WATCH.at("restoring after the spike of step", step)
            restored = run.restore(state)
            state = state if restored is None else restored
            step = int(state.step)
            ahead = monitor.roll_back(spike, step)
            if data is not None:
                for _ in range(ahead):
                    next(data)
            run.begin(step)
            meter.restart()
            continue

        # Evaluate and log.
        if logs:
            saves = run.record(step, metrics, state, stops) or saves

        # Save.
        if saves:
            WATCH.at("saving step", step)
            save()
            log.curves(now=stops or step == config.steps)
        if stops:
            run.checkpointer.wait_until_saved(save)
            told = signals.STOP.name()
            raise signals.Preempted(f"{run.name}: {told}; saved step {step} of {config.steps}")
    run.checkpointer.wait_until_saved(save)
    return state
