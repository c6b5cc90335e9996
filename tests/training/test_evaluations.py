"""A toy stage evaluated while it trains: the best is kept, it ends early, and a run that is killed
anywhere comes to the same."""

import itertools

import pytest
from support import tiny
from support.toy import HUGE, Killed, Run, Stage, records

from janus_jax.checkpoint import evaluated, inspect
from janus_jax.checkpoint.inspect import leaves

BEST = "validation_loss"


def by_step(*values):
    """Measures these at every fifth step."""
    return lambda state: {BEST: float(values[int(state.step) // 5 - 1])}


def kept(directory) -> list[int]:
    return inspect.steps(directory / "checkpoints")


def found(directory) -> bytes:
    return (directory / "checkpoints" / evaluated.FILE).read_bytes()


def test_an_evaluated_step_is_logged_with_what_it_cost_and_the_last_is_evaluated_too(
    tmp_path, one_device
):
    Run(tmp_path, stage=Stage(steps=12), every=5)()
    logged = {r["step"]: r for r in records(tmp_path)}
    assert sorted(logged) == [1, 5, 7, 10, 12]
    assert [step for step, r in logged.items() if BEST in r] == [5, 10, 12]
    assert all(("evaluation_seconds" in r) == (BEST in r) for r in logged.values())
    assert [r["step"] for r in evaluated.records(tmp_path / "checkpoints")] == [5, 10, 12]


def test_evaluation_seconds_are_no_step_time(tmp_path, one_device, monkeypatch):
    run = Run(tmp_path, stage=Stage(steps=10), every=5)
    clock = itertools.count()  # a second each time that it is looked at
    asleep = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) + asleep[0])

    def validate(state):
        asleep[0] += 1000.0
        return {BEST: 1.0}

    run.evaluations.validate = validate
    run()
    logged = records(tmp_path)
    assert [r["evaluation_seconds"] for r in logged if BEST in r] == [1001.0, 1001.0]
    assert all(0 < r["step_seconds"] < 100 for r in logged if "step_seconds" in r)


def test_the_best_step_is_saved_and_stays_when_later_ones_come(tmp_path, one_device):
    Run(tmp_path, every=5, best=BEST, validate=by_step(5, 4, 1, 3, 2, 2))()
    # 15 is no step of checkpoint_every (10); 20 and 30 are the two latest.
    assert kept(tmp_path) == [15, 20, 30]


def test_a_stage_ends_when_its_patience_does_and_goes_on_as_ended(tmp_path, one_device):
    how = dict(every=5, best=BEST, patience=2, validate=by_step(5, 1, 3, 2, 0, 0))
    run = Run(tmp_path, **how)
    state = run()
    assert int(state.step) == 20 and len(run.seen) == 20
    (line,) = [line for line in run.said if "evaluations" in line]
    assert f"no better {BEST} than that of step 10 in 2 evaluations" in line
    assert kept(tmp_path) == [10, 20]
    again = Run(tmp_path, **how)
    tiny.same_bits(leaves(again()), leaves(state))
    assert again.seen == []


def test_wherever_it_is_killed_a_run_keeps_and_ends_alike(tmp_path, one_device):
    """A spike rolls it back over the evaluation of step 15, which is made again. It is killed
    between an evaluation and the save of its step, and after the rollback."""
    how = dict(factors={16: HUGE}, every=5, best=BEST, patience=2)
    how |= dict(stage=Stage(steps=40), validate=by_step(5, 4, 4.5, 3, 6, 6))
    whole = Run(tmp_path / "whole", **how)
    want = whole()
    assert int(want.step) == 30 and sum("SPIKE" in line for line in whole.said) == 1
    assert whole.seen[:20] == [*range(20)] and whole.seen[20] == 17
    for kill_at in (5, 24):
        directory = tmp_path / str(kill_at)
        with pytest.raises(Killed):
            Run(directory, kill_at=kill_at, **how)()
        tiny.same_bits(leaves(Run(directory, **how)()), leaves(want))
        assert found(directory) == found(tmp_path / "whole")
        assert kept(directory) == kept(tmp_path / "whole") == [20, 30]


def test_a_run_that_goes_on_drops_what_was_found_after_its_checkpoint(tmp_path, one_device):
    values = {5: 5.0, 10: 4.0, 15: 3.0}
    validate = lambda state: {BEST: values[int(state.step)]}
    with pytest.raises(Killed):
        Run(tmp_path, every=5, validate=validate, kill_at=17)()
    assert [r["step"] for r in evaluated.records(tmp_path / "checkpoints")] == [5, 10, 15]
    with pytest.raises(Killed):
        Run(tmp_path, every=5, validate=validate, kill_at=1)()  # it goes on from 10
    assert [r["step"] for r in evaluated.records(tmp_path / "checkpoints")] == [5, 10]


def test_what_a_stage_begins_with_is_evaluated_once_where_it_is_asked_for(tmp_path, one_device):
    """It is the best here, stays, and ends the stage; a spike that leads back to it, and a run that
    goes on, do not evaluate it again."""
    values = {0: 1.0, 5: 3.0, 10: 2.0, 15: 2.0, 20: 2.0}
    asked = []

    def validate(state):
        asked.append(int(state.step))
        return {BEST: values[asked[-1]]}

    how = dict(every=5, at_start=True, best=BEST, patience=3, validate=validate)
    how |= dict(stage=Stage(checkpoint_every=100), factors={9: HUGE})
    whole = Run(tmp_path / "whole", **how)
    assert int(whole().step) == 15 and asked == [0, 5, 5, 10, 15]
    assert any("restor" in line or "SPIKE" in line for line in whole.said)
    assert kept(tmp_path / "whole") == [0, 15]
    logged = records(tmp_path / "whole")
    assert [r["step"] for r in logged if BEST in r] == [0, 5, 10, 15]
    assert logged[0]["evaluation_seconds"] >= 0 and "loss" not in logged[0]
    with pytest.raises(Killed):
        Run(tmp_path / "killed", kill_at=3, **how)()
    asked.clear()
    Run(tmp_path / "killed", **how)()
    assert asked == [5, 5, 10, 15] and found(tmp_path / "killed") == found(tmp_path / "whole")
