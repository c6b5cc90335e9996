"""What tests that start real processes share: their environment, and what they leave."""

import json
import os
import subprocess
import sys

from support.paths import ROOT

# As tests/conftest.py has it: one folder of compiled programs for all processes, and the cheapest
# machine code.
COMPILING = {
    name: os.environ[name]
    for name in (
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "XLA_FLAGS",
    )
}
# Without PyTorch (see torch.py there).
LEAN = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support' / 'without_torch'}"


def environment(directory) -> dict:
    return {
        k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "SLURM_", "OMPI_"))
    } | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "4",
        **COMPILING,
        "PYTHONPATH": LEAN,
        "PYTHON": sys.executable,
        "WEIGHTS": str(directory / "weights"),
        "PIDS": str(directory),
    }


def losses(workdir) -> dict[int, float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines)}


def launch(directory, name: str, fault: str = "", **more):
    """Starts launch/local.sh with two processes of faulty.py; what they print goes to `name`.log."""
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
