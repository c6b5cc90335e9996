"""Pictures and answers that are made together: requests join and leave a fixed number of rows
between chunks of steps.

A request's ids depend on itself alone: its rows have their own places, seeds and settings. Prompts
are read stretch by stretch between the chunks, equal ones once.
"""

import collections
import dataclasses

import jax
import numpy as np

from janus_jax.common import heap
from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import blank_cache, serving
from janus_jax.sample import programs
from janus_jax.sample.cache import cache_length, places_ahead, put, row_counts
from janus_jax.sample.programs import BOTH, CHUNK, IMAGE, TEXT, TOP_P, Rows
from janus_jax.sample.reading import SHORT, Prompt, Reading

BESIDE = 8  # most steps while other prompts are read
NOT_FINITE = (
    "the model's logits are not finite: its weights hold NaN or overflow (a run that diverged?), or "
    "cfg_scale is too large for them; take an earlier checkpoint"
)


@dataclasses.dataclass(eq=False)
class Request:
    """A picture or an answer.

    prompts: its one prompt, or several (the conditional one first) whose logits are summed by their
        `weights`: of a guided picture two, of an edit up to three.
    draws: image ids, else text.
    most: how many, at least 1; eos: the id that ends an answer before, -1 for none.
    seed, number: see `programs.row_keys`; temperature, top_p: see `programs.pick`.
    steps: most tokens between two looks while it runs.

    rows: those it has; lacking: how many of them have no prompt yet; done: tokens that the device
    was told to write; told: tokens that `Engine.step` has returned; ended: nothing more comes.
    """

    prompts: tuple[Prompt, ...]
    draws: bool
    most: int
    seed: int
    number: int = -1
    temperature: float = 1.0
    top_p: float = 1.0
    weights: tuple[float, ...] = (1.0,)
    eos: int = -1
    steps: int = CHUNK
    rows: tuple[int, ...] = ()
    lacking: int = 0
    done: int = 0
    told: int = 0
    ended: bool = False

    @property
    def longest(self) -> int:
        return max(len(prompt.ids) for prompt in self.prompts)


class Engine:
    """Runs the requests of one model, oldest first. Of one thread at a time."""

    def __init__(self, model, counts=None, stretches=float("inf"), kept=0, group=2):
        """counts: the numbers of rows it may have, ascending, by default `row_counts()`; they change
            only while no request has any.
        stretches: of prompts that are read between two chunks while others write.
        kept: places of prompts that are kept, for requests whose prompt is one of them.
        group: neighbours whose logits can be summed: as many prompts a request has at most.
        """
        with own_jax(model):
            self.model = serving(model)
            self.counts = counts or row_counts(group)
        self.leaves, self.tree = jax.tree.flatten(self.model)
        self.stretches = stretches
        self.kept = kept
        self.group = group
        self.prompts = collections.OrderedDict()  # key -> Reading, read, the last used last
        self.waiting = collections.deque()
        self.active = []  # requests that have rows
        self.unread = {}  # key -> Reading
        self.taken = [None] * self.counts[0]  # row -> request
        self.length = 0  # places of the cache
        self.cache = self.drawn = self.hidden = self.rows = self.told = None
        self.fitted = False
        self.written = None  # whose the rows on the device are
        self.flying = []  # chunks that nobody has looked at

    def add(self, request: Request):
        self.waiting.append(request)

    def end(self, request: Request):
        """Nothing more is wanted of a request; its rows are free."""
        request.ended = True
        if request in self.waiting:
            self.waiting.remove(request)
        self._release(request)

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.active or self.flying)

    def step(self) -> list[tuple]:
        """Takes in who fits, reads of their prompts, writes a chunk. Returns, as far as they are
        known, (request, its new ids int32 [n], whether they are its last); an answer's last may be
        its eos. In place of ids stands a ValueError where it went wrong."""
        with own_jax(self.model):
            self._admit()
            self._read()
            running = [request for request in self.active if not request.lacking]
            if running:
                self._write(running)
            # images: the device works on a chunk while the host tells of the one before
            ahead = 1 if running and all(request.draws for request in running) else 0
            found = []
            while len(self.flying) > ahead:
                found += self._look(*self.flying.pop(0))
            if not self.busy:
                heap.trim()
            return found

    def _admit(self):
        if not self.active and self.waiting:
            need = sum(len(request.prompts) for request in self.waiting)
            rows = next((n for n in self.counts if n >= need), self.counts[-1])
            if self.cache is None or rows != len(self.taken):
                self.taken = [None] * rows
                self.cache, self.length = None, 0
        while self.waiting and (rows := self._free(len(self.waiting[0].prompts))):
            request = self.waiting.popleft()
            request.rows = rows
            request.lacking = len(rows)
            self.active.append(request)
            for prompt, row in zip(request.prompts, rows):
                self.taken[row] = request
                known = self.prompts.pop(prompt.key, None)
                if known:
                    self.prompts[prompt.key] = known
                    known.takers.append((request, row))
                    self._give(known)
                else:
                    reading = self.unread.setdefault(prompt.key, Reading(prompt))
                    reading.takers.append((request, row))

    def _free(self, count: int) -> tuple[int, ...]:
        """Rows for a request, of one group for several; () where there are none. One row is taken
        beside another's rather than of a free group."""
        free = lambda row: self.taken[row] is None
        groups = [range(row, row + self.group) for row in range(0, len(self.taken), self.group)]
        whole = [group for group in groups if all(map(free, group))]
        half = [row for group in groups if group not in whole for row in group if free(row)]
        return tuple(half[:1] if half and count == 1 else whole[0][:count] if whole else ())

    def _read(self):
        """Reads `stretches`, of the oldest prompt and of the shortest by turns, so that neither a long
        one nor many short ones make others wait; and short ones to their end while all that are
        ready wait to begin together."""
        turn = 0
        while self.unread:
            ready = [request for request in self.active if not request.lacking]
            shortest = min(self.unread.values(), key=lambda reading: reading.left)
            begun = any(request.done for request in ready)
            if turn >= self.stretches and (not ready or begun or shortest.left > SHORT):
                return
            reading = shortest if turn % 2 else next(iter(self.unread.values()))
            if reading.cache is None:
                reading.cache = blank_cache(self.model, sh.batch_shards(), reading.places)
            reading.stretch(self.model, self.leaves, self.tree)
            if not reading.left:
                del self.unread[reading.prompt.key]
                self._give(reading)
                self._keep(reading)
            turn += 1

    def _keep(self, reading: Reading):
        """Keeps a prompt for requests to come, as far as there is room."""
        if reading.places <= self.kept:
            self.prompts[reading.prompt.key] = reading
            while sum(reading.places for reading in self.prompts.values()) > self.kept:
                self.prompts.popitem(last=False)

    def _give(self, reading: Reading):
        """Puts a prompt that is read into the rows that wait for it."""
        self._fit()
        self._insert(reading.cache, reading.last, [row for _, row in reading.takers])
        for request, _ in reading.takers:
            request.lacking -= 1
        reading.takers = []

    def _insert(self, cache, last, rows: list[int]):
        share = len(self.taken) // sh.batch_shards()
        own = np.full((sh.batch_shards(), share), -1, np.int32)
        for device, found in enumerate(own):
            there = [row % share for row in rows if row // share == device]
            found[: len(there)] = there
        count = np.int32((own >= 0).sum(1).max())
        self.cache, self.hidden = programs.insert(
            self.cache, self.hidden, cache, last, put(own), count
        )
        if self.drawn:
            self.drawn = programs.forget(self.drawn, put(np.isin(range(len(self.taken)), rows)))

    def _fit(self, steps: int = 0):
        """Makes the cache as long as those who have rows need it."""
        rows = len(self.taken)
        behind = lambda x: max(places_ahead(rows, x.draws, x.most), x.done + steps)
        length = cache_length(max(request.longest + behind(request) for request in self.active))
        if self.cache is None:
            llm = self.model.transformer
            self.cache = blank_cache(self.model, rows, length)
            self.drawn = self.model.blank_drawn(rows)
            self.hidden = put(np.zeros((rows, llm.config.width), llm.dtype))
        elif length > self.length or 2 * length <= self.length:
            for i in range(len(self.cache)):  # at most one layer is there twice
                self.cache[i] = programs.resize(self.cache[i], length)
        else:
            return
        self.length = length
        self.fitted = True

    def _write(self, running: list[Request]):
        most = BESIDE if self.unread else CHUNK
        steps = min(most, *(min(x.steps, x.most - x.done) for x in running))
        self._fit(steps)
        masses = [request.top_p < 1 for request in running if not request.draws]
        draws = BOTH if len(masses) < len(running) else 0
        kind = IMAGE if not masses else draws + (TOP_P if any(masses) else TEXT)
        if self.written != (self.active, running):  # else the device has them already
            self.rows = self._rows(running)
            self.written = list(self.active), running
        self.cache, self.drawn, self.hidden, (places, counts), ids = programs.write(
            self.leaves, self.cache, self.drawn, self.hidden, self.rows, np.int32(kind),
            np.int32(steps), tree=self.tree, told=self.told,
        )  # fmt: skip
        self.rows = self.rows._replace(places=places, counts=counts)
        if self.fitted:  # and compiled, perhaps
            heap.trim()
        self.fitted = False
        self.flying.append((ids, steps, [(request, request.rows[0]) for request in running]))
        for request in running:
            request.done += steps
            if request.done == request.most:
                self._release(request)

    def _rows(self, running: list[Request]) -> Rows:
        count = len(self.taken)
        whole = lambda: np.zeros(count, np.int32)
        rows = Rows(
            np.zeros(count, bool), np.zeros(count, bool), whole(), whole(), np.zeros(count, np.uint32),
            whole(), np.tile(np.eye(self.group, dtype=np.float32), (count // self.group, 1, 1)),
            np.ones(count, np.float32), np.ones(count, np.float32),
        )  # fmt: skip
        for request in self.active:
            for prompt, row in zip(request.prompts, request.rows):
                rows.places[row] = len(prompt.ids) + request.done
        for request in running:
            for row in request.rows:
                rows.draws[row] = request.draws
                rows.runs[row] = True
                rows.counts[row] = request.done
                rows.seeds[row], rows.numbers[row] = request.seed, request.number
                rows.temperature[row], rows.top_p[row] = request.temperature, request.top_p
            if len(request.rows) > 1:
                own = [row % self.group for row in request.rows]
                rows.mix[request.rows[0] // self.group][np.ix_(own, own)] = request.weights
        return Rows(*put(list(rows)))

    def _look(self, ids, steps: int, writers: list[tuple]) -> list[tuple]:
        ids = np.asarray(ids)
        found = []
        for request, row in writers:
            if request.ended:
                continue
            own = ids[row, :steps]
            if (own < 0).any():
                self.end(request)
                found.append((request, ValueError(NOT_FINITE), True))
                continue
            if not request.draws and (own == request.eos).any():
                own = own[: np.argmax(own == request.eos) + 1]
            request.told += len(own)
            if len(own) < steps or own[-1] == request.eos or request.told == request.most:
                self.end(request)
            found.append((request, own, request.ended))
        return found

    def _release(self, request: Request):
        if request in self.active:
            self.active.remove(request)
            for row in request.rows:
                self.taken[row] = None
            for key, reading in list(self.unread.items()):
                reading.takers = [taker for taker in reading.takers if taker[0] is not request]
                if not reading.takers:
                    del self.unread[key]
