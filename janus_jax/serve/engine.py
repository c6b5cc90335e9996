"""The model behind a door: drawings and answers that wait their turn, run together, and are told
as they come. Its methods may be called from any thread.
"""

import collections
import concurrent.futures
import logging
import threading

import numpy as np

from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.sample import edit_prompts, options
from janus_jax.sample import engine as rows_engine
from janus_jax.sample.cache import AHEAD, cache_length
from janus_jax.sample.decode import drawing
from janus_jax.sample.generate import decode_ids, settings, to_pil, unconditional
from janus_jax.sample.reading import Prompt
from janus_jax.sample.understand import answer_of, prepare, prompts_of, stops
from janus_jax.serve.job import Answered, Closed, Drawn, Full, Job
from janus_jax.serve.sized import grid_of, prompts_to_draw

KEPT = 2048  # places of prompts that are kept for requests with the same
LEAVE = 10.0  # seconds that a chunk may still take at the end
STRETCHES = 2  # of prompts, read between two chunks


class Engine:
    """Runs the requests of one model in a thread of its own."""

    def __init__(self, model, processor, *, rows: int = 16, waiting: int = 64):
        """rows: how many run together, whole pairs on each device; a guided picture takes two.
        waiting: most requests that wait for rows. Raises ValueError."""
        with own_jax(model):
            pairs = 2 * sh.batch_shards()
            # A chunk is what a new request waits for: of a CPU's slow tokens few.
            self.steps = (2, 1) if sh.platform() == "cpu" else (16, 8)
        if rows < pairs or rows % pairs:
            raise ValueError(
                f"rows is {rows}: must be a multiple of {pairs}, two on each device that rows are split "
                "over"
            )
        options.require(model, processor)
        self.model = model
        self.processor = processor
        self.rows = rows
        self.waiting = waiting
        self.tokens = self.pictures = 0
        self._inbox = collections.deque()
        self._jobs = {}  # request -> job
        self._wake = threading.Condition()
        # One picture is seen or painted at a time: so memory is counted.
        self._aside = threading.Lock()
        self._closed = self._dropped = False
        self.failed = False  # the thread has ended by a fault: nothing is answered any more
        self._inner = self._fresh()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def draw(
        self, prompt: str, *, negative_prompt=None, cfg_scale=None, temperature=None, seed=0,
        number=0, on_ids=None, size=None,
    ) -> Job:  # fmt: skip
        """A picture, as `generate` draws the `number`-th of this seed. cfg_scale, temperature: None
        is what the weights suggest. size: as of `generate`. on_ids(ids int32 [n]): the new ids,
        as they come, called in the engine's thread, which it must not hold up. Raises ValueError
        that lists what cannot be used, Full, Closed."""
        guidance, heat, number, seed = self._settled(cfg_scale, temperature, number, seed)
        other = unconditional(self.processor, negative_prompt, guidance)
        pair, count = prompts_to_draw(self.model, self.processor, prompt, other, size)
        return self._drawn(drawing(pair, seed, number, guidance, heat, count), guidance, on_ids)

    def see(self, pictures: list, instruction: str) -> tuple:
        """What `edit` draws of: the branches of its guidance, their pictures seen. pictures: RGB.
        Raises ValueError."""
        asked = edit_prompts.edit_prompt(self.processor, pictures, instruction)
        with self._aside:
            return edit_prompts.branches_of(self.model, self.processor, *asked)

    def edit(
        self, branches: tuple, *, cfg_scale=None, temperature=None, seed=0, number=0, on_ids=None
    ) -> Job:
        """A picture as `edit` of the library draws it, without guidance by the pictures: that would take
        three rows, and rows are pairs here. branches: of `see`; the rest as in `draw`."""
        guidance, heat, number, seed = self._settled(cfg_scale, temperature, number, seed)
        count = self.processor.generation_tokens
        request = edit_prompts.request(branches, guidance, 1.0, seed, number, heat, count)
        return self._drawn(request, guidance, on_ids)

    def _settled(self, cfg_scale, temperature, number, seed) -> tuple:
        options.require_ids(self.model.config)
        guidance, heat = settings(self.processor, cfg_scale, temperature)
        guidance, heat, number = options.settled(
            cfg_scale=guidance, temperature=heat, first=options.given(number, 0)
        )
        return guidance, heat, number, *options.seeds(seed, 1, "requests")

    def _drawn(self, request, guidance: float, on_ids) -> Job:
        """The job of a request for a picture."""
        request.steps = self.steps[0]
        prompt = request.prompts[0]
        shown = 0 if prompt.is_shown is None else int(prompt.is_shown.sum())
        parts = []

        def take(ids):
            parts.append(ids)
            if on_ids:
                on_ids(ids)

        def outcome():
            self.pictures += 1
            ids = np.concatenate(parts)
            of = len(prompt.ids), request.seed, guidance, request.temperature
            return Drawn(ids, *of, shown)

        return self._add(request, take, outcome)

    def answer(
        self, conversation, *, max_new_tokens=512, temperature=0.0, top_p=1.0, seed=0, stop=(),
        on_text=None,
    ) -> Job:  # fmt: skip
        """The assistant's next answer, as `understand` gives it. on_text(text): each new stretch of
        it, called in the engine's thread, which it must not hold up. Raises ValueError that lists
        what cannot be used, Full, Closed."""
        given = options.given
        most, heat, mass = options.settled(
            max_new_tokens=given(max_new_tokens, 512), temperature=given(temperature, 0.0),
            top_p=given(top_p, 1.0),
        )  # fmt: skip
        (seed,) = options.seeds(seed, 1, "requests")
        stop = stops(stop)
        tower = self.model.config.understanding_encoder
        asked = prepare(self.processor, conversation, tower)
        with self._aside:
            (prompt,) = prompts_of(self.model, self.processor, [asked])
        most = min(most, self.processor.context - len(prompt.ids))
        answer = answer_of(self.processor, stop, most, on_text)
        request = rows_engine.Request(
            (prompt,), False, most, seed, -1, heat, mass, eos=self.processor.tokenizer.eos,
            steps=self.steps[on_text is not None],
        )  # fmt: skip

        def take(ids):
            answer.add(ids)
            return answer.done

        def outcome():
            return Answered(answer.text, len(prompt.ids), len(answer.ids), answer.finish)

        return self._add(request, take, outcome)

    def warm(self):
        """Has all compiled that short prompts, pictures and questions about one need. Longer caches
        compile when they come."""
        p = self.processor
        seen = self.model.config.understanding_encoder.pieces * p.understanding_tokens
        drawn = self.model.config.generation_encoder.most_tokens
        most = cache_length(64 + max(drawn, seen + AHEAD))
        lengths = sorted({cache_length(n) for n in range(1, most + 1)})
        for i, length in enumerate(lengths):
            # The last fills the cache, those before it are of each shorter one.
            counts = [*(1 + shorter for shorter in (0, *lengths)[:i]), length - 2]
            some = [Prompt(np.zeros(count, np.int32)) for count in counts]
            jobs = [
                self._add(rows_engine.Request((x,), False, 2, 0), lambda ids: False, lambda: None)
                for x in some
            ]
            for job in jobs:
                job.result()
        self.tokens = 0

    def picture(self, ids: np.ndarray, size=None):
        """The PIL image of ids, int32 [n], of a picture of a size. Of less than a picture's ids, whole
        rows from the top: the picture so far."""
        rows, columns = grid_of(self.model, size)
        count = len(ids) // columns
        whole = np.zeros(rows * columns, np.int32)
        whole[: len(ids)] = ids
        with self._aside:
            picture = to_pil(decode_ids(self.model, whole[None], size))[0]
        return picture.crop((0, 0, picture.width, picture.height * count // rows))

    def counts(self) -> dict[str, float]:
        """What it does now, and did since it began: waiting, running (requests), rows_used, rows;
        tokens, pictures (in all)."""
        active = list(self._inner.active)
        return {
            "waiting": len(self._inbox) + len(self._inner.waiting), "running": len(active),
            "rows_used": self._used(), "rows": self.rows,
            "tokens": self.tokens, "pictures": self.pictures,
        }  # fmt: skip

    def close(self, drain: float = 0.0):
        """Takes no more requests; what runs or waits may end within `drain` seconds, the rest is
        cancelled."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(drain)
        self._dropped = True
        self._thread.join(LEAVE)

    def _add(self, request, take, outcome) -> Job:
        job = Job()
        job.request, job.take, job.outcome = request, take, outcome
        with self._wake:
            if self._closed:
                raise Closed("the server is about to end; ask another, or ask again later")
            if self._without_rows(request) > self.waiting:
                raise Full(f"{self.waiting} requests wait already; ask again later")
            self._inbox.append(job)
            self._wake.notify()
        return job

    def _without_rows(self, last) -> int:
        """How many wait for rows that are not free, once `last` is there."""
        come = [job.request for job in list(self._inbox) if not job.unwanted]
        rows = np.cumsum([len(x.prompts) for x in (*list(self._inner.waiting), *come, last)])
        free = self.rows - self._used()
        return int((rows > free).sum()) if rows[-1] > free else 0

    def _used(self) -> int:
        return sum(len(request.rows) for request in list(self._inner.active))

    def _fresh(self):
        return rows_engine.Engine(self.model, (self.rows,), STRETCHES, KEPT)

    def _run(self):
        try:
            while self._turn():
                pass
        except BaseException:
            self.failed = True
            logging.exception("the engine has ended by a fault")
            raise
        finally:
            self._closed = True
            for job in [*self._inbox, *self._jobs.values()]:
                if job.running():
                    job.set_exception(Closed("the engine has ended"))
                job.cancel()
            self._inner = self._fresh()  # the cache of the other is given back

    def _turn(self) -> bool:
        """Takes in, cancels, and runs a chunk; False at the end."""
        with self._wake:
            while not (self._inbox or self._inner.busy or self._closed):
                self._wake.wait()
            if self._closed and not (self._inbox or self._inner.busy):
                return False
        while self._inbox:
            job = self._inbox.popleft()
            if self._dropped:
                job.cancel()
            if job.set_running_or_notify_cancel():
                self._jobs[job.request] = job
                self._inner.add(job.request)
        for job in [job for job in self._jobs.values() if job.unwanted or self._dropped]:
            self._inner.end(job.request)
            self._end(job, concurrent.futures.CancelledError())
        try:
            found = self._inner.step()
        except Exception as error:  # of the device, as for want of memory: its cache is lost
            logging.exception("a chunk has failed, and with it all that had rows")
            self._begin_anew(error.with_traceback(None))
            return True
        for request, ids, last in found:
            if request in self._jobs:
                self._tell(self._jobs[request], ids, last)
        return True

    def _begin_anew(self, error: Exception):
        """Ends those that had rows; those that waited for some wait on."""
        waiting = list(self._inner.waiting)
        self._inner = self._fresh()
        for request, job in list(self._jobs.items()):
            if request not in waiting:
                self._end(job, error)
        for request in waiting:
            self._inner.add(request)

    def _tell(self, job: Job, ids, last: bool):
        if isinstance(ids, ValueError):
            return self._end(job, ids)
        self.tokens += len(ids)
        try:
            if job.take(ids) or last:
                self._inner.end(job.request)
                self._end(job, job.outcome())
        except BaseException as error:  # of this request's own callback
            self._inner.end(job.request)
            self._end(job, error)

    def _end(self, job: Job, outcome):
        del self._jobs[job.request]
        if isinstance(outcome, BaseException):
            job.set_exception(outcome)
        else:
            job.set_result(outcome)
