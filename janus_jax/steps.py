"""The checkpoints of a stage on the disk, by step: named when they are whole, out of sight before they are deleted.

DIR/<step> is whole: written, summed (checksums.py) and named in this order. What is being written or deleted has a
name that begins with a dot, and goes when the next run begins. One whose files are no longer what was written is
moved to DIR/damaged-<step>, for whoever wants to look; nobody deletes it. Only the first process calls all this.
"""

import os
import pathlib
import shutil
import time

from janus_jax import checksums
from janus_jax.convert.table import listed

SAVING, DELETING = ".saving-", ".deleting-"


class CheckpointsDamaged(OSError):
    """There are checkpoints, but none that can be read."""


class Steps:
    """keep: how many of the latest stay; keep_every: and those that it divides, 0 for none."""

    def __init__(self, directory: pathlib.Path, keep: int, keep_every: int, say):
        self.directory, self.keep, self.keep_every, self.say = directory, keep, keep_every, say
        self.bytes = 0  # of the last one that was named

    def all(self) -> list[int]:
        """In order."""
        return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdigit())

    def path(self, step: int) -> pathlib.Path:
        return self.directory / str(step)

    def last(self) -> str:
        """In words."""
        steps = self.all()
        return f"step {steps[-1]}" if steps else "the beginning"

    def clean(self):
        """Removes what a killed run or a failed save left half-written or half-deleted."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in [*self.directory.iterdir()]:
            if path.name.startswith((SAVING, DELETING)):
                self._remove(path)  # writers of a save that has failed may still be at work on the old name

    def name(self, step: int, written: pathlib.Path, facts: dict):
        """Makes a written directory the checkpoint of `step`, with a manifest of `facts`; deletes those too many."""
        self.bytes = checksums.write(written, facts)
        if step in self.all():
            self._remove(self.path(step))
        written.rename(self.path(step))
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name too is on the disk
        finally:
            os.close(descriptor)
        for old in self.all()[: -self.keep]:
            if not (self.keep_every and old % self.keep_every == 0):
                self._remove(self.path(old))

    def _remove(self, path: pathlib.Path):
        gone = self.directory / f"{DELETING}{path.name.lstrip('.')}.{time.time_ns()}"
        path.rename(gone)  # first out of sight: a deletion can be killed half-way
        shutil.rmtree(gone, ignore_errors=True)

    def latest(self) -> int | None:
        """The latest sound step; those later than it are moved out of the way, so that they can be saved again."""
        damaged = {}
        for step in reversed(self.all()):
            damaged[step] = checksums.problems(self.path(step))
            if not damaged[step]:
                break
        lines = [f"step {step}: {problem}" for step, found in damaged.items() for problem in found]
        if damaged and all(damaged.values()):
            raise CheckpointsDamaged(
                f"{self.directory}: every checkpoint is damaged; put back good files, or remove the directory to "
                f"begin the stage anew:{listed(lines)}"
            )
        if lines:
            self.aside([step for step, found in damaged.items() if found], lines)
        return min(damaged, default=None)

    def aside(self, steps: list[int], lines: list[str]):
        """Moves damaged ones away, loudly."""
        for step in steps:
            aside = self.directory / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            self.path(step).rename(aside)
        self.say(
            f"DAMAGED CHECKPOINT in {self.directory}, moved aside as damaged-<step>; going on from {self.last()}:"
            f"{listed(lines)}"
        )

    def short(self, size: int) -> str:
        """Why there is no room for a checkpoint, whose arrays take `size` bytes; empty if there is."""
        free, need = shutil.disk_usage(self.directory).free, 1.05 * self.bytes or size
        return f"no space left on the device: {need / 1e9:.3g} GB are needed" if free < need else ""
