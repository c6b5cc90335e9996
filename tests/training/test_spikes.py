"""Which losses are spikes, and when bad numbers end a stage."""

import numpy as np
import pytest
from support.toy import (
    BAD,
    HUGE,
    Killed,
    Run,
    Stage,
    schedule_count,
    toy_state,
)

from janus_jax.checkpoint import checksums
from janus_jax.checkpoint.inspect import leaves
from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.config.schema import Spikes
from janus_jax.training import spikes


def not_finite(state) -> list[str]:
    return [name for name, x in checksums.of_leaves(leaves(state)).items() if not x["finite"]]


@pytest.mark.parametrize("kill_at", [0, 24], ids=["at once", "after a resume amid the ten"])
def test_ten_in_a_row_end_the_run_with_the_last_good_step(kill_at, tmp_path, one_device):
    bad = {2: BAD} | dict.fromkeys(range(18, 40), BAD)
    if kill_at:
        with pytest.raises(Killed):
            Run(tmp_path, bad, kill_at=kill_at)()
    run = Run(tmp_path, bad)
    with pytest.raises(FloatingPointError) as error:
        run()
    text = str(error.value)
    assert "toy, steps 19 to 28" in text and "last good step is 18" in text
    assert "learning_rate" in text and "warmup_steps" in text
    last = Checkpointer(tmp_path / "checkpoints").restore(toy_state())
    assert int(last.step) == 20 and not_finite(last) == []
    assert schedule_count(last) == 17


def test_nine_in_a_row_end_nothing(tmp_path, one_device):
    state = Run(tmp_path, dict.fromkeys((*range(5, 14), *range(15, 24)), BAD))()
    assert int(state.nonfinite_updates) == 18


# Spikes


@pytest.mark.parametrize(
    "spikes", [Spikes(8, 0.0), Spikes(40, 6.0)], ids=["sigma 0", "no full window"]
)
def test_a_spike_passes_where_nobody_looks(spikes, tmp_path, one_device):
    run = Run(tmp_path, {24: HUGE}, Stage(spikes=spikes))
    run()
    assert run.seen == [*range(30)] and not any("SPIKE" in line for line in run.said)


def test_a_low_loss_and_a_flat_one_are_no_spikes():
    watcher = spikes.LossMonitor("toy", Spikes(8, 6.0))
    for step, loss in enumerate([2.0] * 20 + [0.1] + [2.0] * 3 + [2.001], 1):
        watcher.watch(step, {"loss": np.float32(loss), "nonfinite_updates": 0})
    assert watcher.judge() is None
    watcher.watch(26, {"loss": np.float32(50.0), "nonfinite_updates": 0})
    assert watcher.judge().step == 26


def test_the_fourth_spike_ends_the_stage(tmp_path, one_device):
    run = Run(tmp_path, {i: HUGE for i in (12, 17, 22, 27)})
    with pytest.raises(FloatingPointError) as error:
        run()
    assert sum("SPIKE" in line for line in run.said) == 3
    text = str(error.value)
    assert "3 before it" in text and "learning_rate" in text and "spikes.sigma=0" in text
    run = Run(tmp_path / "three", {i: HUGE for i in (12, 17, 22)})
    assert int(run().step) == 30


# Losses by task, and changes of data

LEVELS = {"understanding": 0.3, "text": 2.6, "generation": 6.5}


def metrics_of(rng, tokens: int = 4000, **above) -> dict:
    """A step's metrics, its tokens dealt to the tasks as it happens. above: task -> nats above its
    usual loss."""
    shares = dict(zip(LEVELS, rng.dirichlet([4, 4, 8])))
    losses = {t: x + rng.normal(0, 0.03) + above.get(t, 0) for t, x in LEVELS.items()}
    metrics = {f"{t}_loss": x for t, x in losses.items()}
    metrics |= {f"tokens_{t}": share for t, share in shares.items()}
    whole = sum(shares[t] * losses[t] for t in LEVELS)
    return metrics | {"loss": whole, "supervised_tokens": tokens, "nonfinite_updates": 0}


def watched(steps: int, phases=((0, "all"),)):
    """A monitor that has seen so many usual steps, the generator that drew them, what it said."""
    rng = np.random.default_rng(0)
    said = []
    monitor = spikes.LossMonitor("toy", Spikes(64, 6.0), said.append, phases)
    for step in range(1, steps + 1):
        monitor.watch(step, metrics_of(rng))
    assert monitor.judge() is None
    return monitor, rng, said


@pytest.mark.parametrize("task", LEVELS)
def test_a_spike_of_one_task_is_seen_though_the_whole_loss_moves_more(task):
    monitor, rng, _ = watched(200)
    whole = [metrics_of(rng)["loss"] for _ in range(200)]
    assert np.std(whole) * 6 > 2, "the whole loss would hide it"
    monitor.watch(201, metrics_of(rng, **{task: 0.8}))
    spike = monitor.judge()
    assert (spike.step, spike.task) == (201, task)
    monitor.roll_back(spike, 190)


@pytest.mark.parametrize(
    "tokens, above, seen", [(4000, 0.3, False), (60, 1.5, False), (2000, 1.5, True)]
)
def test_a_small_rise_and_a_few_wrong_tokens_are_no_spike(tokens, above, seen):
    monitor, rng, _ = watched(100)
    monitor.watch(101, metrics_of(rng, tokens, text=above))
    assert bool(monitor.judge()) == seen


def test_a_task_that_a_step_has_nothing_of_is_not_judged_by_it():
    monitor, rng, _ = watched(100)
    none = metrics_of(rng) | {"text_loss": 0.0, "tokens_text": 0.0}
    for step in range(101, 201):
        monitor.watch(step, none)
    monitor.watch(201, metrics_of(rng))
    assert monitor.judge() is None


def test_losses_are_not_compared_across_a_change_of_data_nor_after_a_way_back_over_it():
    """From step 150 on generation is 2 nats worse; the checkpoint of step 140 lies before."""
    monitor, rng, said = watched(140, ((0, "a"), (149, "b")))
    saved = monitor.get_state()
    harder = lambda **more: metrics_of(rng, generation=2.0, **more)
    for step in range(141, 150):
        monitor.watch(step, metrics_of(rng))
    for step in range(150, 230):
        monitor.watch(step, harder())
    monitor.watch(230, harder(text=1.0))
    spike = monitor.judge()
    assert (spike.step, spike.task) == (230, "text") and "step 150: other data" in said[0]
    monitor.set_state(saved)
    assert monitor.roll_back(spike, 140) == 90  # what comes now is of the new data
    for step in range(141, 220):
        monitor.watch(step, harder())
    assert monitor.judge() is None
    monitor.watch(220, harder(understanding=1.0))
    assert monitor.judge().rollback == 2


def test_data_changed_between_two_starts_begin_new_windows():
    monitor, rng, _ = watched(100)
    other = spikes.LossMonitor("toy", Spikes(64, 6.0), phases=((0, "others"),))
    other.set_state(monitor.get_state())
    other.watch(101, metrics_of(rng, generation=2.0))
    assert other.judge() is None
    unknown = monitor.get_state()
    del unknown["phase"], unknown["windows"]  # as a version that judged the whole loss saved it
    other.set_state(unknown | {"losses": [1.0] * 64})
    other.watch(101, metrics_of(rng, generation=2.0))
    assert other.judge() is None
    same = spikes.LossMonitor("toy", Spikes(64, 6.0), phases=((0, "all"),))
    same.set_state(monitor.get_state())
    same.watch(101, metrics_of(rng, generation=2.0))
    assert same.judge().task == "generation"


@pytest.mark.parametrize("phases, rollbacks", [(((0, "a"),), 3), (((0, "a"), (16, "b")), 0)])
def test_a_run_goes_through_a_change_of_data(phases, rollbacks, tmp_path, one_device):
    """Batches from 16 on have a hundred times the loss."""
    run = Run(tmp_path, dict.fromkeys(range(16, 90), 100.0), Stage(steps=24), phases=phases)
    if rollbacks:
        with pytest.raises(FloatingPointError):
            run()
    else:
        assert int(run().step) == 24 and run.seen == [*range(24)]
    assert sum("Back to the checkpoint" in line for line in run.said) == rollbacks


@pytest.mark.parametrize("skipped", [0, 100])
def test_a_loss_that_gets_another_term_is_no_spike_and_is_judged_by_what_follows(skipped):
    """Also after batches that were passed over: the term comes with the step, not with the data."""
    rise = lambda step: 2.0 + 9.0 * (step >= 201) + 0.01 * (step % 3)

    def seen(begins: int):
        said = []
        watcher = spikes.LossMonitor("toy", Spikes(64, 6.0), said.append, begins=begins)
        watcher.skipped_batches = skipped
        for step in range(1, 301):
            watcher.watch(step, {"loss": np.float32(rise(step)), "nonfinite_updates": 0})
        return watcher, watcher.judge(), said

    _, spike, _ = seen(0)
    assert spike.step == 201
    watcher, spike, said = seen(201)
    assert spike is None and said == [
        "toy, step 201: other data or another loss from here on, judged anew"
    ]
    watcher.watch(301, {"loss": np.float32(30.0), "nonfinite_updates": 0})
    assert watcher.judge().step == 301
