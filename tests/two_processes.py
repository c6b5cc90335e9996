"""A small config for several processes on one machine."""

import dataclasses
import os
import pathlib
import sys

from ml_collections import ConfigDict

from janus_jax import optim

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tiny

MODEL = dataclasses.replace(tiny.CONFIG, remat="none", attention="blockwise")


def get_config() -> ConfigDict:
    """One stage, from the weights in the directory WEIGHTS; each process leaves its id in the directory PIDS."""
    if "PIDS" in os.environ and sys.argv[-1].startswith("--process="):
        pathlib.Path(os.environ["PIDS"], sys.argv[-1].removeprefix("--process=")).write_text(str(os.getpid()))
    stage = {
        "trainable": tiny.ALL,
        "init": (os.environ["WEIGHTS"],),
        "steps": 8,
        "batch_size": 16,
        "rows": {"count": 8, "length": 96, "pictures": 1, "images": 2},
        "ratio": {"understanding": 2, "text": 3, "generation": 5},
        "supervise": "all",
        "optim": dataclasses.asdict(optim.Optim(learning_rate=1e-3, eps=1e-3)),
        "checkpoint_every": 100,
        "log_every": 1,
    }
    return ConfigDict({
        "model": dataclasses.asdict(MODEL),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "data": {"datasets": {
            "questions": {"kind": "understanding", "path": "shapes:"},
            "sentences": {"kind": "text", "path": "shapes:"},
            "scenes": {"kind": "generation", "path": "shapes:"},
        }},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {"only": stage},
    })  # fmt: skip
