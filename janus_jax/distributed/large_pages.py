"""Memory of XLA's CPU programs in large pages."""

import os
import sys

from janus_jax.distributed import xla_flags

TUNABLES, SIZE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def glibc() -> bool:
    """Whether the C library is glibc."""
    return sys.platform == "linux" and bool(os.confstr("CS_GNU_LIBC_VERSION"))


def begin_again():
    """Where JAX will run on the CPU: starts this process anew, with an environment in which glibc asks
    for large pages, unless the environment says something of them already. To be called before
    anything else is done. Other C libraries are left alone, and glibc before 2.35 knows no better.

    A program asks for all its memory whenever it runs, gigabytes a training step, and the system
    would zero and map it anew in pages of 4 KB: with those of 2 MB steps are 1.1 to 1.2 times as
    quick. glibc reads the setting but once, when a process begins.
    """
    already = os.environ.get(TUNABLES, "")
    if not glibc() or SIZE in already or xla_flags.here():
        return
    os.environ[TUNABLES] = ":".join(filter(None, [already, f"{SIZE}=1"]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
