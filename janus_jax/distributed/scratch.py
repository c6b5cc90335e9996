"""The memory that programs of XLA's CPU compiler compute in."""

import ctypes
import sys

from janus_jax.distributed import xla_flags

# Of mallopt, from glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def hold():
    """Where JAX will run on the CPU: has glibc keep what is freed, in one heap, until `common.heap.trim`.
    To be called before numpy and JAX are imported, for glibc asks but once how many heaps there may
    be: when a second thread first takes memory. Other libraries are left alone.

    A program asks for all its memory whenever it runs, and glibc takes such large pieces from the
    system and gives them back at once: a step of training on a CPU then waits for new pages, for a
    tenth to a third of its time.
    """
    if sys.platform != "linux" or xla_flags.here():
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for setting, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1)):
            libc.mallopt(setting, value)
