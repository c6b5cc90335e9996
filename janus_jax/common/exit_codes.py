"""What the exit code of every command means; docs/faults.md says what launchers do about it.

An error says its code itself, by a class attribute `exit_code`, the name of one of MEANINGS; of
Python's own errors `of_error` knows it.
"""

import errno
from typing import NamedTuple

DONE = 0
FAULT = 1
USAGE = 2
DATA = 3
DIVERGED = 4
ABSENT = 69
NOT_SAVED = 74
RESTART = 75
INTERRUPTED = 130  # as in sysexits.h and in shells


class Meaning(NamedTuple):
    """name: in a word. text: for people. shared: whether one process that ends so ends all the
    others so; else the others end with RESTART."""

    name: str
    text: str
    shared: bool


MEANINGS = {
    DONE: Meaning("done", "done; or told to stop (SIGTERM, Ctrl-C), and saved", True),
    # Shared: a fault of the program would come back after a restart.
    FAULT: Meaning("fault", "a fault of the program: any other error", True),
    USAGE: Meaning("usage", "flags, config, more than the memory holds, hosts that differ", True),
    DATA: Meaning("data", "the data", True),
    DIVERGED: Meaning("diverged", "training diverged", True),
    ABSENT: Meaning("absent", "not all processes of the run came", False),
    NOT_SAVED: Meaning("not_saved", "not saved, or no checkpoint is readable: see the disk", True),
    RESTART: Meaning("restart", "start the same command again", False),
    INTERRUPTED: Meaning("interrupted", "interrupted: nothing was saved", True),
}  # fmt: skip
BY_NAME = {meaning.name: code for code, meaning in MEANINGS.items()}
# A disk that is full, gone, or lets no file grow on.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


def is_shared(code: int) -> bool:
    """Whether one process that ends so ends all the others so."""
    return code in MEANINGS and MEANINGS[code].shared


class UsageError(ValueError):
    """Flags or arguments that contradict each other or cannot be followed; the message names
    them."""

    exit_code = "usage"


def of_error(error: BaseException) -> int:
    """The exit code of a command that ends with this error."""
    code = getattr(error, "exit_code", None)
    if isinstance(code, str):
        return BY_NAME[code]
    if code is not None:
        return code
    if isinstance(error, FloatingPointError):
        return DIVERGED
    if isinstance(error, OSError) and error.errno in DISK:
        return NOT_SAVED
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAULT
