"""Numbers gone bad while a stage trains: updates that are left out, losses that spike.

The step itself leaves out an update that is not finite (state.py). What takes a decision of the
host is here: it looks at the losses when the loop logs or saves, all at once, so that no step waits
for it.

Each task's loss is judged by itself, for the whole loss moves with what a step happens to hold, and
against steps that drew from the same data.
"""

import collections
import dataclasses
import math
import statistics

import jax

IN_A_ROW = 10  # so many updates left out one after the other end the run
ROLLBACKS = 3  # so many a stage
FLAT = 1e-3  # of the mean: a lower standard deviation, of a loss that hardly moves, counts as this
LEAST = 0.5  # nats above the mean: less is no spike of a task's loss, clipping takes care of it
# nats above the mean of all tokens of a step together: a few that are wholly wrong are no spike
FEW_WRONG = 40.0
PATIENCE = 1000  # at most so many steps in a row that an alarm's metric counts before it is said
MANY = 1e6  # supervised tokens a step, where they are not counted
# of a monitor, beside its windows
STATE = ("nonfinite_updates", "in_a_row", "rollbacks", "skipped_batches", "phase")


@dataclasses.dataclass(frozen=True)
class Spike:
    """batch: the number of batches drawn up to it; rollback: which rollback of the stage it causes,
    from 1; task: whose loss it is, empty for the whole."""

    step: int
    loss: float
    mean: float
    deviation: float
    batch: int
    rollback: int
    task: str = ""


class LossMonitor:
    """Watches one stage. Like the iterator of the data it has a state that belongs into a
    checkpoint: a run that goes on must judge as the run that was never stopped.

    name: of the stage.
    spikes: the config's.
    say: hears what was found.
    phases: (first batch, a name of what is drawn from it on), in order: losses are compared within
        one of them.
    alarms: a metric that counts steps in a row -> what is wrong in them; said at every `patience`.
    begins: step from which on the loss is another one; 0: it never changes.
    """

    def __init__(
        self, name, spikes, say=print, phases=((0, ""),), alarms=None, patience=PATIENCE, begins=0
    ):
        self.name = name
        self.patience = patience
        self.begins = begins
        self.alarms = alarms or {}
        self.spikes = spikes
        self.say = say
        self.phases = phases
        self.phase = None
        self.windows = {}  # task -> its last losses, each with the number of its tokens
        self.nonfinite_updates = self.in_a_row = 0
        self.rollbacks = self.skipped_batches = 0  # batches drawn so far are steps + skipped
        self._unseen = []

    def get_state(self) -> dict:
        windows = {task: [*map(list, window)] for task, window in self.windows.items()}
        return {name: getattr(self, name) for name in STATE} | {"windows": windows}

    def set_state(self, state: dict):
        self._unseen = []
        for name in state.keys() & STATE:
            setattr(self, name, state[name])
        windows = state.get("windows", {})
        self.windows = {task: self._window(losses) for task, losses in windows.items()}

    def _window(self, losses=()):
        return collections.deque(map(tuple, losses), self.spikes.window)

    def counts(self) -> dict[str, int]:
        """What to log: how many updates were left out and batches passed over, once there are
        any."""
        counts = {
            "nonfinite_updates": self.nonfinite_updates,
            "skipped_batches": self.skipped_batches,
        }
        return {name: count for name, count in counts.items() if count}

    def watch(self, step: int, metrics: dict):
        """Notes what a step gave, still on the device, for `judge`."""
        counted = ("tokens_", "supervised_", *self.alarms)
        wanted = lambda name: name.endswith("loss") or name.startswith(counted)
        kept = {name: value for name, value in metrics.items() if wanted(name)}
        self._unseen.append((step, kept, metrics["nonfinite_updates"]))

    def judge(self) -> Spike | None:
        """Looks at all steps since the last call; the first spike among them, if any. Raises
        FloatingPointError after too many updates left out in a row, or one spike too many."""
        seen = jax.device_get(self._unseen)
        self._unseen = []
        spike = None
        before = self.nonfinite_updates
        bad = []
        for step, metrics, nonfinite_updates in seen:
            self._alarm(step, metrics)
            if nonfinite_updates > self.nonfinite_updates:
                self.nonfinite_updates = int(nonfinite_updates)
                self.in_a_row = self.in_a_row + 1
                bad.append(step)
                if self.in_a_row == IN_A_ROW:
                    raise self._hopeless(step)
                continue
            self.in_a_row = 0
            losses = by_task(metrics)
            self._enter(step)
            if spike := self._spike(step, losses):
                break
            for task, loss in losses.items():
                self.windows.setdefault(task, self._window()).append(loss)
        if bad:
            self.say(
                f"{self.name}, step {', '.join(map(str, bad))}: loss or gradient not finite; "
                f"{self.nonfinite_updates - before} update(s) left out, {self.nonfinite_updates} "
                "so far"
            )
        if spike and spike.rollback > ROLLBACKS:
            raise self._too_many(spike)
        return spike

    def _alarm(self, step: int, metrics: dict):
        for name, text in self.alarms.items():
            count = int(metrics.get(name, 0))
            if count and count % self.patience == 0:
                self.say(f"WARNING: {self.name}, step {step}: for {count:,} steps {text}")

    def roll_back(self, spike: Spike, step: int) -> int:
        """Counts the way back to the checkpoint of `step`, whose state is set already. Returns how
        many batches
        are to be drawn and passed over: those up to and including the spike's.

        Where no checkpoint could be saved yet, `step` is the present one and nothing can be taken
        back: it is said.
        """
        if step >= spike.step:
            self.rollbacks = spike.rollback
            self.say(
                f"{self.name}, step {spike.step}: LOSS SPIKE, {_numbers(spike)}. There is no "
                f"checkpoint to go back to, so its updates stay ({spike.rollback} of {ROLLBACKS}); "
                "see the ERROR lines for why none was saved"
            )
            return 0
        ahead = spike.batch - step - self.skipped_batches
        self.skipped_batches = spike.batch - step
        self.rollbacks = spike.rollback
        self.say(
            f"{self.name}, step {spike.step}: LOSS SPIKE, {_numbers(spike)}. Back to the "
            f"checkpoint of step {step}; passing over {ahead} batches, the spike's the last "
            f"(rollback {spike.rollback} of {ROLLBACKS})"
        )
        return ahead

    def _enter(self, step: int):
        """Begins new windows with the first step that draws from other data than those before, by
        schedule or because the data was changed between two starts, or whose loss is another."""
        batch = step - 1 + self.skipped_batches
        phase = [name for first, name in self.phases if first <= batch][-1]
        phase += "+" * (0 < self.begins <= step)
        if phase == self.phase:
            return
        if self.phase is not None:
            self.say(
                f"{self.name}, step {step}: other data or another loss from here on, judged anew"
            )
        self.phase = phase
        self.windows = {}

    def _spike(self, step: int, losses: dict) -> Spike | None:
        for task, (loss, tokens) in losses.items():
            window = self.windows.get(task, ())
            if not self.spikes.sigma or len(window) < self.spikes.window:
                continue
            mean, deviation = expected(window, tokens)
            rise = self.spikes.sigma * max(deviation, FLAT * abs(mean))
            if loss > mean + (max(rise, LEAST, FEW_WRONG / tokens) if task else rise):
                batch = step + self.skipped_batches
                return Spike(step, loss, mean, deviation, batch, self.rollbacks + 1, task)
        return None

    def _hopeless(self, step: int) -> FloatingPointError:
        good = step - IN_A_ROW
        return FloatingPointError(
            f"{self.name}, steps {good + 1} to {step}: the loss or its gradient was not finite "
            f"{IN_A_ROW} times in a row. None of these updates was made: the last good step is "
            f"{good}, and every checkpoint is finite. The same command tries again from the last "
            "checkpoint (which mends a fault of the machine). If it ends here again: a lower "
            "optim.learning_rate, a longer optim.warmup_steps, or model.dtype float32, in another "
            f"--workdir; or look at the data of these steps."
        )

    def _too_many(self, spike: Spike) -> FloatingPointError:
        return FloatingPointError(
            f"{self.name}, step {spike.step}: LOSS SPIKE, {_numbers(spike)}. {ROLLBACKS} before it "
            "were rolled back and passed over, so it is not the data of one step. In another "
            "--workdir try a lower optim.learning_rate, a longer optim.warmup_steps or a lower "
            f"optim.clip_norm; spikes.sigma=0 lets spikes pass."
        )


def by_task(metrics: dict) -> dict[str, tuple[float, float]]:
    """A step's losses: task -> (loss, its supervised tokens), without the tasks that had none;
    "" -> (the whole loss, 1) where the step knows no tasks."""
    out = {}
    for name, value in metrics.items():
        task = name.removesuffix("_loss")
        tokens = metrics.get(f"tokens_{task}", 0) * metrics.get("supervised_tokens", MANY)
        if task != name and tokens > 0:
            out[task] = float(value), float(tokens)
    return out or {"": (float(metrics["loss"]), 1.0)}


def expected(window, tokens: float) -> tuple[float, float]:
    """Mean and standard deviation that a step of so many tokens should have after those of a
    window, (loss, tokens) each. A token counts as much as any other. Fewer tokens than usual
    scatter more."""
    usual = statistics.fmean(n for _, n in window)
    mean = statistics.fmean(loss * n for loss, n in window) / usual
    variance = statistics.fmean(n * (loss - mean) ** 2 for loss, n in window) / usual
    return mean, math.sqrt(variance * max(1.0, usual / tokens))


def _numbers(spike: Spike) -> str:
    whose = f"{spike.task} loss" if spike.task else "loss"
    return f"{whose} {spike.loss:.4g} after a mean of {spike.mean:.4g}, sigma {spike.deviation:.2g}"
