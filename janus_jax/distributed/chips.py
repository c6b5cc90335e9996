"""What is published of the chips that we plan for, and topologies such as `v5p:4x4x8` or `h100:64`.

Sources. TPU: Google's pages cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; interconnect one way, half
of "bidirectional"; the network between slices as given a chip or a pod (v4: not given, v5p's
assumed); usable memory as the TPU compiler reports it ("available HBM", libtpu 0.0.52). NVIDIA: the
data sheets of A100, H100 SXM and H200 SXM, dense bf16, NVLink one way, and one 200 (A100) or 400
Gb/s (H100, H200) network port a GPU, as in DGX systems; usable memory is 92 % of the capacity that
nvidia-smi shows, since the driver and NCCL hold the rest. Products of float32: a TPU computes one in
six passes of bfloat16; NVIDIA's cards without their tensor cores ("FP32" of the data sheets). RTX
4090 and 4070: NVIDIA's Ada white paper, 512 bf16 FLOPs (float32 sums) of a core and clock; PCIe 4.0
x16, and a network port of 25 Gb/s assumed.
"""

import dataclasses
import difflib
import math
import os
import re

GIB = 2**30
GPU_SHARE = 0.92


@dataclasses.dataclass(frozen=True)
class Chip:
    """flops: peak bf16 FLOP/s; float32: peak FLOP/s of products in true float32; memory: usable
    bytes; bandwidth: of the memory, bytes/s; link, network: bytes/s into a chip from its node (TPU:
    its slice) and from other nodes; node: chips of a node."""

    name: str
    flops: float
    float32: float
    memory: float
    bandwidth: float
    link: float
    network: float
    node: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 275e12 / 6, 30.75 * GIB, 1228e9, 300e9, 6.25e9, 4096),
        Chip("v5e", 197e12, 197e12 / 6, 15.75 * GIB, 819e9, 200e9, 3.1e9, 256),
        Chip("v5p", 459e12, 459e12 / 6, 95.73 * GIB, 2765e9, 600e9, 6.25e9, 8960),
        Chip("v6e", 918e12, 918e12 / 6, 31.24 * GIB, 1640e9, 400e9, 12.5e9, 256),
        Chip("a100-40gb", 312e12, 19.5e12, GPU_SHARE * 40 * GIB, 1555e9, 300e9, 25e9, 8),
        Chip("a100-80gb", 312e12, 19.5e12, GPU_SHARE * 80 * GIB, 2039e9, 300e9, 25e9, 8),
        Chip("h100", 989e12, 67e12, GPU_SHARE * 79.6 * GIB, 3350e9, 450e9, 50e9, 8),
        Chip("h200", 989e12, 67e12, GPU_SHARE * 140.4 * GIB, 4800e9, 450e9, 50e9, 8),
        Chip("rtx4090", 165e12, 82.6e12, GPU_SHARE * 23.99 * GIB, 1008e9, 31.5e9, 3.1e9, 8),
        Chip("rtx4070", 58.3e12, 29.1e12, GPU_SHARE * 11.99 * GIB, 504e9, 31.5e9, 3.1e9, 8),
        # Two cores of a 2023 server, measured: float32 matrix products and reading. All fake
        # devices share it.
        Chip("cpu", 169e9, 169e9, 0.0, 27e9, 27e9, 27e9, 1024),
    )
}
TORUS = {"v4": 3, "v5p": 3, "v5e": 2, "v6e": 2}  # how many sizes a slice of each TPU is named by

_KINDS = (  # what jax calls a device; only parts with the peak above
    (r"TPU v4$", "v4"),
    (r"TPU v5( lite|e)$", "v5e"),
    (r"TPU v5p?$", "v5p"),
    (r"TPU v6( lite|e)$", "v6e"),
    (r"NVIDIA A100.*40GB", "a100-40gb"),
    (r"NVIDIA A100.*80GB", "a100-80gb"),
    (r"NVIDIA H100 80GB HBM3", "h100"),
    (r"NVIDIA H200$", "h200"),
    (r"NVIDIA GeForce RTX 4090$", "rtx4090"),
    (r"NVIDIA GeForce RTX 4070$", "rtx4070"),
)


def parse_topology(text: str) -> tuple[Chip, int]:
    """(chip, how many) of `v5p:4x4x8`, `h100:64` or `cpu:8`. Raises ValueError that says what to
    write.

    Fake CPU devices share one machine: each gets its part of the memory, speed and bandwidth.
    """
    name, _, shape = text.partition(":")
    wrong = f"topology {text!r}:"
    if name not in CHIPS:
        close = difflib.get_close_matches(name.lower(), CHIPS, 1, 0.5)
        found = [known for known in CHIPS if name and known.startswith(name.lower())] or close
        meant = f"did you mean {' or '.join(found)}?" if found else f"known: {', '.join(CHIPS)}"
        raise ValueError(f"{wrong} there is no chip {name!r}; {meant}")
    sizes = [int(n) for n in shape.split("x")] if re.fullmatch(r"\d+(x\d+)*", shape) else []
    axes = TORUS.get(name, 1)
    if len(sizes) != axes or min(sizes) < 1:
        slices = {3: "4x4x8", 2: "16x16", 1: "8"}
        what = (
            f"a slice of {name} is {axes} sizes" if axes > 1 else f"{name} takes a number of chips"
        )
        raise ValueError(
            f"{wrong} {shape or 'nothing'!r} does not say how many; {what}: {name}:{slices[axes]}"
        )
    chip = CHIPS[name]
    count = math.prod(sizes)
    if name == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        chip = dataclasses.replace(chip, memory=memory)
        shared = ("flops", "float32", "memory", "bandwidth", "link")
        chip = dataclasses.replace(chip, **{key: getattr(chip, key) / count for key in shared})
    return chip, count


def of_device(device) -> Chip | None:
    """The chip that a jax device is, or None where its peak is not known (CPUs, other GPUs)."""
    return next((CHIPS[name] for kind, name in _KINDS if re.match(kind, device.device_kind)), None)
