"""A command that trains on a CPU begins again, with large pages."""

import os
import subprocess
import sys

import pytest

from janus_jax.distributed import large_pages, xla_flags

BEGINS = """
import os, sys
from janus_jax.distributed import large_pages
large_pages.begin_again()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.optimize)
"""


@pytest.mark.skipif(not large_pages.glibc(), reason="a setting of glibc's")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_a_process_begins_again_as_itself(before, after):
    child = subprocess.Popen(
        [sys.executable, "-O", "-c", BEGINS, "two words", "--x=1"],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": before},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.communicate()[0].strip() == f"{child.pid} {after} ['two words', '--x=1'] 1"


@pytest.mark.parametrize(
    "why", ["the second time", "another command", "an accelerator", "another C library"]
)
def test_others_go_on(monkeypatch, why):
    """What began as something else, and where it would not help."""
    begun = []
    monkeypatch.setattr(os, "execve", lambda *words: begun.append(words))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "argv", ["janus-jax", "train"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "janus-jax", "train"])
    monkeypatch.setattr(xla_flags, "here", lambda: None)
    monkeypatch.setattr(large_pages, "glibc", lambda: True)
    large_pages.begin_again()
    file, words, environment = begun.pop()
    assert (file, words) == (sys.executable, [sys.executable, "janus-jax", "train"])
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    if why == "the second time":
        monkeypatch.setenv("JANUS_JAX_BEGUN", environment["JANUS_JAX_BEGUN"])
    elif why == "another command":
        monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pytest", "-q"])
    elif why == "an accelerator":
        monkeypatch.setattr(xla_flags, "here", lambda: "gpu")
    else:
        monkeypatch.setattr(large_pages, "glibc", lambda: False)
    large_pages.begin_again()
    assert not begun


def test_what_cannot_begin_again_goes_on(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "argv", ["janus-jax", "train"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "janus-jax", "train"])
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    large_pages.begin_again()
    assert "GLIBC_TUNABLES" not in os.environ
