import ctypes
import pathlib
import platform

import numpy as np
import pytest

from janus_jax.common import heap


def held() -> int:
    """Bytes of the process's memory that no file stands behind."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc keeps")
def test_freed_memory_is_given_back():
    size = 1 << 19
    np.ones(2 * size, np.uint8)  # freed at once: from now on such pieces come from the heap
    pieces = [np.ones(size, np.uint8) for _ in range(128)]
    last = np.ones(size, np.uint8)
    del pieces
    before = held()
    heap.trim()
    assert before - held() > 32 * size and last.all()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    heap.trim()
    monkeypatch.setattr(heap.sys, "platform", "win32")
    monkeypatch.delattr(ctypes, "CDLL")
    heap.trim()
