"""Printing that cannot end the work: whatever becomes of stdout and stderr, a command goes on."""

import codecs
import os
import sys


class Lasting:
    """A text stream whose writes raise nothing.

    A reader that has gone (`| head`) is forgotten; any other failure (a full disk) is kept in
    `lost`, and the text is lost.
    """

    def __init__(self, stream):
        self.stream = stream
        self.lost = None

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self):
        self._try(self.stream.flush)

    def _try(self, action):
        try:
            action()
        except BrokenPipeError:
            # All that follows, Python's own last flush too, goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        except (OSError, ValueError) as error:
            self.lost = error

    def __getattr__(self, name):
        return getattr(self.stream, name)


def secure():
    """Makes the process's own stdin, stdout and stderr such that printing never raises: a letter
    that the encoding lacks is written as its escape, and a closed stream leads nowhere. Others (a
    notebook's, a test's) are left as they are; a second call changes nothing."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name, errors in (("stdin", "surrogateescape"), ("stdout", ""), ("stderr", "")):
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if name == "stdin" else "w"
            nothing = open(os.devnull, mode, encoding="utf-8", errors="replace")  # noqa: SIM115
            setattr(sys, name, nothing)
        elif stream is getattr(sys, f"__{name}__") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors or "backslashreplace")
            if name == "stdin":
                ascii_only = codecs.lookup(stream.encoding).name == "ascii"
                stream.reconfigure(encoding="utf-8" if ascii_only else stream.encoding)
            else:
                setattr(sys, name, Lasting(stream))


def lost() -> Exception | None:
    """Why something that was printed to stdout is lost; None where nothing is."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "lost", None)
    if isinstance(error, OSError):
        error.filename = "stdout"
    return error
