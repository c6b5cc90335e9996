"""A small config of task grpo for several processes on one machine."""

import dataclasses
import os
import pathlib
import sys

from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from support import tiny
from support.two_processes import MODEL

from janus_jax.training import curves

DRAWN = 8
STEPS = 2


def get_config() -> ConfigDict:
    """One stage, from the weights in the directory WEIGHTS."""
    curves.plot = lambda *_: None  # nobody looks at them
    stage = {
        "task": "grpo",
        "trainable": ("transformer", "image_head"),
        "init": (os.environ["WEIGHTS"],),
        "steps": STEPS,
        "batch_size": DRAWN,
        "rows": {
            "count": DRAWN, "length": 64, "understanding_images": 0, "generation_images": 1,
        },
        "ratio": {"generation": 1, "text": 0, "understanding": 0},
        "options": {
            "group": 4, "rewards": "support.judging:counted", "sheet_every": 2,
        },
        "optim": {"learning_rate": 1e-2, "eps": 1e-3, "warmup_steps": 0},
        "spikes": {"sigma": 0},
        "checkpoint_every": 100,
        "log_every": 1,
    }  # fmt: skip
    return ConfigDict({
        "model": dataclasses.asdict(MODEL),
        **tiny.WORLD,
        "data": {"datasets": {"scenes": {"kind": "generation", "path": "shapes:"}}},
        "stages": {"only": stage},
    })  # fmt: skip
