"""Which operand of a CPU's product is the kernel: XLA reads them at speeds that differ by the type,
the number of rows and the processor. Measured, see docs/benchmarks.md."""

import functools
import pathlib

import jax.numpy as jnp

FEW = 32  # rows up to which it is the first
PLAIN = 16  # rows from which so it is in bfloat16 of a processor without AMX


def kernel_first(dtype, rows: int) -> bool:
    """Whether a product [rows, in] x [out, in] is quicker with the kernel as its first operand. In
    bfloat16 that is an Intel Xeon's, whose AMX multiplies tiles; of few rows an AMD EPYC reads 16
    GB/s of the second operand and 11 of the first."""
    if dtype == jnp.bfloat16 and not has_amx():
        return PLAIN <= rows <= FEW
    return rows <= FEW


@functools.cache
def has_amx() -> bool:
    """Whether the processor says that it multiplies tiles of bfloat16."""
    told = pathlib.Path("/proc/cpuinfo")
    return told.is_file() and "amx_bf16" in told.read_text(encoding="utf-8", errors="replace")
