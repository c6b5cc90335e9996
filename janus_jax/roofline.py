"""How fast a step could be at best: its floating-point work, memory traffic and link traffic at the chip's peaks."""

import dataclasses

from janus_jax import collectives, flops
from janus_jax.chips import Chip
from janus_jax.model.config import JanusConfig

ASSUMPTIONS = (
    "rows full, examples of the mean lengths below",
    "all products at the bfloat16 peak, the VQ encoder's float32 too; every picture slot is computed, filled or not",
    "memory: arguments read once, donated results written once, kept activations written and read once, weights read "
    "in the compute type twice, or three times where recomputed; nothing else",
    "links at peak one way, all of a chip's links busy",
)


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


def executed(stage, model: JanusConfig, work: flops.Work) -> float:
    """FLOPs of a step, recomputation and empty picture slots included: the transformer's layers (and the tower's,
    where it learns) run forwards again under remat `full`, their attention alone under `dots`."""
    rows = stage.rows
    images = float(rows.count * rows.images) if work.images else 0.0  # none where they come as ids
    slots = dataclasses.replace(work, pictures=float(rows.count * rows.pictures), images=images)
    forward = flops.count(model, (), slots)
    again = {
        "full": forward["transformer"] + forward["attention"],
        "dots": forward["attention"],
        "none": 0.0,
    }.get(model.remat, 0.0)
    if model.remat == "full" and "understanding_encoder" in stage.trainable:
        again += forward["understanding_encoder"]
    return sum(flops.count(model, stage.trainable, slots).values()) + again


def memory_traffic(now, model: JanusConfig, parameters: float) -> float:
    """Bytes that a chip's memory moves at least; `now` a `budget.Bytes`, parameters those of a tensor shard."""
    width = 4 if model.dtype == "float32" else 2
    reads = 3 if model.remat == "full" else 2
    written = now.trainable + now.moments
    return now.arguments + written + 2 * now.activations + reads * width * parameters


def bound(chip: Chip, work: float, traffic: float, sent: list[collectives.Collective]) -> Bound:
    """From FLOPs and bytes of one chip and its collectives."""
    links = sum(collectives.seconds(c, chip) for c in sent)
    return Bound(work / chip.flops, traffic / chip.bandwidth, links)


def speeds(stage, chip: Chip, count: int, model_flops: float, work: flops.Work, seconds: float) -> dict:
    """What a step time means: MFU (model FLOPs, causal), tokens/s, images/s (read and drawn), days of the stage."""
    return {
        "seconds": seconds,
        "mfu": model_flops / seconds / (count * chip.flops),
        "tokens_per_s": work.tokens / seconds,
        "tokens_per_s_and_chip": work.tokens / seconds / count,
        "images_per_s": (work.pictures + work.images) / seconds,
        "days": stage.steps * seconds / 86400,
    }
