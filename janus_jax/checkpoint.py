"""Checkpoints of a stage while it trains: saved in the background, whole or not there, and sound or not taken.

The state (step, weights, moments), the position in the data and what the guard has seen, as Orbax writes and reads
them. What lies on the disk under which name is in steps.py, what has to be there in checksums.py. Orbax's own
manager is not used: it deletes steps in sight, and has no place for sums before the final name.
"""

import contextlib
import errno
import itertools
import logging
import pathlib
import secrets
import shutil
import sys
import threading
import time

import jax
import orbax.checkpoint as ocp

from janus_jax import checksums, hosts
from janus_jax.convert.table import listed
from janus_jax.data import durable
from janus_jax.joint import Joint
from janus_jax.model.config import differences
from janus_jax.steps import SAVING, Steps

WAITS = (5, 20)  # seconds before the second and third try where a run ends with the save
LONGEST = (
    600  # seconds between two tries while it trains; the first wait is 10, then each is twice the one before
)
TIMEOUT = 3600  # seconds that a save may take, as long as the watchdog lets the loop wait for one


def _said_here(record: logging.LogRecord) -> bool:
    """Keeps out what Orbax logs of a save that has failed, a page for each array: `check` says it in a line."""
    text = record.getMessage()
    return not any(x in text for x in ("async_serialize", "Handler Commit operations", "_SignalingThread"))


for _name in ("asyncio", "absl"):
    logging.getLogger(_name).addFilter(_said_here)


_opened = itertools.count()  # all processes open alike


class CheckpointError(ValueError):
    """A checkpoint is not of this run, or does not fit its state."""


class NotSaved(OSError):
    """The run is over, or was told to stop, and its last state could not be saved."""


class Checkpointer:
    """Saves and restores one stage. `data` is a pipeline.Batches, or None when the data is a function of the step;
    `guard` has get_state and set_state like it, in values that JSON holds.

    run: {"run": its id, "config": nested facts}, written into each checkpoint; one of another run is refused.
    keep: how many of the latest checkpoints stay; keep_every: and those whose step it divides, 0 for none.
    All processes call all methods alike, but `check`.
    """

    def __init__(self, directory, run: dict | None = None, keep: int = 2, keep_every: int = 0, say=print):
        self.directory, self.run, self.say = pathlib.Path(directory).absolute(), run or {}, say
        self.steps = Steps(self.directory, keep, keep_every, say)
        self._orbax = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(timeout_secs=TIMEOUT, barrier_sync_fn=self._meet),
        )
        self._thread = self._error = self._again = self._joint = None
        self._opened = next(_opened)
        self._failures, self._tries, self._last = 0, 0, False  # _last: the run waits for this save
        hosts.together(lambda: hosts.first() and self.steps.clean())

    def save(self, step: int, state, data=None, guard=None):
        """Returns once the state is copied; the rest is done in the background, where it can fail: see `check`.

        Raises FloatingPointError for a state that is not finite, and saves nothing.
        """
        facts = checksums.of_leaves(leaves(state))
        if bad := [name for name, x in facts.items() if not x.pop("finite")]:
            raise FloatingPointError(
                f"{self.directory}, step {step}: {len(bad)} arrays hold a NaN or an infinity ({', '.join(bad[:3])}), "
                f"so this state is not saved; the checkpoints before it are kept. A larger optim.eps or a lower "
                f"optim.learning_rate keeps updates finite."
            )
        items = {"state": ocp.args.StandardSave(leaves(state))}
        if data is not None:
            items["data"] = ocp.args.JsonSave(data.get_state(hosts.gather))
        if guard is not None:
            items["guard"] = ocp.args.JsonSave(guard.get_state())
        self.wait()
        if why := hosts.gather(hosts.first() and self._unable(checksums.bytes_of(facts)))[0]:
            # Orbax would find out too, with a page of log for each array, and its other processes much later.
            return self._failed(step, OSError(errno.ENOSPC, why))
        self._tries += 1
        self._joint = Joint(f"save/{self.directory.name}/{self._opened}.{self._tries}")
        saving = self.directory / f"{SAVING}{step}.{self._tries}"
        manifest = {"step": step, **self.run, "leaves": facts}
        self._thread = threading.Thread(target=self._finish, args=(step, saving, manifest), name="checkpoint")
        try:
            self._orbax.save(saving, args=ocp.args.Composite(**items))
        except (OSError, ValueError, RuntimeError) as error:  # TensorStore's of a full disk is a ValueError
            self._error = (step, error)
        self._thread.start()

    def check(self):
        """Says whether the save in the background has failed, once it has. Costs nothing; asked after each step."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self):
        """Until nothing is being saved."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            self._failed(*error)

    def due(self) -> bool:
        """Whether to save again now because the last save has failed."""
        self.check()
        return any(hosts.gather(self._again is not None and time.monotonic() >= self._again))

    def settle(self, save):
        """Until what was saved last is on the disk; where that fails, `save()` is tried again. Raises NotSaved."""
        self._last = True
        self.wait()
        for wait in WAITS:
            if not any(hosts.gather(self._again is not None)):
                self._last = False
                return
            self.say(f"this is the last save of the stage or run: tries again in {wait} s")
            time.sleep(wait)
            save()
            self.wait()
        if any(hosts.gather(self._again is not None)):
            raise NotSaved(
                f"{self.directory}: the last state could not be saved, {1 + len(WAITS)} times (see the ERROR lines). "
                f"The last good checkpoint is {self.steps.last()}. Mend what they name (free some space), and the same "
                f"command goes on from there"
            )

    def restore(self, like, data=None, guard=None):
        """The state of the latest sound checkpoint, with `data` and `guard` moved to it; `like` itself if there
        is no checkpoint at all.

        like: a train state, of arrays or of their shapes with shardings (any mesh). Arrays are donated: they make
        room for those that are read. Damaged ones later than it are moved out of the way, so that they can be saved
        again. Raises CheckpointError naming every leaf that does not fit, before any is read, or the run that the
        checkpoint is of; CheckpointsDamaged where none is sound.
        """
        self.wait()
        damaged = {}
        while (step := self._sound(damaged)) is not None:
            directory = self.steps.path(step)
            manifest = hosts.gather(checksums.read(directory) if hosts.first() else None)[0]
            self._require(directory, manifest, leaves(like))
            restored = self._read(directory, leaves(like), data, guard)
            sums = checksums.of_leaves(restored["state"])
            wrong = [name for name, x in manifest["leaves"].items() if x["sum"] != sums[name]["sum"]]
            if not wrong:
                break
            like = like.replace(**restored["state"])
            damaged[step] = [f"{name} was read otherwise than it was saved" for name in wrong]
        else:
            return like
        if any(hosts.gather(bool(damaged))):
            hosts.together(lambda: hosts.first() and self.steps.aside(damaged))
        if guard is not None:
            guard.set_state(restored["guard"])
        for line in data.set_state(restored["data"]) if data is not None else ():
            self.say(f"data, step {step}: {line}")
        return like.replace(**restored["state"])

    def close(self):
        self.wait()
        self._orbax.close()

    def _sound(self, damaged: dict) -> int | None:
        """The first process looks, for all."""
        return hosts.gather(hosts.together(lambda: self.steps.sound(damaged) if hosts.first() else None))[0]

    def _unable(self, size: int) -> str:
        if self._again is not None:
            self.steps.clean()
        return self.steps.unable(size)

    def _read(self, directory, like: dict, data, guard):
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        jax.tree.map(lambda x: x.delete() if isinstance(x, jax.Array) else None, like)
        items = {"state": ocp.args.StandardRestore(target)}
        items |= {
            name: ocp.args.JsonRestore() for name, x in (("data", data), ("guard", guard)) if x is not None
        }
        return self._orbax.restore(directory, args=ocp.args.Composite(**items))

    def _require(self, directory, manifest: dict, like: dict):
        if self.run and manifest.get("run") != self.run["run"]:
            changed = differences(manifest.get("config", {}), self.run["config"])
            raise CheckpointError(
                f"{directory} is a checkpoint of run {manifest.get('run')}, this is run {self.run['run']}: give that "
                f"run's --workdir, or begin a stage with its weights (stages.<name>.init). Their configs differ in:"
                f"{listed(changed) if changed else ' nothing'}"
            )
        if problems := checksums.unfit(manifest, like):
            raise CheckpointError(
                f"{directory} does not fit this config's train state (another model, or other children that learn?); "
                f"use another --workdir, or the config that it was trained with:{listed(problems)}"
            )

    # In the background.

    def _meet(self, key: str, timeout_ms: int):
        """Orbax's barriers of a save, in its own thread."""
        self._joint.meet("written" if "write_complete" in key else "done", timeout_ms / 1000)

    def _finish(self, step: int, saving: pathlib.Path, manifest: dict):
        try:
            if self._error is None:
                self._orbax.wait_until_finished()
                if hosts.first():
                    self.steps.name(step, saving, manifest)
                self._joint.meet("named", TIMEOUT)
                self._failures, self._again = 0, None
                if hosts.first():
                    self.steps.prune()
        except Exception as error:  # whatever it is: training goes on, and it is said
            self._error = (step, error)
        if self._error is None:
            return
        self._joint.fail(_text(self._error[1]))
        if hosts.first():
            self.steps.clean()  # it may be what fills the disk

    def _failed(self, step: int, error: Exception):
        wait = min(10 * 2**self._failures, LONGEST)
        self._failures, self._again = self._failures + 1, time.monotonic() + wait
        text = f"ERROR: {self.directory}: step {step} is not saved ({_text(error)}"
        with contextlib.suppress(OSError):  # a file system that is gone cannot tell
            free, last = shutil.disk_usage(self.directory).free / 1e9, self.steps.last()
            text += f"; {free:.3g} GB free; the last good checkpoint is {last}"
        text += (
            ")"
            if self._last
            else f"). Training goes on; the next try is in {wait} s, or at the next checkpoint"
        )
        if hosts.first():
            self.say(text)
        else:
            with contextlib.suppress(OSError, ValueError):
                print(f"process {jax.process_index()}: {text}", file=sys.stderr, flush=True)


def _text(error: Exception) -> str:
    full = "No space left on device" in str(error)  # TensorStore's, a ValueError of a page
    said = str(error.args[-1]) if error.args else ""
    return "no space left on the device" if full else said[:500] or type(error).__name__


def run_id(workdir: pathlib.Path) -> str:
    """What the run in a work directory is known by, noted there when it begins."""

    def noted() -> str:
        path = pathlib.Path(workdir, "run")
        known = known_run(path.parent) or secrets.token_hex(8)
        if not path.is_file() or path.read_text() != known:
            durable.write(path, known)
        return known

    return hosts.gather(noted() if hosts.first() else None)[0]


def known_run(workdir: pathlib.Path) -> str:
    """The id that a work directory's file `run` holds; where a crash has left it empty or away, the one that all
    checkpoints were saved with; else empty."""
    path = workdir / "run"
    text = path.read_text(errors="replace").strip("\0 \n") if path.is_file() else ""
    if text:
        return text
    runs = set()
    for manifest in workdir.glob(f"checkpoints/*/[0-9]*/{checksums.NAME}"):
        with contextlib.suppress(OSError, ValueError):
            runs.add(checksums.read(manifest.parent).get("run"))
    return str(runs.pop() or "") if len(runs) == 1 else ""


def leaves(state) -> dict:
    """What a checkpoint holds of a train state."""
    return {name: getattr(state, name) for name in ("step", "left_out", "trainable", "frozen", "opt_state")}
