"""The bytes of memory that one run of an instruction reads and writes: its operands and results.

Of an array that is only sliced the slice counts, of one that is updated in place the update; of a
cache that a kernel writes in place what rows have filled, which the program does not say. What
lies in a TPU's own memory (VMEM) does not count, nor the scratch of a library's call.
"""

import re

from janus_jax.plan.hlo import Instruction, Module

_SLICES = ("dynamic-slice", "slice", "gather")
_IN_PLACE = {"dynamic-update-slice": 1, "scatter": -1}  # which operand is the update
_OWN = ("xla.gpu.triton", "janus_jax_attention")  # kernels that write a cache in place
_SAME = ("bitcast", "reshape", "get-tuple-element")


def moved(
    module: Module, body: dict[str, Instruction], x: Instruction, filled: float = 1.0
) -> float:
    """Bytes of one run of `x`, an instruction of the computation `body`. filled: the share of a cache
    that a kernel reads, which writes one place of it."""
    written = sum(s.bytes for s in x.shapes if not s.fast)
    if x.opcode == "copy-start":  # a tuple of what is written and what is read
        return written
    if x.opcode == "fusion":
        read = sum(
            _read_of_operand(module, x, i) for i, name in enumerate(x.operands) if _slow(body, name)
        )
        return read + _written(module, x)
    if x.opcode == "async-start":
        inner = module.computations[x.called["calls"][0]]
        return sum(moved(module, inner, y) for y in inner.values() if y.opcode != "parameter")
    if x.opcode in _SLICES:
        read = sum(s.bytes for s in x.shapes) if _slow(body, x.operands[0]) else 0.0
        return written + read
    if x.opcode in _IN_PLACE:
        return 2 * _bytes(body, x.operands[_IN_PLACE[x.opcode]])
    if x.opcode == "custom-call" and "__cu" in x.text:
        written = sum(s.bytes for s in x.shapes if s.dtype not in ("s8", "u8"))
    if not any(name in x.text for name in _OWN):
        return written + sum(_bytes(body, name) for name in set(x.operands))
    inside = re.findall(
        r"\{(\d+)\}: \((\d+), \{\}", x.attribute(r"output_to_operand_aliasing=(.*?\}\)\})")
    )
    written -= sum(x.shapes[int(i)].bytes for i, _ in inside)
    spared = sum((1 - filled) * _bytes(body, x.operands[int(j)]) for _, j in inside)
    return written + sum(_bytes(body, name) for name in set(x.operands)) - spared


def _bytes(body: dict[str, Instruction], name: str) -> float:
    return sum(s.bytes for s in body[name].shapes if not s.fast) if name in body else 0.0


def _slow(body: dict[str, Instruction], name: str) -> bool:
    return name in body and not all(s.fast for s in body[name].shapes)


def _read_of_operand(module: Module, fusion: Instruction, i: int) -> float:
    """Bytes that a fusion reads of its i-th operand."""
    body = module.computations[fusion.called["calls"][0]]
    parameters = (x for x in body.values() if x.opcode == "parameter")
    return sum(_read(module, body, x) for x in parameters if f" parameter({i})" in x.text)


def _read(module: Module, body: dict[str, Instruction], x: Instruction) -> float:
    """Bytes that a computation reads of its value `x`."""
    whole = sum(s.bytes for s in x.shapes)
    if x.root:  # whoever takes the result reads it
        return whole
    read = 0.0
    for user in module.users(body)[x.name]:
        if user.opcode in _SLICES and user.operands[0] == x.name:
            read += sum(s.bytes for s in user.shapes)
        elif user.opcode in _SAME or _renames(module, user):
            read += _read(module, body, user)
        elif user.opcode == "fusion":
            places = (i for i, name in enumerate(user.operands) if name == x.name)
            read += sum(_read_of_operand(module, user, i) for i in places)
        elif user.opcode not in _IN_PLACE or user.operands[0] != x.name:
            return whole
    return min(read, whole)


def _renames(module: Module, x: Instruction) -> bool:
    """Whether it is a fusion that gives its operand another shape alone, as TPUs' programs have for
    weights."""
    if x.opcode != "fusion":
        return False
    inner = module.computations[x.called["calls"][0]].values()
    return all(y.opcode == "parameter" or y.opcode in _SAME for y in inner)


def _written(module: Module, fusion: Instruction) -> float:
    """Bytes that a fusion writes."""
    body = module.computations[fusion.called["calls"][0]]
    root = next(x for x in body.values() if x.root)
    ends = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    written = 0.0
    for end, shape in zip(ends, fusion.shapes):
        while end.opcode in ("bitcast", "reshape") and end.operands[0] in body:
            end = body[end.operands[0]]
        if shape.fast:
            continue
        if end.opcode in _IN_PLACE:
            written += _bytes(body, end.operands[_IN_PLACE[end.opcode]])
        elif end.opcode == "fusion" and len(end.shapes) == 1:
            written += _written(module, end)
        else:
            written += shape.bytes
    return written
