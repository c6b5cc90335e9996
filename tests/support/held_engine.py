"""An engine whose drawings and answers do what a test tells them; it needs no model.

`python held_engine.py PORT FILE DRAIN` serves it: requests end once FILE is there.
"""

import pathlib
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
from PIL import Image

from janus_jax.serve.job import Answered, Closed, Drawn, Full, Job

N = 36


class HeldEngine:
    """Jobs that run until `finish`, and tell what the test lets them by `tells[k](...)`."""

    rows = 8
    failed = False

    def __init__(self, waiting: int = 64):
        self.waiting = waiting
        self.jobs = []
        self.tells = []
        self.asked = []
        self.closed = False
        encoder = SimpleNamespace(image_size=24, grid=(6, 6), tokens=N, sizes=())
        sees = SimpleNamespace(image_size=32, tiles=1)
        config = SimpleNamespace(generation_encoder=encoder, understanding_encoder=sees)
        self.model = SimpleNamespace(config=config)
        self.processor = SimpleNamespace(
            generation_tokens=N, cfg_scale=5.0, temperature=1.0, context=512, background=127
        )

    def draw(self, prompt, *, seed=0, number=0, on_ids=None, **how):
        end = Drawn(np.zeros(N, np.int32), 9, seed, 5.0, 1.0)
        return self._add(("draw", prompt, {"seed": seed, "number": number} | how), on_ids, end)

    def answer(self, conversation, *, on_text=None, **how):
        return self._add(
            ("answer", conversation, how), on_text, Answered("hello there", 7, 2, "stop")
        )

    def picture(self, ids, size=None):
        return Image.new("RGB", (24, 24 * (len(ids) // 6) // 6))

    def counts(self):
        running = sum(job.running() for job in self.jobs)
        names = ("waiting", "running", "rows_used", "rows", "tokens", "pictures")
        return dict(zip(names, (0, running, running, self.rows, 0, 0)))

    def finish(self, k: int):
        self.jobs[k].set_result(self.asked[k][-1])

    def fail(self, k: int, error: Exception):
        self.jobs[k].set_exception(error)

    def unwanted(self, count: int) -> bool:
        """Whether so many jobs were cancelled, soon."""
        return soon(lambda: sum(job.unwanted for job in self.jobs) == count)

    def close(self, drain: float = 0.0):
        self.closed = True
        for job in self.jobs:
            if not job.done():
                job.set_exception(Closed("the engine is closed"))

    def _add(self, asked, tell, end):
        if self.closed:
            raise Closed("the engine is closed")
        if self.counts()["running"] >= self.waiting:
            raise Full(f"{self.waiting} requests wait already")
        job = Job()
        job.set_running_or_notify_cancel()
        self.jobs.append(job)
        self.tells.append(tell)
        self.asked.append((*asked, end))
        return job


def soon(true, seconds: float = 30.0) -> bool:
    """Whether `true()` becomes so, however slow the machine is."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    return true()


def serve(port: str, file: str, drain: str):
    from janus_jax.serve import process
    from janus_jax.serve.app import make_app
    from janus_jax.serve.settings import Settings

    engine = HeldEngine()

    def watch():
        while not pathlib.Path(file).exists():
            time.sleep(0.01)
        for k in range(len(engine.jobs)):
            engine.finish(k)

    threading.Thread(target=watch, daemon=True).start()
    server = process.Server(make_app(None, Settings("held")), float(drain))
    server.run_with(process.listening("127.0.0.1", int(port)), lambda: engine)


if __name__ == "__main__":
    serve(*sys.argv[1:])
