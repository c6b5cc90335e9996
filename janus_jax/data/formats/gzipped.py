"""Gzipped texts: unpacked into memory, since records are found by position."""

import gzip
import zlib

from janus_jax.data.sources import SourceError

_MAGIC = b"\x1f\x8b"
_MOST = 2**28  # bytes of what is unpacked of a data set: every process that reads holds it


def is_gzipped(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == _MAGIC


def unpacked(path: str, held: int = 0) -> bytes:
    """What is in a gzipped file. Raises SourceError where it is damaged, or too much beside the
    bytes that are `held` of other files."""
    try:
        with gzip.open(path) as file:
            data = file.read(max(_MOST - held, 0) + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"cannot be unpacked ({error}); copy or download it again") from None
    if len(data) > _MOST - held:
        others = ", with the files before it," if held else ""
        raise SourceError(
            f"unpacks{others} to more than {_MOST / 1e6:.0f} MB, which every process would hold; run `gunzip -k` on it"
        )
    if data[257:262] == b"ustar":
        raise SourceError("is a gzipped tar; gunzip it into a .tar, pictures hardly shrink")
    return data
