"""Ending a process from any of its threads, in time and with a code that launchers understand."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading

import jax

from janus_jax.common import exit_codes

LEAVE = 5  # seconds that the first process, with the coordinator in it, waits for the others to go
_handlers = []  # what C calls must not be collected


class SecondaryError(Exception):
    """Base of errors that only follow from another process's, which says more."""


def run_with_timeout(seconds: float, action):
    """What `action()` returns; None where it fails or takes longer: a stopped coordinator answers
    nothing, ever, and nobody may read the pipe that stderr is."""
    result = []

    def work():
        with contextlib.suppress(jax.errors.JaxRuntimeError, OSError, ValueError):
            result.append(action())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0] if result else None


def say(text: str):
    """A line on stderr, if it can be written: a closed or full one must not keep a process from
    ending."""
    run_with_timeout(LEAVE, lambda: print(text, file=sys.stderr, flush=True))


def announce(text: str, code: int):
    """A line that says why the process ends, and with which code."""
    again = ": start the run again" if code == exit_codes.RESTART else ""
    say(f"\njanus_jax: {text}. Exit code {code}{again}.")


def stacks():
    """The Python stacks of all threads, on stderr if it can be written."""
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        faulthandler.dump_traceback(sys.stderr)


def exit_now(code: int):
    """Ends the process from any thread. Not by sys.exit: JAX would wait at exit for processes that
    do not come."""
    try:
        run_with_timeout(LEAVE, lambda: print(end="", flush=True))
        run_with_timeout(LEAVE, lambda: print(end="", file=sys.stderr, flush=True))
    finally:
        os._exit(code)


def hold_aborts(action):
    """Where C++ calls abort(), `action` runs first, in that thread, and may end the process
    otherwise."""

    def handler(_):
        release_aborts()
        action()

    _handlers.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(handler))
    _on_abort(ctypes.cast(_handlers[-1], ctypes.c_void_p))


def release_aborts():
    _on_abort(None)  # SIG_DFL


def _on_abort(handler):
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
    libc.signal(signal.SIGABRT, handler)


def least() -> float:
    """JANUS_WATCHDOG, see watchdog.py; with 0 nobody is missed either."""
    text = os.environ.get("JANUS_WATCHDOG", "120")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise ValueError(
            f"JANUS_WATCHDOG is {text!r}: must be the seconds that a step may always take, or 0 "
            "for no limit"
        )
    return seconds
