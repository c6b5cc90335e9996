"""A step compiled ahead of time for chips that are not there, and what its compiler says of memory and links."""

import dataclasses
import importlib.util
import os
import pathlib
import re
import tempfile
import time

from janus_jax import collectives
from janus_jax.chips import Chip

TPU_HOST = {"v4": "v4-8", "v5e": "v5litepod-4", "v5p": "v5p-8", "v6e": "v6e-4"}


def devices(chip: Chip, count: int, topology: str):
    """(devices to compile for, what compiles, in words). Call it before JAX starts its backend. Raises ValueError
    where the compiler knows no such slice."""
    if chip.name in TPU_HOST and importlib.util.find_spec("libtpu"):
        # There is no TPU here: libtpu must look for none, and need not have it alone.
        os.environ.update(
            TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", ALLOW_MULTIPLE_LIBTPU_LOAD="1",
            TPU_ACCELERATOR_TYPE=TPU_HOST[chip.name],
        )  # fmt: skip
        import jax
        from jax.experimental import topologies

        jax.config.update("jax_platforms", "cpu")
        joined = {"chip_config_name": "megacore"} if chip.name == "v4" else {}
        if count == 1:
            joined["chips_per_host_bounds"] = [1, 1, 1]
        try:
            found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **joined).devices
        except jax.errors.JaxRuntimeError as error:
            raise ValueError(f"topology {topology!r}: libtpu knows no such slice: {error}") from error
        return found, f"libtpu's compiler for {found[0].device_kind}"
    import jax

    jax.config.update("jax_num_cpu_devices", count)
    jax.config.update("jax_platforms", "cpu")
    return jax.devices(), stand_in(chip)


def stand_in(chip: Chip) -> str:
    if chip.name == "cpu":
        return "XLA's CPU compiler"
    why = (
        "the libtpu package is not installed" if chip.name in TPU_HOST else "no compiler for GPUs without one"
    )
    return (
        f"XLA's CPU compiler on fake devices ({why}): temporaries and bytes on links are too high, about twice the "
        "TPU compiler's for Janus-1.3B, since it widens bfloat16 to float32 and scatters no reduction"
    )


@dataclasses.dataclass
class Compiled:
    """What a compiler says of a step, bytes a chip; own: it is the chip's own compiler. Where it refuses for
    memory, `error` says so, and of the rest only the temporaries may be known."""

    seconds: float
    own: bool
    arguments: float | None = None
    temporaries: float | None = None
    program: float = 0.0
    sent: list = dataclasses.field(default_factory=list)
    remarks: list = dataclasses.field(default_factory=list)
    error: str = ""


def compile_step(step, state, batch) -> Compiled:
    """Lowers and compiles a stage's step, and reads its memory and collectives; out of memory is an answer."""
    import jax

    mesh = jax.sharding.get_mesh()
    tpu = mesh.devices.flat[0].platform == "tpu"
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # The executable of a large slice cannot always be printed (async fusions), but its dump can be read. Fake
        # devices never run the program: its machine code need not be good, and its memory is the same.
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        options = dump if tpu else {"xla_backend_optimization_level": 0}
        try:
            program = step.lower(state, batch).compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            spent, text = time.perf_counter() - begin, str(error)
            return Compiled(spent, tpu, temporaries=used(text), error=text.splitlines()[0])
        seconds = time.perf_counter() - begin
        files = sorted(pathlib.Path(folder).glob("*.after_optimizations.txt"), key=lambda f: f.stat().st_size)
        text = files[-1].read_text() if tpu else program.as_text()
    sent, remarks = collectives.parse(text, dict(mesh.shape))
    m = program.memory_analysis()
    return Compiled(
        seconds,
        tpu,
        m.argument_size_in_bytes,
        m.temp_size_in_bytes,
        m.generated_code_size_in_bytes,
        sent,
        remarks,
    )


def used(error: str) -> float | None:
    """Bytes that XLA says it would need: of temporaries ("HLO temporaries (89.49G)"), or of all ("Used 31.2G of
    15.7G hbm", "trying to allocate 12884901888 bytes"); None where it says nothing."""
    if found := re.search(r"temporaries \(([\d.]+)([KMGT])\)|[Uu]sed ([\d.]+)([KMGT]) of", error):
        number, unit = (found[1] or found[3]), (found[2] or found[4])
        return float(number) * 2 ** (10 * " KMGT".index(unit))
    found = re.search(r"allocat\w+ (\d+) bytes", error)
    return float(found[1]) if found else None
