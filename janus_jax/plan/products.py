"""The floating-point work of an instruction: 2 FLOPs for each pair of numbers that is multiplied
and summed. Attention kernels hide their products: theirs follow from their shapes."""

import dataclasses
import math
import re

import numpy as np

from janus_jax.plan.hlo import Instruction, Module, Shape

BFLOAT16 = "bfloat16"
FLOAT32 = "float32"
ROUNDED = "float32, rounded"  # to TensorFloat-32 or bfloat16, as it is multiplied
INT8 = "int8"
ATTENTION = "attention"
ATTENTION_BACKWARD = "attention, backward"

_KERNELS = ("__gpu$xla.gpu.triton", "mosaic_gpu", "tpu_custom_call", "fmha")
_CONVOLUTIONS = {"__cudnn$convForward", "__cudnn$convBiasActivationForward"}
TILE = 128  # rows and columns of a result that one core of a GPU computes at a time


@dataclasses.dataclass(frozen=True)
class Product:
    """flops; kind: one of the words above; tiles: of TILE x TILE that its result has."""

    flops: float
    kind: str
    tiles: int = 0


def work(
    module: Module, body: dict[str, Instruction], x: Instruction, pairs: float
) -> list[Product]:
    """The products of one run of an instruction and of what is fused into it.

    module: that holds it.
    body: its computation.
    x: the instruction.
    pairs: of all queries and keys of a row, the share that its attention kernels compute.
    """
    operands = [body[name].shapes[0] for name in x.operands if name in body and body[name].shapes]
    if x.opcode == "fusion":
        inner = module.computations[x.called["calls"][0]]
        return [p for y in inner.values() for p in work(module, inner, y, pairs)]
    target = x.attribute(r'custom_call_target="([^"]*)"')
    if x.opcode == "dot" or target.startswith("__cublas"):
        return [_matmul(x, *operands[:2])]
    if x.opcode == "convolution" or target in _CONVOLUTIONS:
        return [_convolution(x, *operands[:2], x.shapes[0])]
    if target == "__cudnn$convBackwardFilter":
        return [_convolution(x, operands[0], x.shapes[0], operands[1])]
    if target == "__cudnn$convBackwardInput":
        return [_convolution(x, x.shapes[0], operands[1], operands[0])]
    if target.startswith("janus_jax_product"):  # of `model.cpu`
        (rows, summed), (columns, _) = (shape.dims for shape in operands)
        return [Product(2.0 * rows * summed * columns, _kind(x, *operands))]
    if any(name in target for name in _KERNELS):
        return _attention(target, operands, x.shapes, pairs)
    return []


def _kind(x: Instruction, a: Shape, b: Shape) -> str:
    kinds = {a.dtype, b.dtype}
    if kinds & {"f32", "f64"}:
        return FLOAT32 if "highest" in x.text.lower() else ROUNDED
    return INT8 if kinds <= {"s8", "u8", "f8"} else BFLOAT16


def _matmul(x: Instruction, a: Shape, b: Shape) -> Product:
    dims = lambda which: [
        a.dims[int(d)]
        for d in re.findall(r"\d+", x.attribute(rf'lhs_{which}_dim\w+"?[=:][\[{{]([\d,"]*)'))
    ]
    summed = math.prod(dims("contracting"))
    batch = math.prod(dims("batch"))
    rows = a.size // (summed * batch)
    columns = b.size // (summed * batch)
    tiles = batch * -(-rows // TILE) * -(-columns // TILE)
    return Product(2.0 * batch * rows * columns * summed, _kind(x, a, b), tiles)


def _convolution(x: Instruction, image: Shape, kernel: Shape, out: Shape) -> Product:
    """What falls on padding or between dilated elements is not counted."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", x.text)
    places = [
        [shape.dims[i] for i in sorted(range(len(names)), key=names.__getitem__) if names[i].isdigit()]
        for shape, names in zip((image, kernel, out), labels.groups())
    ]  # fmt: skip
    window = lambda name, default: (x.attribute(rf"[{{ ]{name}=([\w\-]+)") or default).split("x")
    count = len(places[0])
    ones = "x".join(["1"] * count)
    given = [window(name, ones) for name in ("stride", "lhs_dilate", "rhs_dilate")]
    before = [p.split("_")[0] for p in window("pad", "x".join(["0_0"] * count))]
    used = 1
    for i in range(count):
        stride, spread, apart = (int(values[i]) for values in given)
        at = np.arange(places[2][i])[:, None] * stride - int(before[i])
        at = at + np.arange(places[1][i]) * apart
        last = (places[0][i] - 1) * spread
        used *= int(((at >= 0) & (at <= last) & (at % spread == 0)).sum())
    inputs = kernel.dims[labels[2].index("i")]
    rows = out.size // math.prod(places[2]) // (columns := out.dims[labels[3].index("f")])
    tiles = -(-rows * math.prod(places[2]) // TILE) * -(-columns // TILE)
    return Product(2.0 * rows * columns * inputs * used, _kind(x, image, kernel), tiles)


def _attention(target: str, operands: list[Shape], results: list[Shape], pairs: float):
    """Queries [..., T, ..., K] and keys likewise with T the second size. Backwards one kernel makes
    five products of the size of a forward one, Triton's seven (its scores twice); that for keys and
    values alone four, that for queries three."""
    wide = [s for s in operands if len(s.dims) > 2 and s.dtype in ("bf16", "f16", "f32")]
    q, *rest = wide or [None]
    alike = [s for s in rest if s.dims[-1] == q.dims[-1] and len(s.dims) == len(q.dims)]
    if len(alike) < 2:
        return []  # not q, k and v: a sum before the backward pass, or no attention
    pair = 2.0 * q.size * alike[0].dims[1] * pairs
    if len(alike) == 2:
        return [Product(2 * pair, ATTENTION)]
    made = sum(s.dims[-1] == q.dims[-1] and len(s.dims) >= len(q.dims) for s in results)
    whole = 7 if "triton" in target else 5
    return [Product({1: 3, 2: 4}.get(made, whole) * pair, ATTENTION_BACKWARD)]
