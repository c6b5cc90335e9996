"""Two real processes on this machine, over loopback and gloo, four devices each: against one
process with eight; and with every fault, to the same result.
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
from flax import nnx
from safetensors.numpy import load_file
from support import tiny, two_processes
from support.mesh import on_mesh
from support.paths import ROOT
from support.processes import environment, losses

from janus_jax import main
from janus_jax.weights.load import export

pytestmark = pytest.mark.processes


CONFIG = ROOT / "tests" / "support" / "two_processes.py"


SLOWEST = 400  # seconds


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Of all runs; `weights` are what they begin with."""
    directory = tmp_path_factory.mktemp("two")
    with on_mesh(1, 8, 1):
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(two_processes.MODEL)))
        export(directory / "weights", params, two_processes.MODEL)
    return directory


@pytest.fixture(scope="module")
def alone(directory):
    """The directory, with the run of this process, which has eight devices."""
    with on_mesh(1, 8, 1):
        os.environ["WEIGHTS"] = str(directory / "weights")
        before = signal.getsignal(signal.SIGTERM)
        try:
            main.run(str(CONFIG), {}, str(directory / "alone"))
        finally:
            signal.signal(signal.SIGTERM, before)
            del os.environ["WEIGHTS"]
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(1, 8), (2, 4)], ids="{0[0]}x{0[1]}".format)
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


@pytest.fixture(scope="module")
def undisturbed(alone):
    launch(alone, "undisturbed").wait(600)
    return alone / "undisturbed"


def launch(directory, name: str, fault: str = "", **more):
    """launch/local.sh with two processes of faulty.py; what they print goes to `name`.log."""
    pids = directory / f"{name}-pids"
    pids.mkdir()
    command = [
        ROOT / "launch" / "local.sh",
        "2",
        f"--config={ROOT / 'tests' / 'support' / 'faulty.py'}",
    ]
    env = (
        environment(directory)
        | {"PIDS": str(pids), "FAULT": fault, "SLOW": "0.3", "WAIT": "45"}
        | more
    )
    with open(directory / f"{name}.log", "w") as out:
        return subprocess.Popen(
            [*command, f"--workdir={directory / name}"], cwd=ROOT, env=env, stdout=out, stderr=out
        )


@pytest.mark.slow
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
            "stop-1",
            "",
            "SIGSTOP",
            "1",
            r"process 1 \(\S+\) is dead, stopped or out of reach: no word for 3\d s",
        ),
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
        ("term", "", "SIGTERM", "1", r"only: told to stop \(SIGTERM\); saved step \d+ of 24"),
    ],
)
def test_after_a_fault_the_run_starts_again_and_ends_the_same(
    undisturbed, name, fault, sent, to, said
):
    directory = undisturbed.parent
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


@pytest.mark.slow
@pytest.mark.parametrize("sent, to", [("SIGINT", "1"), ("SIGTERM", "launcher")])
def test_ctrl_c_and_a_launcher_told_to_stop_do_not_start_again(alone, sent, to):
    name = f"{sent}-{to}"
    run = launch(alone, name)
    while not (alone / name / "metrics.jsonl").is_file() or len(losses(alone / name)) < 7:
        assert run.poll() is None
        time.sleep(0.05)
    os.kill(
        run.pid if to == "launcher" else int((alone / f"{name}-pids" / to).read_text()),
        signal.Signals[sent],
    )
    assert run.wait(100) == 0
    text = (alone / f"{name}.log").read_text()
    assert text.count("saved step") == 2 and "starting again" not in text


@pytest.mark.slow
def test_a_process_whose_data_fail_ends_all_with_3(alone):
    run = launch(alone, "data", "data 1@8")
    assert run.wait(300) == 3
    text = (alone / "data.log").read_text()
    assert re.search(
        r"process 1 \(\S+\) ended: SourceError: data.datasets.questions: the disk is gone", text
    )
