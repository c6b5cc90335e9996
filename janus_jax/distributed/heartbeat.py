"""What the processes of a run tell each other beside the computation, through JAX's coordination
service.

Each leaves notes of where it is (notes.py). What concerns all are messages ("message/<n>"), which
every process hears at once and in one order: a request to stop, a broken connection, the end of a
process. An end ends all, from a thread: a main thread that waits for a lost peer in a collective
cannot be reached otherwise.

JAX's own client aborts the process where it finds a peer or the coordinator (process 0) gone. It is
given more time than SILENT; where it is first all the same, its abort is held until the messages
above are sent.
"""

import contextlib
import json
import socket
import threading
import time

import jax

from janus_jax.common import exit_codes
from janus_jax.distributed import exits, jax_client
from janus_jax.distributed.notes import BEAT, SILENT, Notes

POLL = 2  # seconds that a call waits for the next message
GRACE = 2  # seconds: a main thread that ends for the same reason says it better itself
BROKEN = 8  # seconds of silence that name the lost peer, once a connection broke
CLOSED = (  # what Gloo, gRPC and NCCL say of a connection that broke: another process's doing
    "closed by peer", "closed by remote peer", "reset by peer", "Broken pipe", "Socket closed",
    "Connection refused", "Connection timed out", "No route to host", "remote process exited",
)  # fmt: skip
# Errors of JAX's runtime that no other process brings about.
OWN = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


class Heartbeat(Notes):
    """What this process says to the others and hears of them. One a process; `HEARTBEAT` while
    several run.

    client: JAX's DistributedRuntimeClient.
    index: this process's number.
    count: how many there are.
    on_remote: called with the message of a process that was told to stop.
    """

    def __init__(self, client, index: int, count: int, on_remote):
        super().__init__(client, index, count, SILENT)
        self.on_remote = on_remote
        self.heard = 0  # messages heard
        self.ending = threading.Lock()

    def start(self):
        exits.hold_aborts(self._aborted)
        self.threads = [
            threading.Thread(target=work, daemon=True) for work in (self.beat, self._listen)
        ]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Nobody is missed, and nobody ends another any more.

        The threads are waited for: one that is in a call of JAX's client while Python shuts down
        would crash.
        """
        self.closed.set()
        for thread in self.threads:
            thread.join(2 * POLL)
        exits.release_aborts()

    # Messages

    def tell(self, kind: str, **what):
        """All processes hear it, this one too."""
        message = json.dumps({"kind": kind, "process": self.index, "host": self.host} | what)
        for n in range(self.heard, self.heard + 1000):
            try:
                return self.client.key_value_set(f"janus/message/{n}", message)
            except jax.errors.JaxRuntimeError as error:
                if "ALREADY_EXISTS" not in str(error):
                    # nobody to tell: the coordinator is gone, and who waits for it sees that
                    return

    def exchange(self, name: str, value: int) -> list[int] | None:
        """What each process gave, once all have; None once the run is over. Once a name.

        No barrier and no time limit: those can fail on one process only, which would go on while
        the others stop. What does not come is of a lost peer, which ends the run.
        """
        found = []
        while len(found) < self.count:
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # asked again
                self.client.key_value_set(
                    f"janus/{name}/{self.index}", str(value), allow_overwrite=True
                )
                found = self.client.key_value_dir_get(f"janus/{name}/")
            if len(found) < self.count and self.closed.wait(0.2):
                return None
        return [int(text) for _, text in found]

    def _listen(self):
        while not self.closed.is_set():
            try:
                key = f"janus/message/{self.heard}"
                message = json.loads(self.client.blocking_key_value_get(key, 1000 * POLL))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    self._lost(str(error))
                continue
            self.heard += 1
            if message["kind"] == "stop":
                threading.Thread(target=self.on_remote, args=(message,), daemon=True).start()
            elif message["kind"] == "broken":
                self.silent = BROKEN
            elif message["process"] != self.index:
                self._follow(message)

    def _lost(self, error: str):
        """The coordinator does not answer. Where its socket has closed, JAX's client is about to
        abort."""
        if any(text in error for text in CLOSED) and not self.closed.is_set():
            self._gone()
        time.sleep(1)

    def _aborted(self):
        """JAX's client has called abort(), in this thread; returns where that is not for a lost
        coordinator."""
        if self.ending.locked() or not self._reachable():
            self._gone()

    def _reachable(self) -> bool:
        try:
            with socket.create_connection(jax_client.coordinator(), timeout=2):
                return True
        except OSError:
            return False

    def _gone(self):
        self.end(
            exit_codes.RESTART,
            f"{self.name(0)}, the coordinator, is gone ({self.last(0)})",
            tell=False,
        )

    # Ending

    def attribute(self, error: Exception):
        """Does not return where the error of the main thread comes from a lost peer or from another
        process's own: all end with words that name it. Where it is this process's own, `end` is to
        be called with it."""
        if isinstance(error, exits.SecondaryError):
            time.sleep(exits.LEAVE)  # the end of the other comes, with its code
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
            self.end(
                exit_codes.RESTART,
                f"{self.name(other)} has died ({self.last(other)}): {first}",
                tell=False,
            )
        exits.run_with_timeout(exits.LEAVE, lambda: self.tell("broken"))
        time.sleep(BROKEN + 4 * BEAT + exits.LEAVE)  # a peer that is lost is named, and ends all
        if broke:
            self.end(
                exit_codes.RESTART,
                f"a connection to another process broke, but none is missing: {first}",
            )

    def end(self, code: int, text: str, tell: bool = True, stacks: bool = False, say: bool = True):
        """Ends this process after one line, and tells the others. Does not return.

        code: its exit code.
        text: the line; its first line is what the others print.
        tell: whether the others hear of it.
        stacks: whether the others are to print where they are.
        say: whether this process prints the line itself.
        """
        if not self.ending.acquire(blocking=False):
            time.sleep(3600)  # another thread is at it
        if say:
            exits.announce(text, code)
        if tell:
            shared = code if exit_codes.is_shared(code) else exit_codes.RESTART
            exits.run_with_timeout(
                exits.LEAVE,
                lambda: self.tell("end", code=shared, text=text.splitlines()[0], stacks=stacks),
            )
            self._go(code)
        exits.exit_now(code)

    def _follow(self, message: dict):
        """Another process has ended."""
        time.sleep(GRACE)
        if not self.ending.acquire(blocking=False):
            return
        if message["stacks"]:
            exits.stacks()
        exits.announce(
            f"process {message['process']} ({message['host']}) ended: {message['text']}",
            message["code"],
        )
        self._go(message["code"])

    def _go(self, code: int):
        exits.run_with_timeout(1, lambda: self.client.key_value_set(f"janus/gone/{self.index}", ""))
        until = time.monotonic() + exits.LEAVE
        while self.index == 0 and time.monotonic() < until:
            gone = (
                exits.run_with_timeout(1, lambda: self.client.key_value_dir_get("janus/gone/"))
                or ()
            )
            if len(gone) + len(self.lost) >= self.count:
                break
            time.sleep(0.1)
        exits.exit_now(code)


HEARTBEAT: Heartbeat | None = None


def start(on_remote):
    """From now on the processes hear each other, where there are several.

    on_remote: called with the message of a process that was told to stop.
    """
    global HEARTBEAT
    if HEARTBEAT is None and jax.distributed.is_initialized() and jax.process_count() > 1:
        HEARTBEAT = Heartbeat(
            jax_client.client(), jax.process_index(), jax.process_count(), on_remote
        )
        HEARTBEAT.start()


def stop():
    """The run is over."""
    global HEARTBEAT
    if HEARTBEAT is not None:
        HEARTBEAT.stop()
        HEARTBEAT = None


def end(code: int, text: str, **options):
    """`Heartbeat.end`, also of a process that is alone."""
    if HEARTBEAT is not None:
        HEARTBEAT.end(code, text, **options)
    exits.announce(text, code)
    exits.exit_now(code)
