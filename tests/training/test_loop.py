"""What the loop of a toy stage does about a NaN and a spike, also when it is killed amid them."""

import math

import pytest
from support import tiny
from support.toy import (
    BAD,
    HUGE,
    Killed,
    Run,
    Stage,
    records,
    schedule_count,
    toy_batch,
    toy_state,
    toy_step,
)

from janus_jax.checkpoint.inspect import leaves
from janus_jax.training.log import Log

# Updates that are not finite


@pytest.mark.parametrize("has_data", [True, False])
def test_bad_steps_are_passed_counted_and_survive_a_resume(has_data, tmp_path, one_device):
    bad = {4: BAD, 5: BAD, 6: BAD, 13: math.inf}
    with pytest.raises(Killed):
        Run(tmp_path, bad, has_data=has_data, kill_at=17)()
    run = Run(tmp_path, bad, has_data=has_data)
    state = run()
    assert run.seen[0] == 10 and int(state.step) == 30
    assert int(state.nonfinite_updates) == 4 and schedule_count(state) == 26
    (line,) = [line for line in run.said if "not finite" in line]
    assert "toy, step 14" in line and "4 so far" in line
    logged = {r["step"]: r for r in records(tmp_path)}
    assert "nonfinite_updates" not in logged[1]
    assert logged[7]["nonfinite_updates"] == 3 and "loss" not in logged[7] and "size" in logged[7]
    assert logged[14]["nonfinite_updates"] == 4 and "loss" not in logged[14]
    assert logged[28]["nonfinite_updates"] == 4 and logged[28]["loss"] > 0
    assert not any("skipped_batches" in r for r in logged.values())


def test_a_bad_step_is_no_batch_less_for_the_good_ones(tmp_path, one_device):
    """The weights are those of a run over the good batches alone, at the schedule of the good
    steps."""
    state = Run(tmp_path, {4: BAD, 20: BAD})()
    want = toy_state()
    for i in sorted({*range(30)} - {4, 20}):
        want, _ = toy_step()(want, toy_batch(i))
    tiny.same_bits(state.trainable, want.trainable)
    tiny.same_bits(state.opt_state, want.opt_state)


# Spikes


def test_a_spike_rolls_back_and_passes_over_its_batch(tmp_path, one_device):
    run = Run(tmp_path, {24: HUGE})
    state = run()
    # To the checkpoint of 20; batches 20 to 24 are passed over. Found when step 28 is logged.
    assert run.seen == [*range(28), *range(25, 35)]
    (line,) = [line for line in run.said if "SPIKE" in line]
    for word in (
        "toy, step 25",
        "checkpoint of step 20",
        "over 5 batches",
        "rollback 1 of 3",
        "mean",
        "sigma",
    ):
        assert word in line
    assert (
        int(state.step) == 30 and schedule_count(state) == 30 and int(state.nonfinite_updates) == 0
    )
    want = toy_state()
    for i in (*range(20), *range(25, 35)):
        want, _ = toy_step()(want, toy_batch(i))
    tiny.same_bits(state.trainable, want.trainable)
    tiny.same_bits(state.opt_state, want.opt_state)
    logged = records(tmp_path)
    assert [r["step"] for r in logged] == [1, 7, 14, 21, 28, 30]
    assert [r.get("skipped_batches") for r in logged] == [None, None, None, 5, 5, 5]
    assert max(r["loss"] for r in logged) < 100


def test_a_spike_before_the_first_checkpoint_goes_back_to_the_start(tmp_path, one_device):
    run = Run(tmp_path, {8: HUGE}, has_data=False)
    run()
    assert run.seen == [*range(10), *range(9, 39)]
    assert "checkpoint of step 0;" in "".join(run.said)


def test_a_spike_at_the_step_of_a_checkpoint_is_not_saved(tmp_path, one_device):
    run = Run(tmp_path, {19: HUGE})
    run()
    assert run.seen == [*range(20), *range(20, 40)]
    assert "step 20: LOSS SPIKE" in "".join(run.said) and "checkpoint of step 10;" in "".join(
        run.said
    )


@pytest.mark.parametrize("has_data, kills", [(True, (12, 22, 33)), (False, (19,))])
def test_wherever_a_run_is_killed_it_ends_with_the_same_bits(has_data, kills, tmp_path, one_device):
    """Spikes, twice from one checkpoint, and bad steps; killed before, between and after them, once
    or twice."""
    bad = {9: BAD, 14: HUGE, 17: HUGE, 26: BAD, 31: HUGE}
    whole = Run(tmp_path / "whole", bad, has_data=has_data)
    want = whole()
    assert sum("SPIKE" in line for line in whole.said) == 3
    costs = {
        "time",
        "data_wait",
        "step_seconds",
        "data_seconds",
        "compute_seconds",
        "process_memory_gb",
    }
    plain = lambda directory: [
        {k: v for k, v in r.items() if k not in costs} for r in records(directory)
    ]
    for kill_at in kills:
        directory = tmp_path / str(kill_at)
        with pytest.raises(Killed):
            Run(directory, bad, has_data=has_data, kill_at=kill_at)()
        if kill_at == 22:
            with pytest.raises(Killed):
                Run(directory, bad, has_data=has_data, kill_at=5)()
        state = Run(directory, bad, has_data=has_data)()
        tiny.same_bits(leaves(state), leaves(want))
        assert plain(directory) == plain(tmp_path / "whole")


def test_a_stage_made_longer_comes_to_the_bits_of_one_that_was_so_long(
    tmp_path, one_device, monkeypatch
):
    """Also where it was done, off the steps of checkpoint_every; and made shorter it ends at once."""
    monkeypatch.setattr(Log, "curves", lambda *_, **__: None)
    long = Run(tmp_path / "long", stage=Stage(steps=26))()
    Run(tmp_path / "short", stage=Stage(steps=13))()
    again = Run(tmp_path / "short", stage=Stage(steps=26))
    tiny.same_bits(leaves(again()), leaves(long))
    assert again.seen == [*range(13, 26)]
    shorter = Run(tmp_path / "short", stage=Stage(steps=5))
    tiny.same_bits(leaves(shorter()), leaves(long))
    assert shorter.seen == []
