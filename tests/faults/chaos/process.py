"""One run of training as its processes: started, watched, hurt, started again."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

from janus_jax.checkpoint.store import DELETING, SAVING

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
# Without PyTorch, as tests/support/processes.py has it.
LEAN = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support' / 'without_torch'}"
POLL = 0.002  # seconds between two looks at the checkpoints
STEP = r"^(\w+) +(\d+)/\d+  .* steps/s"  # of the progress line
CLEARED = ("JAX_", "SLURM_", "OMPI_", "XLA_", "NPROC", "HOOKS")


class Training:
    """`python -m janus_jax.main` on the toy config, on eight fake devices.

    target: what toy.py trains.
    workdir: of the run. The output of the n-th start of process i is in workdir-log/n-i.txt.
    cache: the directory of compiled programs, shared by all runs.
    hooks: see child.py.
    processes: how many; the devices are shared out.
    overrides: flags, `--config.x=y`.
    """

    def __init__(self, target, workdir, cache, hooks=None, processes=1, overrides=()):
        self.target = target
        self.workdir = pathlib.Path(workdir).absolute()
        self.cache = cache
        self.hooks = hooks or {}
        self.processes = processes
        self.overrides = list(overrides)
        self.logs = self.workdir.with_name(self.workdir.name + "-log")
        self.logs.mkdir(parents=True, exist_ok=True)
        self.children = []
        self.starts = 0
        self.seen = {}

    def start(self):
        """Starts all processes; notes what earlier ones left behind."""
        self.starts += 1
        self.seen = entries(self.workdir)
        self.begun = time.monotonic()
        self.stepped_at = None
        self._looked = 0.0
        flags = [
            f"--config={HERE / 'toy.py'}:{self.target}",
            f"--workdir={self.workdir}",
            *self.overrides,
        ]
        environment = self._environment()
        self.children = []
        for i in range(self.processes):
            with open(self.log(i), "wb") as out:
                self.children.append(
                    subprocess.Popen(
                        [sys.executable, str(HERE / "child.py"), *flags],
                        cwd=ROOT,
                        start_new_session=True,
                        env=environment
                        | ({"JAX_PROCESS_ID": str(i)} if self.processes > 1 else {}),
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                    )
                )

    def _environment(self) -> dict:
        found = {k: v for k, v in os.environ.items() if not k.startswith(CLEARED)} | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(8 // self.processes),
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", "--xla_backend_optimization_level=0"),
            "NPROC": "32",  # each collective of a fake device holds a thread while it waits
            "PYTHONPATH": LEAN,
            "HOOKS": json.dumps(self.hooks),
        }
        if self.processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                found["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{free.getsockname()[1]}"
            found["JAX_NUM_PROCESSES"] = str(self.processes)
        return found

    def log(self, i: int = 0, start: int | None = None) -> pathlib.Path:
        return self.logs / f"{start or self.starts}-{i}.txt"

    def printed(self, start: int | None = None) -> str:
        """What all processes of a start (the latest) have printed so far."""
        return "".join(
            self.log(i, start).read_text(errors="replace") for i in range(self.processes)
        )

    def running(self) -> bool:
        return any(child.poll() is None for child in self.children)

    def signal(self, number: int, process: int | None = None):
        """To one process, or to all."""
        for i, child in enumerate(self.children):
            if process in (None, i) and child.poll() is None:
                os.kill(child.pid, number)

    def wait(self, seconds: float) -> list[int | None]:
        """The exit codes once all have ended; None for one that has not after so many seconds."""
        until = time.monotonic() + seconds
        while self.poll() and time.monotonic() < until:
            pass
        return [child.poll() for child in self.children]

    def end(self):
        """Kills what is left, data workers included."""
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def last_record(self) -> dict | None:
        """The last whole record of metrics.jsonl."""
        try:
            with open(self.workdir / "metrics.jsonl", "rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 16384, 0))
                lines = file.read().split(b"\n")[:-1]
        except OSError:
            return None
        for line in reversed(lines):
            try:
                return json.loads(line)
            except ValueError:
                continue
        return None

    def last_step(self) -> tuple[str, int]:
        """(stage, step) logged last; ("", 0) before the first."""
        record = self.last_record()
        return (record["stage"], record["step"]) if record else ("", 0)

    def stepped(self) -> tuple[str, int] | None:
        """(stage, step) that this start logged first, None before; `stepped_at` is when that was
        seen."""
        found = re.search(STEP, self.printed(), re.M)
        if found and self.stepped_at is None:
            self.stepped_at = time.monotonic()
        return (found[1], int(found[2])) if found else None

    def steps_printed(self) -> list[int]:
        """The steps of this start's progress lines."""
        return [int(step) for _, step in re.findall(STEP, self.printed(), re.M)]

    def poll(self) -> bool:
        """Waits a moment; whether any process is still running. Now and then looks for the first
        step."""
        time.sleep(POLL)
        if self.stepped_at is None and time.monotonic() - self._looked > 0.05:
            self._looked = time.monotonic()
            self.stepped()
        return self.running()


def entries(workdir: pathlib.Path) -> dict[str, int]:
    """Everything in the checkpoint directories of all stages: path from workdir -> inode."""
    found = {}
    for path in workdir.glob("checkpoints*/*/*"):
        with contextlib.suppress(FileNotFoundError):
            found[path.relative_to(workdir).as_posix()] = path.stat().st_ino
    return found


def unfinished(workdir: pathlib.Path, before: dict) -> list[pathlib.Path]:
    """Directories of checkpoints that are being written, without those that were there `before`."""
    return [
        workdir / name
        for name, inode in entries(workdir).items()
        if f"/{SAVING}" in name and before.get(name) != inode
    ]


def visible(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints that a restart would look at, of all stages."""
    return sorted(p for p in workdir.glob("checkpoints*/*/*") if p.name.isdigit())


def summed(path: pathlib.Path) -> bool:
    return (path / "manifest.json").exists()


def phase(training: Training, keep: int = 2) -> str:
    """Where a process that is dead now was, by what it left: saving (a checkpoint's files are not
    complete), finalising (complete, not yet moved to its name), deleting (an old step is half gone,
    or not gone yet), exporting (a stage's weights), starting (no step since its start) or stepping.
    """
    new = unfinished(training.workdir, training.seen)
    if new:
        return "finalising" if any(map(summed, new)) else "saving"
    now = entries(training.workdir)
    hidden = [
        n for n, inode in now.items() if f"/{DELETING}" in n and training.seen.get(n) != inode
    ]
    if hidden or crowded(training.workdir, keep):
        return "deleting"
    if any(training.workdir.glob("*.partial/")):
        return "exporting"
    return "stepping" if training.stepped() else "starting"


def crowded(workdir: pathlib.Path, keep: int = 2) -> bool:
    """Whether a stage shows more checkpoints than are kept: the oldest is to be deleted now."""
    steps = visible(workdir)
    return any(sum(p.parent == path.parent for p in steps) > keep for path in steps)
