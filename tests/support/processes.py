"""What tests that start real processes share: their environment, and what they leave."""

import json
import os
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


def environment(directory) -> dict:
    return {
        k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "SLURM_", "OMPI_"))
    } | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "4",
        **COMPILING,
        "PYTHONPATH": str(ROOT),
        "PYTHON": sys.executable,
        "WEIGHTS": str(directory / "weights"),
        "PIDS": str(directory),
    }


def losses(workdir) -> dict[int, float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines)}
