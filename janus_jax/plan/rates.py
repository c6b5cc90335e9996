"""What well-made kernels reach of a chip's peaks. All are estimates; nothing was measured with them
yet, and of a sum of many we expect it to be within about 20 %."""

import dataclasses
import math

from janus_jax.distributed.chips import Chip
from janus_jax.plan import products
from janus_jax.plan.gpus import GPUS

GRAPH_LEAST = 1.5e-6  # seconds of the smallest kernel of a CUDA graph
GRAPH_GAP = 1.0e-6  # and between two


@dataclasses.dataclass(frozen=True)
class Achieved:
    """Shares of peaks, and what a kernel costs beside them.

    products, rounded: products of bfloat16, and of float32 that is rounded as it is multiplied, of
        the bfloat16 peak.
    attention, backward: attention kernels, of the bfloat16 peak.
    memory, link, network: of the chip's bandwidths.
    launch: seconds a kernel.
    """

    products: float
    rounded: float
    attention: float
    backward: float
    memory: float
    link: float
    network: float
    launch: float


_AMPERE = Achieved(0.80, 0.40, 0.42, 0.25, 0.90, 0.77, 0.84, 2e-6)
_HOPPER = Achieved(0.71, 0.33, 0.30, 0.18, 0.90, 0.73, 0.84, 2e-6)
_TPU = Achieved(0.85, 0.85, 0.50, 0.50, 0.90, 0.80, 0.80, 0.0)
_CPU = Achieved(0.80, 0.80, 0.50, 0.50, 0.80, 1.0, 1.0, 0.0)


def achieved(chip: Chip) -> Achieved:
    if chip.name == "cpu":
        return _CPU
    if chip.name not in GPUS:
        return _TPU
    return _AMPERE if chip.name.startswith("a100") else _HOPPER


def links(chip: Chip) -> Chip:
    """The chip with links and network as fast as they are in use."""
    rates = achieved(chip)
    return dataclasses.replace(
        chip, link=chip.link * rates.link, network=chip.network * rates.network
    )


def kernel_seconds(chip: Chip, work: list[products.Product], traffic: float) -> float:
    """Of a kernel: its products or its bytes of memory, whichever take longer, and its launch."""
    rates = achieved(chip)
    return (
        max(
            sum(p.flops / _speed(chip, rates, p) for p in work),
            traffic / (chip.bandwidth * rates.memory),
        )
        + rates.launch
    )


def graph_seconds(chip: Chip, work: list[products.Product], traffic: float) -> float:
    """Of a kernel in a CUDA graph, whose kernels follow each other without the host."""
    if chip.name not in GPUS:
        return kernel_seconds(chip, work, traffic)
    alone = kernel_seconds(chip, work, traffic) - achieved(chip).launch
    return max(alone, GRAPH_LEAST) + GRAPH_GAP


def _speed(chip: Chip, rates: Achieved, product: products.Product) -> float:
    """FLOP/s. A GPU's cores compute tiles in waves, of which the last may be part empty."""
    if product.kind == products.FLOAT32:
        return chip.float32
    share = {
        products.BFLOAT16: rates.products,
        products.ROUNDED: rates.rounded,
        products.INT8: 2 * rates.products,
        products.ATTENTION: rates.attention,
        products.ATTENTION_BACKWARD: rates.backward,
    }[product.kind]
    if chip.name in GPUS and product.tiles:
        cores = GPUS[chip.name].cores
        share *= product.tiles / (math.ceil(product.tiles / cores) * cores)
    return chip.flops * share


def in_words(chip: Chip) -> str:
    """The rates in words."""
    r = achieved(chip)
    tera = lambda share: f"{share * chip.flops / 1e12:.3g}"
    launch = f", {1e6 * r.launch:.0f} us a kernel" if r.launch else ""
    return (
        f"estimate from the program (+-20 %; no chip was measured): {chip.name} reaches "
        f"{tera(r.products)} TFLOP/s in bfloat16 products, {tera(r.rounded)} in rounded and "
        f"{chip.float32 / 1e12:.3g} in true float32, {tera(r.attention)} and {tera(r.backward)} in "
        f"attention forwards and backwards, {chip.bandwidth * r.memory / 1e9:,.0f} GB/s of memory, "
        f"{chip.link * r.link / 1e9:.0f} of links and {chip.network * r.network / 1e9:.0f} "
        f"between nodes{launch}"
    )
