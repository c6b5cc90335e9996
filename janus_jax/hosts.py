"""Several processes as one run: how they talk, compare themselves, and stop together. meet.py: how they meet."""

import json
import os
import signal
import socket
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from janus_jax import leaving, peers


class HostsError(ValueError):
    """The processes of a run cannot find each other, or do not fit together."""


class Others(HostsError, peers.Unwell):
    """This process is well, another is not. kinds: names of the classes of the others' errors and of their bases."""

    def __init__(self, text: str, kinds=()):
        super().__init__(text)
        self.kinds = frozenset(kinds)


class Preempted(Exception):
    """The run was told to stop, and has saved a checkpoint. No KeyboardInterrupt: what it says is to be read."""

    def __str__(self):
        return f"{super().__str__()}; the same command goes on from there"


def first() -> bool:
    """Whether this is the process that writes and prints for all."""
    return jax.process_index() == 0


def gather(value) -> list:
    """What each process gave, by process, on all of them; values that JSON holds. All must call it."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(data.size))
    padded = multihost_utils.process_allgather(np.pad(data, (0, sizes.max() - data.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(padded, sizes)]


def wait(name: str):
    """Returns once all processes have come here.

    The first collective opens the connections that the later ones use, and on CPU (Gloo) only where no process is more
    than 30 s behind: so all wait for each other as soon as they have met, before any opens its data.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def total(counts: dict[str, float]) -> dict[str, float]:
    """The sums over all processes, each of which has the same names."""
    if jax.process_count() == 1 or not counts:
        return counts
    sums = multihost_utils.process_allgather(np.array(list(counts.values()), np.float32)).sum(0)
    return dict(zip(counts, sums.tolist()))


def together(action):
    """`action()` on every process; where it raises on one, all raise: its own error there, Others elsewhere.
    Without it the others would wait for a process that has gone."""
    error, result = None, None
    try:
        result = action()
    except Exception as caught:
        error = caught
    failed = gather(
        error and [f"{type(error).__name__}: {error}", *(k.__name__ for k in type(error).__mro__)]
    )
    if error is not None:
        raise error
    if any(failed):
        told = "\n".join(f"process {i}: {one[0]}" for i, one in enumerate(failed) if one)
        kinds = (name for one in failed if one for name in one[1:])
        raise Others(f"this process is well, but not all are:\n{told}", kinds)
    return result


def same(facts: dict[str, str]):
    """Raises HostsError naming what differs between the processes and between which. facts: name -> anything
    short that must be the same everywhere, a hash for example."""
    everyone = gather({"host": socket.gethostname(), "facts": facts})
    lines = []
    for name in sorted({name for one in everyone for name in one["facts"]}):
        groups = {}
        for i, one in enumerate(everyone):
            groups.setdefault(one["facts"].get(name, "nothing"), []).append(f"{i} ({one['host']})")
        if len(groups) > 1:
            who = "; ".join(f"{value} on process {', '.join(ids)}" for value, ids in groups.items())
            lines.append(f"  - {name}: {who}")
    if lines:
        raise HostsError(
            "the processes of this run do not run the same; give all hosts the same command, code, packages and "
            "files. They differ in:\n" + "\n".join(lines)
        )


class Notice:
    """SIGTERM, the notice before a machine is taken away, and SIGINT, Ctrl-C: the loop asks after each step whether
    to stop there. A SIGINT after either ends at once, with 130.

    Where the loop does not ask (before a stage's first step is done, and when its last checkpoint is written) nothing
    can be lost that the same command would not find or make again: a signal ends the command at once; in a notebook
    it does what it did before. Several processes hear of a signal to any of them, and agree on the step.
    """

    def __init__(self):
        self.code = 0  # exit code after SIGTERM; after SIGINT it is 0
        self.command = False  # whether main() runs
        # The signal that the run was given, when it or the last that is the same was, and whether this process was.
        self.given, self.at, self.own = 0, 0.0, False
        self.asked, self.stops_at, self.answers, self.agreed = 0, None, False, False
        self._before, self._changed, self._agreeing = {}, threading.Condition(), False

    def listen(self, command: bool = False, code: int = 0):
        """From now on the signals do not kill. Does nothing outside the main thread. command: the process may be
        ended, from a thread that hears signals while the main thread is in C (compiling, waiting for a peer)."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.given, self.own, self.stops_at, self.answers, self.agreed = 0, False, None, False, False
        self.command, self.code = command, code
        handler = (lambda *_: None) if command else (lambda number, _: self._note(number))
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, handler)
        if command:
            ear, mouth = socket.socketpair()
            mouth.setblocking(False)
            signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._hear, args=(ear, mouth), daemon=True, name="signals").start()

    def close(self):
        """The signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._before and self.command:
            signal.set_wakeup_fd(-1)
        self._before = {}

    def _hear(self, ear, _mouth):
        while numbers := ear.recv(64):
            for number in numbers:
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._note(number)

    def _note(self, number: int):
        now, name = time.monotonic(), signal.Signals(number).name
        first, self.own = not self.own, True
        if first and self.given == number == signal.SIGINT:
            self.at = now  # one Ctrl-C, given to all, of which another process spoke first
            return
        if self.given and number == signal.SIGINT and now - self.at > 0.5:  # some parents pass one on twice
            self.given = number
            self._now(
                130,
                "interrupted again: ends without saving; the same command goes on from the last checkpoint",
            )
        if self.given:
            return
        self.given, self.at = number, now
        if not self.answers:
            self._now(
                self.leaving(), f"told to stop ({name}); nothing has changed since the last checkpoint or weights "
                f"that were written: the same command goes on from there",
            )  # fmt: skip
        if peers.PEERS:
            threading.Thread(target=peers.PEERS.tell, args=("stop",), kwargs={"number": int(number)}).start()
        leaving.say(f"\n{name}: finishes this step and saves; Ctrl-C ends without")

    def _now(self, code: int, text: str):
        if self.command:
            peers.end(code, text)
        number, before = self.given, self._before[self.given]
        self.given = 0
        if before is signal.SIG_IGN:  # as in a shell's background: `nohup ... &`
            return
        if callable(before):
            return before(number, None)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def leaving(self) -> int:
        """The exit code of a run that was told to stop."""
        return self.code if self.given == signal.SIGTERM else 0

    def told(self, word: dict):
        """Some process was given a signal: all stop when they have asked as often as the furthest, and once more."""
        if not self.given:
            self.given, self.at = word["number"], time.monotonic()
        if not self.answers:
            self._now(self.leaving(), f"process {word['process']} ({word['host']}) was told to stop")
        with self._changed:
            if self.stops_at is not None or self._agreeing:
                return
            self._agreeing = True  # who asks now, waits
            asked = self.asked
        counts = peers.PEERS.exchange("asked", asked)
        with self._changed:
            self._agreeing, self.stops_at = False, max(counts) + 1 if counts else None
            self._changed.notify_all()

    def reached(self) -> bool:
        """Whether to stop here; every process must ask equally often."""
        with self._changed:
            # Counts questions and not steps: those begin again with each stage, and go back after a loss spike.
            self._changed.wait_for(lambda: not self._agreeing)
            self.asked, self.answers = self.asked + 1, True
            if peers.PEERS:
                self.agreed = self.stops_at is not None and self.asked >= self.stops_at
            else:
                self.agreed = bool(self.given)
        return self.agreed

    def settle(self):
        """A stage's steps are done and saved: raises Preempted where a signal came too late for the loop."""
        self.answers = False
        if self.given:
            raise Preempted(f"{self.name()}; all steps of the stage are saved")

    def name(self) -> str:
        """How the run was told to stop."""
        return f"told to stop ({signal.Signals(self.given).name})"


NOTICE = Notice()
