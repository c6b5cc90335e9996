"""What a command will need, told before minutes of loading: sizes, device, dtype, memory."""

import dataclasses
import math
import pathlib
import sys

import jax
import numpy as np

from janus_jax.common.text import size
from janus_jax.model.config import JanusConfig
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import cache_dtype
from janus_jax.sample.programs import READ
from janus_jax.weights.load import compute_type
from janus_jax.weights.reader import WeightReader

DTYPES = (None, "float32", "bfloat16", "int8")


@dataclasses.dataclass
class Plan:
    """What a command is about to do. config: the model's sizes; weights: bytes kept; dtypes: of the
    weights and of the computation. Each of `rows` holds `text` tokens, prompt and answer, the
    `pictures` to understand, and a drawing if any; `drawings` are decoded together; `kept` places
    hold prompts that were read."""

    config: JanusConfig
    weights: int
    dtypes: tuple[str, str]
    rows: int
    text: int
    pictures: int
    drawings: int
    kept: int = 0

    @classmethod
    def of(cls, source: WeightReader, dtype: str | None, **work) -> "Plan":
        """Of a whole model's `source` as `weights.load` will keep it. Raises ValueError for a
        part."""
        if source.config is None:
            raise ValueError(f"{source.path}: no whole model but parts of one; give a whole one")
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}: must be one of {', '.join(DTYPES[1:])}")
        kept = dtype or source.config.dtype
        weights = sum(
            math.prod(shape) * _width(name, kept) for name, (shape, _) in source.leaves.items()
        )
        with own_jax():
            compute = compute_type(dtype) if dtype else source.config.dtype
        return cls(source.config, weights, (kept, compute), **work)

    def needs(self) -> dict[str, int]:
        """Bytes by kind. The cache holds a key and a value for each layer and token, of all rows and
        of two prompts that are read. Temporaries are a second copy of one layer's, since a cache grows
        layer by layer, and the largest of: float32 attention scores and their softmax over a stretch
        of a prompt or over a picture's tokens, and three of the VQ decoder's widest maps."""
        llm, tower, vq = (
            self.config.transformer, self.config.understanding_encoder, self.config.generation_encoder
        )  # fmt: skip
        prompt = self.text + self.pictures * (tower.pieces * tower.tokens + 2)
        length = prompt + vq.most_tokens * (self.drawings > 0)
        places = self.rows * length + 2 * prompt + self.kept
        with own_jax():
            number = cache_dtype(np.dtype(self.dtypes[1])).itemsize
        cache = 2 * llm.layers * places * llm.width * number
        if self.config.generation == "semantic":  # which keeps what it has drawn
            semantic = self.config.semantic_decoder
            cache += 2 * semantic.layers * self.rows * vq.tokens * semantic.width * number
        pixels = max(width * height for width, height in vq.all_sizes)
        widest = max(m * pixels // 4**i for i, m in enumerate(vq.multipliers))
        temporaries = cache // llm.layers + max(
            2 * 4 * llm.heads * max(min(length, READ[1]), self.rows) * length,
            2 * 4 * self.pictures * tower.heads * tower.patches**2,
            3 * 4 * self.drawings * widest * vq.channels,
        )
        return {"weights": self.weights, "cache": cache, "temporaries": temporaries}


def _width(name: str, kept: str) -> int:
    """Bytes a number of the leaf `name` takes. int8 is for the transformer's and the heads'
    matrices only."""
    if name.startswith("generation_encoder."):
        return 4
    if kept == "int8" and name.startswith(("transformer.", "text_head.", "image_head.")):
        return 1 if name.endswith("kernel") else 2
    return {"int8": 2, "bfloat16": 2}.get(kept, 4)


def free(device) -> int | None:
    """Bytes that the device, or the machine for a CPU, still has; None where neither says."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    fields = dict(line.split(":") for line in meminfo.read_text("utf-8").splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def announce(path, source: WeightReader, dtype, out=None, **work):
    """Says on stderr what is loaded, where and in what dtype, and the memory that it takes; see
    `Plan`.

    Raises ValueError when the weights and the cache alone exceed what is free; warns when the sum
    does.
    """
    out = out or sys.stderr
    device = jax.devices()[0]
    plan = Plan.of(source, dtype, **work)
    need = plan.needs()
    have = free(device)
    llm = plan.config.transformer
    count = sum(math.prod(shape) for shape, _ in source.leaves.values())
    print(
        f"loading {path}: {count:,} parameters, {llm.layers} layers of width {llm.width}\n"
        f"on {device.platform} ({device.device_kind}), weights in {plan.dtypes[0]}, computing in "
        f"{plan.dtypes[1]}\n"
        f"memory: {', '.join(f'{name} {size(n)}' for name, n in need.items())}: about "
        f"{size(sum(need.values()))}, {'unknown' if have is None else size(have)} free",
        file=out, flush=True,
    )  # fmt: skip
    if have is None or sum(need.values()) <= have:
        return
    remedy = "fewer pictures at once, a shorter prompt, or a smaller --dtype (bfloat16, int8)"
    if need["weights"] + need["cache"] > have:
        raise ValueError(
            f"memory: weights and cache take {size(need['weights'] + need['cache'])}, {size(have)} "
            f"are free on {device.platform}; use {remedy} or a larger machine"
        )
    print(f"WARNING: that may not fit; if it fails use {remedy}", file=out, flush=True)
