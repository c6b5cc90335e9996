"""The config of two_processes.py, longer, with one fault: FAULT is "hang" (a process sleeps) or
"data" (it meets a SourceError) and PROCESS@BATCH, as in "hang 1@6". SLOW: seconds that each batch
takes longer."""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from support import two_processes

from janus_jax.data import pipeline
from janus_jax.data.sources import SourceError

_next = pipeline.Batches.__next__


def next_batch(self):
    kind, _, where = os.environ.get("FAULT", "").partition(" ")
    once = pathlib.Path(os.environ.get("PIDS", "."), "faulted")
    process, _, batch = where.partition("@")
    if (
        kind
        and sys.argv[-1] == f"--process={process}"
        and self.step == int(batch)
        and not once.exists()
    ):
        once.touch()
        if kind == "data":
            raise SourceError("data.datasets.questions: the disk is gone")
        time.sleep(3600)
    time.sleep(float(os.environ.get("SLOW", "0")))
    return _next(self)


def get_config():
    pipeline.Batches.__next__ = next_batch
    config = two_processes.get_config()
    stage = config.stages.only
    stage.steps = 16
    stage.checkpoint_every = 4
    # Data of all kinds, and a step that compiles in a third of the time.
    stage.trainable = ("text_embedding", "transformer", "text_head")
    stage.options = {"keep": "text"}
    return config
