"""The text of an optimised HLO module, read: its computations, how often each runs, and the lines
of Python that each instruction came from."""

import collections
import dataclasses
import functools
import math
import re

_BITS = {"pred": 8, "bf16": 16, "f8": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ?([a-z][a-z0-9\-]*)\(([^()]*(?:\([^()]*\))?)")
_CALLED = re.compile(
    r"(calls|to_apply|body|condition|branch_computations|true_computation|false_computation|"
    r"called_computations)"
    r"=\{?([^,}]*(?:, ?%[^,}]*)*)"
)
_SHAPE = re.compile(r"\b([a-z]+\d*)(?:e\d\w*)?\[([\d,]*)\](\{[^{}]*\})?")
_ID = r"^(\d+) \{"


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array. dims: its sizes; fast: whether it lies in a TPU's own memory, not in HBM."""

    dtype: str
    dims: tuple[int, ...]
    fast: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        bits = _BITS.get(self.dtype) or int(re.sub(r"\D", "", self.dtype) or 0)
        return self.size * bits / 8


@dataclasses.dataclass
class Instruction:
    """One line of a computation. operands: their names; text: the whole line."""

    name: str
    result: str
    opcode: str
    operands: list[str]
    text: str
    root: bool

    @functools.cached_property
    def shapes(self) -> list[Shape]:
        """Of its results, one for each array."""
        return shapes(self.result)

    @functools.cached_property
    def called(self) -> dict[str, list[str]]:
        """The computations that it calls, by the attribute that names them."""
        return {kind: re.findall(r"[\w.\-]+", names) for kind, names in _CALLED.findall(self.text)}

    def attribute(self, pattern: str) -> str:
        """The first group of a regular expression in the line, or nothing."""
        found = re.search(pattern, self.text)
        return found[1] if found else ""


def shapes(text: str) -> list[Shape]:
    """The arrays of a type, `(f32[8,4]{1,0}, s32[])`."""
    return [
        Shape(dtype, tuple(int(d) for d in dims.split(",") if d), "S(1)" in layout)
        for dtype, dims, layout in _SHAPE.findall(text)
    ]


class Module:
    """An HLO module.

    computations: name -> its instructions by name, in the order of the text; where the text says
        `is_scheduled=true` that is the order in which they run.
    entry: the computation that it begins with.
    """

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        self._users = {}
        self._header = text[: text.find("\n%")]
        body = last = None
        for line in text.splitlines():
            if (head := _HEAD.match(line)) and head[2] != "HloModule":
                body = self.computations[head[2]] = {}
                self.entry = head[2] if head[1] else self.entry
            elif body is None:
                continue
            elif found := _LINE.match(line):
                root, name, result, opcode, operands = found.groups()
                names = re.findall(r"%([\w.\-]+)", operands)
                last = body[name] = Instruction(name, result, opcode, names, line, bool(root))
            elif line.startswith("}") and not line.startswith("}}"):
                body = None
            elif last:  # an attribute may hold line breaks
                last.text += line
        if not self.entry:
            raise ValueError("the text is no HLO module: it has no ENTRY computation")

    @functools.cached_property
    def _frames(self) -> dict[int, tuple[str, int, str, int]]:
        """Frame -> file, line, function, and the frame that called it."""
        part = lambda name, end: re.split(rf"^{end}", self._header.partition(name)[2], flags=re.M)[
            0
        ]
        named = lambda text: dict(re.findall(r'^(\d+) "(.*)"$', text, re.M))
        files = named(part("\nFileNames", "FunctionNames"))
        functions = named(part("\nFunctionNames", "FileLocations"))
        places = {
            i: (files.get(file, ""), int(line), functions.get(function, ""))
            for i, file, function, line in re.findall(
                _ID + r"file_name_id=(\d+) function_name_id=(\d+) line=(\d+)", self._header, re.M
            )
        }
        # A frame says its caller's number plus one; 1 stands for none.
        return {
            int(i): (*places.get(place, ("", 0, "")), int(parent) - 1)
            for i, place, parent in re.findall(
                _ID + r"file_location_id=(\d+) parent_frame_id=(\d+)", self._header, re.M
            )
        }

    def stack(self, frame: int) -> tuple[tuple[str, int, str], ...]:
        """(file, line, function) of what called what, the innermost first."""
        out = []
        while frame in self._frames and len(out) < 100:
            *place, frame = self._frames[frame]
            out.append(tuple(place))
        return tuple(out)

    def places(self, instruction: Instruction) -> tuple[tuple[str, int, str], ...]:
        """The `stack` of an instruction; empty where the compiler made it."""
        if frame := instruction.attribute(r"stack_frame_id=(\d+)"):
            return self.stack(int(frame))
        file = instruction.attribute(r'source_file="([^"]*)"')
        return ((file, int(instruction.attribute(r"source_line=(\d+)") or 0), ""),) if file else ()

    def turns(self, loop: Instruction) -> int | None:
        """As the compiler says, or the constant that a counter from 0 is compared with. None: it
        depends on the data."""
        if known := loop.attribute(r'known_trip_count":\{"n":"(\d+)"'):
            return int(known)
        condition = self.computations.get(loop.called["condition"][0], {})
        constants = [
            int(found)
            for x in condition.values()
            if (found := x.attribute(r" s32\[\]\S* constant\((\d+)\)"))
        ]
        return constants[0] if len(constants) == 1 else None

    @functools.cached_property
    def _calls(self) -> dict[str, list[tuple[str, int]]]:
        """Computation -> the computations that it calls, and how often at a run; loops of unknown
        turns once."""
        calls = {name: [] for name in self.computations}
        for name, body in self.computations.items():
            for x in body.values():
                turns = (self.turns(x) or 1) if "body" in x.called else 1
                others = (other for names in x.called.values() for other in names)
                calls[name] += [(other, turns) for other in others if other in calls]
        return calls

    def users(self, body: dict[str, Instruction]) -> dict[str, list[Instruction]]:
        """Value of a computation -> the instructions that take it."""
        if id(body) not in self._users:
            users = self._users[id(body)] = collections.defaultdict(list)
            for x in body.values():
                for name in dict.fromkeys(x.operands):
                    users[name].append(x)
        return self._users[id(body)]

    def unknown_loops(self) -> list[Instruction]:
        """Those whose turns are not known."""
        loops = (x for b in self.computations.values() for x in b.values() if "body" in x.called)
        return [x for x in loops if self.turns(x) is None]

    def runs(self, start: str) -> dict[str, int]:
        """How often each computation runs at a run of `start`: callers' runs, times the turns of a
        loop."""
        times = {start: 1}
        queue = [start]
        while queue:
            name = queue.pop()
            for other, turns in self._calls.get(name, ()):
                if times[name] * turns > times.get(other, 0):
                    times[other] = times[name] * turns
                    queue.append(other)
        return times
