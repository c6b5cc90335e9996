"""Two real processes on this machine, one of which is killed, stopped, hangs or cannot read its data:
the other ends too, and where that can help the run starts again, to the same result."""

import os
import re
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.processes import launch, losses

pytestmark = [pytest.mark.processes, pytest.mark.slow]

AGAIN = "starting again"
HOST = r"\(\S+\)"
# What is sent to which process, and what the log says of it.
SIGNALS = [
    (
        "SIGKILL",
        "1",
        rf"process 1 {HOST} is dead, stopped or out of reach: no word for 3\d s",
    ),
    ("SIGKILL", "0", rf"process 0 {HOST}, the coordinator, is gone"),
    (
        "SIGSTOP",
        "0",
        rf"process 0 {HOST} is dead, stopped or out of reach: no word for 3\d s",
    ),
]
HANG = rf"process 1 {HOST} is in: drawing the batch of step 14, for \d+ s; the others"


def starts(log) -> list[str]:
    """What the log says of each start, the present one last."""
    return log.read_text().split(AGAIN) if log.is_file() else [""]


def test_a_run_that_meets_one_fault_after_another_ends_the_same(directory):
    """A start meets a signal once it has taken two steps, the first once it has saved; the one after
    the signals hangs."""
    assert launch(directory, "undisturbed").wait(600) == 0
    run = launch(directory, "faults", "hang 1@13", JANUS_WATCHDOG="45")
    log = directory / "faults.log"
    for i, (sent, to, _) in enumerate(SIGNALS):
        least = 2 if i else 5
        while len(starts(log)) <= i or starts(log)[i].count("  loss ") < least:
            assert run.poll() is None, log.read_text()[-4000:]
            time.sleep(0.05)
        os.kill(int((directory / "faults-pids" / to).read_text()), signal.Signals[sent])
    assert run.wait(600) == 0, log.read_text()[-4000:]
    told = starts(log)
    assert len(told) == 5, log.read_text()[-4000:]
    for text, said in zip(told, [*(said for *_, said in SIGNALS), HANG]):
        assert re.search(said, text), text[-4000:]
    ours, theirs = directory / "faults", directory / "undisturbed"
    assert losses(ours) == losses(theirs)
    ours, theirs = (load_file(d / "only" / "model.safetensors") for d in (ours, theirs))
    assert all(np.array_equal(ours[key], x) for key, x in theirs.items())


def test_a_process_whose_data_fail_ends_all_with_3(directory):
    run = launch(directory, "data", "data 1@8")
    assert run.wait(300) == 3
    text = (directory / "data.log").read_text()
    assert re.search(
        r"process 1 \(\S+\) ended: SourceError: data.datasets.questions: the disk is gone", text
    )
