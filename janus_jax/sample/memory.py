"""What a command will need, told before minutes of loading: sizes, device, dtype, memory."""

import pathlib
import sys

import jax
import numpy as np

from janus_jax import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.model.janus import abstract
from janus_jax.model.layers import parameter_count


def needs(
    config: JanusConfig, dtype, platform: str, *, rows: int, length: int, pictures: int, drawings: int
) -> dict[str, int]:
    """Bytes by kind: weights, cache, temporaries.

    rows of `length` tokens in all, prompt and answer; pictures: to understand, together; drawings: decoded
    together. Weights are float32 unless `dtype` says otherwise, the VQ tokenizer always. The cache holds a key
    and a value of the compute dtype for each layer and token. Temporaries are a second cache, as one step's
    becomes the next's, and the largest of: float32 attention scores and their softmax over the prompts or over
    a picture's tokens, and three of the VQ decoder's widest maps. For Janus-1.3B on a CPU the sum is within 8 %
    of what XLA says of the compiled loops, in each dtype.
    """
    sh.ensure_mesh()
    model, llm = abstract(config), config.transformer
    tower, vq = config.understanding_encoder, config.generation_encoder
    tokenizer, size = parameter_count(model.generation_encoder), np.dtype(dtype or "float32").itemsize
    number = np.dtype(dtype or config.dtype).itemsize
    cache = 2 * llm.layers * rows * length * llm.width * number
    widest = max(m * vq.image_size**2 // 4**i for i, m in enumerate(vq.multipliers))
    temporaries = max(
        2 * 4 * rows * llm.heads * length**2,
        2 * 4 * pictures * tower.heads * tower.tokens**2,
        3 * 4 * drawings * widest * vq.channels,
    )
    return {
        "weights": 4 * tokenizer + size * (parameter_count(model) - tokenizer),
        "cache": cache,
        "temporaries": cache + temporaries + _upcast(model, dtype, platform, pictures > 0),
    }


def _upcast(model, dtype, platform: str, answers: bool) -> int:
    """XLA's CPU backend multiplies bfloat16 in float32, and keeps copies of what it multiplies with again and
    again: all layers where weights are bfloat16, else the text head, which is cast whole."""
    if platform != "cpu" or "bfloat16" not in (dtype, model.config.dtype) or dtype == "float32":
        return 0
    head, layers = parameter_count(model.text_head), parameter_count(model.transformer)
    if dtype is None:
        return 6 * head * answers
    return 4 * (layers + answers * (head + parameter_count(model.understanding_encoder)))


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
    have = free(device)
    need = needs(
        config, dtype, device.platform, rows=rows, length=length, pictures=pictures, drawings=drawings
    )
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
    smaller = "" if dtype == "bfloat16" or device.platform == "cpu" else ", --dtype=bfloat16"
    remedy = f"fewer pictures at once, a shorter prompt{smaller}"
    if need["weights"] + need["cache"] > have:
        raise ValueError(
            f"memory: weights and cache take {shown(need['weights'] + need['cache'])}, {shown(have)} are free "
            f"on {device.platform}; use {remedy} or a larger machine"
        )
    print(f"WARNING: that may not fit; if it fails use {remedy}", file=out, flush=True)


def shown(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
