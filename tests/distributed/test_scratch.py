"""Memory that is freed and asked for again."""

import ctypes
import platform
import resource
import subprocess
import sys

import pytest

from janus_jax.distributed import scratch

SIZE = 1 << 27
# A thread asks for as much as it has just freed; prints how many pages it got anew.
ASKS_AGAIN = f"""
import resource, sys, threading
from janus_jax.distributed import scratch
if "hold" in sys.argv:
    scratch.hold()
def ask():
    b"1" * {SIZE}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * {SIZE}
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc keeps")
def test_held_memory_is_taken_again():
    asking = [sys.executable, "-c", ASKS_AGAIN]
    pages = lambda *words: int(subprocess.run([*asking, *words], stdout=subprocess.PIPE).stdout)
    assert pages("hold") < SIZE / resource.getpagesize() / 10
    assert pages() > SIZE / resource.getpagesize() / 2


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    scratch.hold()
    monkeypatch.setattr(scratch.sys, "platform", "win32")
    monkeypatch.delattr(ctypes, "CDLL")
    scratch.hold()
