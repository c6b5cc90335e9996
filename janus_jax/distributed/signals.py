"""A run that is told to stop: SIGTERM and SIGINT, to one of its processes or to any of several."""

import os
import signal
import socket
import threading
import time

from janus_jax.distributed import exits, heartbeat

TWICE = 0.5  # seconds: some parents pass one Ctrl-C on twice


class Preempted(Exception):
    """The run was told to stop, and has saved a checkpoint. No KeyboardInterrupt: what it says is
    to be read."""

    def __str__(self):
        return f"{super().__str__()}; the same command goes on from there"

    @property
    def exit_code(self) -> int:
        return STOP.exit_code()


class StopRequest:
    """SIGTERM, the notice before a machine is taken away, and SIGINT, Ctrl-C: the loop asks after
    each step whether to stop there. A SIGINT after either ends at once, with 130.

    Where the loop does not ask (before a stage's first step is done, and when its last checkpoint
    is written) nothing
    can be lost that the same command would not find or make again: a signal ends the command at
    once; in a notebook it does what it did before. Several processes hear of a signal to any of
    them, and agree on the step.
    """

    def __init__(self):
        self.code = 0  # exit code after SIGTERM; after SIGINT it is 0
        self.command = False  # whether main() runs
        self._before = {}  # signal -> what it did before `listen`
        self._changed = threading.Condition()
        self._agreeing = False  # whether the processes exchange how often each has asked
        self._reset()

    def _reset(self):
        self.given = 0  # the signal that the run was given
        self.at = 0.0  # when it was, or when the last was that is the same
        self.own = False  # whether this process was given it
        self.asked = 0  # how often the loop has asked
        self.answers = False  # whether the loop asks
        self.stops_at = None  # the question at which all stop
        self.agreed = False  # whether the loop was told to stop

    def listen(self, command: bool = False, code: int = 0):
        """From now on the signals do not kill. Does nothing outside the main thread.

        command: the process may be ended, from a thread that hears signals while the main thread is
            in C (compiling, waiting for another process).
        code: exit code after SIGTERM.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        asked = self.asked  # goes on, since the processes compare it
        self._reset()
        self.asked = asked
        self.command = command
        self.code = code
        handler = (lambda *_: None) if command else (lambda number, _: self._note(number))
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, handler)
        if command:
            ear, mouth = socket.socketpair()
            mouth.setblocking(False)
            signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
            threading.Thread(
                target=self._hear, args=(ear, mouth), daemon=True, name="signals"
            ).start()

    def close(self):
        """The signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._before and self.command:
            signal.set_wakeup_fd(-1)
        self._before = {}

    def should_stop(self) -> bool:
        """Whether to stop here; every process must ask equally often."""
        with self._changed:
            # Counts questions and not steps: those begin again with each stage, and go back after a
            # loss spike.
            self._changed.wait_for(lambda: not self._agreeing)
            self.asked += 1
            self.answers = True
            if heartbeat.HEARTBEAT:
                self.agreed = self.stops_at is not None and self.asked >= self.stops_at
            else:
                self.agreed = bool(self.given)
        return self.agreed

    def raise_if_stopped(self):
        """A stage's steps are done and saved: raises Preempted where a signal came too late for the
        loop."""
        self.answers = False
        if self.given:
            raise Preempted(f"{self.name()}; all steps of the stage are saved")

    def name(self) -> str:
        """How the run was told to stop."""
        return f"told to stop ({signal.Signals(self.given).name})"

    def exit_code(self) -> int:
        """The exit code of a run that was told to stop."""
        return self.code if self.given == signal.SIGTERM else 0

    def on_remote(self, message: dict):
        """Some process was given a signal. The processes have asked different numbers of times by
        now: all stop one question after the one that has asked most often."""
        if not self.given:
            self.given = message["number"]
            self.at = time.monotonic()
        if not self.answers:
            process = f"process {message['process']} ({message['host']})"
            self._now(self.exit_code(), f"{process} was told to stop")
        with self._changed:
            if self.stops_at is not None or self._agreeing:
                return
            self._agreeing = True  # who asks now, waits
            asked = self.asked
        counts = heartbeat.HEARTBEAT.exchange("asked", asked)
        with self._changed:
            self._agreeing = False
            self.stops_at = max(counts) + 1 if counts else None
            self._changed.notify_all()

    def _hear(self, ear, _mouth):
        """In a thread. The socket's other end is an argument only so that it lives as long as the
        thread."""
        while numbers := ear.recv(64):
            for number in numbers:
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._note(number)

    def _note(self, number: int):
        """This process was given a signal."""
        now = time.monotonic()
        name = signal.Signals(number).name
        first = not self.own
        self.own = True
        if first and self.given == number == signal.SIGINT:
            self.at = now  # one Ctrl-C, given to all, of which another process spoke first
            return
        if self.given and number == signal.SIGINT and now - self.at > TWICE:
            self.given = number
            self._now(
                130,
                "interrupted again: ends without saving; the same command goes on from the last "
                "checkpoint",
            )
        if self.given:
            return
        self.given = number
        self.at = now
        if not self.answers:
            self._now(
                self.exit_code(),
                f"told to stop ({name}); nothing has changed since the last checkpoint or weights "
                f"that were written: the same command goes on from there",
            )
        if heartbeat.HEARTBEAT:
            tell = heartbeat.HEARTBEAT.tell
            threading.Thread(target=tell, args=("stop",), kwargs={"number": int(number)}).start()
        exits.say(f"\n{name}: finishes this step and saves; Ctrl-C ends without")

    def _now(self, code: int, text: str):
        """Nothing is to be saved: ends the command, or lets the signal do what it did before
        `listen`."""
        if self.command:
            heartbeat.end(code, text)
        number = self.given
        before = self._before[self.given]
        self.given = 0
        if before is signal.SIG_IGN:  # as in a shell's background: `nohup ... &`
            return
        if callable(before):
            return before(number, None)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


STOP = StopRequest()
