"""What a result was made with: kept in its folder, so that what goes on there is the same work."""

import hashlib
import json
import pathlib

from janus_jax.common import files
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import differences, listed

SETTINGS = "settings.json"  # of the result that is being made
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".npz")


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def weights_hash(*paths: pathlib.Path) -> str:
    """SHA-256 over the weights of a folder or file. A training checkpoint's is that of its
    manifest, which holds the sums of its arrays. paths: several where weights are read from several,
    as an adapter's and its base's."""
    if len(paths) > 1:
        return hashlib.sha256("".join(map(weights_hash, paths)).encode()).hexdigest()
    (path,) = paths
    if not path.is_dir():
        return digest(path)
    # An adapter's numbers mean what its settings say.
    found = sorted(p for p in path.iterdir() if p.suffix in WEIGHTS or p.match("adapter*.json"))
    found = found or [path / "manifest.json"]
    return hashlib.sha256("".join(map(digest, found)).encode()).hexdigest()


def settings_mark(settings: dict) -> str:
    """Settings as a short word, to compare those of several processes."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def of_model(name: str, source, processor, dtype: str | None) -> dict:
    """What is said of a model.

    name: as it was asked for.
    source: the opened weights.
    dtype: asked for, or None.
    """
    template = processor.template
    tower = source.config.understanding_encoder
    return {
        "name": name,
        "sha256": weights_hash(*source.paths),
        "layout": source.kind,
        "dtype": dtype or source.config.dtype,
        "template": {
            "user": template.user,
            "assistant": template.assistant,
            "system": template.system,
        },
        "native_size": source.config.generation_encoder.image_size,
        "understanding_size": tower.image_size,
        "understanding_resizer": "the longer side to the size, bicubic, the rest background"
        if tower.tiles == 1
        else f"an overview and up to {tower.tiles} tiles of the size, {tower.tiling}, bicubic",
    }


def begin(folder: pathlib.Path, settings: dict):
    """Remembers the settings of the result that is made in a folder. Raises UsageError where one of
    other settings lies there: pictures and answers of two kinds would be counted as one."""
    path = folder / SETTINGS
    settings = json.loads(json.dumps(settings))
    if path.exists():
        changed = differences(files.read_json(path), settings)
        if changed:
            raise UsageError(
                f"{folder} holds a result of other settings; give another --out, or undo:"
                f"{listed(changed)}"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"{folder}: not empty, and no {SETTINGS} says of what; give another --out, or empty it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(settings, indent=2))
