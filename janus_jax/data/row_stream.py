"""A row stream: the endless stream of examples that becomes one row of every batch.

It draws (mixture.py), lets a few rows' worth of examples wait, and fills its next row from them
(packing.py). A stream's state is a few numbers and does not depend on hosts or workers, whoever
runs it: so a run goes on anywhere, with no example lost or repeated and the same rows as before.

A record that cannot be read gives its place to a substitute, drawn at random from the same data set
by its position; so does one whose picture proves bad when its row is filled.

Where a text goes on, its next part is what its data set gives next once a row has the one before.
"""

import dataclasses
import importlib

import numpy as np

from janus_jax.data.image_pixels import ImageError
from janus_jax.data.mixture import Mixture
from janus_jax.data.packing import assemble, choose
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.model import batch as bt

# rows' worth of examples that wait: more fill rows no better (98-99 % of stage 2's), fewer do worse
AHEAD = 3
IN_A_ROW = 100  # bad records: something is wrong with the data set, not with a record
BAD = (RecordError, ImageError)


@dataclasses.dataclass
class Buffered:
    """An example drawn and not yet in a row. at: the character of a text at which it begins;
    pixels: None until a row that wants it is filled."""

    entry: int
    position: int
    attempt: int
    at: int
    index: int
    record: dict
    example: dict
    pixels: dict | None = None

    @property
    def size(self) -> tuple[int, ...]:
        e = self.example
        images = len(e["understanding_images"]), len(e["generation_images"])
        return len(e["tokens"]), *images, *e.get("senses", ())


class RowStream:
    """Stream `number` of a mixture. state: as `state()` gave it, or None for the beginning.

    What it reads and finds bad since the last `news()` is kept there.
    """

    def __init__(self, mixture: Mixture, encoder, number: int, state: dict | None = None):
        self.mixture = mixture
        self.encoder = encoder
        self.encoders = [dataclasses.replace(encoder, form=e.form) for e in mixture.entries]
        self.number = number
        self.reads = {}
        self.bad = []
        n = len(mixture.entries)
        state = state or {}
        self.kinds = list(state.get("kinds", [0] * 3))
        self.phase = state.get("phase", 0)
        self.drawn_this_phase = list(state.get("drawn_this_phase", [0] * n))
        self.drawn = list(state.get("drawn", [0] * n))  # of each entry, beyond `start`
        self.start = list(state.get("start", [0] * n))  # the position at which its streams began
        # (position, attempt, at) yet to be drawn: before `start`, and what is left of texts
        self.replay = [list(x) for x in state.get("replay", [[]] * n)]
        self.buffer = [self._read(*x) for x in state.get("buffer", ())]
        self.reads = {}  # those were counted when they were drawn

    def state(self) -> dict:
        waiting = [[w.entry, w.position, w.attempt, w.at] for w in self.buffer]
        return {
            "kinds": self.kinds.copy(),
            "phase": self.phase,
            "drawn_this_phase": self.drawn_this_phase.copy(),
            "drawn": self.drawn.copy(),
            "start": self.start,
            "replay": [x.copy() for x in self.replay],
            "buffer": waiting,
        }

    def news(self) -> tuple[dict, list]:
        """(records read of each entry, [(entry, index, cause, message)] that were bad) since it was
        last asked."""
        out = self.reads, self.bad
        self.reads = {}
        self.bad = []
        return out

    def row(self, step: int) -> dict:
        """The stream's row of a step (from 0), and "drawn": [(entry, position, index, code,
        tokens)] of its examples."""
        self._enter(self.mixture.phase(step))
        rows = self.encoder.rows
        while True:
            self._fill()
            sizes = [w.size for w in self.buffer]
            more = [rows.understanding_images] * len(self.encoder.model.senses)
            most = rows.understanding_images, rows.generation_images, *more
            picks = choose(sizes, rows.length, most)
            if all([self._open(i) for i in picks]):
                break
        chosen = [self.buffer[i] for i in picks]
        for i in reversed(picks):
            w = self.buffer.pop(i)
            if rest := w.example.get("rest"):
                self.replay[w.entry].insert(0, [w.position, w.attempt, rest])
        return self._finish(chosen)

    def _enter(self, phase: int):
        """In a new phase the shares begin anew, and what waits of a data set that has ended gives
        its place to another of its kind: the steps around a change keep the ratio."""
        if phase == self.phase:
            return
        self.phase = phase
        self.drawn_this_phase = [0] * len(self.drawn_this_phase)
        step = self.mixture.changes[phase]
        for i, w in enumerate(self.buffer):
            e = self.mixture.entries[w.entry]
            if not e.active(step):
                chosen = self.mixture.choose_of(e.kind, self.number, phase, self.drawn_this_phase)
                self.buffer[i] = self._draw(chosen)

    def _fill(self):
        tokens = sum(w.size[0] for w in self.buffer)
        while tokens < AHEAD * self.encoder.rows.length:
            entry = self.mixture.choose(self.number, self.phase, self.kinds, self.drawn_this_phase)
            self.kinds[bt.TASKS.index(self.mixture.entries[entry].kind)] += 1
            self.buffer.append(self._draw(entry))
            tokens += self.buffer[-1].size[0]

    def _draw(self, entry: int) -> Buffered:
        """The next example of an entry."""
        self.drawn_this_phase[entry] += 1
        attempt = at = 0
        if self.replay[entry]:
            position, attempt, at = self.replay[entry].pop(0)
        else:
            position = self.start[entry] + self.number + self.mixture.streams * self.drawn[entry]
            self.drawn[entry] += 1
        return self._read(entry, position, attempt, at)

    def _read(self, entry: int, position: int, attempt: int, at: int = 0) -> Buffered:
        """The example at a position, `at` of its text, or the first substitute that can be used."""
        e = self.mixture.entries[entry]
        for tried in range(attempt, IN_A_ROW):
            index = self.mixture.index(entry, position)
            rng = self.mixture.rng(entry, position, tried)
            if tried:
                index = int(rng.integers(len(e.source)))
            self.reads[entry] = self.reads.get(entry, 0) + 1
            try:
                record = self.encoder.read(e.source, index)
                encode = self.encoders[entry]
                example = encode(e.kind, record, rng, at if e.continues else None)
                return Buffered(entry, position, tried, at, index, record, example)
            except BAD as error:
                self._note(entry, index, error)
                at = 0
        raise SourceError(
            f"data.datasets.{e.name}: {IN_A_ROW} records in a row cannot be used, the last of "
            f"them: {self.bad[-1][3]}; is the path right, and the disk there?"
        )

    def _open(self, i: int) -> bool:
        """Opens the pictures of what waits at `i`; where one is bad, its substitute takes the
        place."""
        w = self.buffer[i]
        e = self.mixture.entries[w.entry]
        if w.pixels is None and e.kind != "text":
            try:
                w.pixels = self.encoder.pixels(e.kind, e.source, w.index, w.record, w.example)
            except BAD as error:
                self._note(w.entry, w.index, error)
                self.buffer[i] = self._read(w.entry, w.position, w.attempt + 1)
                return False
        return True

    def _note(self, entry: int, index: int, error: Exception):
        where = self.mixture.entries[entry].source.where(index)
        message = str(error)
        message = message if where in message else f"{where}: {message}"
        self.bad.append((entry, index, error.cause, message))

    def _finish(self, chosen: list[Buffered]) -> dict:
        rows = self.encoder.rows
        model = self.encoder.model
        roles = bt.SLOTS
        if model.senses:
            roles = importlib.import_module("janus_jax.model.senses.known").roles(model)
        row = assemble([w.example for w in chosen], rows.length, roles)
        if model.generation_encoder.sizes:
            most = model.generation_encoder.most_tokens
            row = importlib.import_module("janus_jax.data.sizes").sized_row(row, most)
        if model.drawing != "causal":
            row = importlib.import_module(f"janus_jax.data.{model.drawing}").drawn_row(row, model)
        if row["tokens"].max() >= model.transformer.vocabulary:
            raise SourceError(
                f"token id {row['tokens'].max()} is beyond model.transformer.vocabulary, "
                f"{model.transformer.vocabulary}: the tokenizer is not this model's"
            )
        counts = rows.understanding_images, rows.generation_images
        shapes = bt.image_shapes(1, *counts, model, self.mixture.precomputed)
        filled = {name: np.zeros(shape[1:], dtype) for name, (shape, dtype) in shapes.items()}
        for name, array in filled.items():
            opened = [pixels for w in chosen for pixels in (w.pixels or {}).get(name, ())]
            for k, pixels in enumerate(opened):
                array[(k, *map(slice, pixels.shape))] = pixels
        drawn = [
            (w.entry, w.position, w.index, int(w.example["example"][0]), w.size[0]) for w in chosen
        ]
        return row | filled | {"drawn": drawn}
