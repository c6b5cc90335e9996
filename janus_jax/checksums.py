"""Whether the files of a directory are still as they were written: their sizes and CRC-32, kept beside them.

The sums are of the files and not of the arrays: they hold on every mesh, take no copy from a device, and cover
the position in the data too.
"""

import concurrent.futures
import json
import pathlib
import zlib

NAME = "checksums.json"
LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")  # Orbax writes them once the sums are taken
THREADS, CHUNK = 8, 1 << 24


def write(directory: pathlib.Path):
    """Sums every file under the directory into its checksums.json."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name not in (NAME, *LATER))
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        sums = dict(zip((p.relative_to(directory).as_posix() for p in files), pool.map(_sum, files)))
    (directory / NAME).write_text(json.dumps(sums, indent=1))


def problems(directory: pathlib.Path) -> list[str]:
    """What is wrong with the directory, a line for each file that is missing, cut, changed or unreadable."""
    try:
        sums = json.loads((directory / NAME).read_bytes())
        wanted = {directory / name: (size, crc) for name, (size, crc) in sums.items()}
    except OSError as error:
        return [f"{NAME}: {error.strerror}; it is written last, so the rest may be incomplete"]
    except (ValueError, TypeError, AttributeError) as error:
        return [f"{NAME}: cannot be read ({error})"]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda path: _compare(path, *wanted[path]), wanted))
    return [f"{path.relative_to(directory)}: {what}" for path, what in zip(wanted, found) if what]


def _sum(path: pathlib.Path) -> tuple[int, int]:
    """(size in bytes, CRC-32)."""
    crc, size, buffer = 0, 0, memoryview(bytearray(CHUNK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc, size = zlib.crc32(buffer[:count], crc), size + count
    return size, crc


def _compare(path: pathlib.Path, size: int, crc: int) -> str:
    try:
        got = _sum(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if got[0] != size:
        return f"has {got[0]} bytes, {size} were written"
    return "" if got[1] == crc else f"its bytes have changed (CRC-32 {got[1]:08x}, {crc:08x} was written)"
