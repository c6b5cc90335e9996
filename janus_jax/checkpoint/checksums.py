"""Whether a checkpoint is still what was written: sums of its files, and of the arrays in them.

manifest.json, written last, holds both. A file's sum is its size and CRC-32. A leaf's sum is taken
where it lies, on the devices, of what is saved and of what was restored, so it also covers what
lies between the devices and the disk; it is a sum modulo 2^32 over all elements, hence the same on
every mesh.
"""

import concurrent.futures
import errno
import functools
import json
import math
import os
import pathlib
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.common import files

NAME = "manifest.json"
ARRAYS = "state/"  # what begins so are the arrays, as Orbax writes them
OWN = ', "crc32": '  # the manifest's last field: of all bytes before it
# Errors that mean damage of a file; others are the file system's, or a matter of permissions.
DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
THREADS = 8
CHUNK = 1 << 24
BLOCK = 1 << 18  # elements that the host sums at once; between two, threads want Python's lock
SMALL = 1 << 20  # bytes of a file that is always read
MIX = 0x9E3779B1  # by which the place of an element is multiplied


def write(directory: pathlib.Path, facts: dict) -> int:
    """Sums every file under the directory into its manifest.json, beside `facts`; all of it is on
    the disk after. Returns how many bytes there are."""
    paths_ = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != NAME)
    names = [path.relative_to(directory).as_posix() for path in paths_]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        sums = dict(zip(names, pool.map(_synced_sum, paths_)))
    text = json.dumps(facts | {"files": sums})[:-1]
    with open(directory / NAME, "w", encoding="utf-8") as file:
        file.write(f"{text}{OWN}{zlib.crc32(text.encode())}}}\n")
        file.flush()
        os.fsync(file.fileno())
    return len(text) + sum(size for size, _ in sums.values())


def read_manifest(directory: pathlib.Path) -> dict:
    """The facts and "files" of manifest.json. Raises OSError, or ValueError where its bytes have
    changed."""
    content = (directory / NAME).read_bytes()
    text, own, end = content.rpartition(OWN.encode())
    if not own or end != f"{zlib.crc32(text)}}}\n".encode():
        raise ValueError("its bytes have changed: its own CRC-32 does not fit")
    return json.loads(content)


def problems(directory: pathlib.Path, deep: bool = True) -> list[str]:
    """What is wrong with the directory, a line for each file that is missing, cut, changed or on a
    bad sector.

    deep: all bytes are read. Otherwise those of small files and of all that hold no arrays; what
        the others hold is told by the sums of the arrays once they are read.
    Raises OSError where it cannot be told, for lack of permission or of the file system.
    """
    try:
        wanted = read_manifest(directory)["files"]
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        return [f"{NAME}: {error.strerror}; it is written last, so the rest may be incomplete"]
    except (ValueError, KeyError) as error:
        return [f"{NAME}: {error}"]

    def compare(name: str) -> str:
        size, crc = wanted[name]
        is_read = deep or size <= SMALL or not name.startswith(ARRAYS)
        return _compare(directory / name, size, crc, is_read)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(compare, wanted))
    return [f"{name}: {what}" for name, what in zip(wanted, found) if what]


def _compare(path: pathlib.Path, size: int, crc: int, deep: bool) -> str:
    """What is wrong with a file of which `size` bytes of this CRC-32 were written; empty if
    nothing."""
    try:
        found, sum_ = _sum(path) if deep else (path.stat().st_size, crc)
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        return f"cannot be read ({error.strerror})"
    if found != size:
        return f"has {found} bytes, {size} were written"
    if sum_ != crc:
        return f"its bytes have changed (CRC-32 {sum_:08x}, {crc:08x} was written)"
    return ""


def _synced_sum(path: pathlib.Path) -> tuple[int, int]:
    """`_sum` of a file that is on the disk, and not only on its way there."""
    found = _sum(path)
    files.sync(path)
    return found


def _sum(path: pathlib.Path) -> tuple[int, int]:
    """(size in bytes, CRC-32)."""
    crc = 0
    size = 0
    buffer = memoryview(bytearray(CHUNK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
            size = size + count
    return size, crc


def of_leaves(tree) -> dict[str, dict]:
    """{path: {"shape", "dtype", "sum", "finite"}} of a tree of arrays; sum as eight hex digits.

    Each element's bits, mixed with its place, are summed modulo 2^32: one changed element (of up to
    32 bits) always shows, and so do, but for one case in 2^32, several, and elements that changed
    places.
    """
    return start(tree)()


def start(tree) -> Callable[[], dict[str, dict]]:
    """Begins `of_leaves`; the function that it returns waits for the sums and gives them, in any
    thread. Meanwhile the arrays may be donated.

    On accelerators the sums are programs that run before whatever is handed out later. On a CPU
    they are taken by that function, of the memory of the arrays itself: a program that these
    are donated to copies them as long as the sums still read them.
    """
    under_way = [(name, x.shape, x.dtype, _start(x)) for name, x in paths(tree)]

    def finish() -> dict[str, dict]:
        # No more threads than cores: they would take Python's lock from each other.
        with concurrent.futures.ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            futures = [[pool.submit(part) for part in parts] for *_, parts in under_way]
        found = [[future.result() for future in parts] for parts in futures]
        return {
            name: {
                "shape": list(shape),
                "dtype": str(dtype),
                "sum": f"{sum(int(total) for total, _ in parts) % 2**32:08x}",
                "finite": all(bool(finite) for _, finite in parts),
            }
            for (name, shape, dtype, _), parts in zip(under_way, found)
        }

    return finish


def not_finite(leaves: dict[str, dict], what: str) -> FloatingPointError | None:
    """The error that names arrays that are not, if there are any. Takes "finite" out of the
    facts."""
    bad = [name for name, x in leaves.items() if not x.pop("finite")]
    text = (
        f"{what}: {len(bad)} arrays hold a NaN or an infinity ({', '.join(bad[:3])}), so this state "
        "is not saved; the checkpoints before it are kept. A larger optim.eps or a lower "
        "optim.learning_rate keeps updates finite."
    )
    return FloatingPointError(text) if bad else None


def _start(x: jax.Array) -> list[Callable]:
    """What gives (sum, whether all is finite) of each part of an array."""
    if _is_in_host_memory(x):
        return [
            functools.partial(_of_part, np.asarray(shard.data), shard.index, x.shape)
            for shard in x.addressable_shards
            if shard.replica_id == 0
        ]
    found = _examine(x)
    if jax.default_backend() == "cpu":
        # Of several processes: with many sums on their way, fake devices wait for each other for
        # ever.
        jax.block_until_ready(found)
    return [lambda: jax.device_get(found)]


def _is_in_host_memory(x: jax.Array) -> bool:
    """Whether this process can read all of an array in place."""
    return x.is_fully_addressable and all(d.platform == "cpu" for d in x.sharding.device_set)


def paths(tree) -> list[tuple[str, object]]:
    """(path joined by dots, leaf) of every leaf."""
    return [
        (jax.tree_util.keystr(p, simple=True, separator="."), x)
        for p, x in jax.tree.leaves_with_path(tree)
    ]


@jax.jit
def _examine(x):
    """(the sum of a leaf, whether all of it is finite)."""
    bits = x
    if x.dtype == jnp.bool:
        bits = x.astype(jnp.uint32)
    else:
        bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    if x.dtype.itemsize == 8:
        bits = bits ^ (bits >> 32)
    index = jnp.uint32(0)
    stride = 1
    for axis in reversed(range(x.ndim)):
        place = jax.lax.broadcasted_iota(
            jnp.uint32, x.shape, axis, out_sharding=jax.typeof(x).sharding
        )
        index = index + place * jnp.uint32(stride % 2**32)
        stride = stride * x.shape[axis]
    mixed = _mixed(index * jnp.uint32(MIX) ^ bits.astype(jnp.uint32))
    return mixed.sum(dtype=jnp.uint32), jnp.isfinite(x).all()


def _mixed(h):
    """Each element mixed, uint32 (of jax, or of numpy, in place): MurmurHash3's finaliser, one to
    one."""
    h ^= h >> 16
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> 13
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> 16
    return h


def of_array(x: np.ndarray) -> str:
    """The sum of one array on the host, as `of_leaves` gives it."""
    total, _ = _of_part(np.asarray(x, order="C"), (slice(None),) * x.ndim, x.shape)
    return f"{total:08x}"


def _of_part(x: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[int, bool]:
    """(the sum, whether all of it is finite) of a part of an array on the host.

    x: the part, contiguous.
    index: where in the array it is.
    shape: of the array.
    """
    if not x.size:
        return 0, True
    # Rows of elements that lie next to each other in the array as well, and the place of each row.
    strides = [math.prod(shape[axis + 1 :]) for axis in range(x.ndim)]
    axis = x.ndim - 1
    while axis > 0 and x.shape[axis] == shape[axis]:
        axis -= 1
    places = np.int64(sum((at.start or 0) * stride for at, stride in zip(index, strides)))
    for outer in range(axis):
        places = np.add.outer(places, np.arange(x.shape[outer]) * strides[outer])
    rows = x.reshape(places.size, -1)
    places = places.reshape(-1, 1).astype(np.uint32) * np.uint32(MIX)  # [rows, 1]

    bits = rows.view(f"uint{8 * x.itemsize}")
    width = min(rows.shape[1], BLOCK)
    height = max(1, BLOCK // width)
    columns = np.arange(width, dtype=np.uint32) * np.uint32(MIX)
    total, finite = 0, True
    for row in range(0, len(rows), height):
        for column in range(0, rows.shape[1], width):
            here = slice(row, row + height), slice(column, column + width)
            part = bits[here]
            if part.itemsize == 8:
                part = part ^ (part >> 32)
            begin = places[here[0]] + np.uint32(column * MIX % 2**32)
            mixed = begin + columns[: part.shape[1]]
            mixed ^= part.astype(np.uint32, copy=False)
            total += int(_mixed(mixed).sum(dtype=np.uint32))
            finite = finite and bool(np.isfinite(rows[here]).all())
    return total % 2**32, finite


def unfit(manifest: dict, like) -> list[str]:
    """Where the leaves of a manifest are not those of a tree (of arrays or their shapes), a line
    each."""
    wanted = {name: [list(x.shape), str(x.dtype)] for name, x in paths(like)}
    there = {name: [x["shape"], x["dtype"]] for name, x in manifest["leaves"].items()}
    text = lambda x: f"{x[1]} {tuple(x[0])}"
    problems = [f"missing: {name}, {text(x)}" for name, x in wanted.items() if name not in there]
    problems += [f"unknown: {name}, {text(x)}" for name, x in there.items() if name not in wanted]
    return problems + [
        f"{name} is {text(there[name])} in the checkpoint, {text(x)} here"
        for name, x in wanted.items()
        if there.get(name, x) != x
    ]
