"""Ends a run that stands still, and says where: a thread beside the main thread, which says what it
does.

A section that takes longer than it may ends the process with exit code 75, one line, and the Python
stacks of all threads on stderr and in WORKDIR/stacks-<process>.txt. So does a peer of which nothing
is heard (see heartbeat.py; no stacks). Only under `python -m janus_jax.main`: it does not end a
notebook. The environment variable JANUS_WATCHDOG is the least that a step may take in seconds
(120); 0 switches it off, for a debugger that holds the process.

The clock is CLOCK_MONOTONIC, which rests while the machine sleeps (on Linux and macOS); where this
thread itself did not run for a while (a process stopped and continued), the section begins anew.
"""

import collections
import faulthandler
import pathlib
import statistics
import threading
import time

import jax

from janus_jax.common import exit_codes
from janus_jax.distributed import exits, heartbeat

TICK = 1  # seconds
TIMES = 10  # a step may take so many times the median step, if that is more than JANUS_WATCHDOG
AHEAD = 2  # steps given to the devices and not yet done: the host is no further ahead
LIMITS = {  # seconds that a section with this first word may take; one of another word is a step's
    "preparing": 4 * 3600,  # data sets are indexed, perhaps downloaded
    "compiling": 1800,  # the first steps, until one's duration is known
    "restoring": 3600,
    "saving": 3600,
    "exporting": 3600,
    "evaluating": 24 * 3600,  # on the first process; the others wait for it
}
# Seconds without Python running at all, after which a thread of C writes the stacks. It ends
# nothing: it cannot tell an extension that holds the interpreter from a process that was stopped
# (Ctrl-Z, a paused container) and goes on.
LOCKED = 900


class Watchdog:
    """Of one process.

    least: seconds that a step may always take; 0 for no watching, None: JANUS_WATCHDOG.
    end: called as heartbeat.end.
    """

    def __init__(self, least: float | None = None, end=heartbeat.end):
        self.least = least
        self._end = end
        self.durations = collections.deque(maxlen=64)
        self._flying = collections.deque()
        self.passed = 0
        self._closed = threading.Event()
        self.workdir = None
        self.at("preparing")

    def start(self, workdir):
        """Raises ValueError for a JANUS_WATCHDOG that is none."""
        self.workdir = pathlib.Path(workdir)
        if self.least is None:
            self.least = exits.least()
        self._closed.clear()
        if self.least:
            threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def close(self):
        self._closed.set()
        if self.workdir is not None and self.least:
            faulthandler.cancel_dump_traceback_later()

    def stage(self, name: str):
        """The main thread restores a stage, whose steps are compiled anew and take another time."""
        self.durations.clear()
        self._flying.clear()
        self.at(f"restoring {name}")

    def at(self, section: str, step: int | None = None):
        """The main thread begins this: every process passes the same sections in the same order."""
        known = section.partition(" ")[0] in LIMITS or self.durations
        self.section = section if step is None else f"{section} {step}"
        self.section += "" if known else " (compiling)"
        self.since = time.monotonic()
        self.passed += 1
        if heartbeat.HEARTBEAT:
            note = {"section": self.section, "count": self.passed, "since": self.since}
            heartbeat.HEARTBEAT.note = note

    def begin_step(self, step: int):
        """The main thread begins a step."""
        self._begun = time.monotonic()
        self.at("drawing the batch of step", step)

    def done(self, loss):
        """The step whose `loss` this will be was given to the devices. Returns once the step AHEAD
        before it is done: so the host gets past a step only if the devices do, and what it takes is
        a step's time."""
        self._flying.append(loss)
        if len(self._flying) > AHEAD:
            jax.block_until_ready(self._flying.popleft())
            self._waited += 1
        else:
            self._waited = 0
        if self._waited > AHEAD:  # the first was compiled, and nobody waited for those after it
            self.durations.append(time.monotonic() - self._begun)

    def limit(self) -> float:
        """Seconds that the section may take."""
        kind = self.section.partition(" ")[0]
        if kind in LIMITS:
            return LIMITS[kind]
        if not self.durations:
            return max(self.least, LIMITS["compiling"])
        return max(self.least, TIMES * statistics.median(self.durations))

    def _watch(self):
        last = armed = 0
        while not self._closed.wait(TICK):
            now = time.monotonic()
            group = heartbeat.HEARTBEAT
            if last and now - last > 10 * TICK:
                self.since = now
                if group:
                    group.reset_clock()
            last = now
            if now - armed > LOCKED / 30:
                faulthandler.dump_traceback_later(LOCKED)
                armed = now
            if group and (missing := group.missing()):
                self._end(exit_codes.RESTART, missing)
            if now - self.since > self.limit():
                self._late(now - self.since)

    def _late(self, age: float):
        who = f"; {heartbeat.HEARTBEAT.behind()}" if heartbeat.HEARTBEAT else ""
        path = self.workdir / f"stacks-{jax.process_index()}.txt"
        exits.stacks()
        exits.run_with_timeout(5, lambda: _dump(path))  # the file system may be what hangs
        self._end(
            exit_codes.RESTART,
            f"no progress for {age:.0f} s ({self.limit():.0f} s is the limit) in: "
            f"{self.section}{who}. The stacks of all threads are above and in {path}",
            stacks=True,
        )


def _dump(path: pathlib.Path):
    with open(path, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback(file)


WATCH = Watchdog()
