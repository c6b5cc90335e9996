"""A small config whose processes train on the same rows, however many they are: each packs the whole batch and
takes its part. (By themselves they pack their own examples: another number of processes, another order.)
"""

import dataclasses
import os
import pathlib
import sys

import numpy as np
from ml_collections import ConfigDict

from janus_jax import optim, train
from janus_jax.data import pipeline

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tiny

MODEL = dataclasses.replace(tiny.CONFIG, remat="none", attention="blockwise")


def get_config() -> ConfigDict:
    """One stage, from the weights in the directory WEIGHTS; each process leaves its id in the directory PIDS."""
    if "PIDS" in os.environ and sys.argv[-1].startswith("--process="):
        pathlib.Path(os.environ["PIDS"], sys.argv[-1].removeprefix("--process=")).write_text(str(os.getpid()))
    train.batches = batches
    stage = {
        "trainable": tiny.ALL,
        "init": (os.environ["WEIGHTS"],),
        "steps": 8,
        "batch_size": 16,
        "rows": {"count": 8, "length": 96, "pictures": 1, "images": 2, "bins": 4},
        "ratio": {"understanding": 2, "text": 3, "generation": 5},
        "supervise": "all",
        "optim": dataclasses.asdict(optim.Optim(learning_rate=1e-3, eps=1e-3)),
        "checkpoint_every": 100,
        "log_every": 1,
    }
    return ConfigDict({
        "model": dataclasses.asdict(MODEL),
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "data": {"source": "shapes"},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {"only": stage},
    })  # fmt: skip


class Rows:
    """Which rows of the batch are this share's."""

    def __init__(self, host: int, hosts: int):
        self.host, self.hosts = host, hosts

    def __call__(self, batch: dict) -> dict:
        return {name: np.split(x, self.hosts)[self.host] for name, x in batch.items()}


def batches(sources, processor, model, rows, *rest, host, hosts, **how):
    rows = dataclasses.replace(rows, count=rows.count * hosts)
    whole = pipeline.batches(sources, processor, model, rows, *rest, **how)
    return whole.map(Rows(host, hosts))
