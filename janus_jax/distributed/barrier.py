"""What all processes do in threads, beside the computation, through JAX's coordination service."""

import time

import jax

from janus_jax.distributed import jax_client


class ThreadBarrier:
    """Work that all processes do in threads; where one fails, no other waits for it.

    name: the same on all processes, and each time another.
    """

    def __init__(self, name: str):
        self.name = f"janus/{name}"
        self.client = jax_client.client() if jax.process_count() > 1 else None

    def wait(self, point: str, seconds: float):
        """Returns once all have come to this point. Raises OSError naming who has failed, or has
        not come."""
        self._note(point, "")
        until = time.monotonic() + seconds
        while self.client is not None:
            found = self.client.key_value_dir_get(f"{self.name}/")
            notes = {key.removeprefix(f"{self.name}/"): text for key, text in found}
            here = {int(key.partition("/")[2]) for key in notes if key.startswith(f"{point}/")}
            failed = [
                f"process {key.partition('/')[2]}: {text}"
                for key, text in notes.items()
                if key.startswith("failed/")
            ]
            if time.monotonic() > until:
                absent = set(range(jax.process_count())) - here
                failed += [f"process {i} has not come within {seconds:.0f} s" for i in absent]
            if failed:
                raise OSError("; ".join(sorted(failed)[:3]))
            if len(here) == jax.process_count():
                return
            time.sleep(0.2)

    def fail(self, text: str):
        """Whoever waits for the others now or later raises."""
        self._note("failed", text)

    def _note(self, point: str, text: str):
        if self.client is not None:
            self.client.key_value_set(f"{self.name}/{point}/{jax.process_index()}", text)
