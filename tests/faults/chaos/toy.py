"""A Janus of a few thousand weights whose steps take a fraction of a second, to be trained while it
is hurt.

Every step is logged, so that a trace can be compared step by step. Spikes are not looked for: the
losses of so small a model jump. The name after `toy.py:` is what is trained: one stage alone, or
`all` four in a row; `text` is stage 2 whose step sees texts alone, and no curves are drawn: it starts
in half the time, for the tests.
"""

import dataclasses
import pathlib
import sys

from ml_collections import ConfigDict

from janus_jax.config import schema

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from support import tiny

from janus_jax.training import curves

ADAPTORS = ("understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head")
LLM = ("text_embedding", "transformer", "text_head")
STAGES = {  # the flames and the ratio of Figure 3 and Table 1; what is learned from
    "stage1": (ADAPTORS, (1, 0, 1), "all"),
    "stage2": (ADAPTORS + LLM, (2, 3, 5), "all"),
    "stage3": ((*ADAPTORS, *LLM, "understanding_encoder"), (7, 3, 10), "answers"),
}
TEXT = LLM, (2, 3, 5), "all"
TARGETS = dict.fromkeys(("", "stage0", *STAGES, "text", "all"))
OPTIM = dataclasses.asdict(schema.Optim(learning_rate=1e-3, eps=1e-3))
EVERY = {"checkpoint_every": 4, "log_every": 1, "spikes": {"window": 128, "sigma": 0.0}}


def stage(name: str, steps: int) -> dict:
    trainable, ratio, supervise = STAGES.get(name, TEXT)
    return {
        "trainable": trainable,
        "init": ("previous",),
        "steps": steps,
        "batch_size": 16,
        "rows": {
            "count": 8,
            "length": 192 if supervise == "answers" else 96,
            "understanding_images": 1,
            "generation_images": 2,
        },
        "ratio": dict(zip(("understanding", "text", "generation"), ratio)),
        "supervise": supervise,
        "optim": OPTIM,
        "options": {"keep": "text"} if name == "text" else {},
        **EVERY,
    }


def tokenizer_stage() -> dict:
    return {
        "task": "vq",
        "trainable": ("generation_encoder",),
        "init": (),
        "steps": 40,
        "batch_size": 16,
        "ratio": {"understanding": 0, "text": 0, "generation": 1},
        "optim": OPTIM,
        **EVERY,
    }


def get_config(target: str = "") -> ConfigDict:
    """target: `stage0`, `stage1`, ..., `text`, or `all`."""
    target = target or "stage2"
    if target == "text":
        curves.plot = lambda *_: None
    names = ["stage0", *STAGES] if target == "all" else [target]
    stages = {name: tokenizer_stage() if name == "stage0" else stage(name, 40) for name in names}
    if target in (*STAGES, "text"):
        stages[target]["init"] = ()
    config = {
        "model": dataclasses.asdict(
            dataclasses.replace(tiny.CONFIG, remat="none", attention="blockwise")
        ),
        **tiny.WORLD,
        "stages": stages,
    }
    return ConfigDict(config)
