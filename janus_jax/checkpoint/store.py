"""The checkpoints of a stage on the disk, by step: named when they are whole, out of sight before
they are deleted.

DIR/<step> is whole: written, summed (checksums.py) and named in this order. What is being written
or deleted has a name that begins with a dot, and goes when the next run begins. One whose files are
no longer what was written is moved to DIR/damaged-<step>, for whoever wants to look; nobody deletes
it. Only the first process calls all this.
"""

import pathlib
import shutil
import time

from janus_jax.checkpoint import checksums, inspect
from janus_jax.common import files

SAVING = ".saving-"
DELETING = ".deleting-"


class Store:
    """The directory of one stage's checkpoints.

    keep: how many of the latest stay.
    keep_every: and those that it divides, 0 for none.
    say: what tells a line to the user.

    `best` may be set to what says which of the steps that are there stays as the best.
    """

    def __init__(self, directory: pathlib.Path, keep: int, keep_every: int, say):
        self.directory = directory
        self.keep = keep
        self.keep_every = keep_every
        self.say = say
        self.best = lambda steps: None
        self.bytes = 0  # of the last one that was committed

    def path(self, step: int) -> pathlib.Path:
        return self.directory / str(step)

    def last(self) -> str:
        """The latest, in words."""
        steps = inspect.steps(self.directory)
        return f"step {steps[-1]}" if steps else "the beginning"

    def clean(self):
        """Removes what a killed run or a failed save left half-written or half-deleted, as far as
        it can be."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in [*self.directory.iterdir()]:
            if path.name.startswith((SAVING, DELETING)):
                self._remove(path)

    def commit(self, step: int, written: pathlib.Path, facts: dict):
        """Makes a written directory the checkpoint of `step`, with a manifest of `facts`."""
        self.bytes = checksums.write(written, facts)
        if step in inspect.steps(self.directory):
            self._remove(self.path(step))
        written.rename(self.path(step))
        files.sync(self.directory)  # the name too is on the disk

    def prune(self):
        """Deletes those too many."""
        steps = inspect.steps(self.directory)
        best = self.best(steps)
        for old in steps[: -self.keep]:
            if old != best and not (self.keep_every and old % self.keep_every == 0):
                self._remove(self.path(old))

    def _remove(self, path: pathlib.Path):
        gone = path
        try:
            if not path.name.startswith(DELETING):
                # First out of sight: a deletion can be killed half-way. And writers of a save that
                # has failed may still be at work on the old name.
                gone = self.directory / f"{DELETING}{path.name.lstrip('.')}.{time.time_ns()}"
                path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        except OSError as error:
            self.say(f"ERROR: {path} cannot be deleted ({error.strerror}); it stays")

    def quarantine(self, damaged: dict[int, list[str]]):
        """Moves damaged ones away (step -> what is wrong), loudly."""
        for step in damaged:
            away = self.directory / f"damaged-{step}"
            count = 0
            while away.exists():
                count += 1
                away = self.directory / f"damaged-{step}.{count}"
            self.path(step).rename(away)
        self.say(
            f"DAMAGED CHECKPOINT in {self.directory}, moved aside as damaged-<step>; going on from "
            f"{self.last()}:{inspect.damage_lines(damaged)}"
        )

    def why_unwritable(self, size: int, after_failure: bool) -> str:
        """Why no checkpoint can be written whose arrays take `size` bytes; empty if nothing speaks
        against it. Does not raise: other processes wait for the answer.

        after_failure: of the last save, whose remains go first.
        """
        probe = self.directory / f"{SAVING}probe"
        try:
            if after_failure:
                self.clean()
            free = shutil.disk_usage(self.directory).free
            need = 1.05 * self.bytes or size
            probe.mkdir(exist_ok=True)  # a disk can have room, but no inodes
            probe.rmdir()
        except OSError as error:
            return error.strerror or str(error)
        if free < need:
            return f"no space left on the device: {need / 1e9:.3g} GB are needed"
        return ""
