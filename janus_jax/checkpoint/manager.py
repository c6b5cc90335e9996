"""Checkpoints of a stage while it trains: saved in the background, whole or not there, and sound or
not taken.

The state (step, weights, moments), the position in the data and what the monitor has seen, as Orbax
writes and reads them. What is written under which name stands in store.py, what is found there in
inspect.py, and its sums in checksums.py. Orbax's own manager is not used: it deletes steps in
sight, and has no place for sums before the final name.
"""

import contextlib
import errno
import itertools
import logging
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Callable

import jax
import orbax.checkpoint as ocp

from janus_jax.checkpoint import checksums, inspect
from janus_jax.checkpoint.inspect import CheckpointError, leaves
from janus_jax.checkpoint.store import SAVING, Store
from janus_jax.distributed import processes
from janus_jax.distributed.barrier import ThreadBarrier

WAITS = (5, 20)  # seconds before the second and third try where a run ends with the save
# Seconds between two tries while it trains, at most; the first wait is 10, then each is twice the
# one before.
LONGEST = 600
TIMEOUT = 3600  # seconds that a save may take, as long as the watchdog lets the loop wait for one


_opened = itertools.count()  # all processes open alike


def _said_in_a_line(record: logging.LogRecord) -> bool:
    """Keeps out Orbax's page of log for each array of a failed save: `poll` says it in a line."""
    text = record.getMessage()
    return not any(
        x in text for x in ("async_serialize", "Handler Commit operations", "_SignalingThread")
    )


class Checkpointer:
    """Saves and restores one stage. All processes call all methods alike, but `poll`.

    directory: where its checkpoints lie.
    run: {"run": its id, "config": and other nested facts}, written into each checkpoint; one of
        another run is refused.
    keep: how many of the latest checkpoints stay.
    keep_every: and those whose step it divides, 0 for none.
    say: what tells a line to the user.

    Where a method takes `data` it is a pipeline.Batches, or None when the data is a function of the
    step; `monitor` has get_state and set_state like it, in values that JSON holds.
    """

    def __init__(
        self, directory, run: dict | None = None, keep: int = 2, keep_every: int = 0, say=print
    ):
        self.directory = pathlib.Path(directory).absolute()
        self.run = run or {}
        self.say = say
        self.store = Store(self.directory, keep, keep_every, say)
        for name in ("asyncio", "absl"):
            logging.getLogger(name).addFilter(_said_in_a_line)
        self._orbax = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(
                timeout_secs=TIMEOUT, barrier_sync_fn=self._wait_for_all
            ),
        )
        self._thread = self._error = self._again = self._barrier = None
        self._opened = next(_opened)
        self._failures = self._tries = 0
        self._last = False  # whether the run waits for this save
        processes.all_or_none(lambda: processes.is_lead() and self.store.clean())

    def save(self, step: int, state, data=None, monitor=None):
        """Returns once the state is copied, and can be donated; the rest is done in the background,
        where it can fail: see `poll`. A state that is not finite gets no name there."""
        items = {"state": ocp.args.StandardSave(leaves(state))}
        if data is not None:
            items["data"] = ocp.args.JsonSave(data.get_state(processes.all_gather))
        if monitor is not None:
            items["monitor"] = ocp.args.JsonSave(monitor.get_state())
        self.wait()
        size = sum(x.nbytes for x in jax.tree.leaves(leaves(state)))
        unwritable = lambda: self.store.why_unwritable(size, self._again is not None)
        if why := processes.all_gather(unwritable() if processes.is_lead() else "")[0]:
            # Orbax would find out too, with a page of log for each array, and its other processes
            # much later.
            return self._failed(step, OSError(errno.ENOSPC, why))
        self._tries += 1
        self._barrier = ThreadBarrier(f"save/{self.directory.name}/{self._opened}.{self._tries}")
        saving = self.directory / f"{SAVING}{step}.{self._tries}"
        args = step, saving, checksums.start(leaves(state))
        self._thread = threading.Thread(target=self._finish, args=args, name="checkpoint")
        try:
            self._orbax.save(saving, args=ocp.args.Composite(**items))
        except (OSError, ValueError, RuntimeError) as error:  # a full disk is a ValueError
            self._error = (step, error)
        self._thread.start()

    def poll(self):
        """Says whether the save in the background has failed, once it has. Costs nothing; asked
        after each step. Raises FloatingPointError where the state was not finite."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self):
        """Until nothing is being saved. Raises as `poll` does."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        step, error = self._error or (None, None)
        self._error = None
        if isinstance(error, FloatingPointError):
            raise error
        if error is not None:
            self._failed(step, error)

    def due(self) -> bool:
        """Whether to save again now because the last save has failed."""
        self.poll()
        return any(
            processes.all_gather(self._again is not None and time.monotonic() >= self._again)
        )

    def wait_until_saved(self, save):
        """Until what was saved last is on the disk; where that fails, `save()` is tried again.
        Raises NotSaved."""
        self._last = True
        self.wait()
        for wait in WAITS:
            if not any(processes.all_gather(self._again is not None)):
                self._last = False
                return
            self.say(f"this is the last save of the stage or run: tries again in {wait} s")
            time.sleep(wait)
            save()
            self.wait()
        if any(processes.all_gather(self._again is not None)):
            raise inspect.NotSaved(
                f"{self.directory}: the last state could not be saved, {1 + len(WAITS)} times (see "
                f"the ERROR lines). The last good checkpoint is {self.store.last()}. Mend what "
                f"they name (free some space), and the same command goes on from there"
            )

    def restore(self, like, data=None, monitor=None):
        """The state of the latest sound checkpoint, with `data` and `monitor` moved to it; None
        where there is no checkpoint at all.

        like: a train state, of arrays or of their shapes with shardings (any mesh). Where there is
            a checkpoint, its arrays are donated: they make room for those that are read.
        data, monitor: see the class.

        Damaged checkpoints later than it are moved out of the way, so that they can be saved again.
        Raises CheckpointError naming every leaf that does not fit, before any is read, or the run
        that the checkpoint is of; CheckpointsDamaged where none is sound.
        """
        self.wait()
        damaged = {}
        # The sums of the arrays tell whether their files were sound: these are summed only to name
        # the one that is not. Of several processes those that can read would wait for one that
        # cannot, so there files are summed first.
        deep = jax.process_count() > 1
        while True:
            step, found = self._latest_sound(damaged, deep)
            damaged |= found
            if step is None:
                return None
            directory = self.store.path(step)
            manifest = processes.all_gather(
                checksums.read_manifest(directory) if processes.is_lead() else None
            )[0]
            self._require(directory, manifest, leaves(like))
            try:
                restored = self._read(directory, leaves(like), data, monitor)
            except Exception as error:  # whatever Orbax makes of a damaged file
                if deep:
                    raise
                deep = self._looks_closer(directory, _text(error))
                continue
            sums = checksums.of_leaves(restored["state"])
            wrong = [
                f"{name} was read otherwise than it was saved"
                for name, x in manifest["leaves"].items()
                if x["sum"] != sums[name]["sum"]
            ]
            if not wrong:
                break
            like = like.replace(**restored["state"])
            if deep:
                damaged[step] = wrong
            else:
                deep = self._looks_closer(directory, wrong[0])
        if damaged:
            processes.all_or_none(lambda: processes.is_lead() and self.store.quarantine(damaged))
        if monitor is not None:
            monitor.set_state(restored["monitor"])
        for line in data.set_state(restored["data"]) if data is not None else ():
            self.say(f"data, step {step}: {line}")
        return like.replace(**restored["state"])

    def close(self):
        self.wait()
        self._orbax.close()

    def _looks_closer(self, directory: pathlib.Path, why: str) -> bool:
        self.say(f"{directory}: {why}; sums its files, and reads it again if they are sound")
        return True

    def _latest_sound(self, damaged: dict, deep: bool) -> tuple[int | None, dict]:
        """`inspect.latest_sound`, at which the first process looks for all; JSON's keys are
        words."""
        damage = lambda checkpoint: inspect.damage(checkpoint, deep)
        look = lambda: inspect.latest_sound(self.directory, damage, damaged)
        found = processes.all_or_none(lambda: look() if processes.is_lead() else None)
        step, passed_over = processes.all_gather(found)[0]
        return step, {int(key): lines for key, lines in passed_over.items()}

    def _read(self, directory, like: dict, data, monitor):
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        jax.tree.map(lambda x: x.delete() if isinstance(x, jax.Array) else None, like)
        items = {"state": ocp.args.StandardRestore(target)}
        items |= {
            name: ocp.args.JsonRestore()
            for name, x in (("data", data), ("monitor", monitor))
            if x is not None
        }
        return self._orbax.restore(directory, args=ocp.args.Composite(**items))

    def _require(self, directory, manifest: dict, like: dict):
        wrong = inspect.misfit(directory, manifest, like)
        if self.run:
            wrong = inspect.another_run(directory, manifest, self.run) or wrong
        if wrong:
            raise CheckpointError(wrong)

    # In the background.

    def _wait_for_all(self, key: str, timeout_ms: int):
        """Orbax's barriers of a save, in its own thread."""
        self._barrier.wait("written" if "write_complete" in key else "done", timeout_ms / 1000)

    def _finish(self, step: int, saving: pathlib.Path, sums: Callable[[], dict]):
        try:
            if self._error is None:
                facts = sums()
                not_finite = checksums.not_finite(facts, f"{self.directory}, step {step}")
                try:
                    self._orbax.wait_until_finished()
                finally:
                    if not_finite:  # on all processes; one that fails first ends the others' waits
                        raise not_finite
                if processes.is_lead():
                    self.store.commit(step, saving, {"step": step, **self.run, "leaves": facts})
                self._barrier.wait("named", TIMEOUT)
                self._failures = 0
                self._again = None
                if processes.is_lead():
                    self.store.prune()
        except Exception as error:  # whatever it is: training goes on, and it is said
            self._error = (step, error)
        if self._error is None:
            return
        self._barrier.fail(_text(self._error[1]))
        if processes.is_lead():
            self.store.clean()  # it may be what fills the disk

    def _failed(self, step: int, error: Exception):
        wait = min(10 * 2**self._failures, LONGEST)
        self._failures += 1
        self._again = time.monotonic() + wait
        text = f"ERROR: {self.directory}: step {step} is not saved ({_text(error)}"
        with contextlib.suppress(OSError):  # a file system that is gone cannot tell
            free = shutil.disk_usage(self.directory).free / 1e9
            text += f"; {free:.3g} GB free; the last good checkpoint is {self.store.last()}"
        text += ")"
        if not self._last:
            text += f". Training goes on; the next try is in {wait} s, or at the next checkpoint"
        if processes.is_lead():
            self.say(text)
        else:
            with contextlib.suppress(OSError, ValueError):
                print(f"process {jax.process_index()}: {text}", file=sys.stderr, flush=True)


def _text(error: Exception) -> str:
    if "No space left on device" in str(error):  # TensorStore's, a ValueError of a page
        return "no space left on the device"
    said = str(error.args[-1]) if error.args else ""
    return said[:500] or type(error).__name__
