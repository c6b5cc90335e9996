"""The quick start's stages over the tests' tiny model, and their plan."""

import dataclasses
import functools

import jax
from support import tiny
from support.mesh import on_mesh
from support.paths import CONFIGS as CONFIGS_DIR

from janus_jax.config.read import read
from janus_jax.config.schema import Mesh, Rows
from janus_jax.distributed import chips
from janus_jax.plan import report

CPU, _ = chips.parse_topology("cpu:8")


@functools.cache
def small(remat: str = "dots", data: int = 1, fsdp: int = 8):
    """The quick start's stages over the tests' tiny model."""
    experiment, _ = read(str(CONFIGS_DIR / "quickstart.py"))
    rows = Rows(32, tiny.LENGTH, tiny.PICTURES, tiny.IMAGES)
    stages = {
        name: dataclasses.replace(s, rows=rows) if s.rows else s
        for name, s in experiment.stages.items()
    }
    return dataclasses.replace(
        experiment, model=tiny.small(remat=remat), mesh=Mesh(data, fsdp, 1), stages=stages
    )


def studied(experiment, name: str, chip=CPU) -> dict:
    m = experiment.mesh
    with on_mesh(m.data, m.fsdp, m.tensor):
        return report.study(experiment, name, chip)


@functools.cache
def told() -> tuple[dict, str]:
    """The plan of stage 3, and what it said."""
    experiment, said = small(), []
    out = report.run(
        dataclasses.replace(experiment, stages={"stage3": experiment.stages["stage3"]}),
        CPU,
        8,
        jax.devices(),
        "a compiler",
        said.append,
    )
    return out, "\n".join(said)
