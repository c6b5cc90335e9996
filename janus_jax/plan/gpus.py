"""What XLA's GPU compiler has to know of NVIDIA's cards that are not there."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What XLA's GPU compiler asks of a card.

    Sources: openxla/xla, xla/backends/gpu/target_config/specs/{a100_sxm_40, a100_sxm_80, h100_sxm,
    h200}.txtpb, NVIDIA's data sheet for the A100's NVLinks, and its Ada white paper for the RTX cards.

    kind: the card's name, as its driver tells it.
    capability: CUDA's, as text of XLA's CudaComputeCapabilityProto.
    cores: streaming multiprocessors.
    units: floating-point units of a core.
    clock: GHz.
    memory: bytes.
    bandwidth: of the memory, bytes/s.
    cache: the L2 cache, bytes.
    shared: shared memory of a core, bytes.
    links: NVLinks.
    """

    kind: str
    capability: str
    cores: int
    units: int
    clock: float
    memory: int
    bandwidth: int
    cache: int
    shared: int
    links: int


AMPERE = dict(
    capability="major: 8 minor: 0",
    cores=108,
    units=64,
    clock=1.41,
    cache=40 << 20,
    shared=164 << 10,
    links=12,
)
HOPPER = dict(
    capability="major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES",
    cores=132,
    units=128,
    clock=1.98,
    cache=50 << 20,
    shared=228 << 10,
    links=18,
)
ADA = dict(
    capability="major: 8 minor: 9",
    units=128,
    shared=100 << 10,
    links=0,
)
GPUS = {
    "a100-40gb": Gpu(
        "NVIDIA A100-SXM4-40GB", memory=42331013120, bandwidth=1555200000000, **AMPERE
    ),
    "a100-80gb": Gpu(
        "NVIDIA A100-SXM4-80GB", memory=85100068864, bandwidth=2039040000000, **AMPERE
    ),
    "h100": Gpu("NVIDIA H100 80GB HBM3", memory=84942979072, bandwidth=3352320000000, **HOPPER),
    "h200": Gpu("NVIDIA H200", memory=151397597184, bandwidth=4800000000000, **HOPPER),
    "rtx4090": Gpu(
        "NVIDIA GeForce RTX 4090",
        cores=128,
        clock=2.52,
        memory=24564 << 20,
        bandwidth=1008000000000,
        cache=72 << 20,
        **ADA,
    ),
    "rtx4070": Gpu(
        "NVIDIA GeForce RTX 4070",
        cores=46,
        clock=2.475,
        memory=12282 << 20,
        bandwidth=504000000000,
        cache=36 << 20,
        **ADA,
    ),
}
