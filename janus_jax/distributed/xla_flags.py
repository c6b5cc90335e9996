"""`python -m janus_jax.distributed.xla_flags gpu`: the XLA flags with which training overlaps its
collectives with its compute.

main sets them before JAX starts a backend, on the platform that they are for. What the user has set
in XLA_FLAGS or LIBTPU_INIT_ARGS stays as it is. A flag that XLA does not know ends the process at
its start, so those that the installed version does not know are left out, and named.

Sources: GPU, NVIDIA's JAX-Toolbox "Tips for High-Performance LLMs with JAX and XLA" and MaxText's
A3 script; TPU, MaxText's benchmarks/xla_flags_library.py. Meant for training: decoding wants its
command buffers (CUDA graphs).
"""

import glob
import importlib.util
import mmap
import os
import pathlib
import re
import subprocess
import sys

LAYER = (
    128 << 20
)  # bytes; a layer of the 1.3B model has 103 MB in bfloat16, so one collective moves a layer

FLAGS = {  # platform -> flag -> (value, why)
    "gpu": {
        "xla_gpu_enable_latency_hiding_scheduler": (
            "true",
            "collectives start early, compute runs meanwhile",
        ),
        "xla_gpu_enable_pipelined_all_gather": (
            "true",
            "a layer's weights come while the one before computes",
        ),
        "xla_gpu_enable_pipelined_reduce_scatter": (
            "true",
            "gradients leave while the next layer computes",
        ),
        "xla_gpu_enable_pipelined_all_reduce": ("true", "the same for gradients between replicas"),
        "xla_gpu_enable_while_loop_double_buffering": (
            "true",
            "the scan over layers needs no copies for it",
        ),
        "xla_gpu_all_gather_combine_threshold_bytes": (
            str(LAYER),
            "one all-gather a layer, not one a matrix",
        ),
        "xla_gpu_all_reduce_combine_threshold_bytes": (str(LAYER), "the same for all-reduce"),
        "xla_gpu_reduce_scatter_combine_threshold_bytes": (
            str(LAYER // 2),
            "half: the results are kept longer",
        ),
        "xla_gpu_enable_triton_gemm": (
            "false",
            "cuBLAS is faster at these sizes and needs no autotuning",
        ),
        "xla_gpu_enable_command_buffer": (
            "",
            "CUDA graphs around collectives stop the overlap; a step is long",
        ),
        "xla_disable_hlo_passes": (
            "rematerialization",
            "what is recomputed is model.remat's choice",
        ),
    },
    # none of the all-gather fusions: libtpu refuses them on all but v5e, and chooses them there
    # itself
    "tpu": {
        "xla_tpu_use_minor_sharding_for_major_trivial_input": (
            "true",
            "a layout that reduce-scatter can use",
        ),
        "xla_tpu_relayout_group_size_threshold_for_reduce_scatter": (
            "1",
            "all-reduce and slice become one",
        ),
        "xla_tpu_assign_all_reduce_scatter_layout": (
            "true",
            "the layout of the two above, chosen early",
        ),
        "xla_tpu_enable_data_parallel_all_reduce_opt": (
            "true",
            "gradients between slices cross in the step",
        ),
        "xla_tpu_data_parallel_opt_different_sized_ops": ("true", "also where they differ in size"),
    },
}
VARIABLE = {"gpu": "XLA_FLAGS", "tpu": "LIBTPU_INIT_ARGS"}
ADDED = []  # "--name=value" of all that `apply` has set in this process


def wanted(platform: str, already: str = "") -> list[str]:
    """ "--name=value" for each flag of a platform, those that `already` (a variable's text) sets
    left out."""
    names = set(re.findall(r"--(?:no)?(\w+)", already))
    return [
        f"--{name}={value}" for name, (value, _) in FLAGS[platform].items() if name not in names
    ]


def of_step(devices: int, deterministic: bool, added: list[str]) -> dict[str, bool]:
    """What a step on GPUs is compiled with besides: XLA's flags, without "--".

    devices: of the mesh. One has no collectives to overlap, and the flags for them would triple its
        program.
    deterministic: additions in one order, and no kernel chosen by its time.
    added: of the flags in force, those that are ours.
    """
    options = {}
    if devices == 1:
        options = {flag[2:].removesuffix("=true"): False for flag in added if "=true" in flag}
    if deterministic:
        options["xla_gpu_deterministic_ops"] = True
    return options


def here() -> str | None:
    """The accelerator of this machine, "gpu" or "tpu", found without starting it; None for
    neither."""
    allowed = os.environ.get("JAX_PLATFORMS", "").replace("cuda", "gpu").split(",")
    if allowed != [""] and not {"gpu", "tpu"} & set(allowed):
        return None
    if glob.glob("/dev/nvidia[0-9]*") and importlib.util.find_spec("jax_plugins"):
        return "gpu"
    chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return "tpu" if chips and importlib.util.find_spec("libtpu") else None


def known(platform: str, flags: list[str]) -> list[str]:
    """Those of the flags that the installed XLA knows. On GPU a process of its own tries them, on
    the CPU; libtpu cannot be asked without taking the chips, so its file is searched for the
    names."""
    if platform == "gpu":
        refused = _refused(flags)
        return [flag for flag in flags if flag not in refused]
    directory = importlib.util.find_spec("libtpu").submodule_search_locations[0]
    library = pathlib.Path(directory) / "libtpu.so"
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return [flag for flag in flags if text.find(flag[2:].partition("=")[0].encode()) >= 0]


def _refused(flags: list[str]) -> list[str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
    program = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(
        program,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return []
    unknown = re.search(r"Unknown flags? in XLA_FLAGS: (.*)", done.stderr)
    return unknown[1].split() if unknown else flags


def apply():
    """Adds the flags for this machine's accelerator to the environment; to be called before JAX
    starts it."""
    platform = here()
    if platform is None:
        return
    already = os.environ.get(VARIABLE[platform], "")
    flags = wanted(platform, already)
    good = known(platform, flags)
    if len(good) < len(flags):
        dropped = ", ".join(flag for flag in flags if flag not in good)
        print(
            f"janus_jax: the installed XLA does not know {dropped}; training goes on without",
            flush=True,
        )
    ADDED.extend(good)
    os.environ[VARIABLE[platform]] = " ".join([*already.split(), *good])
    # JAX would leave a quarter of the card unused; it refuses to be told by both of its names.
    if platform == "gpu" and "XLA_CLIENT_MEM_FRACTION" not in os.environ:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")


def main(argv: list[str]) -> int:
    if argv[1:] not in (["gpu"], ["tpu"]):
        print("usage: python -m janus_jax.distributed.xla_flags gpu|tpu", file=sys.stderr)
        return 2
    print(" ".join(wanted(argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
