"""The model behind a door: drawings and answers that wait their turn, run, and are told as they
come. Its methods may be called from any thread.
"""

import queue
import threading

import numpy as np

from janus_jax.data.images import to_pil
from janus_jax.sample.generate import decode_ids, generate_ids
from janus_jax.sample.understand import understand
from janus_jax.serve.job import Answered, Closed, Drawn, Full, Job


class Engine:
    """Runs the requests of one model. Stand-in: one at a time."""

    def __init__(self, model, processor, *, rows: int = 8, waiting: int = 64):
        """rows: how many run together, even; a guided picture takes two, an answer one.
        waiting: most requests that wait for rows."""
        self.model = model
        self.processor = processor
        self.rows = rows
        self.waiting = waiting
        self._jobs = queue.Queue()
        self._closed = False
        self._running = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def draw(
        self, prompt: str, *, negative_prompt=None, cfg_scale=None, temperature=None, seed=0,
        number=0, on_ids=None,
    ) -> Job:  # fmt: skip
        """A picture, as `generate` draws the `number`-th of this seed. cfg_scale, temperature: None
        is what the weights suggest. on_ids(ids int32 [n]): the new ids, as they come, called in the
        engine's thread, which it must not hold up. Raises ValueError that lists what cannot be
        used, Full, Closed."""

        def work():
            ids = generate_ids(
                self.model, self.processor, prompt, cfg_scale=cfg_scale, temperature=temperature,
                seed=seed, first=number,
            )[0]  # fmt: skip
            if on_ids:
                on_ids(ids)
            guidance = self.processor.cfg_scale if cfg_scale is None else cfg_scale
            heat = self.processor.temperature if temperature is None else temperature
            return Drawn(ids, len(asked), seed, guidance, heat)

        asked = self.processor.request(prompt)
        return self._add(work)

    def answer(
        self, conversation, *, max_new_tokens=512, temperature=0.0, top_p=1.0, seed=0, stop=(),
        on_text=None,
    ) -> Job:  # fmt: skip
        """The assistant's next answer, as `understand` gives it. on_text(text): each new stretch of
        it, called in the engine's thread, which it must not hold up. Raises ValueError that lists
        what cannot be used, Full, Closed."""

        def work():
            text = understand(
                self.model, self.processor, conversation, max_new_tokens=max_new_tokens,
                temperature=temperature, top_p=top_p, seed=seed, stop=stop, stream=on_text,
            )  # fmt: skip
            count = len(self.processor.tokenizer.encode(text))
            return Answered(text, asked, count, "length" if count >= max_new_tokens else "stop")

        asked = sum(len(ids) for ids, *_ in self.processor.question(conversation)[0])
        return self._add(work)

    def picture(self, ids: np.ndarray):
        """The PIL image of ids, int32 [n]. Of less than a picture's ids, whole rows from the top:
        the picture so far."""
        rows, columns = self.model.config.generation_encoder.grid
        count = len(ids) // columns
        whole = np.zeros(rows * columns, np.int32)
        whole[: len(ids)] = ids
        picture = to_pil(decode_ids(self.model, whole[None]))[0]
        return picture.crop((0, 0, picture.width, picture.height * count // rows))

    def counts(self) -> dict[str, float]:
        """What it does now, and did since it began: waiting, running (requests), rows_used, rows;
        tokens, pictures (in all)."""
        return {
            "waiting": self._jobs.qsize(), "running": self._running, "rows_used": self._running,
            "rows": self.rows, "tokens": 0, "pictures": 0,
        }  # fmt: skip

    def close(self, drain: float = 0.0):
        """Takes no more requests; what runs or waits may end within `drain` seconds, the rest is
        cancelled."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join(drain)

    def _add(self, work) -> Job:
        if self._closed:
            raise Closed("the engine is closed")
        if self._jobs.qsize() >= self.waiting:
            raise Full(f"{self.waiting} requests wait already")
        job = Job()
        self._jobs.put((job, work))
        return job

    def _run(self):
        while (item := self._jobs.get()) is not None:
            job, work = item
            if not job.set_running_or_notify_cancel():
                continue
            self._running = 1
            try:
                job.set_result(work())
            except BaseException as error:
                job.set_exception(error)
            self._running = 0
