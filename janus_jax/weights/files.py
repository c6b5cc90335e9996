"""Which files hold the weights at a path, and every tensor in them: single or sharded, safetensors,
.npz, or PyTorch pickles where the user allows them. Python files of a repository are never looked
at.

One order of what counts: safetensors before .npz before pickles; among files of one suffix the
whole one, then shards by their index, then shards by their names, then the only one there is. Of
several indices the whole file's counts first, then by name; one whose shards are not there is
passed over where anything else is. Hidden files (macOS leaves `._*`) are no weights.
"""

import dataclasses
import os
import pathlib
import re

from janus_jax.common.files import ADAPTER_FILE, WEIGHTS_FILE, read_json
from janus_jax.weights import foreign, pickles, settings, table
from janus_jax.weights import tensors as ts

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth")
FAMILIES = (  # suffixes, name of the whole file
    ((".safetensors",), WEIGHTS_FILE),
    ((".npz",), "model.npz"),
    (PICKLES, "pytorch_model.bin"),
)
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)$")
BESIDE = re.compile(  # what lies beside weights and is none, or belongs to another program
    r"(\..*|kept\.safetensors|training_args\.bin|adapter_model\..*|(optimizer|scheduler|scaler|rng_state).*)$"
)


@dataclasses.dataclass(frozen=True)
class Weights:
    """tensors: all of them by name. left_out: what a .pt file holds beside them, with the reason.
    problems: tensors that the index promises and no shard holds. notes: what was passed over."""

    directory: pathlib.Path
    tensors: dict[str, ts.Tensor]
    left_out: dict[str, str]
    problems: list[str]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass
class Choice:
    """The files to read. promised: tensor name -> file, by their index."""

    files: list[pathlib.Path]
    promised: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def adapter_at(path: pathlib.Path) -> tuple[pathlib.Path, str] | None:
    """(the directory of an adapter, of which kind) that a path means, by itself or by its file; None
    for any other path. Raises ValueError for an adapter of ours that shares its directory with whole
    weights."""
    if path.name == ADAPTER_FILE or path.name.startswith("adapter_model."):
        path = path.parent
    if not path.is_dir():
        return None
    there = {p.name for p in path.iterdir() if p.suffix in sum((f for f, _ in FAMILIES), ())}
    if {ADAPTER_FILE, WEIGHTS_FILE} <= there:
        raise ValueError(
            f"{path}: {ADAPTER_FILE} and {WEIGHTS_FILE} lie in it, an adapter and whole weights, and "
            "which is meant does not show; put each into a folder of its own"
        )
    if ADAPTER_FILE in there:
        return path, table.ADAPTER
    theirs = any(name.startswith("adapter_model.") for name in there)
    return (path, table.PEFT) if theirs and all(map(BESIDE.match, there)) else None


def find(path: pathlib.Path, allow_pickle: bool) -> Weights:
    """All tensors of a weights file, or of a directory. Raises FileNotFoundError where there are
    none, and ValueError for a pickle that was not allowed, missing shards and damaged files, with
    the remedy."""
    if path.is_dir():
        directory, choice = path, _in_directory(path, allow_pickle)
    elif os.path.lexists(path):
        settings.require_file(path)
        directory, choice = path.parent, Choice([path])
        require_allowed(directory, [path.name], allow_pickle)
    else:
        raise FileNotFoundError(
            f"{path}: no weights directory or file there (a directory with {WEIGHTS_FILE}, as a "
            f"finished stage writes it, or any released Janus)"
        )
    tensors = {}
    left_out = {}
    problems = []
    for file in choice.files:
        found, rest = read_file(file)
        twice = [name for name in found if name in tensors]
        problems += [f"twice: {name}, in {file.name} and in a file before it" for name in twice]
        tensors |= found
        left_out |= rest
    problems += [
        f"missing: {name}, which the index promises in {f}"
        for name, f in choice.promised.items()
        if name not in tensors
    ]
    return Weights(directory, tensors, left_out, problems, tuple(choice.notes))


def require_allowed(directory, names: list[str], allow_pickle: bool):
    """Raises ValueError where one of these files is a pickle, and pickles are not allowed."""
    forbidden = [name for name in names if name.endswith(PICKLES)]
    if forbidden and not allow_pickle:
        raise ValueError(
            f"{directory}: {', '.join(forbidden[:3])} is a Python pickle, which can run code when it "
            "is read; where you trust it, load it with allow_pickle=True or convert it once, by "
            f"python -m janus_jax.weights --allow_pickle: then only tensors are rebuilt from it"
        )


def read_file(file: pathlib.Path) -> tuple[dict[str, ts.Tensor], dict[str, str]]:
    if file.suffix == ".safetensors":
        return ts.read_safetensors(file), {}
    if file.suffix == ".npz":
        return ts.read_npz(file), {}
    if file.suffix in PICKLES:
        return pickles.state_dict(file, pickles.read_pickle(file))
    raise ValueError(
        foreign.of_file(file)
        or f"{file}: no weights file; expected .safetensors, .npz, or (allowed) .bin, .pt, .pth"
    )


def _in_directory(path: pathlib.Path, allow_pickle: bool) -> Choice:
    passed = {}
    for suffixes, whole in FAMILIES:
        if found := _of_family(path, suffixes, whole, allow_pickle, passed):
            chosen = ", ".join(f.name for f in found.files[:3])
            found.notes += [f"{path / index} is not followed: {chosen} is read" for index in passed]
            if (path / "adapter_config.json").is_file():
                found.notes.append(
                    f"{path}: its adapter (adapter_config.json) is not applied; merge it to have it"
                )
            return found
    if passed:
        raise ValueError(next(iter(passed.values())))
    known = foreign.instead(path)
    raise FileNotFoundError(
        f"{path}: no weights directory (it holds no {WEIGHTS_FILE}, no {INDEX}, no .npz, .bin or "
        f".pt)" + (f": {known}" if known else f"; a finished stage writes {WEIGHTS_FILE}")
    )


def _of_family(
    path: pathlib.Path,
    suffixes: tuple[str, ...],
    whole: str,
    allow_pickle: bool,
    passed: dict[str, str],
) -> Choice | None:
    """What to read among files of these suffixes; None where there are none. passed: hears of each
    index that is passed over, with the shards that it misses."""
    there = sorted(f for f in path.iterdir() if f.suffix in suffixes and not BESIDE.match(f.name))
    for f in there:
        settings.require_file(f)
    names = [f.name for f in there]
    choice = None
    begun = []
    for index, promised in _indices(path, suffixes, whole).items():
        shards = sorted(set(promised.values()))
        absent = [name for name in shards if name not in names]
        require_allowed(path, [*absent, *names], allow_pickle)
        if choice is None and not absent and (whole not in names or whole in shards):
            choice = Choice([path / name for name in shards], promised)
            continue
        passed[index] = _missing(path, shards, absent)
        if len(absent) < len(shards):
            begun.append(passed[index])
    require_allowed(path, names, allow_pickle)
    if choice is not None:
        return choice
    sets = [group for group in _shards(names) if set(group) <= set(names)]
    if begun and whole not in names and not sets:
        raise ValueError(begun[0])
    chosen = _by_names(path, names, whole, sets)
    hidden = sets if chosen == [whole] and not begun else []
    notes = [
        f"{path / shards[0]} and the rest of its set are not read: {whole} is" for shards in hidden
    ]
    return Choice([path / name for name in chosen], notes=notes) if chosen else None


def _by_names(path, names: list[str], whole: str, sets: list[list[str]]) -> list[str]:
    """Without an index: the whole file, the one set of shards that is complete, or the only file.
    Raises ValueError where there are several, or where shards are missing."""
    if whole in names:
        return [whole]
    if len(sets) > 1:
        raise ValueError(
            f"{path}: {len(sets)} sets of shards ({', '.join(group[0] for group in sets)}) and no "
            "index that says which counts; remove the other"
        )
    if sets:
        return sets[0]
    for group in _shards(names):
        raise ValueError(_missing(path, group, [name for name in group if name not in names]))
    if len(names) > 1:
        raise ValueError(
            f"{path}: several weights files ({', '.join(names[:20])}) and no index; give the one to "
            "read"
        )
    return names


def _missing(path, shards: list[str], absent: list[str]) -> str:
    return (
        f"{path}: {len(absent)} of {len(shards)} shards missing: {', '.join(absent[:20])}; download "
        "the rest"
    )


def _indices(path: pathlib.Path, suffixes: tuple[str, ...], whole: str) -> dict[str, dict]:
    """Name -> (tensor name -> file) of each index of files of these suffixes, in the order in which
    they count. Raises ValueError for what is no index, and for files elsewhere."""
    found = [f for f in path.glob("[!.]*.index.json") if f.name[:-11].endswith(suffixes)]
    indices = {}
    for index in sorted(found, key=lambda f: (f.name != f"{whole}.index.json", f.name)):
        settings.require_file(index)
        promised = read_json(index).get("weight_map")
        fine = isinstance(promised, dict) and promised
        if not fine or not all(isinstance(name, str) for name in promised.values()):
            raise ValueError(
                f"{index}: no index of shards: its weight_map must name a file for each tensor"
            )
        outside = {name for name in promised.values() if pathlib.PurePath(name).name != name}
        if outside:
            raise ValueError(
                f"{path}: the index names files elsewhere: {', '.join(sorted(outside)[:20])}; refused"
            )
        indices[index.name] = promised
    return indices


def _shards(names: list[str]) -> list[list[str]]:
    """The names of all its shards for each set of which some are there."""
    groups = {}
    for match in filter(None, map(SHARD.match, names)):
        stem, _, count, suffix = match.groups()
        groups[stem, count, suffix] = [
            f"{stem}-{i + 1:05d}-of-{count}{suffix}" for i in range(int(count))
        ]
    return list(groups.values())
