"""What both sides of train_step.py start from, in numpy: the model's sizes, packed rows, weights.

Lengths are the paper's world scaled: an example of understanding is a picture and 110 tokens, of
generation a picture and 40, a text 1000 (`flops.py` says where these come from), all times the
picture's tokens over 576.
"""

import dataclasses

import numpy as np

from janus_jax.data.packing import assemble
from janus_jax.model import batch as bt
from janus_jax.model import config as sizes
from janus_jax.model import flops, presets

SPREAD = 0.5  # of the logarithm of a text's length
EXAMPLES = 5  # texts of a row, of the language model alone
LLM = ("text_embedding", "transformer", "text_head")
HEAD_SIZE = 128
# The peer's variants that compute our loss, and those that do not (train_theirs.py).
HONEST = ("mask, all logits", "mask", "mask, compiled", "varlen", "varlen, compiled")
LEAKS = ("causal", "causal, compiled")


def cpu_config() -> sizes.JanusConfig:
    """A Janus that two cores train: rows of 1024, pictures of 144 tokens are to it what 4096 and
    576 are to the released one; encoders and heads cost about the same shares of a step."""
    return sizes.JanusConfig(
        sizes.UnderstandingEncoderConfig(
            image_size=192, patch_size=16, width=512, mlp_width=2048, layers=4, heads=8
        ),
        sizes.GenerationEncoderConfig(
            image_size=192, channels=32, z_channels=64, codebook_size=4096
        ),
        sizes.TransformerConfig(width=1024, mlp_width=2816, layers=4, heads=8, vocabulary=16384),
        image_head_width=1024,
        dtype="float32",
    )


def changed(config: sizes.JanusConfig, transformer: dict, dtype: str | None) -> sizes.JanusConfig:
    """With other sizes of the language model, its heads of HEAD_SIZE, and another dtype. Raises
    ValueError."""
    llm = dataclasses.replace(config.transformer, **transformer)
    if llm.width % HEAD_SIZE:
        raise ValueError(
            f"--width={llm.width} is no multiple of {HEAD_SIZE}, the size of a head: take "
            f"{max(llm.width // HEAD_SIZE, 1) * HEAD_SIZE}"
        )
    llm = dataclasses.replace(llm, heads=llm.width // HEAD_SIZE)
    return dataclasses.replace(
        config, transformer=llm, image_head_width=llm.width, dtype=dtype or config.dtype
    )


def llm_only(config: sizes.JanusConfig) -> sizes.JanusConfig:
    """The same language model; the encoders, which text-only rows do not use, next to nothing."""
    small = presets.quickstart()
    return dataclasses.replace(
        config,
        understanding_encoder=small.understanding_encoder,
        generation_encoder=small.generation_encoder,
    )


def batch(config: sizes.JanusConfig, rows: int, length: int, ratio: dict, supervise: str) -> dict:
    """A batch (see batch.py) of random examples drawn by `ratio` (task -> share), packed first-fit;
    always the same."""
    rng, n = np.random.default_rng(0), config.understanding_encoder.tokens
    shares = np.array([ratio[task] for task in bt.TASKS], float)
    scale = n / 576 if shares[[0, 2]].any() else length / EXAMPLES / flops.DOCUMENT
    packed, misses = [[] for _ in range(rows)], 0
    room = np.full(rows, length)
    while misses < 2 * rows:  # so many examples that fit nowhere: full
        example = _example(
            rng, rng.choice(bt.TASKS, p=shares / shares.sum()), config, scale, supervise
        )
        row = int(np.argmax(room >= len(example["tokens"])))
        if room[row] < len(example["tokens"]):
            misses += 1
            continue
        packed[row].append(example)
        room[row] -= len(example["tokens"])
    slots = [
        max(sum(len(e[name]) for e in row) for row in packed)
        for name in ("understanding_images", "generation_images")
    ]
    out = [assemble(examples, length) for examples in packed]
    out = {name: np.stack([row[name] for row in out]) for name in out[0]}
    for name, (shape, _) in bt.shapes(rows, length, *slots, config).items():
        if name in ("understanding_images", "generation_images"):
            out[name] = rng.integers(0, 256, shape, np.uint8)
    return out


def _example(rng, task: str, config, scale: float, supervise: str) -> dict:
    mean = {
        "understanding": flops.UNDERSTANDING_TEXT, "text": flops.DOCUMENT, "generation": flops.GENERATION_TEXT
    }[task]  # fmt: skip
    count = max(int(mean * scale * np.exp(SPREAD * rng.normal() - SPREAD**2 / 2)), 4)
    ids = rng.integers(0, config.transformer.vocabulary, count)
    asked, told = ids[: count // 2], ids[count // 2 :]
    everything, pad = int(supervise == "all"), [0] * config.understanding_encoder.tokens
    if task == "generation":
        return bt.sequence(
            [(ids, bt.TEXT, 0), (pad, bt.GENERATION_SLOT, 1)], task, generation_images=[0]
        )
    spans = [(asked, bt.TEXT, everything), (told, bt.TEXT, 1)]
    if task == "understanding":
        return bt.sequence(
            [(pad, bt.UNDERSTANDING_SLOT, 0), *spans], task, understanding_images=[0]
        )
    return bt.sequence(spans, task)


def naive(batch: dict) -> dict:
    """The same rows as a step sees them that knows nothing of examples: one segment a row, both
    heads everywhere."""
    targets = np.where(batch["text_targets"] == bt.IGNORE, 0, batch["text_targets"])
    images = np.maximum(batch["image_targets"], 1)
    return batch | {
        "segment_ids": np.ones_like(batch["segment_ids"]), "text_targets": targets, "image_targets": images
    }  # fmt: skip


def weights(config: sizes.TransformerConfig):
    """(path, index of the layer or None, float32 array [in, out] or [n]) of each tensor of the
    language model."""
    c, at = config, 0
    kernels = {f"attention.{x}": (c.width, c.width) for x in "qkvo"}
    kernels |= {
        "gate": (c.width, c.mlp_width),
        "up": (c.width, c.mlp_width),
        "down": (c.mlp_width, c.width),
    }
    outer = {
        "text_embedding.table": (c.vocabulary, c.width),
        "text_head.linear.kernel": (c.width, c.vocabulary),
    }
    every = [
        (f"transformer.blocks.{name}.kernel", i, s)
        for i in range(c.layers)
        for name, s in kernels.items()
    ]
    for at, (path, layer, shape) in enumerate(
        [*every, *((name, None, shape) for name, shape in outer.items())]
    ):
        std = 0.02 if path == "text_embedding.table" else shape[0] ** -0.5
        yield (
            path,
            layer,
            np.float32(std) * np.random.default_rng(at).standard_normal(shape, np.float32),
        )
