"""Tensors that lie in files: where, of what shape and type; read when asked for, by seek and read.

Not memory-mapped: pages of a mapped file count as memory in use, and a conversion must peak near
one tensor.
"""

import dataclasses
import json
import math
import pathlib
import struct
import zipfile

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SAFETENSORS = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": BFLOAT16,
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64), "I32": np.dtype(np.int32), "I16": np.dtype(np.int16), "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64), "U32": np.dtype(np.uint32), "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8), "BOOL": np.dtype(np.bool_),
}  # fmt: skip
SAFETENSORS_NAME = {dtype: name for name, dtype in SAFETENSORS.items()}
EXPONENT = {  # bits that are all set in an infinity and in a NaN, and in no other number
    np.dtype(np.float16): np.uint16(0x7C00), BFLOAT16: np.uint16(0x7F80),
    np.dtype(np.float32): np.uint32(0x7F800000), np.dtype(np.float64): np.uint64(0x7FF0000000000000),
    SAFETENSORS["F8_E5M2"]: np.uint8(0x7C), SAFETENSORS["F8_E4M3"]: np.uint8(0x7F),  # E4M3: NaN alone
}  # fmt: skip
CHUNK = 1 << 20
BLOCK = 64


@dataclasses.dataclass(frozen=True)
class Tensor:
    """strides: in elements, None where C-contiguous. member: the name in a zip file whose entries
    are compressed; `offset` then counts from the entry's own beginning."""

    path: pathlib.Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...] | None = None
    member: str | None = None

    def read(self, rows: slice | None = None) -> np.ndarray:
        """The tensor, or `rows` (start and stop given) of its leading axis; nothing else is read
        where the file allows it. Raises ValueError naming the file when it ends too early."""
        if self.strides is not None or self.member is not None:
            whole = self._scattered()
            return whole if rows is None else whole[rows]
        shape = self.shape
        skip = 0
        if rows is not None:
            shape = (rows.stop - rows.start, *shape[1:])
            skip = rows.start * math.prod(shape[1:])
        at = self.offset + skip * self.dtype.itemsize
        return self._bytes(at, math.prod(shape)).view(self.dtype).reshape(shape)

    def _scattered(self) -> np.ndarray:
        strides = self.strides or c_strides(self.shape)
        span = (
            1 + sum((n - 1) * s for n, s in zip(self.shape, strides))
            if math.prod(self.shape)
            else 0
        )
        flat = self._bytes(self.offset, span).view(self.dtype)
        steps = [s * self.dtype.itemsize for s in strides]
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, self.shape, steps))

    def _bytes(self, at: int, count: int) -> np.ndarray:
        size = count * self.dtype.itemsize
        if self.member is None:
            data = np.fromfile(self.path, np.uint8, size, offset=at)
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                file.read(at)
                data = np.frombuffer(file.read(size), np.uint8)
        if len(data) != size:
            raise ValueError(
                f"{self.path}: ends {size - len(data)} bytes too early; copy the file again"
            )
        return data


def c_strides(shape) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def is_float(dtype: np.dtype) -> bool:
    return dtype in EXPONENT


def count_not_finite(x: np.ndarray) -> int:
    """How many numbers of a C-contiguous float array are infinite or no number, in little
    memory."""
    mask = EXPONENT[x.dtype]
    bits = x.reshape(-1).view(mask.dtype)
    pieces = (bits[i : i + CHUNK] for i in range(0, len(bits), CHUNK))
    return sum(int(np.count_nonzero((piece & mask) == mask)) for piece in pieces)


def fill(out: np.ndarray, x: np.ndarray):
    """out[...] = x, where x may be a transposed matrix or of another dtype. Same-width copies go
    over the
    integers of that width in blocks that fit the cache: numpy's own loop walks whole columns."""
    if x.dtype == out.dtype and x.dtype.itemsize in (2, 4):
        bits = np.dtype(f"u{x.dtype.itemsize}")
        x = x.view(bits)
        out = out.view(bits)
    if x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous:
        for i in range(0, x.shape[0], BLOCK):
            for j in range(0, x.shape[1], BLOCK):
                out[i : i + BLOCK, j : j + BLOCK] = x[i : i + BLOCK, j : j + BLOCK]
    else:
        out[...] = x


def contiguous(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """x in C order and of `dtype`; itself when it is so already."""
    if x.flags.c_contiguous and x.dtype == dtype:
        return x
    out = np.empty(x.shape, dtype)
    fill(out, x)
    return out


def read_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
    """What a .safetensors file says it holds. Raises ValueError when it is no such file, or not
    whole."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(512)
        refuse_other_content(path, head)
        length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else size
        if length > min(size - 8, 100 << 20):
            raise ValueError(
                f"{path}: {size} bytes, no whole safetensors file; download or copy it again"
            )
        file.seek(8)
        try:
            header = json.loads(file.read(length), object_pairs_hook=_unique)
        except Repeated as error:
            raise ValueError(f"{path}: its header names {error} twice; copy it again") from None
        except (ValueError, RecursionError):
            raise ValueError(
                f"{path}: its header is no JSON, so it is no safetensors file"
            ) from None
    try:
        return _announced(path, header, size, 8 + length)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: its header is no safetensors header ({type(error).__name__}: {error}); copy "
            "it again"
        ) from None


class Repeated(ValueError):
    """A name that a header has twice."""


def _unique(pairs: list[tuple]) -> dict:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise Repeated(next(name for name in names if names.count(name) > 1))
    return values


def _announced(path, header: dict, size: int, begin: int) -> dict[str, Tensor]:
    """Tensors lie one after the other, without a gap and without sharing a byte, up to the end of
    the file."""
    if header.pop("__metadata__", {}).get("format") == "mlx":
        raise ValueError(
            f"{path}: MLX's form, whose arrays lie in another order; take the model that it was made "
            "from, in bfloat16 or float32"
        )
    tensors = {}
    spans = []
    for name, entry in header.items():
        if entry["dtype"] not in SAFETENSORS:
            raise ValueError(
                f"{path}: {name} is of type {entry['dtype']}, which this program cannot read; take "
                "weights in bfloat16 or float32"
            )
        dtype, shape, offsets = (
            SAFETENSORS[entry["dtype"]],
            tuple(entry["shape"]),
            tuple(entry["data_offsets"]),
        )
        a, b = offsets if len(offsets) == 2 else (0, -1)
        whole = (isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, a, b))
        if not all(whole) or b - a != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"{path}: {name} {shape} {dtype} takes bytes {a} to {b} by its header; file damaged"
            )
        tensors[name] = Tensor(path, begin + a, shape, dtype)
        spans.append((a, b, name))
    end = 0
    for a, b, name in sorted(spans):
        if a != end:
            raise ValueError(
                f"{path}: {name} begins at byte {a}, where {end} is due: tensors that share bytes, or "
                "a gap between them; the file is damaged, download or copy it again"
            )
        end = b
    if size != begin + end:
        raise ValueError(
            f"{path}: {size} bytes, but its header announces {begin + end}: cut short or damaged; "
            f"download or copy it again"
        )
    return tensors


def refuse_other_content(path, head: bytes):
    """What a download leaves in a file's place when it goes wrong."""
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: this is a git-lfs pointer, not the file: run `git lfs pull` in its folder"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{path}: this is a web page, not weights; download the file itself (/resolve/, not "
            "/blob/)"
        )


def read_npz(path: pathlib.Path) -> dict[str, Tensor]:
    """The arrays of a .npz file; bfloat16 is stored there as numpy void of two bytes. Raises
    ValueError."""
    refuse_other_content(path, path.open("rb").read(512))
    tensors = {}
    for info, archive in zip_entries(path):
        name = info.filename.removesuffix(".npy")
        with archive.open(info) as file:
            try:
                if np.lib.format.read_magic(file) == (1, 0):
                    header = np.lib.format.read_array_header_1_0(file)
                else:
                    header = np.lib.format.read_array_header_2_0(file)
            except ValueError as error:
                raise ValueError(f"{path}: {info.filename} is no array ({error})") from None
            (shape, fortran, dtype), skip = header, file.tell()
        if name in tensors:
            raise ValueError(f"{path}: it holds {name} twice; make the file again")
        if dtype.hasobject:
            raise ValueError(f"{path}: {name} holds Python objects (pickled), not numbers; refused")
        dtype = BFLOAT16 if dtype.kind == "V" and dtype.itemsize == 2 else dtype
        strides = c_strides(shape[::-1])[::-1] if fortran and len(shape) > 1 else None
        member = None if info.compress_type == zipfile.ZIP_STORED else info.filename
        offset = skip if member else skip + entry_offset(path, info)
        tensors[name] = Tensor(path, offset, tuple(shape), dtype, strides, member)
    return tensors


def zip_entries(path: pathlib.Path):
    """(ZipInfo, the open archive) of every entry. Raises ValueError when the file is no whole
    zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                yield info, archive
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path}: not a whole zip file ({error}); download or copy it again"
        ) from None


def entry_offset(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an uncompressed entry begin: behind its local header (.ZIP specification,
    4.3.7)."""
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + 30 + name + extra
