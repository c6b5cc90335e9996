"""Numbers gone bad while a stage trains: updates that are left out, losses that spike.

The step itself leaves out an update that is not finite (train_state.py). What takes a decision of the host is
here: it looks at the losses when the loop logs or saves, all at once, so that no step waits for it.
"""

import collections
import dataclasses
import math
import statistics

import jax

IN_A_ROW = 10  # so many updates left out one after the other end the run
ROLLBACKS = 3  # so many a stage
FLAT = 1e-3  # of the mean: a standard deviation below it, of a loss that hardly moves, counts as this


@dataclasses.dataclass(frozen=True)
class Spikes:
    """A loss is a spike when it lies more than `sigma` standard deviations above the mean of the `window` steps
    before it; sigma 0: none is."""

    window: int = 128
    sigma: float = 6.0


@dataclasses.dataclass(frozen=True)
class Spike:
    """batch: the number of batches drawn up to it; rollback: the how manieth of the stage it causes."""

    step: int
    loss: float
    mean: float
    deviation: float
    batch: int
    rollback: int


class Guard:
    """Watches one stage. Like the iterator of the data it has a state that belongs into a checkpoint: a run that
    goes on must judge as the run that was never stopped."""

    def __init__(self, name: str, spikes: Spikes, say=print):
        self.name, self.spikes, self.say = name, spikes, say
        self.losses = collections.deque(maxlen=spikes.window)
        self.left_out = self.in_a_row = 0
        self.rollbacks = self.skipped = 0  # batches drawn so far are steps + skipped
        self._unseen = []

    def get_state(self) -> dict:
        state = {name: getattr(self, name) for name in ("left_out", "in_a_row", "rollbacks", "skipped")}
        return state | {"losses": list(self.losses)}

    def set_state(self, state: dict):
        self._unseen = []
        self.losses = collections.deque(state["losses"], self.spikes.window)
        for name in state.keys() - {"losses"}:
            setattr(self, name, state[name])

    def counts(self) -> dict[str, int]:
        """What to log: how many updates were left out and batches passed over, once there are any."""
        counts = {"left_out": self.left_out, "skipped": self.skipped}
        return {name: count for name, count in counts.items() if count}

    def watch(self, step: int, metrics: dict):
        """Notes what a step gave, still on the device, for `judge`; takes "left_out" out of the metrics."""
        self._unseen.append((step, metrics["loss"], metrics.pop("left_out")))

    def judge(self) -> Spike | None:
        """Looks at all steps since the last call; the first spike among them, if any. Raises FloatingPointError
        after too many updates left out in a row, or one spike too many."""
        seen, self._unseen, spike = jax.device_get(self._unseen), [], None
        before = self.left_out
        bad = []
        for step, loss, left_out in seen:
            if left_out > self.left_out:
                self.left_out, self.in_a_row = int(left_out), self.in_a_row + 1
                bad.append(step)
                if self.in_a_row == IN_A_ROW:
                    raise self._hopeless(step)
                continue
            self.in_a_row = 0
            if spike := self._spike(step, float(loss)):
                break
            self.losses.append(float(loss))
        if bad:
            self.say(
                f"{self.name}, step {', '.join(map(str, bad))}: loss or gradient not finite; "
                f"{self.left_out - before} update(s) left out, {self.left_out} so far"
            )
        if spike and spike.rollback > ROLLBACKS:
            raise self._too_many(spike)
        return spike

    def roll_back(self, spike: Spike, step: int) -> int:
        """Counts the way back to the checkpoint of `step`, whose state is set already. Returns how many batches
        are to be drawn and passed over: those up to and including the spike's.

        Where no checkpoint could be saved yet, `step` is the present one and nothing can be taken back: it is said.
        """
        if step >= spike.step:
            self.rollbacks = spike.rollback
            self.say(
                f"{self.name}, step {spike.step}: LOSS SPIKE, {_numbers(spike)}. There is no checkpoint to go back to, "
                f"so its updates stay ({spike.rollback} of {ROLLBACKS}); see the ERROR lines for why none was saved"
            )
            return 0
        ahead = spike.batch - step - self.skipped
        self.skipped, self.rollbacks = spike.batch - step, spike.rollback
        self.say(
            f"{self.name}, step {spike.step}: LOSS SPIKE, {_numbers(spike)}. Back to the checkpoint of step "
            f"{step}; passing over {ahead} batches, the spike's the last (rollback {spike.rollback} of "
            f"{ROLLBACKS})"
        )
        return ahead

    def _spike(self, step: int, loss: float) -> Spike | None:
        if not self.spikes.sigma or len(self.losses) < self.spikes.window:
            return None
        mean = statistics.fmean(self.losses)
        deviation = math.sqrt(statistics.fmean((x - mean) ** 2 for x in self.losses))
        if loss <= mean + self.spikes.sigma * max(deviation, FLAT * abs(mean)):
            return None
        return Spike(step, loss, mean, deviation, step + self.skipped, self.rollbacks + 1)

    def _hopeless(self, step: int) -> FloatingPointError:
        good = step - IN_A_ROW
        return FloatingPointError(
            f"{self.name}, steps {good + 1} to {step}: the loss or its gradient was not finite {IN_A_ROW} times in "
            f"a row. None of these updates was made: the last good step is {good}, and every checkpoint is "
            f"finite. The same command tries again from the last checkpoint (which mends a fault of the "
            f"machine). If it ends here again: a lower optim.learning_rate, a longer optim.warmup_steps, or "
            f"model.dtype float32, in another --workdir; or look at the data of "
            f"these steps."
        )

    def _too_many(self, spike: Spike) -> FloatingPointError:
        return FloatingPointError(
            f"{self.name}, step {spike.step}: LOSS SPIKE, {_numbers(spike)}. {ROLLBACKS} before it were rolled back "
            f"and passed over, so it is not the data of one step. In another --workdir try a lower "
            f"optim.learning_rate, a longer optim.warmup_steps or a lower optim.clip_norm; spikes.sigma=0 lets "
            f"spikes pass."
        )


def _numbers(spike: Spike) -> str:
    return f"loss {spike.loss:.4g} after a mean of {spike.mean:.4g}, sigma {spike.deviation:.2g}"
