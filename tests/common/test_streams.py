"""Printing cannot end the work."""

import errno
import io
import os
import subprocess
import sys

import pytest
from support.paths import ROOT

from janus_jax.common import streams


class Failing(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def test_a_stream_that_fails_is_remembered_and_raises_nothing():
    full = streams.Lasting(Failing(OSError(errno.ENOSPC, "No space left on device")))
    print("told", file=full, flush=True)
    assert full.lost.errno == errno.ENOSPC
    unwritable = streams.Lasting(io.TextIOWrapper(io.BytesIO(), "ascii"))
    print("café", file=unwritable)
    assert isinstance(unwritable.lost, UnicodeError)


PROGRAM = """
import os, sys
from janus_jax.common import streams
streams.secure()
if sys.stdin.readline() != "caf\\u00e9\\n":
    sys.exit("stdin is not read as UTF-8")
for _ in range(3):
    print("caf\\u00e9 \\udcff", flush=True)
os.write(int(sys.argv[1]), b"went on")
"""


@pytest.mark.processes
@pytest.mark.parametrize("how", ["ascii", "gone", "closed"])
def test_printing_goes_on_whatever_becomes_of_stdout(how):
    told, tell = os.pipe()
    out, into = os.pipe()
    if how == "gone":
        os.close(out)
    program = [sys.executable, "-c", PROGRAM, str(tell)]
    if how == "closed":
        program = ["sh", "-c", 'exec "$@" >&-', "sh", *program]
    done = subprocess.run(
        program, input="café\n".encode(), stdout=into, stderr=subprocess.PIPE, pass_fds=[tell], cwd=ROOT, check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.read(told, 9) == b"went on"
    if how == "ascii":
        assert os.read(out, 999) == b"caf\\xe9 \\udcff\n" * 3
