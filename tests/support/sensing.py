"""Tiny models with further senses: point clouds, and the signals of support/senses, a sense that is
there where a test has put its folder beside those of the package."""

import pathlib

import numpy as np
import pytest
from support import tiny

from janus_jax.config.schema import Rows
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.messages import Slot, Turn, laid_out
from janus_jax.model import senses

POINTS = dict(points=64, channels=3, groups=8, neighbours=8, width=32, layers=2, heads=4)
CONFIG = tiny.small(senses={"points": POINTS})
BOTH = tiny.small(senses={"points": POINTS, "signal": {}})
ROWS = Rows(count=8, length=96, understanding_images=2, generation_images=0)


@pytest.fixture
def signals(monkeypatch):
    here = pathlib.Path(__file__).parent / "senses"
    monkeypatch.setattr(senses, "__path__", [*senses.__path__, str(here)])


def cloud(seed: int, n: int = 200, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, channels)).astype(np.float32)


def encoder(config=CONFIG, rows: Rows = ROWS) -> ExampleEncoder:
    return ExampleEncoder(tiny.processor(), config, rows, "answers")


def record(*inputs: tuple[str, object], text: str = "what is it?", answer: str = "a cone") -> dict:
    """What a source gives: inputs (sense, what holds it) before a question, and its answer."""
    content = [*(Slot(name) for name, _ in inputs), text]
    found = {}
    for name, source in inputs:
        found.setdefault(name, []).append(source)
    said = [Turn("user", laid_out(content)), Turn("assistant", [answer])]
    return {"messages": said, "senses": found}


class Listed:
    """A source of given records."""

    fingerprint = "listed"

    def __init__(self, *records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return self.records[i]

    def where(self, i):
        return f"record {i}"


def batch(config, *records, rows: Rows = ROWS) -> dict:
    """The first batch of these records."""
    only = {"understanding": 1, "text": 0, "generation": 0}
    source = {"understanding": Listed(*records)}
    found = tiny.batches(source, tiny.processor(), config, rows, only, supervise="answers")
    try:
        return next(found)[0]
    finally:
        found.close()
