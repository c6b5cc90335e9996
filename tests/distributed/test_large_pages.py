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


def test_a_host_of_accelerators_and_another_c_library_go_on(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delattr(os, "execv")
    with monkeypatch.context() as patch:
        patch.setattr(xla_flags, "here", lambda: "gpu")
        large_pages.begin_again()
    monkeypatch.setattr(large_pages, "glibc", lambda: False)
    large_pages.begin_again()
    assert "GLIBC_TUNABLES" not in os.environ
