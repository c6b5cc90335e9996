"""The seconds of a command by part, those of compiling apart."""

import contextlib
import sys
import time

import jax

from janus_jax.common.exit_codes import UsageError

COMPILING = tuple(
    f"/jax/core/compile/{part}_duration"
    for part in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


class Stopwatch:
    """Within `with`, it hears of all that JAX traces, lowers and compiles, or takes from its
    cache of compiled programs; `tell` ends a part of the command.

    out: by default stderr.
    """

    def __init__(self, out=None, clock=time.monotonic):
        self.out = out or sys.stderr
        self.clock = clock
        self.told = []
        self.compiled = self.before = 0.0

    def __enter__(self):
        self.begun = self.clock()
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event: str, seconds: float, **_):
        if event in COMPILING:
            self.compiled += seconds

    def tell(self, did: str):
        """Says how long the part that ends now took ("loaded"), and what took how long until now,
        where there was more than it."""
        now = self.clock()
        own = now - self.begun - (self.compiled - self.before)
        self.begun, self.before = now, self.compiled
        self.told.append(f"{did} in {max(own, 0):.3g} s")
        parts = self.told
        if len(parts) > 1:
            parts = [parts[0], f"compiled in {self.compiled:.3g} s", *parts[1:]]
        print(", ".join(parts), file=self.out, flush=True)


class OutOfMemory(UsageError):
    """What was asked for does not fit the device's memory."""


@contextlib.contextmanager
def measured():
    """Gives a `Stopwatch`. Raises OutOfMemory where the device or the machine has no more memory."""
    try:
        with Stopwatch() as watch:
            yield watch
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).split("\n")[0]
        raise OutOfMemory(
            f"ask for fewer pictures at once, or give another --dtype ({first})"
        ) from error
