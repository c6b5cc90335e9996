"""How processes find each other, and what they say where they do not."""

import os
import subprocess
import sys
from contextlib import nullcontext

import jax
import pytest
from support.paths import ROOT

from janus_jax.common import exit_codes
from janus_jax.distributed import initialize, processes, watchdog

CONNECT = """
from janus_jax.distributed import initialize, processes
for given in (
    dict(coordinator="127.0.0.1:1", processes=2, process=2), dict(processes=2), dict(processes=2, process=0,
    coordinator="nowhere"), dict(processes=1, process=0), dict(),
):
    try:
        initialize.initialize(**given)
        print("fine")
    except processes.HostsError as error:
        print(error)
initialize.initialize("127.0.0.1:1", 2, 1, timeout=1)
"""


@pytest.mark.processes
def test_processes_that_cannot_meet_say_what_is_wrong():
    known = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("JAX_", "SLURM_", "OMPI_", "KUBERNETES"))
    }
    done = subprocess.run(
        [sys.executable, "-c", CONNECT], capture_output=True, text=True, cwd=ROOT,
        env=known | {"JAX_PLATFORMS": "cpu", "JAX_PROCESS_ID": ""}, timeout=60,
    )  # fmt: skip
    out_of_range, half, address, *fine = done.stdout.splitlines()
    assert out_of_range == "JAX_PROCESS_ID is 2: JAX_NUM_PROCESSES is 2, so it must be 0 to 1"
    assert half.startswith("JAX_NUM_PROCESSES set, JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID not")
    assert "'nowhere': must be HOST:PORT" in address
    assert fine == ["fine", "fine"]
    assert (
        done.returncode == exit_codes.ABSENT == 69
        and "process 1 of 2 found not all" in done.stderr
        and "127.0.0.1:1" in done.stderr
    )


@pytest.mark.parametrize(
    "text, refused", [(initialize.NO_CLUSTER, False), ("SLURM_NTASKS is 'x'", True)]
)
def test_only_where_no_cluster_is_found_a_process_is_alone(monkeypatch, text, refused):
    def refuse(*_, **__):
        raise ValueError(text)

    for name in initialize.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(processes.HostsError, match=text) if refused else nullcontext():
        initialize.initialize()


def test_a_watchdog_that_is_none_is_refused_when_processes_meet(monkeypatch):
    monkeypatch.setenv("JANUS_WATCHDOG", "abc")
    with pytest.raises(processes.HostsError, match="JANUS_WATCHDOG is 'abc'"):
        initialize.initialize(processes=1, process=0)
    assert watchdog.Watchdog().least is None  # a notebook may be without


def test_the_first_process_clears_what_a_killed_run_left_to_be_seen(tmp_path, monkeypatch):
    (tmp_path / f"{initialize.SEEN}old").touch()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "all_gather", lambda value: [value])
    monkeypatch.setattr(processes, "barrier", lambda _: None)
    initialize.require_shared(tmp_path)
    assert not list(tmp_path.iterdir())
