"""Two real processes on this machine, over loopback and gloo, four devices each: against one
process with eight, and told to stop. test_two_processes_and_a_fault.py: when one of them is lost.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.mesh import on_mesh
from support.paths import ROOT
from support.processes import environment, launch, losses

from janus_jax import main
from janus_jax.checkpoint import evaluated

pytestmark = pytest.mark.processes


CONFIG = ROOT / "tests" / "support" / "two_processes.py"


SLOWEST = 400  # seconds
EVALUATES = {
    "evaluation.every": "4",
    "evaluation.holdout": "0.001",
    "checkpoints.best": "validation_loss",
}


@pytest.fixture(scope="module")
def alone(directory):
    """The directory, with the run of this process, which has eight devices."""
    with on_mesh(1, 8, 1):
        os.environ["WEIGHTS"] = str(directory / "weights")
        before = signal.getsignal(signal.SIGTERM)
        try:
            main.run(str(CONFIG), dict(EVALUATES), str(directory / "alone"))
        finally:
            signal.signal(signal.SIGTERM, before)
            del os.environ["WEIGHTS"]
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(1, 8)], ids="{0[0]}x{0[1]}".format)
def test_two_processes_told_to_stop_go_on_to_what_one_learns(alone, mesh):
    name = "together-{}x{}".format(*mesh)
    workdir, printed = alone / name, alone / f"{name}.log"
    command = [
        ROOT / "launch" / "local.sh",
        "2",
        f"--config={CONFIG}",
        f"--workdir={workdir}",
        f"--config.mesh.data={mesh[0]}",
        f"--config.mesh.fsdp={mesh[1]}",
        *(f"--config.{name}={value}" for name, value in EVALUATES.items()),
    ]
    with open(printed, "w") as out:
        run = subprocess.Popen(command, cwd=ROOT, env=environment(alone), stdout=out, stderr=out)
        begin = time.monotonic()
        while not (workdir / "metrics.jsonl").is_file() or not losses(workdir):
            assert run.poll() is None and time.monotonic() - begin < SLOWEST, printed.read_text()[
                -4000:
            ]
            time.sleep(0.02)
        os.kill(
            int((alone / "1").read_text()), signal.SIGTERM
        )  # one of them; the other hears of it from JAX
        assert run.wait(SLOWEST) == 0, printed.read_text()[-4000:]
    stopped = int(
        re.search(r"told to stop \(SIGTERM\); saved step (\d) of 8", printed.read_text())[1]
    )
    assert stopped < 8 and "starting again" in printed.read_text()
    assert printed.read_text().count("Preempted") == 2
    # Both gave their part of the last checkpoint's position in the data, which one process's run
    # has too.
    data = [
        d / "checkpoints" / "only" / "8" / "data" / "metadata" for d in (workdir, alone / "alone")
    ]
    there, here = (json.loads(path.read_text()) for path in data)
    assert sorted(map(int, there["streams"])) == list(range(8)) and there == here
    got, wanted = losses(workdir), losses(alone / "alone")
    assert sorted(got) == sorted(wanted) == list(range(1, 9))
    np.testing.assert_allclose([got[i] for i in wanted], list(wanted.values()), rtol=1e-5)
    # All took part in the validation loss, and the first drew the sheets with what it gathered.
    found = [evaluated.records(d / "checkpoints" / "only") for d in (workdir, alone / "alone")]
    assert [[record["step"] for record in one] for one in found] == [[4, 8], [4, 8]]
    for ours, theirs in zip(*found, strict=True):
        assert ours.keys() == theirs.keys() and "validation_text_loss" in ours
        np.testing.assert_allclose(list(ours.values()), [theirs[name] for name in ours], rtol=1e-5)
    assert sorted(p.name for p in (workdir / "sheets" / "only").iterdir()) == [
        "0000004.png",
        "0000008.png",
    ]
    ours, theirs = (load_file(d / "only" / "model.safetensors") for d in (workdir, alone / "alone"))
    assert ours.keys() == theirs.keys()
    for key, x in theirs.items():
        np.testing.assert_allclose(ours[key], x, rtol=1e-4, atol=1e-5, err_msg=key)


def test_two_hosts_with_other_configs_both_end_and_say_which(directory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = []
    for i in range(2):
        found = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(i),
        }
        command = [
            sys.executable,
            "-m",
            "janus_jax.main",
            f"--config={CONFIG}",
            f"--workdir={directory / 'unlike'}",
        ]
        runs.append(
            subprocess.Popen(
                [*command, f"--config.seed={i}"],
                cwd=ROOT,
                env=environment(directory) | found,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for run in runs:
        out = run.communicate(timeout=SLOWEST)[0]
        assert run.returncode == 2, out
        line = next(line for line in out.splitlines() if "the resolved config:" in line)
        assert re.search(r"\w{16} on process 0 \(\S+\); \w{16} on process 1 \(\S+\)", line), out
        assert "code of janus_jax" not in out and "Traceback" not in out
    assert not (directory / "unlike").exists()
    assert jax.process_count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("sent, to", [("SIGINT", "1"), ("SIGTERM", "launcher")])
def test_ctrl_c_and_a_launcher_told_to_stop_do_not_start_again(directory, sent, to):
    name = f"{sent}-{to}"
    run = launch(directory, name)
    while not (directory / name / "metrics.jsonl").is_file() or len(losses(directory / name)) < 2:
        assert run.poll() is None
        time.sleep(0.05)
    os.kill(
        run.pid if to == "launcher" else int((directory / f"{name}-pids" / to).read_text()),
        signal.Signals[sent],
    )
    assert run.wait(100) == 0
    text = (directory / f"{name}.log").read_text()
    assert text.count("saved step") == 2 and "starting again" not in text
