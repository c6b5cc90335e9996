"""Sections that take too long, and the time of a step."""

import threading
import time

import pytest

from janus_jax.distributed import exits, watchdog


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_limit_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("JANUS_WATCHDOG", text)
    with pytest.raises(ValueError, match=f"JANUS_WATCHDOG is '{text}'"):
        exits.least()


def ended():
    """(a stand-in for heartbeat's end, what it was called with)."""
    calls, called = [], threading.Event()

    def end(code, text, **_):
        calls.append((code, text))
        called.set()

    return end, calls, called


def test_a_section_that_takes_too_long_ends_the_process_with_its_stacks(
    tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(watchdog, "TICK", 0.05)
    end, calls, called = ended()
    watch = watchdog.Watchdog(least=0.3, end=end)
    watch.durations.append(0.01)
    watch.at("saving step", 20)  # may take an hour
    watch.start(tmp_path)
    assert not called.wait(0.6)
    watch.at("drawing the batch of step", 13)
    assert called.wait(3)
    watch.close()
    assert calls[0][0] == 75 and "in: drawing the batch of step 13" in calls[0][1]
    for text in (capfd.readouterr().err, (tmp_path / "stacks-0.txt").read_text()):
        assert "test_a_section_that_takes_too_long" in text  # where the main thread was


def test_a_step_counts_once_the_devices_are_done_with_it():
    watch, ready = watchdog.Watchdog(least=120), []

    class Loss:
        def __init__(self, step):
            self.step = step

        def block_until_ready(self):
            ready.append(self.step)
            time.sleep(0.05)
            return self

    watch.stage("stage1")
    assert watch.limit() == watchdog.LIMITS["restoring"]
    for step in range(1, 9):
        watch.begin_step(step)
        watch.at("step", step)
        compiling = step <= 2 * watchdog.AHEAD + 1
        assert (
            (watch.limit() == watchdog.LIMITS["compiling"])
            == compiling
            == ("(compiling)" in watch.section)
        )
        watch.done(Loss(step))
    assert ready == list(range(1, 9 - watchdog.AHEAD))
    assert len(watch.durations) == 4 and min(watch.durations) >= 0.05
    watch.durations.extend([30] * 9)
    assert watch.limit() == 300


def test_a_process_that_was_stopped_and_continued_is_not_ended(tmp_path, monkeypatch):
    """A debugger, or a machine that slept on a clock that runs on."""
    monkeypatch.setattr(watchdog, "TICK", 0.02)
    end, _, called = ended()
    watch = watchdog.Watchdog(least=1, end=end)
    watch.durations.append(0.01)
    watch.at("step", 3)
    now = time.monotonic
    watch.start(tmp_path)
    time.sleep(0.2)
    monkeypatch.setattr(time, "monotonic", lambda: now() + 1000)
    assert not called.wait(0.5) and watch.since > now() + 900
    watch.close()
