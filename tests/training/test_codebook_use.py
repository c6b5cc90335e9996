"""A collapsed codebook and an idle discriminator are told after a thousand steps of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from janus_jax.config.schema import Spikes
from janus_jax.training import codebook_use, spikes

CODES = 60
PER_STEP = 64  # ids: sixteen steps are a window


@pytest.fixture(autouse=True)
def short_window(monkeypatch):
    monkeypatch.setattr(codebook_use, "WINDOW", 16 * PER_STEP)


def run(used_of, idle_of, steps: int) -> dict[str, np.ndarray]:
    """The metrics of each step. used_of, idle_of: step -> how many codes it uses, and whether the
    discriminator is idle."""
    use = nnx.to_pure_dict(nnx.state(codebook_use.Use(CODES)))

    def step(use, i):
        ids = (jnp.arange(PER_STEP) % used_of(i)).reshape(1, 8, 8)
        return codebook_use.counted(use, ids, i, idle_of(i))

    return jax.device_get(jax.lax.scan(step, use, jnp.arange(1, steps + 1))[1])


def said(metrics: dict, steps: int, every: int = 50) -> list[str]:
    """What a monitor says that looks now and then, and is replaced by another amid it."""
    out = []
    make = lambda: spikes.LossMonitor(
        "one", Spikes(sigma=0), out.append, alarms=codebook_use.ALARMS
    )
    monitor = make()
    for i in range(steps):
        now = {name: x[i] for name, x in metrics.items()}
        monitor.watch(i + 1, now | {"loss": np.float32(1), "nonfinite_updates": np.int32(0)})
        if (i + 1) % every == 0:
            monitor.judge()
        if i + 1 == steps // 2:
            before = monitor.get_state()
            monitor = make()
            monitor.set_state(before)
    return out


def test_a_codebook_that_collapses_is_told_after_a_thousand_steps():
    metrics = run(lambda i: jnp.where(i <= 100, CODES, 2), lambda i: False, 2300)
    usage = metrics["codebook_usage"]
    # The sixteen steps of the window keep what they have seen.
    assert usage[99] == 1 and usage[114] == 1 and abs(usage[116] - 2 / 60) < 1e-6
    first = int(np.flatnonzero(metrics["steps_collapsed"] == 1)[0]) + 1
    told = said(metrics, 2300)
    assert [line.split(":")[1].strip() for line in told] == [
        f"one, step {first + 999}", f"one, step {first + 1999}",
    ]  # fmt: skip
    assert "collapsed: less than 5% of the codes" in told[0] and "options.entropy" in told[0]
    assert "for 2,000 steps" in told[1]


def test_codes_used_in_turn_are_no_collapse():
    """Each step uses two codes of sixty, and a window of them twelve."""

    def step(use, i):
        ids = (2 * (i % 6) + jnp.arange(PER_STEP) % 2).reshape(1, 8, 8)
        return codebook_use.counted(use, ids, i, False)

    use = nnx.to_pure_dict(nnx.state(codebook_use.Use(CODES)))
    _, metrics = jax.device_get(jax.lax.scan(step, use, jnp.arange(1, 1101)))
    assert metrics["codes_used"].max() == 2 and abs(metrics["codebook_usage"][-1] - 0.2) < 1e-6
    assert said(metrics, 1100) == []


def test_a_discriminator_at_zero_is_told_unless_it_wakes_up():
    metrics = run(lambda i: CODES, lambda i: (i > 10) & (i != 900), 1950)
    told = said(metrics, 1950)
    assert len(told) == 1 and told[0].startswith("WARNING: one, step 1900: for 1,000 steps")
    assert "discriminator's loss is 0" in told[0] and "discriminator_width" in told[0]


def test_a_short_stage_is_told_before_its_window_is_full():
    """Four ids a code are enough to judge by, and a monitor of a short stage has less patience."""
    metrics = run(lambda i: 2, lambda i: False, 120)
    first = int(np.flatnonzero(metrics["steps_collapsed"] == 1)[0]) + 1
    assert first == 4  # 4 * 60 ids; the window has sixteen steps
    out = []
    monitor = spikes.LossMonitor(
        "one", Spikes(sigma=0), out.append, alarms=codebook_use.ALARMS, patience=100
    )
    for i in range(120):
        now = {name: x[i] for name, x in metrics.items()}
        monitor.watch(i + 1, now | {"loss": np.float32(1), "nonfinite_updates": np.int32(0)})
    monitor.judge()
    assert len(out) == 1 and "one, step 103: for 100 steps the codebook has collapsed" in out[0]
