"""Memory that is freed and asked for again."""

import ctypes
import platform
import resource
import subprocess
import sys

import pytest

from janus_jax.distributed import scratch, xla_flags

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


def test_nothing_is_loaded_before_it_is_held():
    """A thread of numpy's or JAX's may take a heap as soon as it is imported."""
    code = "import sys, janus_jax.main; print({'numpy', 'jax'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert found.stdout.strip() == "set()"


def test_other_c_libraries_and_hosts_of_accelerators_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    scratch.hold()
    monkeypatch.delattr(ctypes, "CDLL")
    with monkeypatch.context() as patch:
        patch.setattr(xla_flags, "here", lambda: "gpu")
        scratch.hold()
    monkeypatch.setattr(scratch.sys, "platform", "win32")
    scratch.hold()
