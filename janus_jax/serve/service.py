"""What all routes of one app share."""

import time

import anyio

from janus_jax.serve.errors import Refused
from janus_jax.serve.forms import Limits
from janus_jax.serve.metrics import Metrics
from janus_jax.serve.settings import Settings

DECODING = 4  # pictures that are decoded or encoded at once: each takes up to 100 MB


class Service:
    """settings: what is allowed. engine: None until `begin`. open: how many requests are being
    served. draining: no more requests are taken. created: seconds since 1970."""

    def __init__(self, engine, settings: Settings):
        self.settings = settings
        self.engine = engine
        self.draining = False
        self.open = 0
        self.created = int(time.time())
        self.metrics = Metrics(self)
        self._decoding = None

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
            raise Refused(
                503, "stopping", "the server stops: send the request again, to another or later",
                headers={"Connection": "close"},
            )  # fmt: skip
        if self.engine is None:
            raise Refused(
                503, "not_ready", "the model is being loaded: ask again when /ready answers 200"
            )

    @property
    def limits(self) -> Limits:
        """Of the forms. The engine is there."""
        side = self.engine.model.config.generation_encoder.image_size
        context = self.engine.processor.context
        return Limits(context, f"{side}x{side}", self.settings.max_n, self.settings.max_pictures)

    def require_model(self, name: str | None):
        """Raises Refused for another model than the one that is served."""
        if name not in (None, self.settings.model):
            raise Refused(
                404, "model_not_found",
                f"model is {name!r}: this server has {self.settings.model!r} (/v1/models); give it, "
                "or leave it out", "model",
            )  # fmt: skip

    async def in_thread(self, work, *given):
        """`work(*given)` in a thread: what decodes, encodes or tokenises keeps no one waiting."""
        if self._decoding is None:  # needs the event loop
            self._decoding = anyio.CapacityLimiter(DECODING)
        return await anyio.to_thread.run_sync(work, *given, limiter=self._decoding)
