"""How fast a step could be at best: its floating-point work, its memory traffic and its link
traffic, each at the chip's peak."""

import dataclasses

from janus_jax.distributed.chips import Chip
from janus_jax.model import flops
from janus_jax.model.config import JanusConfig
from janus_jax.plan import collectives

ASSUMPTIONS = (
    "rows full, examples of the mean lengths below",
    "products at the bfloat16 peak, the VQ encoder's at that of true float32 (a sixth on TPUs, a "
    "fifteenth on H100; none where pictures come as image_ids); every picture slot is computed, "
    "filled or not",
    "memory in the bound is a floor of any program: arguments read once, donated results written "
    "once, kept activations written and read once, weights read in the compute type twice, or three "
    "times where recomputed; nothing else",
)  # of stages of rows
LINKS = "links at peak one way, all of a chip's links busy"


@dataclasses.dataclass(frozen=True)
class Bound:
    """Seconds of a step, at least. overlapped: the longest of the three; in_turn: their sum."""

    compute: float
    memory: float
    links: float

    @property
    def overlapped(self) -> float:
        return max(self.compute, self.memory, self.links)

    @property
    def in_turn(self) -> float:
        return self.compute + self.memory + self.links


def executed(
    stage, model: JanusConfig, work: flops.Work, chip: Chip, adapted: dict | None = None
) -> float:
    """FLOPs of a step with what is recomputed, with empty picture slots and with `longer`. The
    transformer's layers run forwards again under remat `full`, the tower's too, where it learns.

    stage: the stage.
    model: its model.
    work: what a step is expected to hold.
    chip: what runs it.
    adapted: as of `flops.count`.
    """
    rows = stage.rows
    images = 0.0  # where they come as ids
    if work.generation_images:
        images = float(rows.count * rows.generation_images)
    slots = dataclasses.replace(
        work,
        understanding_images=float(rows.count * rows.understanding_images),
        generation_images=images,
        senses=dict.fromkeys(work.senses, float(rows.count * rows.understanding_images)),
    )
    forward = flops.count(model, (), slots)
    again = 0.0
    if model.remat == "full":
        again += forward["transformer"] + forward["attention"]
        if "understanding_encoder" in {*stage.trainable, *(adapted or ())}:
            again += forward["understanding_encoder"]
    parts = flops.count(model, stage.trainable, slots, adapted) | {"again": again}
    return sum(parts.values()) + longer(chip, model, parts)


def longer(chip: Chip, model: JanusConfig, parts: dict[str, float]) -> float:
    """FLOPs at a chip's bfloat16 peak that would take the time by which products in true float32
    are slower; parts: the FLOPs of the model's boxes."""
    exact = sum(parts.values()) if model.dtype == "float32" else parts["generation_encoder"]
    return exact * (chip.flops / chip.float32 - 1)


def memory_traffic(now, model: JanusConfig, parameters: float) -> float:
    """Bytes that a chip's memory moves at least.

    now: the `memory.Bytes` of the step.
    model: its model.
    parameters: how many a tensor shard has.
    """
    width = 4 if model.dtype == "float32" else 2
    reads = 3 if model.remat == "full" else 2
    written = now.trainable + now.moments + now.average
    return now.arguments + written + 2 * now.activations + reads * width * parameters


def bound(chip: Chip, work: float, traffic: float, sent: list[collectives.Collective]) -> Bound:
    """The bound of a step.

    chip: what runs it.
    work: FLOPs of one chip.
    traffic: bytes of its memory.
    sent: its collectives.
    """
    links = sum(collectives.seconds(c, chip) for c in sent)
    return Bound(work / chip.flops, traffic / chip.bandwidth, links)


def speeds(
    stage, chip: Chip, count: int, model_flops: float, work: flops.Work, seconds: float
) -> dict:
    """What a step time means: MFU (model FLOPs, causal), tokens/s, images/s (read and drawn), days
    of the stage.

    stage: the stage.
    chip: what runs it.
    count: how many chips.
    model_flops: of a step, on all chips.
    work: what a step is expected to hold.
    seconds: of a step.
    """
    return {
        "seconds": seconds,
        "mfu": model_flops / seconds / (count * chip.flops),
        "tokens_per_s": work.tokens / seconds,
        "tokens_per_s_and_chip": work.tokens / seconds / count,
        "images_per_s": (work.understanding_images + work.generation_images) / seconds,
        "days": stage.steps * seconds / 86400,
    }
