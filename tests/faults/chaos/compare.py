"""Whether two runs ended alike, bit for bit, and whether a checkpoint that can be seen is whole."""

import hashlib
import json
import pathlib

import numpy as np
import orbax.checkpoint as ocp
from faults.chaos import naive
from faults.chaos.process import visible

from janus_jax.checkpoint import checksums

COSTS = ("time", "data_wait", "mfu", "tflops", "process_memory_gb", "device_memory_gb")


def broken(workdir: pathlib.Path, saver: str = "") -> list[str]:
    """A line for each visible checkpoint that is not as it was written."""
    problems = naive.problems if saver == "naive" else checksums.problems
    return [
        f"{path.relative_to(workdir)}: {found[0]}"
        for path in visible(workdir)
        if (found := problems(path))
    ]


def differences(run: pathlib.Path, reference: pathlib.Path, saver: str = "") -> list[str]:
    """What differs between two finished (or stopped) runs, in words: the trace of the losses and
    all other metrics that are no times, rates or memory; each stage's weights; weights, moments,
    data and monitor of the last checkpoint of each stage."""
    return (
        _trace_differences(trace(run), trace(reference))
        + _file_differences(run, reference)
        + (_checkpoint_differences(run, reference) if saver != "naive" else [])
    )


def trace(workdir: pathlib.Path) -> list[dict]:
    """The records of metrics.jsonl without what a clock or the memory says."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    drop = lambda key: key in COSTS or key.endswith(("_seconds", "_per_second"))
    return [{k: v for k, v in json.loads(line).items() if not drop(k)} for line in lines]


def _trace_differences(ours: list[dict], theirs: list[dict]) -> list[str]:
    if ours == theirs:
        return []
    pairs = list(zip(ours, theirs))
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    lines = [
        f"trace: {sum(a != b for a, b in pairs)} of {len(theirs)} records differ, "
        f"the first is record {first}"
    ]
    if len(ours) != len(theirs):
        lines.append(f"trace: {len(ours)} records, {len(theirs)} in the reference")
    if first < len(pairs):
        a, b = pairs[first]
        keys = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
        lines.append(
            f"trace: record {first} differs in "
            + ", ".join(f"{k} ({a.get(k)}, {b.get(k)})" for k in keys[:4])
        )
    return lines


def _file_differences(run, reference) -> list[str]:
    names = {
        p.relative_to(d).as_posix() for d in (run, reference) for p in d.glob("*/model.safetensors")
    }
    lines = []
    for name in sorted(names):
        sums = [
            _digest((d / name).read_bytes()) if (d / name).is_file() else "absent"
            for d in (run, reference)
        ]
        if sums[0] != sums[1]:
            lines.append(f"weights: {name} differs ({sums[0]}, {sums[1]})")
    return lines


def _checkpoint_differences(run, reference) -> list[str]:
    last = {}
    for i, directory in enumerate((run, reference)):
        for path in visible(directory):
            stage = last.setdefault(path.parent.name, [None, None])
            if stage[i] is None or int(path.name) > int(stage[i].name):
                stage[i] = path
    lines = []
    for stage, (a, b) in sorted(last.items()):
        if a is None or b is None or a.name != b.name:
            lines.append(
                f"checkpoint: {stage} ends with {a and a.name}, {b and b.name} in the reference"
            )
            continue
        ours, theirs = contents(a), contents(b)
        wrong = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        if wrong:
            lines.append(
                f"checkpoint: {stage}/{a.name}: {len(wrong)} parts differ: {', '.join(wrong[:4])}"
            )
    return lines


def contents(path: pathlib.Path) -> dict[str, str]:
    """A digest of each array of the state (weights, moments, counters) and of each other item of a
    checkpoint."""
    found = {
        p.parent.name: _digest(p.read_bytes())
        for p in path.glob("*/metadata")
        if p.parent.name != "state"
    }
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(path / "state").item_metadata.tree
        wanted = _map(tree, lambda _: ocp.RestoreArgs(restore_type=np.ndarray))
        arrays = reader.restore(path / "state", args=ocp.args.PyTreeRestore(restore_args=wanted))
    for name, x in _flat(arrays):
        x = np.asarray(x)
        found[name] = _digest(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return found


def _map(tree, f):
    if isinstance(tree, dict):
        return {k: _map(x, f) for k, x in tree.items()}
    if isinstance(tree, list | tuple):
        return [_map(x, f) for x in tree]
    return None if tree is None else f(tree)


def _flat(tree, path: str = ""):
    if isinstance(tree, dict | list | tuple):
        for k, x in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _flat(x, f"{path}.{k}" if path else str(k))
    elif tree is not None:
        yield path, tree


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
