"""The program that is hurt: janus_jax.main's own main(), after the hooks that the harness asked
for.

HOOKS, JSON in the environment: {"pace": seconds that a step lasts at least, "poison": [period,
length], "stop_at": step, "saver": "naive"}. All of them are functions of the data's position, so
that a run that was killed and started again meets what the run that was never killed meets.
"""

import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))


def hook_draw(before):
    """Calls `before(number of the batch, from 0)` before each draw, of every stage."""
    from janus_jax.data import pipeline, random_pictures

    draw = pipeline.Batches.__next__
    look = random_pictures.RandomPictures.__getitem__

    def drawn(self):
        before(self.step)
        return draw(self)

    def looked(self, step):
        before(step)
        return look(self, step)

    pipeline.Batches.__next__, random_pictures.RandomPictures.__getitem__ = drawn, looked


def pace(seconds: float):
    """A source of data that gives a batch every so many seconds, and does not catch up."""
    last = time.monotonic()

    def wait(_):
        nonlocal last
        time.sleep(max(last + seconds - time.monotonic(), 0))
        last = time.monotonic()

    hook_draw(wait)


def stop_at(step: int):
    """SIGTERM to itself while the batch of `step` is drawn: the run saves this step and ends."""
    hook_draw(lambda number: os.kill(os.getpid(), signal.SIGTERM) if number >= step - 1 else None)


def poison(period: int, length: int):
    """NaN losses in `length` steps, from every `period`-th on. The loss is where it enters, in the
    step that is compiled: gradients, the select that leaves the update out, and the monitor are
    main's own."""
    import jax.numpy as jnp

    from janus_jax.training import step
    from janus_jax.training.tasks import vq

    update = step.update

    def poisoned(state, tx, loss_fn, parts=None):
        factor = jnp.where((state.step >= period) & (state.step % period < length), jnp.nan, 1.0)

        def loss(model, *part):
            value, metrics = loss_fn(model, *part)
            return value * factor, metrics

        return update(state, tx, loss, parts)

    step.update = vq.update = poisoned


def main():
    hooks = json.loads(os.environ.get("HOOKS", "{}"))
    if "pace" in hooks:
        pace(hooks["pace"])
    if "stop_at" in hooks:
        stop_at(hooks["stop_at"])
    if "poison" in hooks:
        poison(*hooks["poison"])
    if hooks.get("saver") == "naive":
        from faults.chaos import naive

        from janus_jax.checkpoint.inspect import StageProgress
        from janus_jax.training import preflight, stages

        stages.Checkpointer = naive.Checkpointer
        preflight.inspect_stage = lambda *_: StageProgress()  # it believes whatever lies there
    from janus_jax.main import main

    main()


if __name__ == "__main__":
    main()
