"""The server as a process: its socket, its model that comes later, and how it ends."""

import asyncio
import signal
import socket
import sys
import threading
import time

import numpy as np
import uvicorn

from janus_jax.common import exit_codes
from janus_jax.common.cli import stopped
from janus_jax.distributed import exits
from janus_jax.serve.connections import TimedProtocol
from janus_jax.serve.sized import grid_of

LAST_WORDS = 3  # seconds for replies that are on their way when the server ends


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is one that is free. Raises UsageError."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except (OSError, UnicodeError) as error:
        raise exit_codes.UsageError(
            f"--host={host} --port={port}: cannot be listened on ({error}); give a port that is free "
            "(0 takes one), and a host of this machine: 127.0.0.1 for it alone, 0.0.0.0 for all"
        ) from None


def address(listener: socket.socket) -> str:
    """http://HOST:PORT of a socket."""
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """SIGTERM: new requests are refused, those that run may end within `drain` seconds; a second
    one ends them. Ctrl-C ends them too.

    uvicorn's own way closes the door at once and ends by the signal, whose exit code launchers take
    for a crash."""

    def __init__(self, app, drain: float):
        service = app.state.service
        config = uvicorn.Config(
            app, loop="asyncio", http=TimedProtocol, ws="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, timeout_graceful_shutdown=LAST_WORDS,
        )  # fmt: skip
        super().__init__(config)
        self.service = service
        self.drain = drain
        self.end = None  # of draining, by time.monotonic
        self.fault = None

    def run_with(self, listener: socket.socket, load):
        """Serves until it is told to stop, and ends the process. `load()` gives the engine, in a
        thread: until then requests are refused. Raises what `load` raised."""
        threading.Thread(target=self._load, args=(load,), daemon=True).start()
        try:
            self.run(sockets=[listener])
            code = exit_codes.DONE
        except KeyboardInterrupt:
            code = stopped()
        if self.fault is not None:
            raise self.fault
        # Python's own way out would take XLA's threads down in the midst of their work.
        exits.exit_now(code)

    def handle_exit(self, sig, frame):
        if sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        self.service.draining = True
        self.end = time.monotonic() + (self.drain if self.end is None else 0)
        print(
            f"SIGTERM: no new requests; {self.service.open} that run have "
            f"{max(self.end - time.monotonic(), 0):.0f} s",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    async def on_tick(self, counter: int) -> bool:
        drained = self.end is not None and (not self.service.open or time.monotonic() >= self.end)
        return drained or await super().on_tick(counter)

    async def shutdown(self, sockets=None):
        self.service.draining = True
        if self.service.engine is not None:
            await asyncio.to_thread(self.service.engine.close)
        await super().shutdown(sockets)

    def _load(self, load):
        try:
            self.service.begin(load())
        except BaseException as error:
            self.fault = error
            self.should_exit = True


def warm(engine):
    """Has all compiled that a first drawing and a first answer need."""
    side = engine.model.config.understanding_encoder.image_size
    parts = [
        {"type": "image", "image": np.zeros((side, side, 3), np.uint8)},
        {"type": "text", "text": "what is it?"},
    ]
    engine.warm()
    config = engine.model.config
    if config.image_head == "softmax" and config.drawing != "scales":  # others are drawn elsewhere
        for size in (None, *config.generation_encoder.sizes):
            rows, columns = grid_of(engine.model, size)
            engine.picture(np.zeros(rows * columns, np.int32), size)
    engine.answer([{"role": "user", "content": parts}], max_new_tokens=1).result()
