"""What a compiled program sends between its chips, read from its HLO text.

A collective inside a loop counts once a turn. A TPU program may spread one collective over many
fused pieces, which share a channel and a shape: they count once (those of two `shard_map`s share a
channel, too). A GPU program starts each where it is written
(`-start`), and gives those that it has joined or copied channels that others have too: there a
channel says nothing.

Bytes are those that one chip takes in. With a payload of S bytes (the whole result of an
all-gather, the whole input of a reduction) and groups of n chips they are S (n - 1) / n, and twice
that for an all-reduce.
"""

import dataclasses
import math
import re

import numpy as np

from janus_jax.plan.hlo import Instruction, Module

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind over the same groups of chips in one step.

    kind: one of KINDS.
    axes: the mesh axes that a group runs over.
    group: the places of the first group's chips in the mesh.
    count: how often a step.
    bytes: into one chip, a step.
    """

    kind: str
    axes: tuple[str, ...]
    group: tuple[int, ...]
    count: int
    bytes: float


def sent(module: Module, mesh: dict[str, int]) -> tuple[list[Collective], list[str]]:
    """The collectives of an HLO module, largest first, and remarks on what could not be told.

    mesh: axis name -> size, in the mesh's order, which numbers the chips.
    """
    times = module.runs(module.entry)
    # Pieces of one collective share a key. It runs as often as the piece that runs most often.
    found = {}
    for name, body in module.computations.items():
        for x in body.values():
            if is_one(x) and times.get(name, 0) > found.get(key(x), (0,))[0]:
                found[key(x)] = (times[name], name, x)
    total = {}
    for count, name, x in found.values():
        kind, group, size = one(name, x, math.prod(mesh.values()))
        if len(group) > 1:
            n, b = total.get((kind, group), (0, 0.0))
            total[kind, group] = n + count, b + count * size
    out = [
        Collective(kind, _axes(group, mesh), group, *sums) for (kind, group), sums in total.items()
    ]
    sends = {name for name, body in module.computations.items() if any(map(is_one, body.values()))}
    remarks = [
        f"the turns of loop {loop.called['body'][0]} are not known: its collectives count once"
        for loop in module.unknown_loops()
        if sends & module.runs(loop.called["body"][0]).keys()
    ]
    return sorted(out, key=lambda c: -c.bytes), remarks


def is_one(x: Instruction) -> bool:
    """Whether an instruction begins a collective."""
    return x.opcode.removesuffix("-start") in KINDS


def key(x: Instruction) -> tuple:
    """What the pieces of one collective have in common."""
    channel = "" if x.opcode.endswith("-start") else x.attribute(r"channel_id=(\d+)")
    return x.opcode, channel or x.name, *((shape.dtype, shape.dims) for shape in x.shapes)


def one(computation: str, x: Instruction, chips: int) -> tuple[str, tuple[int, ...], float]:
    """(kind, the first group's chips, bytes into one chip) of one run of a collective."""
    group = _group(x.text, chips)
    kind, size = _size(computation, x, len(group))
    return kind, group, size


def seconds(collective: Collective, chip) -> float:
    """Time on the links alone, at least.

    A `chips.Chip` takes its bytes in at full speed. Where a group spans nodes, each node takes its
    part in through the ports of the group's members there.
    """
    nodes = {place // chip.node for place in collective.group}
    n = len(collective.group)
    inside = collective.bytes / chip.link
    if len(nodes) == 1:
        return inside
    payload = collective.bytes * n / (n - 1)
    members = n / len(nodes)
    return max(inside, payload * (len(nodes) - 1) / len(nodes) / (members * chip.network))


def _size(computation: str, x: Instruction, n: int) -> tuple[str, float]:
    """(kind, bytes into one chip) of one run of a collective over groups of n."""
    kind = x.opcode.removesuffix("-start")
    start = kind != x.opcode
    payload = sum(shape.bytes for shape in x.shapes)
    if kind == "collective-permute":
        return kind, payload / 2 if start else payload
    if kind == "all-gather" and start:
        payload *= n / (n + 1)  # the tuple holds the input too
    if kind == "reduce-scatter":
        payload *= n / (n + 1) if start else n  # ((inputs), results)
    if kind == "all-reduce" and "all-reduce-scatter" in computation:
        kind = "reduce-scatter"  # how a TPU program says it: a reduction and a slice, fused
    return kind, payload * (n - 1) / n * (2 if kind == "all-reduce" else 1)


def _group(line: str, chips: int) -> tuple[int, ...]:
    """The places of the first group's chips. HLO lists groups, or writes them as a reshaped range
    or as axes of a mesh."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", line):
        return _ring(re.findall(r"(\d+),(\d+)", pairs[1]))
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return tuple(sorted(int(n) for n in listed[1].split(",")))
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=(\S*)", line):
        shape = [int(n) for n in iota[1].split(",")]
        return tuple(sorted(_range(iota[2]).reshape(shape)[0].tolist()))
    if axes := re.search(
        r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", line
    ):
        return _mesh_group(axes[1], axes[2] or f"[{chips}]", axes[3])
    return tuple(range(chips))


def _mesh_group(mesh: str, order: str, over: str) -> tuple[int, ...]:
    """The first group of chips over axes of a mesh.

    mesh: the axes and their sizes, `'a'=2,'b'=4`.
    order: the chips in the mesh's order, as `_range` reads them.
    over: the axes that a group runs over. A part of an axis says how many such parts lie before
        it and its size: `'b':(2)4`.
    """
    names, sizes = zip(*re.findall(r"'(\w+)'=(\d+)", mesh))
    shape = [int(n) for n in sizes]
    chosen = {}
    for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", over):
        axis = names.index(name)
        part = np.arange(shape[axis])
        if size:
            part = part.reshape(int(before), int(size), -1)[0, :, 0]
        chosen.setdefault(axis, part)
    places = _range(order).reshape(shape)
    for axis in range(len(shape)):
        places = places.take(chosen.get(axis, np.array([0])), axis)
    return tuple(sorted(places.ravel().tolist()))


def _range(text: str) -> np.ndarray:
    """`[2,4]T(1,0)`: 0, 1, ... in that shape, its axes permuted."""
    dims, _, order = text.rstrip(",").partition("T")
    shape = [int(n) for n in re.findall(r"\d+", dims)]
    out = np.arange(math.prod(shape)).reshape(shape)
    if not order:
        return out
    return out.transpose([int(n) for n in re.findall(r"\d+", order)])


def _ring(pairs) -> tuple[int, ...]:
    """The chips that a permutation connects with its first."""
    links = [(int(a), int(b)) for a, b in pairs]
    group = set(links[0]) if links else set()
    while more := {x for a, b in links if (a in group) != (b in group) for x in (a, b)} - group:
        group |= more
    return tuple(sorted(group))


def _axes(group: tuple[int, ...], mesh: dict[str, int]) -> tuple[str, ...]:
    """The axes along which the places of a group differ."""
    places = np.unravel_index(np.array(group), tuple(mesh.values()))
    return tuple(axis for axis, x in zip(mesh, places) if x.min() != x.max())
