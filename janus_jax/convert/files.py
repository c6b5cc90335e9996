"""Which files hold the weights at a path, and every tensor in them: single or sharded, safetensors, .npz, or
PyTorch pickles where the user allows them. Python files of a repository are never looked at."""

import dataclasses
import json
import pathlib
import re

from janus_jax.convert import pickles
from janus_jax.convert import tensors as ts

OWN_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth")
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)$")


@dataclasses.dataclass(frozen=True)
class Weights:
    """tensors: all of them by name. left_out: what a .pt file holds beside them, with the reason.
    problems: tensors that the index promises and no shard holds."""

    directory: pathlib.Path
    tensors: dict[str, ts.Tensor]
    left_out: dict[str, str]
    problems: list[str]


def find(path: pathlib.Path, allow_pickle: bool) -> Weights:
    """All tensors of a weights file, or of a directory. Raises FileNotFoundError where there are none, and
    ValueError for a pickle that was not allowed, missing shards and damaged files, with the remedy."""
    if path.is_file():
        directory, files, promised = path.parent, [path], {}
    elif path.is_dir():
        directory, (files, promised) = path, _in_directory(path)
    else:
        raise FileNotFoundError(
            f"{path}: no weights directory or file there (a directory with {OWN_FILE}, as a finished stage "
            f"writes it, or any released Janus)"
        )
    forbidden = [file.name for file in files if file.suffix in PICKLES]
    if forbidden and not allow_pickle:
        raise ValueError(
            f"{directory}: {', '.join(forbidden)} is a Python pickle, which can run code when it is read; "
            f"where you trust it, load it with allow_pickle=True or convert it once, by python -m "
            f"janus_jax.convert --allow_pickle: then only tensors are rebuilt from it"
        )
    tensors, left_out = {}, {}
    for file in files:
        found, rest = read(file)
        tensors |= found
        left_out |= rest
    problems = [
        f"missing: {name}, which the index promises in {f}"
        for name, f in promised.items()
        if name not in tensors
    ]
    return Weights(directory, tensors, left_out, problems)


def read(file: pathlib.Path) -> tuple[dict[str, ts.Tensor], dict[str, str]]:
    if file.suffix == ".safetensors":
        return ts.read_safetensors(file), {}
    if file.suffix == ".npz":
        return ts.read_npz(file), {}
    if file.suffix in PICKLES:
        return pickles.state_dict(file, pickles.read_pickle(file))
    raise ValueError(f"{file}: no weights file; expected .safetensors, .npz, or (allowed) .bin, .pt, .pth")


def _in_directory(path: pathlib.Path) -> tuple[list[pathlib.Path], dict[str, str]]:
    """(the files to read, tensor name -> file by the index). Safetensors first, pickles last."""
    for name in (INDEX, "pytorch_model.bin.index.json"):
        if (path / name).is_file():
            try:
                promised = json.loads((path / name).read_text())["weight_map"]
            except (ValueError, KeyError) as error:
                raise ValueError(
                    f"{path / name}: no index of shards ({type(error).__name__}: {error})"
                ) from None
            return _all_there(path, sorted(set(promised.values()))), promised
    for pattern in (OWN_FILE, "pytorch_model.bin", "*.safetensors", "*.npz", "*.bin", "*.pt", "*.pth"):
        files = sorted(
            f for f in path.glob(pattern) if f.name not in ("kept.safetensors", "training_args.bin")
        )
        shards = [match for match in map(SHARD.match, (f.name for f in files)) if match]
        if shards:
            stem, _, count, suffix = shards[0].groups()
            names = [f"{stem}-{i + 1:05d}-of-{count}{suffix}" for i in range(int(count))]
            return _all_there(path, names), {}
        if len(files) == 1:
            return files, {}
        if files:
            names = ", ".join(f.name for f in files)
            raise ValueError(f"{path}: several weights files ({names}) and no index; give the one to read")
    raise FileNotFoundError(
        f"{path}: no weights directory (it holds no {OWN_FILE}, no {INDEX}, no .npz, .bin or .pt); a finished "
        f"stage writes {OWN_FILE}"
    )


def _all_there(path: pathlib.Path, names: list[str]) -> list[pathlib.Path]:
    outside = [name for name in names if pathlib.PurePath(name).name != name]
    if outside:
        raise ValueError(f"{path}: the index names files elsewhere: {', '.join(outside)}; refused")
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of {len(names)} shards missing: {', '.join(missing)}; download the rest"
        )
    return [path / name for name in names]


def read_json(path: pathlib.Path) -> dict:
    """Raises ValueError naming the file when it is no JSON object."""
    try:
        values = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds a {type(values).__name__}, expected a JSON object")
    return values
