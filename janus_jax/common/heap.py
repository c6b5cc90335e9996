"""Memory that was freed and that the C library keeps for later."""

import ctypes
import sys


def trim():
    """Gives it back to the system. glibc does so by itself only for pieces that are large, which a
    layer's matrices, a cache's and what the compiler took are not; other libraries are left
    alone."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
