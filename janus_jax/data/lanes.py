"""A lane: the endless stream of examples that becomes one row of every batch.

It draws (mixture.py), lets a few rows' worth of examples wait, and fills its next row from them (packing.py). A lane's
state is a few numbers and does not depend on hosts or workers, whoever runs it: so a run goes on anywhere, with no
example lost or repeated and the same rows as before.

A record that cannot be read gives its place to a substitute, drawn at random from the same data set by its position;
so does one whose picture proves rotten when its row is filled.
"""

import dataclasses

import numpy as np

from janus_jax import batch as bt
from janus_jax.data import generation, text, understanding
from janus_jax.data.images import ImageError, generation_image, understanding_image
from janus_jax.data.mixture import Mixture
from janus_jax.data.packing import assemble, choose, shorten
from janus_jax.data.sources import RecordError, SourceError

AHEAD = (
    3  # rows' worth of examples that wait: more fill rows no better (98-99 % of stage 2's), fewer do worse
)
IN_A_ROW = 100  # bad records, one after the other: something is wrong with the data set, not with a record
BAD = (RecordError, ImageError)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Records of any kind to Sequences that fit a row, and their pictures to arrays.

    rows: length, pictures and images of a row; see experiment.Stage for supervise, dropout, first.
    model: the JanusConfig.
    """

    processor: object
    model: object
    rows: object
    supervise: str
    dropout: float = 0.0
    first: float = 0.0

    def __call__(self, kind: str, record: dict, rng: np.random.Generator) -> dict:
        """Raises RecordError for a record that does not fit its kind or a row."""
        if kind == "generation":
            example = generation.encode(record, self.processor, rng, self.dropout, self.first)
        elif kind == "text":
            example = text.encode(record, self.processor, self.supervise, self.rows.length)
        else:
            example = understanding.encode(
                record, self.processor, self.supervise, self.rows.length, self.rows.pictures
            )
        slots = int((example["role"] == bt.PICTURE).sum())
        count, most = slots // self.processor.understanding_tokens, self.rows.pictures
        if count > most:
            raise RecordError(
                "too many pictures",
                f"has {count} pictures, a row takes {most}; raise the stage's rows.pictures",
            )
        if not count and kind == "understanding" and "document" not in record:
            raise RecordError(
                "no picture", "has no image part, and a conversation of understanding needs one"
            )
        if count and kind == "text":
            raise RecordError(
                "a picture too many", f"has {count} image parts, and a record of text needs none"
            )
        example = shorten(example, self.rows.length)
        if not example["supervised"].any():
            raise RecordError("no answer", "nothing in it is to be predicted; give it an answer")
        return example

    def pixels(self, kind: str, source, index: int, record: dict, example: dict) -> list[np.ndarray]:
        """What fills an example's slots: pictures uint8 [S, S, 3], or ids int32 [N]. Raises ImageError, RecordError."""
        if kind == "generation":
            if "image_ids" in record:
                return [self._ids(record["image_ids"])]
            side = self.model.generation_encoder.image_size
            return [generation_image(source.image(index), side, fast=True)]
        side = self.model.understanding_encoder.image_size
        return [
            understanding_image(source.image(index, int(k)), side, fast=True) for k in example["pictures"]
        ]

    def _ids(self, values) -> np.ndarray:
        ids, vq = np.asarray(values).reshape(-1), self.model.generation_encoder
        if len(ids) != vq.tokens or ids.min() < 0 or ids.max() >= vq.codebook_size:
            got = f"{len(ids)} from {ids.min()} to {ids.max()}" if len(ids) else "none"
            raise RecordError(
                "wrong image_ids",
                f"image_ids must be {vq.tokens} numbers in [0, {vq.codebook_size}); got {got}",
            )
        return ids.astype(np.int32)


@dataclasses.dataclass
class _Waiting:
    """An example drawn and not yet in a row. pixels: None until a row that wants it is filled."""

    entry: int
    position: int
    attempt: int
    index: int
    record: dict
    example: dict
    pixels: list | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        return len(self.example["tokens"]), len(self.example["pictures"]), len(self.example["images"])


class Lane:
    """Lane `number` of a mixture. state: as `state()` gave it, or None for the beginning.

    What it reads and finds bad since the last `news()` is kept there.
    """

    def __init__(self, mixture: Mixture, encoder: Encoder, number: int, state: dict | None = None):
        self.mixture, self.encoder, self.number = mixture, encoder, number
        self.reads, self.bad = {}, []
        n = len(mixture.entries)
        state = state or {}
        self.kinds = list(state.get("kinds", [0] * 3))
        self.phase, self.since = state.get("phase", 0), list(state.get("since", [0] * n))
        self.drawn = list(state.get("drawn", [0] * n))  # of each entry, beyond `start`
        self.start = list(state.get("start", [0] * n))  # the position at which its lanes began
        self.left = [
            list(x) for x in state.get("left", [[]] * n)
        ]  # positions before `start`, yet to be drawn
        self.waiting = [self._read(*x) for x in state.get("waiting", ())]
        self.reads = {}  # those were counted when they were drawn

    def state(self) -> dict:
        waiting = [[w.entry, w.position, w.attempt] for w in self.waiting]
        return {
            "kinds": self.kinds.copy(), "phase": self.phase, "since": self.since.copy(), "drawn": self.drawn.copy(),
            "start": self.start, "left": [x.copy() for x in self.left], "waiting": waiting,
        }  # fmt: skip

    def news(self) -> tuple[dict, list]:
        """(records read of each entry, [(entry, index, cause, message)] that were bad) since it was last asked."""
        out = self.reads, self.bad
        self.reads, self.bad = {}, []
        return out

    def row(self, step: int) -> dict:
        """The lane's row of a step (from 0), and "drawn": [(entry, position, index, code, tokens)] of its examples."""
        self._enter(self.mixture.phase(step))
        rows = self.encoder.rows
        while True:
            self._fill()
            sizes = [w.size for w in self.waiting]
            picks = choose(sizes, rows.length, rows.pictures, rows.images)
            if all([self._open(i) for i in picks]):
                break
        chosen = [self.waiting[i] for i in picks]
        for i in reversed(picks):
            del self.waiting[i]
        return self._finish(chosen)

    def _enter(self, phase: int):
        """In a new phase the shares begin anew, and what waits of a data set that has ended is left out."""
        if phase == self.phase:
            return
        self.phase, self.since = phase, [0] * len(self.since)
        step = self.mixture.changes[phase]
        self.waiting = [w for w in self.waiting if self.mixture.entries[w.entry].active(step)]

    def _fill(self):
        tokens = sum(w.size[0] for w in self.waiting)
        while tokens < AHEAD * self.encoder.rows.length:
            entry = self.mixture.choose(self.number, self.phase, self.kinds, self.since)
            self.kinds[bt.TASKS.index(self.mixture.entries[entry].kind)] += 1
            self.since[entry] += 1
            if self.left[entry]:
                position = self.left[entry].pop(0)
            else:
                position = self.start[entry] + self.number + self.mixture.lanes * self.drawn[entry]
                self.drawn[entry] += 1
            self.waiting.append(self._read(entry, position, 0))
            tokens += self.waiting[-1].size[0]

    def _read(self, entry: int, position: int, attempt: int) -> _Waiting:
        """The example at a position, or the first of its substitutes that is none the worse."""
        e = self.mixture.entries[entry]
        for tried in range(attempt, IN_A_ROW):
            index = self.mixture.index(entry, position)
            rng = self.mixture.rng(entry, position, tried)
            if tried:
                index = int(rng.integers(len(e.source)))
            self.reads[entry] = self.reads.get(entry, 0) + 1
            try:
                record = e.source[index]
                return _Waiting(entry, position, tried, index, record, self.encoder(e.kind, record, rng))
            except BAD as error:
                self._note(entry, index, error)
        raise SourceError(
            f"data.datasets.{e.name}: {IN_A_ROW} records in a row cannot be used, the last of them: "
            f"{self.bad[-1][3]}; is the path right, and the disk there?"
        )

    def _open(self, i: int) -> bool:
        """Opens the pictures of what waits at `i`; where one is rotten, its substitute takes the place."""
        w = self.waiting[i]
        e = self.mixture.entries[w.entry]
        if w.pixels is None and e.kind != "text":
            try:
                w.pixels = self.encoder.pixels(e.kind, e.source, w.index, w.record, w.example)
            except BAD as error:
                self._note(w.entry, w.index, error)
                self.waiting[i] = self._read(w.entry, w.position, w.attempt + 1)
                return False
        return True

    def _note(self, entry: int, index: int, error: Exception):
        where, message = self.mixture.entries[entry].source.where(index), str(error)
        message = message if where in message else f"{where}: {message}"
        self.bad.append((entry, index, error.cause, message))

    def _finish(self, chosen: list[_Waiting]) -> dict:
        rows, model = self.encoder.rows, self.encoder.model
        row = assemble([w.example for w in chosen], rows.length)
        if row["tokens"].max() >= model.transformer.vocabulary:
            raise SourceError(
                f"token id {row['tokens'].max()} is beyond model.transformer.vocabulary, "
                f"{model.transformer.vocabulary}: the tokenizer is not this model's"
            )
        side, vq = model.understanding_encoder.image_size, model.generation_encoder
        pictures = np.zeros((rows.pictures, side, side, 3), np.uint8)
        opened = {"understanding": [], "generation": [], "text": []}
        for w in chosen:
            opened[self.mixture.entries[w.entry].kind] += w.pixels or []
        for k, pixels in enumerate(opened["understanding"]):
            pictures[k] = pixels
        ids = self.mixture.precomputed
        shape, dtype = ((vq.tokens,), np.int32) if ids else ((vq.image_size, vq.image_size, 3), np.uint8)
        images = np.zeros((rows.images, *shape), dtype)
        for k, pixels in enumerate(opened["generation"]):
            images[k] = pixels
        drawn = [(w.entry, w.position, w.index, int(w.example["example"][0]), w.size[0]) for w in chosen]
        return row | {"pictures": pictures, "image_ids" if ids else "images": images, "drawn": drawn}
