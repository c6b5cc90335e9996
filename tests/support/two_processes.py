"""A small config for several processes on one machine."""

import dataclasses
import os
import pathlib
import sys

from ml_collections import ConfigDict

from janus_jax.config import schema

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from support import tiny

from janus_jax.training import curves

MODEL = dataclasses.replace(tiny.CONFIG, remat="none", attention="blockwise")


def get_config() -> ConfigDict:
    """One stage, from the weights in the directory WEIGHTS; each process leaves its id in the
    directory PIDS, and draws no curves: nobody looks at them, and they are a quarter of its time."""
    if "PIDS" in os.environ and sys.argv[-1].startswith("--process="):
        curves.plot = lambda *_: None
        pathlib.Path(os.environ["PIDS"], sys.argv[-1].removeprefix("--process=")).write_text(
            str(os.getpid())
        )
    stage = {
        "trainable": tiny.ALL,
        "init": (os.environ["WEIGHTS"],),
        "steps": 8,
        "batch_size": 19,
        "rows": {"count": 8, "length": 96, "understanding_images": 1, "generation_images": 2},
        "ratio": {"understanding": 2, "text": 3, "generation": 5},
        "supervise": "all",
        "optim": dataclasses.asdict(schema.Optim(learning_rate=1e-3, eps=1e-3)),
        "checkpoint_every": 100,
        "log_every": 1,
    }
    return ConfigDict({
        "model": dataclasses.asdict(MODEL),
        **tiny.WORLD,
        "stages": {"only": stage},
    })  # fmt: skip
