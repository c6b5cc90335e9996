"""Whether a checkpoint is still what was written: sums of its files, and of the arrays in them.

manifest.json, written last, holds both. A file's sum is its size and CRC-32: it is checked before
anything is read. A leaf's sum is taken on the devices that hold it, before the save and after the
restore, so it also covers what lies between the devices and the disk; it is a sum modulo 2^32 over
all elements, hence the same on every mesh.
"""

import concurrent.futures
import errno
import json
import math
import os
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.common import files

NAME = "manifest.json"
OWN = ', "crc32": '  # the manifest's last field: of all bytes before it
# Errors that mean damage of a file; others are the file system's, or a matter of permissions.
DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
THREADS = 8
CHUNK = 1 << 24
BLOCK = 1 << 17  # elements that the host sums at once: what it makes of them stays in the cache


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


def problems(directory: pathlib.Path, deep: bool = True, always: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with the directory, a line for each file that is missing, cut, changed or on a
    bad sector.

    deep: all bytes are read; otherwise sizes are compared.
    always: names of files whose bytes are read either way.
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
        return _compare(directory / name, *wanted[name], deep or name in always)

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
    Waits for the devices.

    Each element's bits, mixed with its place, are summed modulo 2^32: one changed element (of up to
    32 bits) always shows, and so do, but for one case in 2^32, several, and elements that changed
    places.
    """
    # Leaf by leaf: as one program, a CPU's temporaries of all leaves are there at once, as large as
    # the state. And one after the other: with many sums on their way, fake devices wait for each
    # other forever.
    found = [jax.device_get(_examine(x)) for _, x in paths(tree)]
    return {
        name: {
            "shape": list(x.shape),
            "dtype": str(x.dtype),
            "sum": f"{int(total):08x}",
            "finite": bool(finite),
        }
        for (name, x), (total, finite) in zip(paths(tree), found)
    }


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
    return _mixed(bits.astype(jnp.uint32), index).sum(dtype=jnp.uint32), jnp.isfinite(x).all()


def _mixed(bits, index):
    """A number for each element and its place, uint32 (jax or numpy): MurmurHash3's finaliser, one
    to one in `bits`."""
    h = bits ^ (index * np.uint32(0x9E3779B1))
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def of_array(x: np.ndarray) -> str:
    """The sum of one array on the host, as `of_leaves` gives it."""
    flat = np.ascontiguousarray(x).reshape(-1)
    if flat.dtype == np.bool_:
        flat = flat.astype(np.uint8)
    bits = flat.view(np.dtype(f"uint{8 * flat.dtype.itemsize}"))
    total = 0
    for begin in range(0, bits.size, BLOCK):
        part = bits[begin : begin + BLOCK]
        part = (part ^ (part >> 32) if part.itemsize == 8 else part).astype(np.uint32)
        index = np.arange(part.size, dtype=np.uint32) + np.uint32(begin % 2**32)
        total += int(_mixed(part, index).sum(dtype=np.uint32))
    return f"{total % 2**32:08x}"


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


def bytes_of(leaves: dict) -> int:
    """How many bytes the arrays of a manifest's "leaves" take."""
    return sum(math.prod(x["shape"]) * jnp.dtype(x["dtype"]).itemsize for x in leaves.values())
