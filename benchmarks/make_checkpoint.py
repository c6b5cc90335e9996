"""A random checkpoint of a released size and layout, to time and to check conversions with:
bfloat16, written as it is drawn (no copy of the model in memory), without torch.

    python benchmarks/make_checkpoint.py --model=janus_1_3b --layout=deepseek --out=/tmp/random-1.3b
"""

import email
import pathlib
import zlib

import numpy as np
from absl import app, flags

from janus_jax.config.schema import Template
from janus_jax.data.processor import Processor
from janus_jax.data.tokenizer import Tokenizer, train
from janus_jax.model import presets
from janus_jax.model.config import JanusConfig
from janus_jax.weights import convert, processor_files, target
from janus_jax.weights import table as tb
from janus_jax.weights import tensors as ts
from janus_jax.weights.layouts import janus_hf, janus_torch

POOL = 16_777_213  # a prime, so that no matrix repeats row by row
PIECE = 1 << 24


def tokenizer(pro: bool, vocabulary: int) -> Tokenizer:
    """Learned from Python's own code; Janus-Pro has its roles as tokens."""
    code = [p.read_text("utf-8") for p in sorted(pathlib.Path(email.__file__).parent.rglob("*.py"))]
    learned = train(code, vocabulary)
    if pro:
        learned.backend.add_special_tokens(list(processor_files.PRO_ROLES))
    return Tokenizer(learned.backend)


def entry(name: str, shape: tuple[int, ...], pool: np.ndarray, seed: int) -> target.TensorToWrite:
    """Weights of about unit gain: norms near 1, biases near 0, the rest by their fan-in. A piece of
    the pool that begins somewhere of the name's and the seed's choosing."""
    gain = (
        0.02
        if len(shape) < 2 or name.endswith("embed_tokens.weight")
        else np.prod(shape[1:]) ** -0.5
    )
    centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
    begin = zlib.crc32(f"{seed} {name}".encode()) % POOL
    size = int(np.prod(shape))

    def pieces():
        for at in range(0, size, PIECE):
            where = (begin + at + np.arange(min(PIECE, size - at))) % POOL
            yield (centre + np.float32(gain) * pool[where]).astype(ts.BFLOAT16)

    return target.TensorToWrite(name, shape, ts.BFLOAT16, pieces)


def ignored(config: JanusConfig) -> dict[str, tuple[int, ...]]:
    """The original's tensors that Janus does not use: the tower's pooling head and the usage
    buffer."""
    w, f = config.understanding_encoder.width, config.understanding_encoder.mlp_width
    shapes = {
        "latent": (1, 1, w),
        "q": (w, w),
        "kv": (2 * w, w),
        "proj": (w, w),
        "mlp.fc1": (f, w),
        "mlp.fc2": (w, f),
    }
    out = {"gen_vision_model.quantize.codebook_used": (65536,)}
    for name, shape in [*shapes.items(), ("norm", (w,))]:
        key = f"vision_model.vision_tower.attn_pool.{name}"
        out |= (
            {key: shape} if name == "latent" else {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
        )
    return out


def make(
    config: JanusConfig,
    layout: str,
    directory,
    *,
    pro: bool,
    vocabulary: int = 8000,
    seed: int = 0,
):
    """Writes DIR: config.json, the weights (sharded above 5 GB), a tokenizer and the processor's
    files."""
    module = {janus_torch.KIND: janus_torch, janus_hf.KIND: janus_hf}[layout]
    shapes = {name: rows[0][0].shape for name, rows in tb.by_their_key(module.rows(config)).items()}
    if layout == janus_torch.KIND:
        shapes |= ignored(config)
    pool = np.random.default_rng(seed).standard_normal(POOL, np.float32)
    entries = [entry(name, shape, pool, seed) for name, shape in shapes.items()]
    counts = config.understanding_encoder.tokens, config.generation_encoder.tokens
    template = Template(*processor_files.PRO_ROLES) if pro else Template()
    processor = Processor(tokenizer(pro, vocabulary), template, *counts)
    with target.whole(directory, sum(e.size for e in entries)) as partial:
        convert.write_shards(partial, entries, lambda count: None)
        convert.write_their_files(partial, config, layout, processor, "bfloat16")


def main(_):
    f = flags.FLAGS
    make(getattr(presets, f.model)(), f.layout, f.out, pro="pro" in f.model, seed=f.seed)


if __name__ == "__main__":
    flags.DEFINE_enum(
        "model", "janus_1_3b", ("janus_1_3b", "janus_pro_1b", "janus_pro_7b"), "The sizes."
    )
    flags.DEFINE_enum(
        "layout", janus_torch.KIND, (janus_torch.KIND, janus_hf.KIND), "Whose layout."
    )
    flags.DEFINE_string("out", None, "The directory to write.", required=True)
    flags.DEFINE_integer("seed", 0, "Other numbers, the same shapes.")
    app.run(main)
