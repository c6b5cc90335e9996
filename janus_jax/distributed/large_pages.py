"""Memory of XLA's CPU programs in large pages."""

import os
import sys

from janus_jax.distributed import xla_flags

TUNABLES, SIZE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
BEGUN = "JANUS_JAX_BEGUN"  # the id of the process that did


def glibc() -> bool:
    """Whether the C library is glibc."""
    try:
        return sys.platform == "linux" and bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False


def begin_again():
    """Where JAX will run on the CPU: starts this process anew, with an environment in which glibc asks
    for large pages, unless the environment says something of them already. To be called before
    anything else is done, by a command: a process that was begun for something else (a notebook's,
    a test's) goes on. Other C libraries are left alone, and glibc before 2.35 knows no better.

    A program asks for all its memory whenever it runs, gigabytes a training step, and the system
    would zero and map it anew in pages of 4 KB: with those of 2 MB steps are 1.1 to 1.2 times
    as quick. glibc reads the setting but once, when a process begins.
    """
    already = os.environ.get(TUNABLES, "")
    words = sys.argv[1:]
    own = bool(words) and sys.orig_argv[-len(words) :] == words
    # The second time the variable may be gone: glibc takes it from programs with privileges.
    again = os.environ.get(BEGUN) == str(os.getpid())
    if again or not own or not glibc() or SIZE in already or xla_flags.here():
        return
    changed = {TUNABLES: ":".join(filter(None, [already, f"{SIZE}=1"])), BEGUN: str(os.getpid())}
    try:
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | changed)
    except OSError:
        return  # as it was, in small pages
