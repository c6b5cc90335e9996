"""Leaving in time, lost peers and hangs: two real processes on this machine, over loopback."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_two_processes import ROOT, environment, losses
from test_two_processes import alone as alone  # what all begin with

from janus_jax import hosts, leaving, peers, watchdog

# A process that only asks, as the loop does, whether to stop: argv is the address, its number, seconds of silence.
PROGRAM = """
import sys, time
from janus_jax import hosts, leaving, meet, peers
from janus_jax.watchdog import WATCH
address, number, peers.SILENT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
hosts.NOTICE.listen(command=True, code=75)
meet.connect(address, 2, number)
peers.start(hosts.NOTICE.told)
WATCH.start(sys.argv[4])
WATCH.durations.append(0.04)
print("ready", flush=True)
for step in range(3000):
    WATCH.at("step", step)
    time.sleep(0.02 + 0.02 * number)
    if hosts.NOTICE.reached():
        print("stops", step, flush=True)
        peers.stop()
        sys.exit(hosts.NOTICE.leaving())
    if sys.argv[5:6] and sys.argv[5][:3] == "end" and sys.argv[6] == str(number) and step == 20:
        peers.end(int(sys.argv[5][4:]), "SourceError: the disk is gone")
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


@pytest.mark.parametrize("sent, code", [("SIGINT", 0), pytest.param("SIGTERM", 75, marks=pytest.mark.slow)])
def test_a_signal_to_one_stops_both_after_as_many_steps(tmp_path, sent, code):
    pair = Pair(tmp_path)
    time.sleep(0.5)
    pair.runs[1].send_signal(signal.Signals[sent])
    pair.end(0, 1)
    stops = [line for out in pair.out.values() for line in out.splitlines() if line.startswith("stops")]
    assert pair.codes == [code, code], pair.out
    assert len(stops) == 2 and stops[0] == stops[1]


@pytest.mark.slow
def test_a_peer_that_was_killed_is_named_with_what_it_did(tmp_path):
    pair = Pair(tmp_path, silent=8)
    time.sleep(2.5 * peers.BEAT)
    pair.runs[1].kill()
    begin = time.monotonic()
    pair.end(0)
    assert pair.codes == [leaving.AGAIN] and time.monotonic() - begin < 8 + 2 * peers.BEAT + leaving.LEAVE
    said = f"process 1 ({socket.gethostname()}) is dead, stopped or out of reach"
    assert said in pair.out[0] and "last heard in: step" in pair.out[0]


def test_the_coordinator_that_was_killed_is_named_and_jax_does_not_abort(tmp_path):
    pair = Pair(tmp_path)
    time.sleep(2.5 * peers.BEAT)  # two notes: the first may be older than the first step
    pair.runs[0].kill()
    begin = time.monotonic()
    pair.end(1)
    assert pair.codes == [leaving.AGAIN], pair.out
    assert time.monotonic() - begin < 10
    assert f"process 0 ({socket.gethostname()}), the coordinator, is gone (last heard in: step" in pair.out[1]


@pytest.mark.parametrize("code", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_process_that_ends_by_its_own_error_takes_the_other_along(tmp_path, code):
    pair = Pair(tmp_path, f"end {code}", "1")
    pair.end(0, 1)
    assert pair.codes == [code, code]
    assert f"process 1 ({socket.gethostname()}) ended: SourceError: the disk is gone" in pair.out[0]


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
from janus_jax import hosts, main, meet, preflight
def prepare(*_):
    time.sleep(35 * int(sys.argv[-1]))  # Gloo gives the first collective 30 s
    print(hosts.gather(int(sys.argv[-1])), flush=True)
main.train_and_show = prepare
meet.connect(sys.argv[1], 2, int(sys.argv[-1]))
main.run("", {}, ".", command=True)
"""


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


# One process


def test_a_connection_that_broke_names_the_peer_and_other_errors_are_ones_own(monkeypatch):
    monkeypatch.setattr(peers, "GRACE", 0)
    group, calls = peers.Peers(None, 0, 2, None), []
    group.notes[1] = {"host": "host7", "section": "step 12"}, 0

    def end(code, text, tell):
        calls.append((code, text))
        raise SystemExit

    monkeypatch.setattr(group, "end", end)
    for own in (ValueError("closed by peer"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")):
        group.blame(own)
    assert not calls
    wrapped = ValueError("cannot save")
    wrapped.__cause__ = jax.errors.JaxRuntimeError(
        "NCCL error: remote process exited or there was a network error"
    )
    with pytest.raises(SystemExit):
        group.blame(wrapped)
    assert calls.pop()[0] == 75
    with pytest.raises(SystemExit):
        group.blame(jax.errors.JaxRuntimeError("Gloo AllReduce failed: Connection closed by peer [::1]:7"))
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

    group = peers.Peers(Client(), 0, 2, None)
    assert max(group.exchange("asked", 5)) == 7 and store["janus/asked/0"] == "5" and not fails
    group.count = 3
    group.closed.set()
    assert group.exchange("asked", 5) is None


@pytest.mark.parametrize("text, code", [("INTERNAL: CUDA error", None), ("NCCL: Connection timed out", 75)])
def test_an_error_that_may_be_another_processs_waits_for_one_that_is_missing(monkeypatch, text, code):
    group, told, waited, calls = peers.Peers(None, 0, 3, None), [], [], []
    monkeypatch.setattr(group, "tell", told.append)
    monkeypatch.setattr(group, "end", lambda code, _: calls.append(code))
    monkeypatch.setattr(time, "sleep", waited.append)
    group.blame(jax.errors.JaxRuntimeError(text))
    assert told == ["broken"] and sum(waited) > peers.BROKEN + peers.BEAT
    assert calls == ([] if code is None else [code])


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_limit_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("JANUS_WATCHDOG", text)
    with pytest.raises(ValueError, match=f"JANUS_WATCHDOG is '{text}'"):
        leaving.least()


def ended():
    """(a stand-in for leaving's end, what it was called with)."""
    calls, called = [], threading.Event()

    def end(code, text, **_):
        calls.append((code, text))
        called.set()

    return end, calls, called


def test_a_section_that_takes_too_long_ends_the_process_with_its_stacks(tmp_path, capfd, monkeypatch):
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
        watch.draw(step)
        watch.at("step", step)
        compiling = step <= 2 * watchdog.AHEAD + 1
        assert (
            (watch.limit() == watchdog.LIMITS["compiling"]) == compiling == ("(compiling)" in watch.section)
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


def test_in_a_notebook_the_loop_answers_and_elsewhere_the_signal_does_what_it_did():
    before, notice = signal.getsignal(signal.SIGINT), hosts.Notice()
    notice.listen()
    try:
        with pytest.raises(KeyboardInterrupt):  # nothing is lost: the loop does not run yet
            signal.raise_signal(signal.SIGINT)
        assert not notice.reached()
        signal.raise_signal(signal.SIGINT)
        assert notice.reached() and notice.leaving() == 0 and "SIGINT" in notice.name()
        time.sleep(0.6)
        with pytest.raises(KeyboardInterrupt):  # the second
            signal.raise_signal(signal.SIGINT)
    finally:
        notice.close()
    assert signal.getsignal(signal.SIGINT) is before


def noticing(monkeypatch):
    """(a Notice of a command whose loop asks, the codes that it ends with, a clock that the test sets)."""
    notice, ends, clock = hosts.Notice(), [], [1000.0]
    notice.command = notice.answers = True

    def end(code, _):
        ends.append(code)
        raise SystemExit

    monkeypatch.setattr(peers, "end", end)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return notice, ends, clock


def test_a_ctrl_c_that_another_process_told_of_first_is_the_same_one(monkeypatch):
    notice, ends, clock = noticing(monkeypatch)
    monkeypatch.setattr(peers, "PEERS", peers.Peers(None, 0, 2, None))
    monkeypatch.setattr(peers.PEERS, "exchange", lambda *_: [3, 4])
    notice.told({"number": signal.SIGINT, "process": 1, "host": "host7"})
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


SPEAK = """
from janus_jax import hosts, leaving, peers
class Group:
    def tell(self, kind, **_): print(kind, flush=True)
peers.PEERS = Group()
hosts.NOTICE.answers = True
hosts.NOTICE._note(15)
peers.PEERS = None
peers.end(7, "said to nobody")
"""


def test_a_process_with_a_full_stderr_tells_the_others_and_ends():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SPEAK],
            stdout=subprocess.PIPE,
            stderr=full,
            cwd=ROOT,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (7, "stop\n")


def test_a_process_whose_stderr_nobody_reads_ends(monkeypatch):
    monkeypatch.setattr(leaving, "LEAVE", 0.2)
    read, write = os.pipe()
    with os.fdopen(write, "w") as pipe:
        os.set_blocking(write, False)
        while True:
            try:
                os.write(write, b"x" * 65536)
            except BlockingIOError:
                break
        os.set_blocking(write, True)
        monkeypatch.setattr(sys, "stderr", pipe)
        begin = time.monotonic()
        leaving.shout("nobody reads this", 7)
        assert time.monotonic() - begin < 2
        threading.Thread(target=os.read, args=(read, 1 << 20)).start()
    os.close(read)


def test_a_signal_after_the_last_step_stops_before_the_weights_are_written():
    notice = hosts.Notice()
    notice.listen(code=0)
    try:
        notice.reached()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(hosts.Preempted, match=r"SIGTERM.*the same command goes on"):
            notice.settle()
    finally:
        notice.close()


# Training, with every fault, to the same result


@pytest.fixture(scope="module")
def undisturbed(alone):
    launch(alone, "undisturbed").wait(600)
    return alone / "undisturbed"


def launch(directory, name: str, fault: str = "", **more):
    """launch/local.sh with two processes of faulty.py; what they print goes to `name`.log."""
    pids = directory / f"{name}-pids"
    pids.mkdir()
    command = [ROOT / "launch" / "local.sh", "2", f"--config={ROOT / 'tests' / 'faulty.py'}"]
    env = environment(directory) | {"PIDS": str(pids), "FAULT": fault, "SLOW": "0.3", "WAIT": "45"} | more
    with open(directory / f"{name}.log", "w") as out:
        return subprocess.Popen(
            [*command, f"--workdir={directory / name}"], cwd=ROOT, env=env, stdout=out, stderr=out
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, fault, sent, to, said",
    [
        ("kill-1", "", "SIGKILL", "1", r"process 1 \(\S+\) is dead, stopped or out of reach: no word for 3\d s"),
        ("kill-0", "", "SIGKILL", "0", r"process 0 \(\S+\), the coordinator, is gone"),
        ("stop-1", "", "SIGSTOP", "1", r"process 1 \(\S+\) is dead, stopped or out of reach: no word for 3\d s"),
        ("stop-0", "", "SIGSTOP", "0", r"process 0 \(\S+\) is dead, stopped or out of reach: no word for 3\d s"),
        ("hang", "hang 1@8", "", "", r"process 1 \(\S+\) is in: drawing the batch of step 9, for \d+ s; the others"),
        ("term", "", "SIGTERM", "1", r"only: told to stop \(SIGTERM\); saved step \d+ of 24"),
    ],
)  # fmt: skip
def test_after_a_fault_the_run_starts_again_and_ends_the_same(undisturbed, name, fault, sent, to, said):
    directory = undisturbed.parent
    run = launch(directory, name, fault, **({"JANUS_WATCHDOG": "10"} if fault else {}))
    workdir, log = directory / name, directory / f"{name}.log"
    if sent:
        while not (workdir / "metrics.jsonl").is_file() or len(losses(workdir)) < 7:
            assert run.poll() is None, log.read_text()[-4000:]
            time.sleep(0.05)
        os.kill(int((directory / f"{name}-pids" / to).read_text()), signal.Signals[sent])
    assert run.wait(600) == 0, log.read_text()[-4000:]
    assert re.search(said, log.read_text()), log.read_text()[-4000:]
    assert log.read_text().count("starting again") == 1
    assert losses(workdir) == losses(undisturbed)
    ours, theirs = (load_file(d / "only" / "model.safetensors") for d in (workdir, undisturbed))
    assert all(np.array_equal(ours[key], x) for key, x in theirs.items())


@pytest.mark.slow
@pytest.mark.parametrize("sent, to", [("SIGINT", "1"), ("SIGTERM", "launcher")])
def test_ctrl_c_and_a_launcher_told_to_stop_do_not_start_again(alone, sent, to):
    name = f"{sent}-{to}"
    run = launch(alone, name)
    while not (alone / name / "metrics.jsonl").is_file() or len(losses(alone / name)) < 7:
        assert run.poll() is None
        time.sleep(0.05)
    os.kill(
        run.pid if to == "launcher" else int((alone / f"{name}-pids" / to).read_text()), signal.Signals[sent]
    )
    assert run.wait(100) == 0
    text = (alone / f"{name}.log").read_text()
    assert text.count("saved step") == 2 and "starting again" not in text


@pytest.mark.slow
def test_a_process_whose_data_fail_ends_all_with_3(alone):
    run = launch(alone, "data", "data 1@8")
    assert run.wait(300) == 3
    text = (alone / "data.log").read_text()
    assert re.search(r"process 1 \(\S+\) ended: SourceError: data.datasets.questions: the disk is gone", text)
