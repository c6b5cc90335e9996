"""What a task says of its batches before there are data, beside what it makes."""

import pathlib

import jax
from support.mesh import on_mesh


def facts(batch) -> dict:
    """Shape, dtype and sharding of each array."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), batch)


def told_and_made(plan, sources: dict, processor=None):
    """(the facts of `batch_shapes`, those of a first batch) of a plan, on a mesh of 2 x 4."""
    with on_mesh(2, 4, 1):
        data = plan.task.batches(plan, sources, processor, pathlib.Path(), print)
        return facts(plan.task.batch_shapes(plan)), facts(data.next_batch(0)[0])
