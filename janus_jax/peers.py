"""What the processes of a run tell each other beside the computation, through JAX's coordination service.

Each notes every BEAT seconds where it is ("beat/<process>"); the first reads all notes, the others the first's: one
that stands still for SILENT seconds is of a process that died, was stopped or cannot be reached. What concerns all
are words ("word/<n>"), which every process hears at once and in one order: a request to stop, a broken connection,
the end of a process. An end ends all, from a thread: a main thread that waits for a lost peer in a collective
cannot be reached otherwise.

JAX's own client aborts the process where it finds a peer or the coordinator (process 0) gone. It is given more time
than SILENT; where it is first all the same, its abort is held until the words above are said.
"""

import contextlib
import json
import socket
import threading
import time

import jax
from jax._src import distributed  # the service's client has no public name

from janus_jax.leaving import AGAIN, GRACE, LEAVE, hold_aborts, leave, release_aborts, shout, stacks, within

# Exit codes of one process that are all processes': a fault of the program (1) would come back after a restart. After
# another they end with AGAIN.
SHARED = (0, 1, 2, 3, 4, 74, 130)
BEAT, SILENT, POLL = 2, 30, 2  # seconds
BROKEN = 8  # seconds of silence that name the lost peer, once a connection broke
CLOSED = (  # what Gloo, gRPC and NCCL say of a connection that broke: another process's doing
    "closed by peer", "closed by remote peer", "reset by peer", "Broken pipe", "Socket closed", "Connection refused",
    "Connection timed out", "No route to host", "remote process exited",
)  # fmt: skip
OWN = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")  # errors of JAX's runtime that no other process brings about


class Unwell(Exception):
    """Base of errors that only follow from another process's, which says more."""


class Peers:
    """client: jax's DistributedRuntimeClient. One a process; `PEERS` while several run."""

    def __init__(self, client, index: int, count: int, told):
        self.client, self.index, self.count, self.host = client, index, count, socket.gethostname()
        now = time.monotonic()
        self.note = {"section": "starting", "count": 0, "since": now}  # watchdog.py replaces it
        self.notes = {i: ({}, now) for i in range(count) if i != index}  # the last of each, and when it came
        self.answered = now  # when the coordinator last did
        self.beats, self.heard, self.lost = 0, 0, set()
        self.silent, self.closed, self.told = SILENT, threading.Event(), told
        self.ending = threading.Lock()

    def start(self):
        hold_aborts(self._aborted)
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._listen)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Nobody is missed, and nobody ends another any more. A thread that is in a call of JAX's client while Python
        shuts down would crash: they are waited for."""
        self.closed.set()
        for thread in self.threads:
            thread.join(2 * POLL)
        release_aborts()

    # Words

    def tell(self, kind: str, **what):
        """All processes hear it, this one too."""
        word = json.dumps({"kind": kind, "process": self.index, "host": self.host} | what)
        for n in range(self.heard, self.heard + 1000):
            try:
                return self.client.key_value_set(f"janus/word/{n}", word)
            except jax.errors.JaxRuntimeError as error:
                if "ALREADY_EXISTS" not in str(error):
                    return  # nobody to tell: the coordinator is gone, and who waits for it sees that

    def exchange(self, name: str, value: int) -> list[int] | None:
        """What each process gave, once all have; None once the run is over. Once a name.

        No barrier and no time limit: those can fail on one process only, which would go on while the others stop.
        What does not come is of a lost peer, which ends the run.
        """
        found = []
        while len(found) < self.count:
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # asked again
                self.client.key_value_set(f"janus/{name}/{self.index}", str(value), allow_overwrite=True)
                found = self.client.key_value_dir_get(f"janus/{name}/")
            if len(found) < self.count and self.closed.wait(0.2):
                return None
        return [int(text) for _, text in found]

    def _listen(self):
        while not self.closed.is_set():
            try:
                word = json.loads(self.client.blocking_key_value_get(f"janus/word/{self.heard}", 1000 * POLL))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    self._lost(str(error))
                continue
            self.heard += 1
            if word["kind"] == "stop":
                threading.Thread(target=self.told, args=(word,), daemon=True).start()
            elif word["kind"] == "broken":
                self.silent = BROKEN
            elif word["process"] != self.index:
                self._follow(word)

    def _lost(self, error: str):
        """The coordinator does not answer. Where its socket has closed, JAX's client is about to abort."""
        if any(text in error for text in CLOSED) and not self.closed.is_set():
            self._gone()
        time.sleep(1)

    def _aborted(self):
        """JAX's client has called abort(), in this thread; returns where that is not for a lost coordinator."""
        if self.ending.locked() or not self._reachable():
            self._gone()

    def _reachable(self) -> bool:
        host, _, port = distributed.global_state.coordinator_address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
                return True
        except OSError:
            return False

    def _gone(self):
        self.end(AGAIN, f"{self.name(0)}, the coordinator, is gone ({self.last(0)})", tell=False)

    # Beats

    def _beat(self):
        while True:
            read = self._exchange_notes()
            for i, note in read.items():
                if i != self.index and note["beat"] != self.notes[i][0].get("beat"):
                    self.notes[i] = note, time.monotonic()
            if self.closed.wait(BEAT):
                return

    def _exchange_notes(self) -> dict[int, dict]:
        """Leaves this process's note; those of the others that it looks at."""
        self.beats += 1
        age = round(time.monotonic() - self.note["since"])
        note = self.note | {"host": self.host, "beat": self.beats, "age": age}
        read = {}
        try:
            self.client.key_value_set(f"janus/beat/{self.index}", json.dumps(note), allow_overwrite=True)
            if self.index == 0:
                read = self.read()
            else:
                read[0] = json.loads(self.client.key_value_try_get("janus/beat/0"))
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" not in str(error):
                return {}
        self.answered = time.monotonic()
        return read

    def read(self) -> dict[int, dict]:
        """Everyone's last note."""
        found = self.client.key_value_dir_get("janus/beat/")
        return {int(key.rpartition("/")[2]): json.loads(text) for key, text in found}

    def forgive(self):
        """This process itself stood still: what it knows of others is old."""
        now = time.monotonic()
        self.answered = now
        self.notes = {i: (note, now) for i, (note, _) in self.notes.items()}

    def missing(self) -> str:
        """Who has been silent for too long, in words; empty if nobody."""
        now = time.monotonic()
        for i, (_, came) in list(self.notes.items()):
            age = now - came if self.index == 0 or i else max(now - came, now - self.answered)
            if age > self.silent and (self.index == 0 or i == 0):
                self.lost.add(i)
                return f"{self.name(i)} is dead, stopped or out of reach: no word for {age:.0f} s ({self.last(i)})"
        return ""

    def name(self, i: int) -> str:
        host = self.notes.get(i, ({}, 0))[0].get("host") if i != self.index else self.host
        return f"process {i} ({host or 'host unknown'})"

    def last(self, i: int) -> str:
        section = self.notes[i][0].get("section")
        return f"last heard in: {section}" if section else "it has said nothing yet"

    def behind(self) -> str:
        """Who keeps the others waiting, in words: all pass the same sections, so the one that has passed fewest."""
        notes = within(3, self.read) or {i: note for i, (note, _) in self.notes.items() if note}
        notes[self.index] = self.note | {
            "host": self.host,
            "age": round(time.monotonic() - self.note["since"]),
        }
        least = min(note["count"] for note in notes.values())
        slow = [i for i, note in notes.items() if note["count"] == least]
        if len(slow) == len(notes):
            return f"all {self.count} processes are in: {self.note['section']}"
        told = [
            f"process {i} ({notes[i]['host']}) is in: {notes[i]['section']}, for {notes[i]['age']} s"
            for i in sorted(slow)[:5]
        ]
        more = f" and {len(slow) - 5} more" * (len(slow) > 5)
        return "; ".join(told) + more + "; the others wait for it"

    # Ending

    def blame(self, error: Exception):
        """Does not return where the error of the main thread comes from a lost peer or from another process's own:
        all end with words that name it. Where it is this process's own, `end` is to be called with it."""
        if isinstance(error, Unwell):
            time.sleep(LEAVE)  # the end of the other comes, with its code
        cause = error
        while cause is not None and not isinstance(cause, jax.errors.JaxRuntimeError):
            cause = cause.__cause__
        if cause is None or any(text in str(cause) for text in OWN):
            return
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
        broke = any(text in str(cause) for text in CLOSED)
        if broke and self.count == 2:
            time.sleep(GRACE)  # for its own words, if it had any
            other = 1 - self.index
            self.end(AGAIN, f"{self.name(other)} has died ({self.last(other)}): {first}", tell=False)
        within(LEAVE, lambda: self.tell("broken"))
        time.sleep(BROKEN + 4 * BEAT + LEAVE)  # a peer that is lost is named, and ends all
        if broke:
            self.end(AGAIN, f"a connection to another process broke, but none is missing: {first}")

    def end(self, code: int, text: str, tell: bool = True, stacks: bool = False, say: bool = True):
        """Ends this process with `code` after one line, and tells the others. Does not return."""
        if not self.ending.acquire(blocking=False):
            time.sleep(3600)  # another thread is at it
        if say:
            shout(text, code)
        if tell:
            shared = code if code in SHARED else AGAIN
            within(LEAVE, lambda: self.tell("end", code=shared, text=text.splitlines()[0], stacks=stacks))
            self._go(code)
        leave(code)

    def _follow(self, word: dict):
        """Another process has ended."""
        time.sleep(GRACE)
        if not self.ending.acquire(blocking=False):
            return
        if word["stacks"]:
            stacks()
        shout(f"process {word['process']} ({word['host']}) ended: {word['text']}", word["code"])
        self._go(word["code"])

    def _go(self, code: int):
        within(1, lambda: self.client.key_value_set(f"janus/gone/{self.index}", ""))
        until = time.monotonic() + LEAVE
        while self.index == 0 and time.monotonic() < until:
            gone = within(1, lambda: self.client.key_value_dir_get("janus/gone/")) or ()
            if len(gone) + len(self.lost) >= self.count:
                break
            time.sleep(0.1)
        leave(code)


PEERS: Peers | None = None


def start(told):
    """From now on the processes hear each other, where there are several. told: hears of a request to stop."""
    global PEERS
    if PEERS is None and jax.distributed.is_initialized() and jax.process_count() > 1:
        PEERS = Peers(distributed.global_state.client, jax.process_index(), jax.process_count(), told)
        PEERS.start()


def stop():
    """The run is over."""
    global PEERS
    if PEERS is not None:
        PEERS.stop()
        PEERS = None


def end(code: int, text: str, **options):
    """`Peers.end`, also of a process that is alone."""
    if PEERS is not None:
        PEERS.end(code, text, **options)
    shout(text, code)
    leave(code)
