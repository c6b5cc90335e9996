"""Ending a process whose stderr cannot be written."""

import os
import subprocess
import sys
import threading
import time

import pytest
from support.paths import ROOT

from janus_jax.distributed import exits

SPEAK = """
from janus_jax.distributed import heartbeat, signals
class Group:
    def tell(self, kind, **_): print(kind, flush=True)
heartbeat.HEARTBEAT = Group()
signals.STOP.answers = True
signals.STOP._note(15)
heartbeat.HEARTBEAT = None
heartbeat.end(7, "said to nobody")
"""


@pytest.mark.processes
def test_a_process_with_a_full_stderr_tells_the_others_and_ends():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SPEAK],
            stdout=subprocess.PIPE,
            stderr=full,
            cwd=ROOT,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (7, "stop\n")


def test_a_process_whose_stderr_nobody_reads_ends(monkeypatch):
    monkeypatch.setattr(exits, "LEAVE", 0.2)
    read, write = os.pipe()
    with os.fdopen(write, "w") as pipe:
        os.set_blocking(write, False)
        while True:
            try:
                os.write(write, b"x" * 65536)
            except BlockingIOError:
                break
        os.set_blocking(write, True)
        monkeypatch.setattr(sys, "stderr", pipe)
        begin = time.monotonic()
        exits.announce("nobody reads this", 7)
        assert time.monotonic() - begin < 2
        threading.Thread(target=os.read, args=(read, 1 << 20)).start()
    os.close(read)
