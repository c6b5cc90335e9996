"""A stage evaluated while it trains: when, what is kept of it, and when it has learned enough."""

import dataclasses
import time
from collections.abc import Callable

from janus_jax.checkpoint import evaluated
from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.config.schema import Experiment
from janus_jax.distributed import processes
from janus_jax.distributed.watchdog import WATCH


@dataclasses.dataclass
class Evaluations:
    """Of one stage. All processes call all methods alike.

    Args:
        experiment: the config.
        steps: of the stage.
        checkpointer: of the stage; keeps the best checkpoint too.
        validate: state -> losses by name.
        show: (step, state, aside) -> further metrics by name, or nothing. The first process's
            count.
        say: hears what was decided.
        aside: host arrays of the children that the state is without.
    """

    experiment: Experiment
    steps: int
    checkpointer: Checkpointer
    validate: Callable
    show: Callable
    say: Callable
    aside: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self._found = []
        self._first = None
        self._metric = self.experiment.checkpoints.best
        if self._metric:
            best = lambda steps: evaluated.best_step(self._found, self._metric, steps)
            self.checkpointer.store.best = best

    def starts(self, state, aside: dict, log):
        """What the stage goes on from; the children that the state is without. Where it is asked for
        and the stage begins anew, `begin` evaluates and logs it."""
        self.aside |= aside

        def first():
            WATCH.at("evaluating step", 0)
            log.write(0, self.run(0, state))

        if self.experiment.evaluation.at_start:
            self._first = first

    def begin(self, step: int):
        """The stage begins, or goes on from `step`: later evaluations have not been."""
        where = self.checkpointer.directory
        read = lambda: evaluated.records(where) if processes.is_lead() else None
        found = processes.all_gather(processes.all_or_none(read))[0]
        self._found = [record for record in found if record["step"] <= step]
        if found != self._found:
            self._keep()
        if self.over():
            self.say(self._ended(step))
        first, self._first = self._first, None  # its state is gone with the first step
        if first and step == 0 and not self._found:
            first()

    def due(self, step: int) -> bool:
        every = self.experiment.evaluation.every
        return every > 0 and (step % every == 0 or step == self.steps)

    def run(self, step: int, state) -> dict[str, float]:
        """Evaluates the state of a step. What to log, the seconds that it took among it."""
        begin = time.perf_counter()
        values = self.validate(state)
        shown = processes.all_or_none(lambda: self.show(step, state, self.aside))
        values |= processes.all_gather(shown)[0] or {}
        self._found.append({"step": step} | values)
        self._keep()
        if self._metric and self._metric not in values:
            self.say(f"step {step} has no {self._metric}: it can be no best checkpoint")
        if self.over():
            self.say(self._ended(step))
        return values | {"evaluation_seconds": time.perf_counter() - begin}

    def asks_to_save(self, step: int) -> bool:
        """Whether the state of an evaluated step is to be saved: it is the best, or the last."""
        best = evaluated.best_step(self._found, self._metric) if self._metric else None
        return best == step or self.over()

    def over(self) -> bool:
        """Whether `evaluation.patience` is at its end, and the stage with it."""
        patience = self.experiment.evaluation.patience
        return patience > 0 and evaluated.since_best(self._found, self._metric) >= patience

    def _ended(self, step: int) -> str:
        best = evaluated.best_step(self._found, self._metric)
        return (
            f"no better {self._metric} than that of step {best} in "
            f"{self.experiment.evaluation.patience} evaluations: the stage ends at step {step}"
        )

    def _keep(self):
        if processes.is_lead():
            try:
                evaluated.keep(self.checkpointer.directory, self._found)
            except OSError as error:  # a full disk does not stop training
                self.say(
                    f"ERROR: {error.filename} cannot be written ({error.strerror}); it is tried "
                    "again after the next evaluation"
                )
