"""A step compiled ahead of time for chips that are not there, and what its compiler says of it.

libtpu compiles for TPUs; JAX's CUDA plugin and ptxas for NVIDIA's GPUs (`pip install ".[plan]"`).
Neither needs a chip or a driver.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re
import tempfile
import time

from janus_jax.distributed import xla_flags
from janus_jax.distributed.chips import Chip
from janus_jax.plan import collectives, hlo, tpu_dump
from janus_jax.plan.gpus import GPUS, Gpu

TPU_HOST = {"v4": "v4-8", "v5e": "v5litepod-4", "v5p": "v5p-8", "v6e": "v6e-4"}


GPU_ASSUMPTIONS = (
    "the GPU compiler had no card: it chose kernels without timing them (no autotuning), so a "
    "run's scratch differs",
    "with the XLA flags that training sets (janus_jax/distributed/xla_flags.py)",
    "not in the bytes: NCCL's buffers, the CUDA context, gaps between allocations; usable is 92 % "
    "of the card, XLA_PYTHON_CLIENT_MEM_FRACTION of a run where nothing else is set",
)
CUDNN_UNSEEN = (
    "attention as Triton's kernel; a run on Hopper takes cuDNN's packed layout, which cannot be "
    "compiled here"
)


def devices(chip: Chip, count: int, topology: str):
    """The devices to compile for. Call it before JAX starts its backend.

    chip: what each of them is.
    count: how many.
    topology: how the user wrote both, `v5p:4x4x8`.

    Returns (devices, what compiles for them, in words). Raises ValueError where the compiler knows
    no such slice.
    """
    if chip.name in GPUS and cuda_plugin():
        return gpus(chip, count, topology)
    if chip.name in TPU_HOST and importlib.util.find_spec("libtpu"):
        return tpus(chip, count, topology)
    import jax

    jax.config.update("jax_num_cpu_devices", count)
    jax.config.update("jax_platforms", "cpu")
    return jax.devices(), stand_in(chip)


def tpus(chip: Chip, count: int, topology: str):
    """`devices` for TPUs."""
    # There is no TPU here: libtpu must look for none, and need not have it alone.
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TPU_ACCELERATOR_TYPE=TPU_HOST[chip.name],
    )
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")
    options = {}
    if chip.name == "v4":
        options["chip_config_name"] = "megacore"
    if count == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        slice_ = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"topology {topology!r}: libtpu knows no such slice: {error}") from error
    return slice_.devices, f"libtpu's compiler for {slice_.devices[0].device_kind}"


def cuda_plugin() -> bool:
    """Whether JAX's CUDA plugin, 12 or 13, is installed."""
    return bool(importlib.util.find_spec("jax_plugins")) and any(
        importlib.util.find_spec(f"jax_plugins.xla_cuda{version}") for version in (12, 13)
    )


def gpus(chip: Chip, count: int, topology: str):
    """`devices` for NVIDIA's GPUs, in nodes of `chip.node`."""
    import jax
    from jax.experimental import topologies

    # Without cuda in the list the plugin registers its compiler and asks for no driver.
    jax.config.update("jax_platforms", "cpu")
    if count > chip.node and count % chip.node:
        raise ValueError(
            f"topology {topology!r}: more than {chip.node} are whole nodes of {chip.node}"
        )
    shape = f"{max(1, count // chip.node)}x1x{min(count, chip.node)}"
    target = gpu_target(GPUS[chip.name])
    found = topologies.get_topology_desc(
        platform="cuda", target_config=target, topology=shape
    ).devices
    return found, f"XLA's GPU compiler and ptxas for {found[0].device_kind}"


def gpu_target(gpu: Gpu) -> str:
    """XLA's GpuTargetConfigProto as text; limits not in `Gpu` are those of both generations."""
    return f"""
        gpu_device_info {{
          name: "{gpu.kind}" device_vendor: "NVIDIA Corporation" device_address_bits: 64
          cuda_compute_capability {{ {gpu.capability} }}
          core_count: {gpu.cores} fpus_per_core: {gpu.units} clock_rate_ghz: {gpu.clock}
          device_memory_size: {gpu.memory} memory_bandwidth: {gpu.bandwidth}
          l2_cache_size: {gpu.cache}
          shared_memory_per_core: {gpu.shared} shared_memory_per_block_optin: {gpu.shared - 1024}
          shared_memory_per_block: 49152
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
          thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          driver_version: "13.0.0" runtime_version: "12.9.0" compile_time_toolkit_version: "12.9.0"
          dnn_version: "9.10.0" device_interconnect_info {{ active_links: {gpu.links} }}
        }}
        platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
        device_description_str: "{gpu.kind}"
    """


def assumptions(device) -> list[str]:
    """What a plan compiled for `device` takes for granted, beside the roofline's assumptions."""
    if device.platform != "gpu":
        return []
    if float(device.compute_capability) < 9:  # before Hopper
        return [*GPU_ASSUMPTIONS]
    return [*GPU_ASSUMPTIONS, CUDNN_UNSEEN]


def stand_in(chip: Chip) -> str:
    """What compiles where the chip's own compiler is not installed, in words."""
    if chip.name == "cpu":
        return "XLA's CPU compiler"
    why = "libtpu" if chip.name in TPU_HOST else "jax-cuda12-plugin"
    why = f'the {why} package is not installed: pip install ".[plan]"'
    return (
        f"XLA's CPU compiler on fake devices ({why}): temporaries and bytes on links are too high, "
        "about twice the TPU compiler's for Janus-1.3B, since it widens bfloat16 to float32 and "
        "scatters no reduction"
    )


@dataclasses.dataclass
class Compiled:
    """What a compiler says of a step. Where it refuses for memory, `error` says so, and of the rest
    only the temporaries may be known.

    seconds: that it took to compile.
    own: whether it is the chip's own compiler.
    arguments: bytes a chip.
    temporaries: bytes a chip.
    program: the machine code, bytes a chip.
    sent: a `collectives.Collective` each.
    remarks: what could not be told of them.
    module: the program, an `hlo.Module`.
    error: the first line of the refusal, or empty.
    """

    seconds: float
    own: bool
    arguments: float | None = None
    temporaries: float | None = None
    program: float = 0.0
    sent: list = dataclasses.field(default_factory=list)
    remarks: list = dataclasses.field(default_factory=list)
    module: hlo.Module | None = None
    error: str = ""


def compile_step(step, state, batch, deterministic: bool = False) -> Compiled:
    """Compiles a stage's step and reads its memory and its collectives. That it needs too much
    memory is an answer, not an error.

    step: the jitted step.
    state: its abstract state.
    batch: its abstract batch.
    deterministic: the config's.
    """
    return compile_lowered(step.lower(state, batch), deterministic)


def compile_lowered(lowered, deterministic: bool = False) -> Compiled:
    """`compile_step` of a program that is lowered already."""
    import jax

    mesh = jax.sharding.get_mesh()
    platform = mesh.devices.flat[0].platform
    own = platform != "cpu"
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # The executable of a large slice cannot always be printed (async fusions), but its dump can
        # be read. Fake devices never run the program: its machine code need not be good, and its
        # memory is the same.
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        options = {"tpu": dump, "gpu": gpu_options(mesh.size, deterministic)}.get(
            platform, {"xla_backend_optimization_level": 0}
        )
        try:
            if platform == "tpu":
                program = tpu_dump.compiled(lowered, options, pathlib.Path(folder))
            else:
                program = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            seconds = time.perf_counter() - begin
            text = str(error)
            return Compiled(seconds, own, temporaries=used(text), error=text.splitlines()[0])
        seconds = time.perf_counter() - begin
        if platform == "tpu":
            dumped = tpu_dump.read(pathlib.Path(folder))
            module = hlo.Module(dumped.text)
        else:
            module = hlo.Module(program.as_text())
    sent, remarks = collectives.sent(module, dict(mesh.shape))
    if program is None:
        remarks = [*remarks, tpu_dump.UNMADE]
        sizes = dumped.arguments, dumped.temporaries, 0
    else:
        memory = program.memory_analysis()
        sizes = (
            memory.argument_size_in_bytes,
            memory.temp_size_in_bytes,
            memory.generated_code_size_in_bytes,
        )
    return Compiled(seconds, own, *sizes, sent=sent, remarks=remarks, module=module)


def gpu_options(devices: int, deterministic: bool) -> dict[str, bool | int | str]:
    """The XLA flags that training sets on so many GPUs, as options of the compiler. Those of the
    user's own XLA_FLAGS are left out: they reach this compiler as they are."""
    options = {}
    flags = xla_flags.wanted("gpu", os.environ.get("XLA_FLAGS", ""))
    for flag in flags:
        name, value = flag.removeprefix("--").split("=", 1)
        if value in ("true", "false"):
            options[name] = value == "true"
        else:
            options[name] = int(value) if value.isdigit() else value
    return options | xla_flags.of_step(devices, deterministic, flags)


def used(error: str) -> float | None:
    """Bytes that XLA says it would need: of temporaries ("HLO temporaries (89.49G)"), or of all
    ("Used 31.2G of 15.7G hbm", "trying to allocate 12884901888 bytes"). None where it says nothing.
    """
    if found := re.search(r"temporaries \(([\d.]+)([KMGT])\)|[Uu]sed ([\d.]+)([KMGT]) of", error):
        number = found[1] or found[3]
        unit = found[2] or found[4]
        return float(number) * 2 ** (10 * " KMGT".index(unit))
    found = re.search(r"allocat\w+ (\d+) bytes", error)
    return float(found[1]) if found else None
