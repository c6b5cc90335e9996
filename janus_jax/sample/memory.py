"""What a command will need, told before minutes of loading: sizes, device, dtype, memory."""

import pathlib
import sys

import jax
import numpy as np

from janus_jax import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.model.janus import abstract
from janus_jax.model.layers import parameter_count


def needs(config: JanusConfig, dtype, rows: int, length: int, pictures: int, drawings: int) -> dict[str, int]:
    """Bytes by kind: weights, cache, temporaries.

    rows of `length` tokens in all, prompt and answer; pictures: to understand, together; drawings: decoded
    together. Weights are float32 unless `dtype` says otherwise, the VQ tokenizer always. The cache holds a key
    and a value of the compute dtype for each layer and token. Temporaries are the largest of: float32 attention
    scores and their softmax over the prompts or over a picture's tokens, and three of the VQ decoder's widest
    maps.
    """
    sh.ensure_mesh()
    model, llm = abstract(config), config.transformer
    tower, vq = config.understanding_encoder, config.generation_encoder
    tokenizer = parameter_count(model.generation_encoder)
    size = np.dtype(dtype or "float32").itemsize
    weights = 4 * tokenizer + size * (parameter_count(model) - tokenizer)
    if dtype is None and config.dtype != "float32":
        weights += 2 * (parameter_count(model) - tokenizer)  # the compute copy
    number = np.dtype(dtype or config.dtype).itemsize
    cache = 2 * llm.layers * rows * length * llm.width * number
    widest = max(m * vq.image_size**2 // 4**i for i, m in enumerate(vq.multipliers))
    temporaries = max(
        2 * 4 * rows * llm.heads * length**2,
        2 * 4 * pictures * tower.heads * tower.tokens**2,
        3 * 4 * drawings * widest * vq.channels,
    )
    return {"weights": weights, "cache": cache, "temporaries": temporaries}


def free(device) -> int | None:
    """Bytes that the device, or the machine for a CPU, still has; None where neither says."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def announce(path, config, dtype, *, rows: int, length: int, pictures: int, drawings: int, out=None):
    """Says on stderr what is loaded, where and in what dtype, and the memory that it takes.

    Raises ValueError when the weights and the cache alone exceed what is free; warns when the sum does.
    """
    out, device = out or sys.stderr, jax.devices()[0]
    if dtype not in (None, "float32", "bfloat16"):
        raise ValueError(f"dtype is {dtype!r}: must be float32 or bfloat16")
    need, have = needs(config, dtype, rows, length, pictures, drawings), free(device)
    llm, count = config.transformer, parameter_count(abstract(config))
    kept = dtype or "float32"
    print(
        f"loading {path}: {count:,} parameters, {llm.layers} layers of width {llm.width}\n"
        f"on {device.platform} ({device.device_kind}), weights in {kept}, computing in {dtype or config.dtype}\n"
        f"memory: {', '.join(f'{name} {shown(n)}' for name, n in need.items())}: about "
        f"{shown(sum(need.values()))}, {'unknown' if have is None else shown(have)} free",
        file=out, flush=True,
    )  # fmt: skip
    if have is None or sum(need.values()) <= have:
        return
    remedy = "fewer pictures at once, a shorter prompt, or --dtype=bfloat16"
    if need["weights"] + need["cache"] > have:
        raise ValueError(
            f"memory: weights and cache take {shown(need['weights'] + need['cache'])}, {shown(have)} are free "
            f"on {device.platform}; use {remedy}, or a larger machine"
        )
    print(f"WARNING: that may not fit; if it fails use {remedy}", file=out, flush=True)


def shown(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
