"""The checkpoints of a stage on the disk, by step: named when they are whole, out of sight before they are deleted.

DIR/<step> is whole: written, summed (checksums.py) and named in this order. What is being written or deleted has a
name that begins with a dot, and goes when the next run begins. One whose files are no longer what was written is
moved to DIR/damaged-<step>, for whoever wants to look; nobody deletes it. Only the first process calls all this.
"""

import errno
import os
import pathlib
import shutil
import time

from janus_jax import checksums
from janus_jax.convert.table import listed

SAVING, DELETING = ".saving-", ".deleting-"


class CheckpointsUnreadable(OSError):
    """The file system does not let them be read; they may well be sound."""


class CheckpointsDamaged(CheckpointsUnreadable):
    """There are checkpoints, but none that is sound."""


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
        """Removes what a killed run or a failed save left half-written or half-deleted, as far as it can be."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in [*self.directory.iterdir()]:
            if path.name.startswith((SAVING, DELETING)):
                self._remove(path)

    def name(self, step: int, written: pathlib.Path, facts: dict):
        """Makes a written directory the checkpoint of `step`, with a manifest of `facts`."""
        self.bytes = checksums.write(written, facts)
        if step in self.all():
            self._remove(self.path(step))
        written.rename(self.path(step))
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name too is on the disk
        finally:
            os.close(descriptor)

    def prune(self):
        """Deletes those too many."""
        for old in self.all()[: -self.keep]:
            if not (self.keep_every and old % self.keep_every == 0):
                self._remove(self.path(old))

    def _remove(self, path: pathlib.Path):
        gone = path
        try:
            if not path.name.startswith(DELETING):
                # First out of sight: a deletion can be killed half-way. And writers of a save that has failed may
                # still be at work on the old name.
                gone = self.directory / f"{DELETING}{path.name.lstrip('.')}.{time.time_ns()}"
                path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        except OSError as error:
            self.say(f"ERROR: {path} cannot be deleted ({error.strerror}); it stays")

    def sound(self, damaged: dict[int, list[str]]) -> int | None:
        """The latest step whose files are what was written, but for those in `damaged` (step -> what is wrong), into
        which it enters those that it finds. Nothing is moved yet.

        Raises CheckpointsDamaged where all are; CheckpointsUnreadable where the file system is at fault.
        """
        for step in reversed(self.all()):
            if step in damaged:
                continue
            try:
                wrong = checksums.problems(self.path(step))
            except OSError as error:
                raise CheckpointsUnreadable(
                    errno.EIO, f"{error.filename or self.path(step)}: {error.strerror}; nothing was changed. It may be "
                    f"sound: mend the file system or the permissions, and start again"
                ) from error  # fmt: skip
            if not wrong:
                return step
            damaged[step] = wrong
        if damaged:
            raise CheckpointsDamaged(
                f"{self.directory}: every checkpoint is damaged; put back good files, or remove the directory to "
                f"begin the stage anew:{_listed(damaged)}"
            )
        return None

    def aside(self, damaged: dict[int, list[str]]):
        """Moves damaged ones away, loudly."""
        for step in damaged:
            names = (f"damaged-{step}" + f".{n}" * (n > 0) for n in range(1000))
            self.path(step).rename(next(p for p in map(self.directory.joinpath, names) if not p.exists()))
        self.say(
            f"DAMAGED CHECKPOINT in {self.directory}, moved aside as damaged-<step>; going on from {self.last()}:"
            f"{_listed(damaged)}"
        )

    def unable(self, size: int) -> str:
        """Why no checkpoint can be written, whose arrays take `size` bytes; empty if nothing speaks against it."""
        probe = self.directory / f"{SAVING}probe"
        try:
            free, need = shutil.disk_usage(self.directory).free, 1.05 * self.bytes or size
            probe.mkdir(exist_ok=True)  # a disk can have room, but no inodes
            probe.rmdir()
        except OSError as error:
            return error.strerror or str(error)
        return f"no space left on the device: {need / 1e9:.3g} GB are needed" if free < need else ""


def _listed(damaged: dict[int, list[str]]) -> str:
    return listed([f"step {step}: {problem}" for step, found in damaged.items() for problem in found])
