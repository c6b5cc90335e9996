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


@pytest.fixture(scope="module")
def undisturbed(directory):
    launch(directory, "undisturbed").wait(600)
    return directory / "undisturbed"


@pytest.mark.parametrize(
    "name, fault, sent, to, said",
    [
        (
            "kill-1",
            "",
            "SIGKILL",
            "1",
            r"process 1 \(\S+\) is dead, stopped or out of reach: no word for 3\d s",
        ),
        ("kill-0", "", "SIGKILL", "0", r"process 0 \(\S+\), the coordinator, is gone"),
        (
            "stop-0",
            "",
            "SIGSTOP",
            "0",
            r"process 0 \(\S+\) is dead, stopped or out of reach: no word for 3\d s",
        ),
        (
            "hang",
            "hang 1@8",
            "",
            "",
            r"process 1 \(\S+\) is in: drawing the batch of step 9, for \d+ s; the others",
        ),
    ],
)
def test_after_a_fault_the_run_starts_again_and_ends_the_same(
    undisturbed, directory, name, fault, sent, to, said
):
    run = launch(directory, name, fault, **({"JANUS_WATCHDOG": "10"} if fault else {}))
    workdir, log = directory / name, directory / f"{name}.log"
    if sent:
        while not (workdir / "metrics.jsonl").is_file() or len(losses(workdir)) < 7:
            assert run.poll() is None, log.read_text()[-4000:]
            time.sleep(0.05)
        os.kill(int((directory / f"{name}-pids" / to).read_text()), signal.Signals[sent])
    assert run.wait(600) == 0, log.read_text()[-4000:]
    assert re.search(said, log.read_text()), log.read_text()[-4000:]
    assert log.read_text().count("starting again") == 1
    assert losses(workdir) == losses(undisturbed)
    ours, theirs = (load_file(d / "only" / "model.safetensors") for d in (workdir, undisturbed))
    assert all(np.array_equal(ours[key], x) for key, x in theirs.items())


def test_a_process_whose_data_fail_ends_all_with_3(directory):
    run = launch(directory, "data", "data 1@8")
    assert run.wait(300) == 3
    text = (directory / "data.log").read_text()
    assert re.search(
        r"process 1 \(\S+\) ended: SourceError: data.datasets.questions: the disk is gone", text
    )
