"""Where each process of a run is: what it notes of itself, and what is known of the others.

Each notes every BEAT seconds where it is ("beat/<process>"); the first process reads all notes, the
others the first's: one that stands still for too long is of a process that died, was stopped or
cannot be reached.
"""

import json
import socket
import threading
import time

import jax

from janus_jax.distributed import exits

BEAT, SILENT = 2, 30  # seconds: between two notes; without one, until a process is missing


class Notes:
    """client: JAX's DistributedRuntimeClient.
    index: this process's number.
    count: how many there are.
    silent: seconds without a note after which a process is missing.
    """

    def __init__(self, client, index: int, count: int, silent: float):
        self.client = client
        self.index = index
        self.count = count
        self.host = socket.gethostname()
        now = time.monotonic()
        self.note = {"section": "starting", "count": 0, "since": now}  # watchdog.py replaces it
        # The last note of each other process, and when it came.
        self.notes = {i: ({}, now) for i in range(count) if i != index}
        self.answered = now  # when the coordinator last did
        self.beats = 0  # notes left
        self.lost = set()  # processes that are missing
        self.silent = silent
        self.closed = threading.Event()

    def beat(self):
        """Leaves and reads notes until `closed`; in a thread."""
        while True:
            read = self.exchange_notes()
            for i, note in read.items():
                if i != self.index and note["beat"] != self.notes[i][0].get("beat"):
                    self.notes[i] = note, time.monotonic()
            if self.closed.wait(BEAT):
                return

    def exchange_notes(self) -> dict[int, dict]:
        """Leaves this process's note; those of the others that it looks at."""
        self.beats += 1
        age = round(time.monotonic() - self.note["since"])
        note = self.note | {"host": self.host, "beat": self.beats, "age": age}
        read = {}
        try:
            self.client.key_value_set(
                f"janus/beat/{self.index}", json.dumps(note), allow_overwrite=True
            )
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

    def reset_clock(self):
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
                gone = f"{self.name(i)} is dead, stopped or out of reach"
                return f"{gone}: no word for {age:.0f} s ({self.last(i)})"
        return ""

    def name(self, i: int) -> str:
        host = self.notes.get(i, ({}, 0))[0].get("host") if i != self.index else self.host
        return f"process {i} ({host or 'host unknown'})"

    def last(self, i: int) -> str:
        section = self.notes[i][0].get("section")
        return f"last heard in: {section}" if section else "it has said nothing yet"

    def behind(self) -> str:
        """Who keeps the others waiting, in words: all pass the same sections, so the one that has
        passed fewest."""
        notes = exits.run_with_timeout(3, self.read) or {
            i: note for i, (note, _) in self.notes.items() if note
        }
        notes[self.index] = self.note | {
            "host": self.host,
            "age": round(time.monotonic() - self.note["since"]),
        }
        least = min(note["count"] for note in notes.values())
        slow = [i for i, note in notes.items() if note["count"] == least]
        if len(slow) == len(notes):
            return f"all {self.count} processes are in: {self.note['section']}"
        told = [
            f"process {i} ({notes[i]['host']}) is in: {notes[i]['section']}, "
            f"for {notes[i]['age']} s"
            for i in sorted(slow)[:5]
        ]
        more = f" and {len(slow) - 5} more" if len(slow) > 5 else ""
        return "; ".join(told) + more + "; the others wait for it"
