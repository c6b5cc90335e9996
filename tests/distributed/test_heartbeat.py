"""Lost processes and hangs: two real processes on this machine, over loopback."""

import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
from support.paths import ROOT
from support.processes import environment

from janus_jax.common import exit_codes
from janus_jax.distributed import exits, heartbeat

# A process that only asks, as the loop does, whether to stop: argv is the address, its number,
# seconds of silence.
PROGRAM = """
import sys, time
from janus_jax.distributed import heartbeat, initialize, signals
from janus_jax.distributed.watchdog import WATCH
address, number, heartbeat.SILENT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
signals.STOP.listen(command=True, code=75)
initialize.initialize(address, 2, number)
heartbeat.start(signals.STOP.on_remote)
WATCH.start(sys.argv[4])
WATCH.durations.append(0.04)
print("ready", flush=True)
for step in range(3000):
    WATCH.at("step", step)
    time.sleep(0.02 + 0.02 * number)
    if signals.STOP.should_stop():
        print("stops", step, flush=True)
        heartbeat.stop()
        sys.exit(signals.STOP.exit_code())
    if sys.argv[5:6] and sys.argv[5][:3] == "end" and sys.argv[6] == str(number) and step == 20:
        heartbeat.end(int(sys.argv[5][4:]), "SourceError: the disk is gone")
    if sys.argv[5:] == ["hang", str(number)] and step == 20:
        time.sleep(60)
"""


class Pair:
    """Two processes of PROGRAM, ready; `out` and `codes` once they have ended."""

    def __init__(self, directory, *options, silent=30, least="120"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        env = environment(directory) | {"JANUS_WATCHDOG": least}
        self.runs = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, address, str(i), str(silent), str(directory), *options],
                cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for i in range(2)
        ]  # fmt: skip
        for run in self.runs:
            assert next((line for line in run.stdout if line == "ready\n"), None)

    def end(self, *left):
        """Waits for the processes `left`, and kills the rest."""
        try:
            self.out = {i: self.runs[i].communicate(timeout=60)[0] for i in left}
        finally:
            for run in self.runs:
                run.kill()
        self.codes = [self.runs[i].returncode for i in left]


@pytest.mark.processes
@pytest.mark.parametrize(
    "sent, code", [("SIGINT", 0), pytest.param("SIGTERM", 75, marks=pytest.mark.slow)]
)
def test_a_signal_to_one_stops_both_after_as_many_steps(tmp_path, sent, code):
    pair = Pair(tmp_path)
    time.sleep(0.5)
    pair.runs[1].send_signal(signal.Signals[sent])
    pair.end(0, 1)
    stops = [
        line for out in pair.out.values() for line in out.splitlines() if line.startswith("stops")
    ]
    assert pair.codes == [code, code], pair.out
    assert len(stops) == 2 and stops[0] == stops[1]


@pytest.mark.processes
@pytest.mark.slow
def test_a_peer_that_was_killed_is_named_with_what_it_did(tmp_path):
    pair = Pair(tmp_path, silent=8)
    time.sleep(2.5 * heartbeat.BEAT)
    pair.runs[1].kill()
    begin = time.monotonic()
    pair.end(0)
    assert (
        pair.codes == [exit_codes.RESTART]
        and time.monotonic() - begin < 8 + 2 * heartbeat.BEAT + exits.LEAVE
    )
    said = f"process 1 ({socket.gethostname()}) is dead, stopped or out of reach"
    assert said in pair.out[0] and "last heard in: step" in pair.out[0]


@pytest.mark.processes
def test_the_coordinator_that_was_killed_is_named_and_jax_does_not_abort(tmp_path):
    pair = Pair(tmp_path)
    time.sleep(2.5 * heartbeat.BEAT)  # two notes: the first may be older than the first step
    pair.runs[0].kill()
    begin = time.monotonic()
    pair.end(1)
    assert pair.codes == [exit_codes.RESTART], pair.out
    assert time.monotonic() - begin < 10
    assert (
        f"process 0 ({socket.gethostname()}), the coordinator, is gone (last heard in: step"
        in pair.out[1]
    )


@pytest.mark.processes
@pytest.mark.parametrize("code", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_process_that_ends_by_its_own_error_takes_the_other_along(tmp_path, code):
    pair = Pair(tmp_path, f"end {code}", "1")
    pair.end(0, 1)
    assert pair.codes == [code, code]
    assert f"process 1 ({socket.gethostname()}) ended: SourceError: the disk is gone" in pair.out[0]


@pytest.mark.processes
def test_a_hang_is_found_and_its_process_named(tmp_path):
    pair = Pair(tmp_path, "hang", "1", least="4")
    pair.end(0, 1)
    assert pair.codes == [75, 75]
    here = rf"process 1 \({socket.gethostname()}\)"
    said = rf"{here} ended: no progress for \d s \(4 s is the limit\) in: step 20; {here} is in: step 20, for \d s"
    assert re.search(said, pair.out[0]), pair.out[0]
    for text in (pair.out[1], (tmp_path / "stacks-1.txt").read_text()):
        assert 'File "<string>", line 22 in <module>' in text  # where it sleeps


LATE = """
import sys, time
from janus_jax import main
from janus_jax.distributed import initialize, processes
def prepare(*_):
    time.sleep(35 * int(sys.argv[-1]))  # Gloo gives the first collective 30 s
    print(processes.all_gather(int(sys.argv[-1])), flush=True)
main.train_and_show = prepare
initialize.initialize(sys.argv[1], 2, int(sys.argv[-1]))
main.run("", {}, ".", command=True)
"""


@pytest.mark.processes
@pytest.mark.slow
def test_a_process_may_open_its_data_for_longer_than_collectives_wait(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", LATE, address, str(i)], cwd=ROOT, env=environment(tmp_path), text=True,
            stdout=subprocess.PIPE,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        assert all("[0, 1]\n" in run.communicate(timeout=120)[0] for run in runs)
    finally:
        for run in runs:
            run.kill()


def test_a_connection_that_broke_names_the_peer_and_other_errors_are_ones_own(monkeypatch):
    monkeypatch.setattr(heartbeat, "GRACE", 0)
    group, calls = heartbeat.Heartbeat(None, 0, 2, None), []
    group.notes[1] = {"host": "host7", "section": "step 12"}, 0

    def end(code, text, tell):
        calls.append((code, text))
        raise SystemExit

    monkeypatch.setattr(group, "end", end)
    for own in (ValueError("closed by peer"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")):
        group.attribute(own)
    assert not calls
    wrapped = ValueError("cannot save")
    wrapped.__cause__ = jax.errors.JaxRuntimeError(
        "NCCL error: remote process exited or there was a network error"
    )
    with pytest.raises(SystemExit):
        group.attribute(wrapped)
    assert calls.pop()[0] == 75
    with pytest.raises(SystemExit):
        group.attribute(
            jax.errors.JaxRuntimeError("Gloo AllReduce failed: Connection closed by peer [::1]:7")
        )
    assert calls[0][0] == 75 and calls[0][1].startswith(
        "process 1 (host7) has died (last heard in: step 12): Gloo"
    )


def test_counts_are_exchanged_until_all_have_come_though_calls_fail(monkeypatch):
    store, fails = {"janus/asked/1": "7"}, [True, True]

    class Client:
        def key_value_set(self, key, value, allow_overwrite=False):
            store[key] = value
            if fails and fails.pop():
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")

        def key_value_dir_get(self, _):
            return list(store.items())

    group = heartbeat.Heartbeat(Client(), 0, 2, None)
    assert max(group.exchange("asked", 5)) == 7 and store["janus/asked/0"] == "5" and not fails
    group.count = 3
    group.closed.set()
    assert group.exchange("asked", 5) is None


@pytest.mark.parametrize(
    "text, code", [("INTERNAL: CUDA error", None), ("NCCL: Connection timed out", 75)]
)
def test_an_error_that_may_be_another_processs_waits_for_one_that_is_missing(
    monkeypatch, text, code
):
    group, told, waited, calls = heartbeat.Heartbeat(None, 0, 3, None), [], [], []
    monkeypatch.setattr(group, "tell", told.append)
    monkeypatch.setattr(group, "end", lambda code, _: calls.append(code))
    monkeypatch.setattr(time, "sleep", waited.append)
    group.attribute(jax.errors.JaxRuntimeError(text))
    assert told == ["broken"] and sum(waited) > heartbeat.BROKEN + heartbeat.BEAT
    assert calls == ([] if code is None else [code])
