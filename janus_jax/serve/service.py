"""What all routes of one app share."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from janus_jax.serve.errors import Refused, stopping
from janus_jax.serve.forms import Limits
from janus_jax.serve.metrics import Metrics
from janus_jax.serve.settings import Settings

DECODING = 4  # pictures of requests that are decoded at once: each takes up to 100 MB
FETCHING = 16  # requests whose pictures are fetched at once from other hosts
WORKING = 4  # prompts that are tokenised and pictures that are encoded at once
BODIES = 16  # times the largest body: what the bodies of all requests may take


class Service:
    """settings: what is allowed. engine: None until `begin`. open: how many requests are being
    served; held: the bytes of their bodies and of the pictures fetched for them. draining: no more
    requests are taken. created: seconds since 1970. decoding, fetching: threads for what may take
    long, in which no other work waits."""

    def __init__(self, engine, settings: Settings):
        self.settings = settings
        self.engine = engine
        self.draining = False
        self.open = 0
        self.held = 0
        self.created = int(time.time())
        self.metrics = Metrics(self)
        self.decoding = ThreadPoolExecutor(DECODING)
        self.fetching = ThreadPoolExecutor(FETCHING)
        self._working = ThreadPoolExecutor(WORKING)

    def begin(self, engine):
        """The model is loaded: requests are taken from now on. Called from any thread."""
        self.engine = engine

    def refused(self, cause: str):
        """Counts a request that was not answered."""
        self.metrics.refusals.labels(cause).inc()

    @property
    def is_ready(self) -> bool:
        return self.engine is not None and not self.draining

    def require_ready(self):
        """Raises Refused while no requests are taken."""
        if self.draining:
            raise stopping()
        if self.engine is None:
            raise Refused(
                503, "not_ready", "the model is being loaded: ask again when /ready answers 200"
            )

    @property
    def limits(self) -> Limits:
        """Of the forms. The engine is there."""
        vq = self.engine.model.config.generation_encoder
        square = f"{vq.image_size}x{vq.image_size}"
        most = self.settings.max_n, self.settings.max_pictures
        return Limits(self.engine.processor.context, square, *most, vq.sizes)

    def size_of(self, asked) -> str | None:
        """The size of the drawings of a form; None for the model's square."""
        return asked.size if asked.size in self.limits.sizes else None

    def require_model(self, name: str | None):
        """Raises Refused for another model than the one that is served."""
        if name not in (None, self.settings.model):
            raise Refused(
                404, "model_not_found",
                f"model is {name!r}: this server has {self.settings.model!r} (/v1/models); give it, "
                "or leave it out", "model",
            )  # fmt: skip

    async def in_thread(self, work, *given, pool: ThreadPoolExecutor | None = None):
        """`work(*given)` in a thread of the pool, by default one that tokenises and encodes. Where
        the request ends before, work that waits is dropped, and work that runs keeps its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool or self._working, work, *given)

    def hold(self, count: int) -> int:
        """Counts bytes that came with a request, for as long as it is served. Raises Refused."""
        if self.held + count > BODIES * self.settings.max_body:
            raise Refused(
                429, "memory_full", "the requests before this one fill the memory; ask again later",
                headers={"Connection": "close"},
            )  # fmt: skip
        self.held += count
        return count
