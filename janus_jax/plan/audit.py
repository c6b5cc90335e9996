"""What a compiled program does, counted in its HLO text: products, bytes of memory, kernels,
waits for the host and collectives, and from them how long it should take.

The instructions are gone through in the order in which they are scheduled, with one clock for the
kernels and one for the links: a collective that was started earlier runs beside the kernels, and
what is left of it where its result is needed is exposed. Loops count by their turns.
"""

import collections
import dataclasses
import functools
import math
import os
import re

from janus_jax.distributed.chips import Chip
from janus_jax.plan import collectives, products, rates, traffic
from janus_jax.plan.hlo import Instruction, Module

FORWARD, BACKWARD, AGAIN = "LLM forward", "LLM backward", "LLM recomputed"
ELEMENTWISE = "LLM elementwise"
ATTENTION, TOWER, VQ = "attention", "understanding encoder", "VQ encoder"
LOSS, UPDATE, REST, OTHER = "cross-entropy", "update", "adaptors, embeddings", "copies, other"
GROUPS = (
    FORWARD, BACKWARD, AGAIN, ATTENTION, ELEMENTWISE, TOWER, VQ, LOSS, REST, UPDATE, OTHER,
)  # fmt: skip

_FREE = {  # costs nothing, or is counted where it starts
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id",
    "replica-id", "async-update", "opt-barrier", "copy-done",
}  # fmt: skip
_MARKS = re.compile(r'custom_call_target="(AllocateBuffer|\w*Bitcast|AssumeGather\w+|Gather\w+)"')
_PACKAGE = f"{os.sep}janus_jax{os.sep}"


@dataclasses.dataclass
class Sum:
    """Of several kernels: seconds, FLOPs by kind, bytes of memory, and how many."""

    seconds: float = 0.0
    flops: dict[str, float] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(float)
    )
    bytes: float = 0.0
    kernels: float = 0.0


@dataclasses.dataclass
class Links:
    """Collectives of one kind that are alike in whether kernels run beside them. exposed: seconds
    that the kernels wait."""

    kind: str
    beside: bool
    count: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0
    exposed: float = 0.0


@dataclasses.dataclass
class Audit:
    """seconds: of a run; waits: for the host; places: (group, line) -> its kernels."""

    seconds: float
    waits: float
    groups: dict[str, Sum]
    places: dict[tuple[str, str], Sum]
    links: list[Links]

    @property
    def total(self) -> Sum:
        out = Sum()
        for one in self.groups.values():
            add(out, one.seconds, one.flops, one.bytes, one.kernels)
        return out


def add(to: Sum, seconds: float, flops: dict[str, float], moved: float, count: float):
    to.seconds += seconds
    to.bytes += moved
    to.kernels += count
    for kind, n in flops.items():
        to.flops[kind] += n


def audit(
    module: Module,
    mesh: dict[str, int],
    chip: Chip,
    turns,
    branch,
    pairs=0.5,
    cost=None,
    filled=1.0,
) -> Audit:
    """Goes through a program.

    module: the program.
    mesh: axis name -> size.
    chip: what runs it.
    turns: turns(loop) of a loop whose turns depend on the data.
    branch: which branch of a conditional is taken, its number; or how often its dearest is, the
        share of the times.
    pairs: of all queries and keys of a row, the share that causal attention kernels compute.
    cost: cost(products, bytes), the seconds of a kernel; by default `rates.kernel_seconds`.
    filled: of a cache, the share that kernels read which look at what rows have filled alone.
    """
    cost = cost or functools.partial(rates.kernel_seconds, chip)
    walk = _Walk(module, mesh, chip, turns, branch, pairs, cost, filled)
    seconds = walk.sequence(module.entry, 1.0)
    return Audit(seconds, walk.waits, walk.groups, walk.places, list(walk.links.values()))


class _Walk:
    def __init__(
        self, module: Module, mesh: dict[str, int], chip: Chip, turns, branch, pairs, cost, filled
    ):
        self.module = module
        self.mesh = mesh
        self.chip = chip
        self.turns = turns
        self.branch = branch
        self.pairs = pairs
        self.cost = cost
        self.filled = filled
        self.waits = 0.0
        self.groups = collections.defaultdict(Sum)
        self.places = collections.defaultdict(Sum)
        self.links = {}
        self.seen = set()

    def sequence(self, name: str, times: float) -> float:
        """Seconds of one run of a computation, of which `times` are added to the sums."""
        body = self.module.computations[name]
        now = free = 0.0  # the kernels' clock, and when the links are free
        started = {}
        for x in body.values():
            if x.opcode in _FREE or _MARKS.search(x.text):
                continue
            if "body" in x.called:
                turns = self.module.turns(x)
                if turns is None:
                    turns = self.turns(x)
                    self.waits += times * turns
                now += turns * self.sequence(x.called["body"][0], times * turns)
            elif x.opcode == "conditional":
                now += self.conditional(x, times)
            elif x.opcode == "call":
                now += self.sequence(x.called["to_apply"][0], times)
            elif x.opcode.endswith("-done"):
                end, row = started.pop(x.operands[0], (0.0, None))
                if end > now and row:
                    row.exposed += times * (end - now)
                now = max(now, end)
            else:
                sends, beside = self.collective(name, x, times)
                if beside:
                    free = max(now, free) + sends.seconds
                    started[x.name] = free, sends.row
                elif sends:
                    now = max(now, free) + sends.seconds
                    sends.row.exposed += times * sends.seconds
                if not sends or x.opcode == "fusion":
                    now += self.kernel(body, x, times)
        return max(now, free)

    def conditional(self, x: Instruction, times: float) -> float:
        self.waits += times
        kinds = "branch_computations", "true_computation", "false_computation"
        branches = [name for kind in kinds for name in x.called.get(kind, ())]
        if isinstance(self.branch, int):
            taken = branches[min(self.branch, len(branches) - 1)]
            return self.sequence(taken, times)
        dearest = max(branches, key=lambda name: self.sequence(name, 0.0))
        return self.branch * self.sequence(dearest, times * self.branch)

    def kernel(self, body: dict[str, Instruction], x: Instruction, times: float) -> float:
        place, group, causal = self.where(x)
        work = products.work(self.module, body, x, self.pairs if causal else 1.0)
        if group == FORWARD and not work:
            group = ELEMENTWISE
        elif group == FORWARD and "rematted_computation" in x.text:
            group = AGAIN
        elif group == FORWARD and "transpose(jvp" in x.text:
            group = BACKWARD
        moved = traffic.moved(self.module, body, x, self.filled)
        seconds = self.cost(work, moved)
        flops = collections.Counter()
        for p in work:
            flops[p.kind] += times * p.flops
        for to in (self.groups[group], self.places[group, place]):
            add(to, times * seconds, flops, times * moved, times)
        return seconds

    def where(self, x: Instruction) -> tuple[str, str, bool]:
        """(the line of ours that it comes from, its group, whether attention in it is causal)."""
        ours = [
            (file.rpartition(_PACKAGE)[2], line, function)
            for file, line, function in self.module.places(x)
            if _PACKAGE in file
        ]
        ours = [at for at in ours if not at[0].startswith(("plan", "common", "model/sharding"))]
        if not ours:
            return "", OTHER, True
        files = {file for file, *_ in ours}
        place = f"janus_jax/{ours[0][0]}:{ours[0][1]}"
        if "model/generation_encoder.py" in files:
            return place, VQ, False
        towers = {"model/understanding_encoder.py", "model/vit.py"}
        if files & towers or any(re.match("model/senses/.*/encoder.py", file) for file in files):
            return place, TOWER, False
        if any(file == "training/loss.py" and "janus_loss" not in f for file, _, f in ours):
            return place, LOSS, True
        if files & {"model/transformer.py", "model/serving.py"}:
            return place, ATTENTION if "model/attention.py" in files else FORWARD, True
        if ours[0][0] in ("training/state.py", "training/optim.py", "training/step.py"):
            return place, UPDATE, True
        return place, REST, True

    def collective(self, name: str, x: Instruction, times: float):
        """(the link time of one run of an instruction, whether kernels run beside it); (None,
        False) where it sends nothing."""
        found = [(name, x)] if collectives.is_one(x) else []
        if x.opcode in ("fusion", "async-start"):
            inner = self.module.runs(x.called["calls"][0])
            found = [
                (c, y)
                for c in inner
                for y in self.module.computations[c].values()
                if collectives.is_one(y)
            ]
        if not found:
            return None, False
        computation, y = found[0]
        kind, group, size = collectives.one(computation, y, math.prod(self.mesh.values()))
        beside = x.opcode.endswith("-start") or "AsyncCollective" in _text(self.module, x)
        if len(group) < 2 or (collectives.key(y) in self.seen and not x.opcode.endswith("-start")):
            return None, False
        if times:
            self.seen.add(collectives.key(y))
        one = collectives.Collective(kind, (), group, 1, size)
        seconds = collectives.seconds(one, rates.links(self.chip))
        row = self.links.setdefault((kind, beside), Links(kind, beside))
        row.count += times
        row.bytes += times * size
        row.seconds += times * seconds
        return _Sent(seconds, row), beside


@dataclasses.dataclass
class _Sent:
    seconds: float
    row: Links


def _text(module: Module, x: Instruction) -> str:
    inner = x.called.get("calls", ())
    return "".join(y.text for name in inner for y in module.computations[name].values())
