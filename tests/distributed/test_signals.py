"""Signals: when a run stops, in a notebook and as a command."""

import os
import signal
import time

import pytest

from janus_jax.distributed import heartbeat, signals


def test_a_notice_is_heard_once_listening_and_stays():
    before, notice = signal.getsignal(signal.SIGTERM), signals.StopRequest()
    try:
        notice.listen(code=75)
        assert not notice.should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.should_stop() and notice.should_stop() and notice.exit_code() == 75
    finally:
        notice.close()
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_a_notebook_the_loop_answers_and_elsewhere_the_signal_does_what_it_did():
    before, notice = signal.getsignal(signal.SIGINT), signals.StopRequest()
    notice.listen()
    try:
        with pytest.raises(KeyboardInterrupt):  # nothing is lost: the loop does not run yet
            signal.raise_signal(signal.SIGINT)
        assert not notice.should_stop()
        signal.raise_signal(signal.SIGINT)
        assert notice.should_stop() and notice.exit_code() == 0 and "SIGINT" in notice.name()
        time.sleep(0.6)
        with pytest.raises(KeyboardInterrupt):  # the second
            signal.raise_signal(signal.SIGINT)
    finally:
        notice.close()
    assert signal.getsignal(signal.SIGINT) is before


def noticing(monkeypatch):
    """(a StopRequest of a command whose loop asks, the codes that it ends with, a clock that the
    test sets)."""
    notice, ends, clock = signals.StopRequest(), [], [1000.0]
    notice.command = notice.answers = True

    def end(code, _):
        ends.append(code)
        raise SystemExit

    monkeypatch.setattr(heartbeat, "end", end)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return notice, ends, clock


def test_a_ctrl_c_that_another_process_told_of_first_is_the_same_one(monkeypatch):
    notice, ends, clock = noticing(monkeypatch)
    monkeypatch.setattr(heartbeat, "HEARTBEAT", heartbeat.Heartbeat(None, 0, 2, None))
    monkeypatch.setattr(heartbeat.HEARTBEAT, "exchange", lambda *_: [3, 4])
    notice.on_remote({"number": signal.SIGINT, "process": 1, "host": "host7"})
    clock[0] += 3
    notice._note(signal.SIGINT)  # its own, late
    clock[0] += 0.1
    notice._note(signal.SIGINT)  # passed on twice
    assert notice.stops_at == 5 and not ends
    clock[0] += 3
    with pytest.raises(SystemExit):
        notice._note(signal.SIGINT)
    assert ends == [130]


def test_ctrl_c_ends_a_run_that_saves_after_sigterm(monkeypatch):
    notice, ends, clock = noticing(monkeypatch)
    notice._note(signal.SIGTERM)
    clock[0] += 3
    notice._note(signal.SIGTERM)
    assert not ends
    with pytest.raises(SystemExit):
        notice._note(signal.SIGINT)
    assert ends == [130]


def test_a_signal_after_the_last_step_stops_before_the_weights_are_written():
    notice = signals.StopRequest()
    notice.listen(code=0)
    try:
        notice.should_stop()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(signals.Preempted, match=r"SIGTERM.*the same command goes on"):
            notice.raise_if_stopped()
    finally:
        notice.close()
