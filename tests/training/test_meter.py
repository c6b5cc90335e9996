"""What a run says about its cost: rates against a clock of our own, profiles against the files they
leave."""

import gzip
import json
import math
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.toy import TX, Killed, Run, Stage, Toy, records, toy_batch, toy_loss

from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.model import batch as bt
from janus_jax.model import flops
from janus_jax.training import meter
from janus_jax.training import state as train_state
from janus_jax.training.tasks import janus


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


class Loss:
    """A number still computed on the device, or not; it counts who waits for it."""

    ready, waited_for = False, 0

    def is_ready(self):
        return self.ready

    def block_until_ready(self):
        self.waited_for += 1
        return self


def test_rates_leave_out_compilation_and_rests_and_no_later_step_is_waited_for(monkeypatch):
    clock, loss, said = Clock(monkeypatch), Loss(), []
    monkeypatch.setattr(jax, "process_count", lambda: 2)  # the other's rows are as many
    monkeypatch.setattr(
        meter.processes, "all_sum", lambda counts: {name: 2 * n for name, n in counts.items()}
    )
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    m = meter.Meter("stage2", 100, said.append)
    counts = {
        "understanding": 1,
        "text": 2,
        "generation": 1,
        "truncated": 1,
        "positions": 100,
        "tokens": 80,
    }
    counts |= {"positions_understanding": 40, "positions_text": 10, "positions_generation": 30}
    counts |= {"images": 2, "flops": 6e12}

    def next_batch(index):
        clock.now += 3.0 if index == 0 else 0.5
        return f"batch {index}", counts

    def step_fn(state, batch):
        clock.now += 30.0 if state == 0 else 0.25
        return state + 1, {"loss": loss}

    def step(state, ready):
        loss.ready = ready
        return m.run(step_fn, state, m.next_batch(next_batch, state), state + 1)[0]

    state = step(0, ready=False)
    assert said == ["stage2: first batch after 3.0 s, step traced and compiled in 30.0 s"]
    assert loss.waited_for == 1
    state = step(state, ready=True)  # the device had nothing to do while the batch was made
    state = step(state, ready=False)  # it had
    clock.now += 0.5  # waiting for the devices
    m.rest()
    clock.now += 1000.0  # logging, saving
    got = m.read()
    assert loss.waited_for == 1
    seconds = 2 * 0.75 + 0.5
    assert got["step_seconds"] == pytest.approx(seconds / 2)
    assert got["data_seconds"] == pytest.approx(0.25) and got["data_wait"] == pytest.approx(0.25)
    assert got["compute_seconds"] == pytest.approx(0.75)
    assert got["tokens_per_second"] == pytest.approx(2 * 160 / seconds)  # of two processes
    assert got["images_per_second"] == pytest.approx(2 * 4 / seconds)
    assert got["tflops"] == pytest.approx(2 * 2 * 6 / seconds / 4)  # a device
    assert "mfu" not in got, "a CPU has no known peak"
    # Shares are of all three steps, the first included.
    assert got["examples"] == 2 * 4 and got["truncated"] == 2 * 1 and got["fill"] == 0.8
    assert got["examples_text"] == 0.5 and got["positions_generation"] == 0.3

    clock.now += 7.0
    step(state, ready=True)
    m.rest()
    after = m.read()
    assert after["step_seconds"] == pytest.approx(0.75) and after["examples"] == 8
    assert m.read().keys() == meter.memory().keys(), "without a step there is no rate"


def test_mfu_is_of_the_peak_of_all_devices(monkeypatch):
    class Device:
        device_kind = "NVIDIA H100 80GB HBM3"

    monkeypatch.setattr(jax, "devices", lambda: [Device] * 8)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    got = meter.rates({"steps": 10, "flops": 8 * 0.25 * 989e12 * 4}, seconds=4.0, waited=0.0)
    assert got["mfu"] == pytest.approx(0.25) and got["tflops"] == pytest.approx(0.25 * 989)


def test_facts_count_the_rows_by_hand():
    batch = tiny.rows(3)
    examples = np.zeros((9, len(bt.EXAMPLE_COLUMNS)), np.int64)
    examples[:, bt.EXAMPLE_COLUMNS.index("code")] = [
        2,
        1,
        3 + 8,
    ] * 3  # of each task one a row, the last truncated
    got = janus.batch_facts(batch, examples, tiny.CONFIG, tiny.ALL)
    lengths = {
        task: sum(len(tiny.example(task, i)["tokens"]) for i in range(3)) for task in meter.TASKS
    }
    assert [got[f"positions_{task}"] for task in meter.TASKS] == list(lengths.values())
    assert got["tokens"] == sum(lengths.values()) and got["positions"] == 3 * tiny.LENGTH
    assert [got[task] for task in meter.TASKS] == [3, 3, 3] and got["truncated"] == 3
    assert got["images"] == 6
    work = flops.of_batch(batch, tiny.CONFIG)
    assert got["flops"] == sum(flops.count(tiny.CONFIG, tiny.ALL, work).values()) > 0


def test_memory_is_of_the_devices_or_else_of_the_process(monkeypatch):
    (gb,) = meter.memory().values()
    assert 0.05 < gb < 200
    block = np.ones(300_000_000, np.uint8)
    assert meter.memory()["process_memory_gb"] >= gb and block.sum() == 300_000_000

    class Device:
        def __init__(self, peak):
            self.memory_stats = lambda: {"peak_bytes_in_use": peak}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(3e9), Device(5e9)])
    assert meter.memory() == {"device_memory_gb": 5.0}


def test_norms_by_part_are_of_the_gradient_and_make_up_the_whole(one_device):
    state = train_state.new_state(*train_state.split(Toy(4), ("flame", "snow")), TX)
    batch = toy_batch(0)
    batch["x"] = batch["x"].at[:, 0].set(0)
    two = lambda model: (toy_loss(model, batch)[0] + 3 * jnp.sum(model.snow.bias[...]), {})
    grads = jax.grad(lambda t: two(train_state.nnx.merge(state.graphdef, t, {}))[0])(
        state.trainable
    )
    want = {
        part: math.sqrt(sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(grads[part])))
        for part in grads
    }
    _, metrics = jax.jit(lambda state: train_state.update(state, TX, two))(state)
    assert want["snow"] > want["flame"] > 0
    for part in ("flame", "snow"):
        assert metrics[f"grad_norm/{part}"] == pytest.approx(want[part], rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(math.hypot(*want.values()), rel=1e-5)


def test_a_task_without_a_token_in_the_step_has_no_loss():
    metrics = {"loss": jnp.float32(2), "text_loss": jnp.float32(0), "tokens_text": jnp.float32(0)}
    metrics |= {"generation_loss": jnp.float32(2), "tokens_generation": jnp.float32(1)}
    assert set(meter.numbers(metrics)) == {
        "loss",
        "tokens_text",
        "generation_loss",
        "tokens_generation",
    }


def test_the_time_of_logging_and_saving_is_nobody_s(tmp_path, monkeypatch, one_device):
    run, save = Run(tmp_path), Checkpointer.save
    write = run.log.write
    monkeypatch.setattr(Checkpointer, "save", lambda *args: (time.sleep(0.3), save(*args)))
    monkeypatch.setattr(run.log, "write", lambda *args: (time.sleep(0.3), write(*args)))
    run()
    logged = [r for r in records(tmp_path) if "step_seconds" in r]
    assert [r["step"] for r in logged] == [7, 14, 21, 28, 30]
    assert all(0 < r["step_seconds"] < 0.03 for r in logged), "0.3 s over 7 steps are 0.04"
    (line,) = [line for line in run.said if "compiled" in line]
    assert re.fullmatch(
        r"toy: first batch after \d+\.\d s, step traced and compiled in \d+\.\d s", line
    )


# Profiles


def traced(folder) -> list[int]:
    """The steps marked in the only trace of a folder."""
    (path,) = folder.glob("plugins/profile/*/perfetto_trace.json.gz")
    assert list(path.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return sorted(
        int(e["args"]["step_num"]) for e in events if e.get("name") == "train" and "args" in e
    )


def test_a_profile_holds_the_steps_asked_for_after_the_first_ones(tmp_path, one_device):
    run = Run(tmp_path, stage=Stage(steps=12), profile=4)
    run()
    assert traced(tmp_path / "profile" / "toy") == [4, 5, 6, 7]
    (line,) = [line for line in run.said if "profile" in line]
    assert "4 step(s) from step 4" in line and "ui.perfetto.dev" in line
    assert str(tmp_path / "profile") in line and "tensorboard --logdir" in line


def test_a_stage_too_short_for_its_profile_says_so(tmp_path, one_device):
    run = Run(tmp_path / "a", stage=Stage(steps=5), profile=4)
    run()
    assert traced(tmp_path / "a" / "profile" / "toy") == [4, 5]
    assert any(
        "4 steps after 3 were asked for, but only 2 of them ran" in line for line in run.said
    )
    run = Run(tmp_path / "b", stage=Stage(steps=3), profile=4)
    run()
    assert any("only 0 of them ran" in line for line in run.said)
    assert not (tmp_path / "b" / "profile").exists()


def test_an_error_ends_the_trace_and_keeps_it(tmp_path, one_device):
    with pytest.raises(Killed):
        Run(tmp_path, kill_at=5, profile=4)()
    assert traced(tmp_path / "profile" / "toy") == [4, 5]
