"""Losses that are not finite, and losses that jump."""

import numpy as np
import pytest
from support import damaged, toy

from janus_jax.common import exit_codes
from janus_jax.config.schema import Spikes
from janus_jax.training.spikes import LossMonitor, Spike


def test_ten_losses_in_a_row_that_are_not_finite_end_the_run_and_name_the_last_good_step():
    watcher = LossMonitor("toy", Spikes())
    for step in range(1, 16):
        watcher.watch(
            step,
            {"loss": np.float32(1 if step < 6 else np.nan), "nonfinite_updates": max(0, step - 5)},
        )
    with pytest.raises(
        FloatingPointError, match=r"steps 6 to 15: .* the last good step is 5"
    ) as error:
        watcher.judge()
    assert exit_codes.of_error(error.value) == 4


def test_from_a_spike_back_past_a_damaged_checkpoint(tmp_path, one_device):
    run = toy.Run(tmp_path, {24: toy.HUGE})
    next_batch = run.next_batch

    def damage(i):
        if i == 24 and not (tmp_path / "checkpoints" / "damaged-20").exists():
            run.checkpointer.wait()
            damaged.flip(tmp_path / "checkpoints" / "20")
        return next_batch(i)

    run.next_batch = damage
    state = run()
    assert int(state.step) == 30 and run.seen == [*range(28), *range(25, 45)]
    said = "\n".join(run.said)
    assert "DAMAGED CHECKPOINT" in said and "going on from step 10" in said
    assert (
        "Back to the checkpoint of step 10; passing over 15 batches" in said
        and "rollback 1 of 3" in said
    )


def test_a_spike_where_nothing_could_be_saved_is_said_and_stays(tmp_path, one_device, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    run = toy.Run(tmp_path, {12: toy.HUGE}, toy.Stage(steps=21))
    monkeypatch.setattr(run.checkpointer._orbax, "save", full)
    monkeypatch.setattr(run.checkpointer, "wait_until_saved", lambda save: None)
    state = run()
    assert int(state.step) == 21 and run.seen == [*range(21)], "no batch is lost or drawn twice"
    (line,) = [line for line in run.said if "SPIKE" in line]
    assert (
        "toy, step 13" in line
        and "There is no checkpoint to go back to, so its updates stay (1 of 3)" in line
    )


def test_a_spike_is_judged_alike_by_all_processes():
    """Judging takes what is the same on all: the losses, summed over all devices, and where the run
    stands."""
    losses = [2.0] * 20 + [50.0] + [2.0] * 3
    watchers = [LossMonitor("toy", Spikes(8, 6.0), say=lambda line: None) for _ in range(2)]
    for watcher in watchers:
        for step, loss in enumerate(losses, 1):
            watcher.watch(step, {"loss": np.float32(loss), "nonfinite_updates": 0})
    first, second = (watcher.judge() for watcher in watchers)
    assert first == second == Spike(21, 50.0, 2.0, 0.0, 21, 1)
    assert [watcher.roll_back(first, 20) for watcher in watchers] == [1, 1]
    assert watchers[0].get_state() == watchers[1].get_state()
