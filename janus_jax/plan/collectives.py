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

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_BITS = {"pred": 8, "bf16": 16, "f8": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_OP = re.compile(rf"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(
    r"(calls|to_apply|body|condition|branch_computations|true_computation|false_computation|"
    r"called_computations)"
    r"=\{?([^,}]*(?:, ?%[^,}]*)*)"
)
_SHAPE = re.compile(r"\b([a-z]+\d*)(?:e\d\w*)?\[([\d,]*)\]")


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


def parse(text: str, mesh: dict[str, int]) -> tuple[list[Collective], list[str]]:
    """The collectives of an HLO module, largest first, and remarks on what could not be told.

    mesh: axis name -> size, in the mesh's order, which numbers the chips.
    """
    bodies, entry = _computations(text)
    times, remarks = _times(bodies, entry)
    # Pieces of one collective share a key. It runs as often as the piece that runs most often.
    found = {}
    for name, lines in bodies.items():
        for line in lines:
            if (match := _OP.match(line)) and times.get(name):
                channel = None if match[4] else re.search(r"channel_id=(\d+)", line)
                key = (match[3], channel[1] if channel else match[1], *_SHAPE.findall(match[2]))
                if times[name] > found.get(key, (0,))[0]:
                    found[key] = (times[name], name, match, line)
    total = {}
    for count, name, match, line in found.values():
        group = _group(line, math.prod(mesh.values()))
        if len(group) > 1:
            kind, size = _size(name, match, len(group))
            n, b = total.get((kind, group), (0, 0.0))
            total[kind, group] = n + count, b + count * size
    out = [
        Collective(kind, _axes(group, mesh), group, *sums) for (kind, group), sums in total.items()
    ]
    return sorted(out, key=lambda c: -c.bytes), remarks


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


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """(the lines of each computation of an HLO module, the name of the one it begins with)."""
    bodies = {}
    entry = ""
    lines = []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            if head[2] != "HloModule":
                lines = bodies[head[2]] = []
                entry = head[2] if head[1] else entry
        elif line.startswith(" "):
            lines.append(line)
    return bodies, entry


def _times(bodies: dict, entry: str) -> tuple[dict[str, int], list[str]]:
    """How often a step runs each computation: callers' runs, times the turns of a loop."""
    edges = {name: [] for name in bodies}
    unknown = []
    for name, lines in bodies.items():
        for line in lines:
            called = {kind: re.findall(r"[\w.\-]+", names) for kind, names in _CALLED.findall(line)}
            turns = 1
            if "body" in called:
                turns = _turns(line, bodies.get(called["condition"][0], []))
                if turns is None:
                    unknown += called["body"]
            edges[name] += [
                (x, turns or 1) for names in called.values() for x in names if x in bodies
            ]

    def runs(start: str) -> dict[str, int]:
        times = {start: 1}
        queue = [start]
        while queue:
            name = queue.pop()
            for other, turns in edges.get(name, ()):
                if times[name] * turns > times.get(other, 0):
                    times[other] = times[name] * turns
                    queue.append(other)
        return times

    sends = {name for name, lines in bodies.items() if any(map(_OP.match, lines))}
    remarks = [
        f"the turns of loop {body} are not known: its collectives count once"
        for body in unknown
        if sends & runs(body).keys()
    ]
    return runs(entry), remarks


def _turns(line: str, condition: list[str]) -> int | None:
    """As the compiler says, or the constant that a counter from 0 is compared with."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
        return int(known[1])
    constants = [int(n) for x in condition for n in re.findall(r" s32\[\]\S* constant\((\d+)\)", x)]
    return constants[0] if len(constants) == 1 else None


def _size(computation: str, match, n: int) -> tuple[str, float]:
    """(kind, bytes into one chip) of one run of a collective over groups of n."""
    kind = match[3]
    start = match[4]
    payload = sum(_bytes(dtype, dims) for dtype, dims in _SHAPE.findall(match[2]))
    if kind == "collective-permute":
        return kind, payload / 2 if start else payload
    if kind == "all-gather" and start:
        payload *= n / (n + 1)  # the tuple holds the input too
    if kind == "reduce-scatter":
        payload *= n / (n + 1) if start else n  # ((inputs), results)
    if kind == "all-reduce" and "all-reduce-scatter" in computation:
        kind = "reduce-scatter"  # how a TPU program says it: a reduction and a slice, fused
    return kind, payload * (n - 1) / n * (2 if kind == "all-reduce" else 1)


def _bytes(dtype: str, dims: str) -> float:
    bits = _BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
    return math.prod(int(d) for d in dims.split(",") if d) * bits / 8


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
