"""The launchers: what they start, and when they start it again."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml
from absl import flags
from support.paths import ROOT

from janus_jax import main
from janus_jax.common import cli, exit_codes
from janus_jax.common.cli import split_flags
from janus_jax.distributed import initialize
from janus_jax.serve import __main__ as serve

pytestmark = pytest.mark.processes


LAUNCH = ROOT / "launch"


FLAGS = ["--config=configs/stage2.py:a100-40gb:128", "--workdir=/runs/a b", "--config.seed=3"]


GIVEN = {
    "NAME": "mine",
    "ZONE": "us-east5-a",
    "IMAGE": "example.org/janus:1",
    "CLAIM": "runs",
    "NODES": "16",
    "MOST": "32",
    "ACCELERATOR": "tpu-v5p-slice",
    "TOPOLOGY": "4x4x8",
    "PYTHON": sys.executable,
}


def dry(*words, flags=FLAGS) -> str:
    command = ["bash", str(LAUNCH / words[0]), *words[1:], "--dry_run", *flags]
    return subprocess.run(
        command, env=os.environ | GIVEN, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def parsed(words: list[str]) -> flags.FlagValues:
    """What main makes of a command line."""
    rest, overrides = split_flags(words[words.index("janus_jax.main") :])
    values = flags.FlagValues()
    main.define_flags(values)
    values(rest)
    assert values.preempted == exit_codes.RESTART  # what launchers start again after
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
    stub.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && echo 1 && exit\necho x >> starts\n'
        "[ $(wc -l < starts) -gt 2 ] && exit 3\nexit 75\n"
    )
    stub.chmod(0o755)
    done = subprocess.run(
        [LAUNCH / "local.sh", "1", "--config=a"],
        cwd=tmp_path,
        env=os.environ | {"PYTHON": str(stub)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3 and (tmp_path / "starts").read_text() == "x\n" * 3
    assert done.stdout.count("starting again") == 2


def local(directory, script: str, **more) -> subprocess.Popen:
    """local.sh with two processes of a stand-in for Python; $me is the process's number, starts
    counts the lines."""
    stub = directory / "python"
    stub.write_text(
        '#!/bin/bash\n[ "$1" = -c ] && echo 1 && exit\n'
        f"me=${{@: -1}} && me=${{me#--process=}}\n{script}\n"
    )
    stub.chmod(0o755)
    return subprocess.Popen(
        [LAUNCH / "local.sh", "2", "--config=a"],
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHON": str(stub)} | more,
    )


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
    run = local(
        tmp_path, "trap 'echo saved; exit 75' TERM; echo ready; while :; do sleep 0.05; done"
    )
    assert [run.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    run.send_signal(signal.Signals[sent])
    assert run.communicate(timeout=30)[0] == "saved\n" * 2 and run.returncode == 0


@pytest.mark.parametrize("again", ["", "x"])
def test_a_signal_while_the_local_launcher_starts_is_not_lost(tmp_path, again):
    """`again`: in a restart. It comes while the port is chosen, when the launcher knows no
    process."""
    stub = tmp_path / "python"
    stub.write_text(
        f'#!/bin/bash\n[ "$1" = -c ] && {{ [ -n "{again}" ] && [ ! -e starts ] || '
        "{ touch choosing; sleep 1; }; echo 1; exit; }\necho x >> starts; exit 75\n"
    )
    stub.chmod(0o755)
    run = subprocess.Popen(
        [LAUNCH / "local.sh", "1", "--config=a"],
        cwd=tmp_path,
        env=os.environ | {"PYTHON": str(stub)},
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
    assert (
        words[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "mine"]
        and "--worker=all" in words
    )
    remote = next(word for word in words if word.startswith("--command=")).removeprefix(
        "--command="
    )
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
        "Indexed",
        16,
        16,
        0,
    )
    [stop] = job["podFailurePolicy"]["rules"]
    pod = job["template"]["spec"]
    assert stop["action"] == "FailJob" and pod["restartPolicy"] == "Never"  # one needs the other
    [container] = pod["containers"]
    codes = stop["onExitCodes"]
    assert codes["containerName"] == container["name"] and codes["operator"] == "In"
    assert 0 not in codes["values"] and exit_codes.RESTART not in codes["values"]
    parsed(container["command"])
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    if kind == "gpu":
        values = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert set(initialize.VARIABLES) <= set(values)
        assert values["JAX_COORDINATOR_ADDRESS"].startswith("mine-workers-0-0.mine:")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--model is missing"),
        (["--name=a"], "--model is missing"),
        (["--model=a", "--port=80"], "--port=80: "),
        (["--model=a", "-drain", "9"], "--drain: "),
    ],
)
def test_a_server_that_could_not_start_is_not_sent_to_the_cluster(words, told):
    """It has the manifest's own flags already, and refuses one that is given twice."""
    command = ["bash", str(LAUNCH / "kubernetes.sh"), "--dry_run", "serve", *words]
    done = subprocess.run(command, env=os.environ | GIVEN, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(told) and not done.stdout


def test_the_manifest_of_the_server_runs_it_and_lets_it_end():
    """Fields as in apps/v1, v1, autoscaling/v2 and policy/v1."""
    text = dry("kubernetes.sh", "serve", flags=["--model=/runs/a b"])
    parts = {part["kind"]: part for part in yaml.safe_load_all(text)}
    assert "${" not in str(parts) and {part["metadata"]["name"] for part in parts.values()} == {
        "mine"
    }
    deployment = parts["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    words = container["command"] + container["args"]
    assert words[:3] == ["python", "-m", "janus_jax.serve"]
    given, _ = cli.parse(serve.COMMAND, words[3:])
    assert given.model == "/runs/a b"

    # It is told to end once no request comes any more, and has the time that it may take.
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + given.drain
    # One port from the flag to the address.
    [port] = container["ports"]
    assert port["containerPort"] == given.port and given.host == "0.0.0.0"
    assert parts["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    for probe, path in (("startup", "/ready"), ("liveness", "/health"), ("readiness", "/ready")):
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": port["name"]}
    # All find the same pods.
    labels = deployment["template"]["metadata"]["labels"]
    budget = parts["PodDisruptionBudget"]["spec"]
    assert labels == deployment["selector"]["matchLabels"] == budget["selector"]["matchLabels"]
    assert labels == parts["Service"]["spec"]["selector"]
    scaler = parts["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": parts["Deployment"]["apiVersion"], "kind": "Deployment", "name": "mine",
    }  # fmt: skip
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (16, 32)
    assert "replicas" not in deployment and "cpu" in container["resources"]["requests"]
    # The key is a file of a Secret, and nothing can be written but the cache and /tmp.
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert given.api_key_file == f"{mounts['api-key']['mountPath']}/api_key"
    assert volumes["api-key"]["secret"]["secretName"] == "mine-api-key"
    written = {name for name, mount in mounts.items() if not mount.get("readOnly")}
    assert {name for name, volume in volumes.items() if "emptyDir" in volume} == written
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["runAsNonRoot"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert {environment["XDG_CACHE_HOME"], environment["HOME"]} == {
        mounts[name]["mountPath"] for name in written
    }
