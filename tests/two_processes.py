"""A small config whose processes train on the same rows, however many they are: each packs the whole batch and
takes its part. (By themselves they pack their own examples: another number of processes, another order.)
"""

import dataclasses
import pathlib
import sys

import numpy as np
from ml_collections import ConfigDict

from janus_jax import optim, train

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tiny  # noqa: E402


def get_config() -> ConfigDict:
    model = dataclasses.asdict(dataclasses.replace(tiny.CONFIG, remat="none"))
    model["understanding_encoder"]["layers"] = model["transformer"]["layers"] = 2
    stage = {
        "trainable": tiny.ALL,
        "init": ("previous",),
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
        "model": model,
        "template": {"user": "User", "assistant": "Assistant", "system": ""},
        "data": {"source": "shapes"},
        "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
        "stages": {"first": stage | {"init": ()}, "second": stage | {"steps": 1}},
    })  # fmt: skip


class Rows:
    """Which rows of the batch are this share's."""

    def __init__(self, host: int, hosts: int):
        self.host, self.hosts = host, hosts

    def __call__(self, batch: dict) -> dict:
        return {name: np.split(x, self.hosts)[self.host] for name, x in batch.items()}


def batches(sources, processor, model, rows, *rest, host, hosts, **how):
    rows = dataclasses.replace(rows, count=rows.count * hosts)
    whole = BATCHES(sources, processor, model, rows, *rest, **how)
    return whole.map(Rows(host, hosts))


BATCHES, train.batches = train.batches, batches
