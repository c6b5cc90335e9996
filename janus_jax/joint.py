"""What all processes do in threads, beside the computation, through JAX's coordination service."""

import time

import jax
from jax._src import distributed  # the service's client has no public name


class Joint:
    """Work that all processes do in threads, beside the computation; where one fails, no other waits for it.

    name: the same on all processes, and each time another.
    """

    def __init__(self, name: str):
        self.name = f"janus/{name}"
        self.client = distributed.global_state.client if jax.process_count() > 1 else None

    def meet(self, point: str, seconds: float):
        """Returns once all have come here. Raises OSError naming who has failed, or has not come."""
        self._note(point, "")
        until, count = time.monotonic() + seconds, jax.process_count()
        while self.client:
            found = {
                key.removeprefix(f"{self.name}/"): x
                for key, x in self.client.key_value_dir_get(f"{self.name}/")
            }
            here = {int(key.partition("/")[2]) for key in found if key.startswith(f"{point}/")}
            failed = [
                f"process {key.partition('/')[2]}: {x}"
                for key, x in found.items()
                if key.startswith("failed/")
            ]
            late = time.monotonic() > until
            failed += [
                f"process {i} has not come within {seconds:.0f} s"
                for i in range(count)
                if late and i not in here
            ]
            if failed:
                raise OSError("; ".join(sorted(failed)[:3]))
            if len(here) == count:
                return
            time.sleep(0.2)

    def fail(self, text: str):
        """Whoever meets the others after this, or waits for them, raises."""
        self._note("failed", text)

    def _note(self, point: str, text: str):
        if self.client:
            self.client.key_value_set(f"{self.name}/{point}/{jax.process_index()}", text)
