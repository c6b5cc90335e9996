"""What training costs: rates between two records of the log, and a profile of some steps.

The clock is the host's, and no step waits for it: an interval runs from one record to the next,
where the loop has waited for the devices anyway. It rests while the loop logs, saves, rolls back or
profiles (the rest of a checkpoint, written in the background, is not taken out). MFU follows the
conventions of flops.py.
"""

import math
import pathlib
import resource
import socket
import sys
import time
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from janus_jax.distributed import chips, processes
from janus_jax.model.batch import TASKS
from janus_jax.training.curves import PROBES

WARMUP = 3  # steps of a stage before those that are profiled: compilation, and caches filling


def numbers(metrics: dict) -> dict[str, float]:
    """A step's metrics on the host; where a step had no token of a task, that task had no loss, and
    where a probe found nothing (NaN), there is none.

    The count of updates that were not made is left to `LossMonitor.counts`, which tells it where it
    is not 0.
    """
    values = {name: float(value) for name, value in metrics.items() if name != "nonfinite_updates"}
    return {
        name: value
        for name, value in values.items()
        if not (name.startswith(PROBES) and math.isnan(value))
        and values.get(f"tokens_{name.split('_')[0]}", 1) > 0
    }


class Meter:
    """Of one stage; `with Meter(...) as meter:` ends a profile that is still running.

    The first step is waited for and left out of all rates: it holds the compilation, which is said
    once.
    steps: of the stage; profile: how many of them to trace into workdir/profile/name, 0 for none.
    """

    def __init__(self, name: str, steps: int, say=print, workdir="", profile: int = 0):
        self.name = name
        self.steps = steps
        self.say = say
        self._last = None
        self.profile = (
            Profile(pathlib.Path(workdir, "profile", name), profile, say) if profile else None
        )
        self.restart()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.profile:
            self.profile.close()

    def restart(self):
        """Forgets all since the last record."""
        self._seen, self._timed = (
            {"steps": 0},
            {"steps": 0},
        )  # since the last record; those of rates
        self._seconds = 0.0
        self._waited = 0.0
        self._since = None

    def rest(self):
        """Stops the clock until the next batch is drawn. The devices must be done, or their work is
        not counted."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
        self._since = None

    def next_batch(self, next_batch, index: int):
        """The arrays of `next_batch(index) -> (arrays, facts)`. Time in it is data wait where the
        devices had nothing left to do when it was over (they may have run dry half-way: an upper
        bound)."""
        begin = time.perf_counter()
        self._since = begin if self._since is None else self._since
        batch, seen = next_batch(index)
        if self._last is None or self._last.is_ready():
            self._waited += time.perf_counter() - begin
        for total in (self._seen, self._timed):
            for key, value in ({"steps": 1 / jax.process_count()} | seen).items():
                total[key] = total.get(key, 0) + value
        return batch

    def run(self, step_fn, state, batch, step: int):
        """`step_fn(state, batch)`, marked as `step` in a profile."""
        if self.profile and self.profile.starts():
            jax.block_until_ready(self._last)
            self.rest()
            self.profile.start(step)
            self._since = time.perf_counter()
        begin = time.perf_counter()
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            state, metrics = step_fn(state, batch)
        if self._last is None:
            called = time.perf_counter() - begin
            self.say(
                f"{self.name}: first batch after {self._waited:.1f} s, step traced and compiled in "
                f"{called:.1f} s"
            )
            jax.block_until_ready(metrics)
            seen = self._seen
            self.restart()
            self._seen = seen
        self._last = metrics["loss"]
        if self.profile and self.profile.ends(last=step == self.steps):
            jax.block_until_ready(metrics)
            self.rest()
            self.profile.stop()
        return state, metrics

    def read(self) -> dict[str, float]:
        """What to log about the steps since the last record, all processes together; begins the
        next interval. Call `rest` before it."""
        seen = processes.all_sum(self._seen)
        timed = processes.all_sum(self._timed)
        out = shares(seen) | rates(timed, self._seconds, self._waited) | memory()
        self.restart()
        return out


def shares(seen: dict) -> dict[str, float]:
    """Facts summed over steps and processes as shares, and as means a step."""
    out = {}
    examples = sum(seen.get(task, 0) for task in TASKS)
    for task in TASKS:
        if task in seen:
            out[f"examples_{task}"] = seen[task] / max(examples, 1)
            out[f"positions_{task}"] = seen[f"positions_{task}"] / seen["positions"]
    if "positions" in seen:
        out["examples"] = examples / seen["steps"]
        out["fill"] = seen["tokens"] / seen["positions"]
        out["truncated"] = seen["truncated"] / seen["steps"]
    return out


def rates(timed: dict, seconds: float, waited: float) -> dict[str, float]:
    """Facts of `seconds`, summed over processes, as rates.

    step_seconds = data_seconds + compute_seconds; data_wait = data_seconds / step_seconds; tflops:
    10^12 model FLOPs a second and device; mfu: their share of the bf16 peak, where the device's is
    known.
    """
    steps = timed["steps"]
    if not steps:
        return {}
    out = {
        "step_seconds": seconds / steps,
        "data_seconds": waited / steps,
        "compute_seconds": (seconds - waited) / steps,
        "data_wait": waited / seconds,
    }
    out |= {f"{n}_per_second": timed[n] / seconds for n in ("tokens", "images") if n in timed}
    if "flops" in timed:
        each = timed["flops"] / seconds / jax.device_count()
        chip = chips.of_device(jax.devices()[0])
        out["tflops"] = each / 1e12
        out |= {"mfu": each / chip.flops} if chip else {}
    return out


def memory() -> dict[str, float]:
    """The most memory that was in use so far, in GB (1e9 bytes): of this process's fullest device,
    or, where devices do not say (CPU), of the process itself, data workers not included."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    if peaks:
        return {"device_memory_gb": max(peaks) / 1e9}
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, see getrusage(2)
    return {"process_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


class Profile:
    """A trace of `steps` steps of a stage, after WARMUP others, in `directory` (jax.profiler's
    layout: plugins/profile/<time>/<host>.xplane.pb, and perfetto_trace.json.gz beside it)."""

    def __init__(self, directory: pathlib.Path, steps: int, say=print):
        self.directory = directory
        self.steps = steps
        self.say = say
        self.here = first_of_host()
        self.before = WARMUP
        self.traced = 0
        self.running = False

    def starts(self) -> bool:
        """Asked before each step: does the trace begin with it?"""
        self.before -= 1
        return self.before == -1

    def start(self, step: int):
        self.running = True
        self.first = step
        if self.here:
            jax.profiler.start_trace(self.directory, create_perfetto_trace=True)

    def ends(self, last: bool) -> bool:
        """Asked after each step, the stage's last or not: was it the last of the trace?"""
        self.traced += self.running
        return self.running and (last or self.traced == self.steps)

    def stop(self):
        self.running = False
        if self.here:
            jax.profiler.stop_trace()
        self.say(
            f"profile of {self.traced} step(s) from step {self.first} on in {self.directory}: open "
            "its perfetto_trace.json.gz at https://ui.perfetto.dev, or `pip install xprof "
            f"tensorboard` and `tensorboard --logdir {self.directory.parent}`"
        )

    def close(self):
        """The stage is over: says where fewer steps were traced than were asked for, and ends a
        trace that an error has cut short."""
        if self.running:
            self.stop()
        if self.traced < self.steps:
            self.say(
                f"profile: {self.steps} steps after {WARMUP} were asked for, but only "
                f"{self.traced} of them ran"
            )


def first_of_host() -> bool:
    """Is this the first process on its machine? One trace a machine is enough, and its files bear
    the host's name."""
    if jax.process_count() == 1:
        return True
    mine = np.uint32(zlib.crc32(socket.gethostname().encode()))
    return int(np.argmax(multihost_utils.process_allgather(mine) == mine)) == jax.process_index()
