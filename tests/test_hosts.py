"""Finding the run's processes, sharing a batch among them, stopping, and the launchers that start them."""

import errno
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import jax
import numpy as np
import pytest
import tiny
import yaml
from absl import flags

from janus_jax import hosts, leaving, main, meet, watchdog, xla_flags
from janus_jax import sharding as sh
from janus_jax.data.shapes import ShapesPictures
from janus_jax.data.sources import SourceError
from janus_jax.experiment import ConfigError, split_flags

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / "launch"

CONNECT = """
from janus_jax import hosts, meet
for given in (
    dict(coordinator="127.0.0.1:1", processes=2, process=2), dict(processes=2), dict(processes=2, process=0,
    coordinator="nowhere"), dict(processes=1, process=0), dict(),
):
    try:
        meet.connect(**given)
        print("fine")
    except hosts.HostsError as error:
        print(error)
meet.connect("127.0.0.1:1", 2, 1, timeout=1)
"""


def test_processes_that_cannot_meet_say_what_is_wrong():
    known = {
        k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "SLURM_", "OMPI_", "KUBERNETES"))
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
        done.returncode == meet.ABSENT == 69
        and "process 1 of 2 found not all" in done.stderr
        and "127.0.0.1:1" in done.stderr
    )


@pytest.mark.parametrize(
    "owner, share, count",
    [
        ([[0], [0], [1], [1]], {0: 0, 1: 1}, 2),  # rows split over hosts
        ([[0, 0], [1, 1]], {0: 0, 1: 1}, 2),  # tensor within a host
        ([[0, 1], [2, 3]], {0: 0, 1: 0, 2: 1, 3: 1}, 2),  # tensor over two hosts: both feed the same rows
        ([[1], [0], [1], [0]], {1: 0, 0: 1}, 2),  # devices in another order than hosts
    ],
)
def test_hosts_that_hold_the_same_rows_feed_the_same(owner, share, count):
    assert sh.shares(np.array(owner)) == (share, count)


def test_rows_that_lie_across_hosts_are_refused():
    with pytest.raises(ValueError, match="must divide a process's devices"):
        sh.shares(np.array([[0, 0, 1], [1, 2, 2]]))


def test_the_parts_of_a_batch_of_pictures_are_the_batch():
    whole = tiny.pictures(ShapesPictures(0), 16, 6, 3)[5]
    parts = [tiny.pictures(ShapesPictures(0), 16, 6, 3, host, 3)[5] for host in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_notice_is_heard_once_listening_and_stays():
    before, notice = signal.getsignal(signal.SIGTERM), hosts.Notice()
    try:
        notice.listen(code=75)
        assert not notice.reached()
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.reached() and notice.reached() and notice.leaving() == 75
    finally:
        notice.close()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "error, code",
    [(ConfigError("x"), 2), (hosts.HostsError("x"), 2), (meet.Absent("x"), 69),
     (FloatingPointError("x"), 4), (hosts.Preempted("x"), 0),
     (OSError(errno.ENOSPC, "x"), 74), (OSError(errno.EIO, "x"), 74), (OSError(errno.EACCES, "x"), 1),
     (RuntimeError("x"), 1)],
)  # fmt: skip
def test_exit_codes(error, code):
    assert main.exit_code(error) == code


def test_a_process_whose_peer_is_not_well_ends_with_its_code():
    for kind, code in ((SourceError, 3), (ConfigError, 2), (KeyError, 1)):
        assert main.exit_code(hosts.Others("x", [k.__name__ for k in kind.__mro__])) == code


@pytest.mark.parametrize("text, refused", [(meet.NO_CLUSTER, False), ("SLURM_NTASKS is 'x'", True)])
def test_only_where_no_cluster_is_found_a_process_is_alone(monkeypatch, text, refused):
    def initialize(*_, **__):
        raise ValueError(text)

    for name in meet.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(hosts.HostsError, match=text) if refused else nullcontext():
        meet.connect()


def test_a_watchdog_that_is_none_is_refused_when_processes_meet(monkeypatch):
    monkeypatch.setenv("JANUS_WATCHDOG", "abc")
    with pytest.raises(hosts.HostsError, match="JANUS_WATCHDOG is 'abc'"):
        meet.connect(processes=1, process=0)
    assert watchdog.Watchdog().least is None  # a notebook may be without


def test_the_first_process_clears_what_a_killed_run_left_to_be_seen(tmp_path, monkeypatch):
    (tmp_path / f"{meet.SEEN}old").touch()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "gather", lambda value: [value])
    monkeypatch.setattr(hosts, "wait", lambda _: None)
    meet.require_shared(tmp_path)
    assert not list(tmp_path.iterdir())


# Flags of XLA


def test_every_flag_for_gpus_is_known_here_and_an_unknown_one_is_dropped():
    wanted = xla_flags.wanted("gpu")
    assert len(wanted) == len(xla_flags.FLAGS["gpu"])
    assert xla_flags.known("gpu", ["--xla_gpu_no_such_flag=1", *wanted]) == wanted


def test_flags_for_tpus_are_looked_up_in_libtpu(tmp_path, monkeypatch):
    wanted = xla_flags.wanted("tpu")
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").touch()
    names = [flag[2:].partition("=")[0] for flag in wanted[1:]]
    (tmp_path / "libtpu" / "libtpu.so").write_text("\0".join(names))
    monkeypatch.syspath_prepend(tmp_path)
    assert xla_flags.known("tpu", wanted) == wanted[1:]


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setattr(xla_flags, "here", lambda: "gpu")
    monkeypatch.setattr(xla_flags, "known", lambda platform, names: names)
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true --xla_mine=3")
    xla_flags.apply()
    words = os.environ["XLA_FLAGS"].split()
    assert words[:2] == ["--xla_gpu_enable_triton_gemm=true", "--xla_mine=3"]
    assert sum("triton_gemm" in word for word in words) == 1
    assert len(words) == len(xla_flags.FLAGS["gpu"]) + 1


def test_no_flag_is_set_without_the_accelerator(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    xla_flags.apply()
    assert "XLA_FLAGS" not in os.environ


# Launchers

FLAGS = ["--config=configs/stage2.py:a100-40gb:128", "--workdir=/runs/a b", "--config.seed=3"]
GIVEN = {
    "NAME": "mine", "ZONE": "us-east5-a", "IMAGE": "example.org/janus:1", "CLAIM": "runs", "NODES": "16",
    "ACCELERATOR": "tpu-v5p-slice", "TOPOLOGY": "4x4x8", "PYTHON": sys.executable,
}  # fmt: skip


def dry(*words) -> str:
    command = ["bash", str(LAUNCH / words[0]), *words[1:], "--dry_run", *FLAGS]
    return subprocess.run(
        command, env=os.environ | GIVEN, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def parsed(words: list[str]) -> flags.FlagValues:
    """What main makes of a command line."""
    rest, overrides = split_flags(words[words.index("janus_jax.main") :])
    values = flags.FlagValues()
    main.define_flags(values)
    values(rest)
    assert values.preempted == leaving.AGAIN  # what launchers start again after
    assert overrides == {"seed": "3"}
    assert (values.config, values.workdir) == (FLAGS[0].removeprefix("--config="), "/runs/a b")
    return values


def test_the_local_launcher_gives_each_process_its_number():
    got = [parsed(shlex.split(line)) for line in dry("local.sh", "2").splitlines()]
    assert [(v.processes, v.process) for v in got] == [(2, 0), (2, 1)]
    assert got[0].coordinator == got[1].coordinator and got[0].coordinator.startswith("127.0.0.1:")


def test_the_local_launcher_starts_again_on_75_only(tmp_path):
    """With a stand-in for Python that ends as the file says, once for each start."""
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 1 && exit\necho x >> starts\n'
                    '[ $(wc -l < starts) -gt 2 ] && exit 3\nexit 75\n')  # fmt: skip
    stub.chmod(0o755)
    done = subprocess.run(
        [LAUNCH / "local.sh", "1", "--config=a"], cwd=tmp_path, env=os.environ | {"PYTHON": str(stub)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 3 and (tmp_path / "starts").read_text() == "x\n" * 3
    assert done.stdout.count("starting again") == 2


def local(directory, script: str, **more) -> subprocess.Popen:
    """local.sh with two processes of a stand-in for Python; $me is the process's number, starts counts the lines."""
    stub = directory / "python"
    stub.write_text(
        f'#!/bin/bash\n[ "$1" = -c ] && echo 1 && exit\nme=${{@: -1}} && me=${{me#--process=}}\n{script}\n'
    )
    stub.chmod(0o755)
    return subprocess.Popen(
        [LAUNCH / "local.sh", "2", "--config=a"], cwd=directory, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHON": str(stub)} | more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "first, second, code, starts",
    [
        ("exit 75", "kill -KILL $$", 75, 2),  # killed; its peer asks for a start
        ("exit 75", "sleep 60", 75, 2),  # stopped for good: killed after WAIT seconds
        ("exit 75", "exit 74", 74, 1),
        ("exit 3", "exit 75", 3, 1),
        ("exit 1", "exit 1", 1, 1),
        ("exit 1", "exec sleep 60", 1, 1),  # the launcher's own kill is no reason to start again
        ("exit 139", "exit 0", 75, 2),
        ("exit 75", "exit 130", 130, 1),
    ],
)
def test_the_local_launcher_takes_the_code_that_says_most(tmp_path, first, second, code, starts):
    script = f"[ $me = 1 ] && exec bash -c '{second}'\necho >> starts; {first}"
    run = local(tmp_path, script, WAIT="1", RESTARTS="1")
    assert run.wait(30) == code
    assert (tmp_path / "starts").read_text().count("\n") == starts


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGINT"])
def test_the_local_launcher_passes_a_signal_on_and_does_not_start_again(tmp_path, sent):
    run = local(tmp_path, "trap 'echo saved; exit 75' TERM; echo ready; while :; do sleep 0.05; done")
    assert [run.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    run.send_signal(signal.Signals[sent])
    assert run.communicate(timeout=30)[0] == "saved\n" * 2 and run.returncode == 0


@pytest.mark.parametrize("again", ["", "x"])
def test_a_signal_while_the_local_launcher_starts_is_not_lost(tmp_path, again):
    """`again`: in a restart. It comes while the port is chosen, when the launcher knows no process."""
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/bash\n[ "$1" = -c ] && {{ [ -n "{again}" ] && [ ! -e starts ] || '
                    '{ touch choosing; sleep 1; }; echo 1; exit; }\necho x >> starts; exit 75\n')  # fmt: skip
    stub.chmod(0o755)
    run = subprocess.Popen(
        [LAUNCH / "local.sh", "1", "--config=a"], cwd=tmp_path, env=os.environ | {"PYTHON": str(stub)}
    )
    while not (tmp_path / "choosing").exists():
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 0
    starts = tmp_path / "starts"
    assert (starts.read_text() if starts.exists() else "") == ("x\n" if again else "")


def test_the_slurm_launcher_runs_main():
    words = shlex.split(dry("slurm.sbatch"))
    assert words[0] == "srun" and parsed(words).processes == 0  # SLURM says it


def test_the_tpu_launcher_runs_main_on_every_worker():
    words = shlex.split(dry("tpu_vm.sh", "run"))
    assert words[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "mine"] and "--worker=all" in words
    remote = next(word for word in words if word.startswith("--command=")).removeprefix("--command=")
    for code, again in (
        (75, True),
        (137, True),
        (139, True),
        (130, False),
        (0, False),
        (1, False),
        (3, False),
    ):
        one = remote[remote.index("code=$?") :].removesuffix("; done").replace("$?", str(code))
        done = subprocess.run(["sh", "-c", f"{one}; exit 99"], timeout=10)
        assert done.returncode == (99 if again else code)
    parsed(shlex.split(remote[: remote.index(" ; code=")]))


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
def test_the_manifests_run_main_and_restart_what_may_be_restarted(kind):
    """Fields as in JobSet's v1alpha2 and batch/v1; the API server would refuse others."""
    manifest = yaml.safe_load(dry("kubernetes.sh", kind))
    assert "${" not in str(manifest)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    [rule] = manifest["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    [workers] = manifest["spec"]["replicatedJobs"]
    assert set(workers) == {"name", "replicas", "template"}
    job = workers["template"]["spec"]
    assert (job["completionMode"], job["parallelism"], job["completions"], job["backoffLimit"]) == (
        "Indexed", 16, 16, 0,
    )  # fmt: skip
    [stop] = job["podFailurePolicy"]["rules"]
    pod = job["template"]["spec"]
    assert stop["action"] == "FailJob" and pod["restartPolicy"] == "Never"  # one needs the other
    [container] = pod["containers"]
    codes = stop["onExitCodes"]
    assert codes["containerName"] == container["name"] and codes["operator"] == "In"
    assert 0 not in codes["values"] and leaving.AGAIN not in codes["values"]
    parsed(container["command"])
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    if kind == "gpu":
        values = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert set(meet.VARIABLES) <= set(values)
        assert values["JAX_COORDINATOR_ADDRESS"].startswith("mine-workers-0-0.mine:")
