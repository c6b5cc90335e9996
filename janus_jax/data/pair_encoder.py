"""Pairs (pairs.py) to Sequences and rows: both halves of a pair stand in one row, each a segment of
its own, the chosen one first.

Until a row is assembled a pair is one Sequence, so that packing keeps its halves together. Then
`split` cuts each where its second BOS stands: a segment begins with one, and no text has another. The
halves of a pair about pictures read the same slots: its pictures are in the row once.
"""

import copy

import numpy as np

from janus_jax.data import pairs
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.packing import PER_TOKEN
from janus_jax.data.sources import RecordError, SourceError

LEAST = 6  # tokens of a pair: of each half BOS, a word of its prompt, one to predict


class Paired:
    """Of an `ExampleEncoder` what reads pairs, and nothing else."""

    def __call__(self, kind: str, record: dict, rng: np.random.Generator, at=None) -> dict:
        if not isinstance(record, pairs.Pair):
            raise RecordError(
                "no pair",
                'is no pair: it needs "prompt", "chosen" and "rejected"; for records of another form '
                "take task janus",
            )
        same = copy.deepcopy(rng)  # both halves have the same prompt, blanked or not
        chosen = super().__call__(kind, record["chosen"], rng)
        rejected = super().__call__(kind, record["rejected"], same)
        return self._joined(kind, chosen, rejected)

    def _joined(self, kind: str, chosen: dict, rejected: dict) -> dict:
        length = len(chosen["tokens"]) + len(rejected["tokens"])
        if length > self.rows.length:
            raise RecordError(
                "too long",
                f"a pair of {length} tokens does not fit rows of {self.rows.length}, in which both of "
                "its halves stand; raise the stage's rows.length",
            )
        if kind != "generation" and np.array_equal(chosen["tokens"], rejected["tokens"]):
            raise RecordError(
                "equal pair",
                "its chosen and rejected answers are the same tokens: nothing is preferred; leave "
                "such records out",
            )
        out = {name: np.concatenate([chosen[name], rejected[name]]) for name in PER_TOKEN}
        drawn = range(2) if kind == "generation" else ()
        return out | {
            "understanding_images": chosen["understanding_images"],
            "generation_images": np.array(drawn, np.int64),
            "example": np.maximum(chosen["example"], rejected["example"]),
        }

    def pixels(self, kind: str, source, index: int, record: dict, example: dict) -> dict:
        found = super().pixels(kind, source, index, record, example)
        if kind == "generation" and found and np.array_equal(*found["generation_images"]):
            raise RecordError(
                "equal pair",
                "its chosen and rejected pictures are the same pixels: nothing is preferred; leave "
                "such records out",
            )
        return found


class PairEncoder(Paired, ExampleEncoder):
    """An `ExampleEncoder` of pairs."""


def pair_encoder(of: type) -> type:
    """Of a class of encoders the one of pairs."""
    return PairEncoder if of is ExampleEncoder else type(of.__name__, (Paired, of), {})


def most_pairs(length: int) -> int:
    """As many as may stand in a row of so many tokens."""
    return max(length // LEAST, 1)


def split(batch: dict, bos: int) -> dict:
    """A batch (numpy, see model/batch.py) of joined pairs in which pair p of a row, from 0, is the
    segments 2p + 1, chosen, and 2p + 2, rejected."""
    segments = batch["segment_ids"]
    filled = segments > 0
    starts = filled & (batch["tokens"] == bos)
    if (starts.sum(1) != 2 * segments.max(1)).any():
        raise SourceError(
            f"the id of BOS, {bos}, stands inside the text of a pair, whose halves are told apart by "
            "it; another tokenizer's ids, or a text with its control token?"
        )
    halves = np.where(filled, starts.cumsum(1), 0)
    chosen = halves % 2 == 1
    place = np.arange(segments.shape[1])
    latest = lambda x, where: np.maximum.accumulate(np.where(where, x, 0), axis=1)
    out = batch | {"segment_ids": halves.astype(np.int32)}
    out["positions"] = np.where(filled, place - latest(place, starts), 0).astype(np.int32)
    reads = batch["understanding_slots"] > 0
    before = lambda of: of.cumsum(1) - of  # how many come before each place
    first = latest(before(reads & chosen), starts & chosen)  # of the pair's slots
    within = before(reads) - latest(before(reads), starts)
    out["understanding_slots"] = np.where(reads, 1 + first + within, 0).astype(np.int32)
    return out


def of_chosen(batch: dict) -> dict:
    """A batch that was split, for counting: the pictures that two halves share are read once."""
    once = batch["segment_ids"] % 2 == 1
    return batch | {"understanding_slots": np.where(once, batch["understanding_slots"], 0)}
