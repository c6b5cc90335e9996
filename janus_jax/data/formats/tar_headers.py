"""The files of a tar by its headers: names, places and sizes, of which nothing is unpacked."""

import logging
import os

from janus_jax.data.sources import SourceError

# bytes; a header is one block, data whole blocks (POSIX.1-2001, pax, "ustar interchange format")
BLOCK = 512


def members(descriptor: int, path: str, size: int):
    """(name, first byte, bytes) of every file in a tar of `size` bytes: ustar, GNU's or pax's long
    names."""
    at = 0
    long = {}
    while at < size:
        header = os.pread(descriptor, BLOCK, at)
        if not any(header):
            return
        name, kind, length = _header(header, at)
        length = _size(long.pop("size", length), name)
        start = at + BLOCK
        at = at + BLOCK + -(-length // BLOCK) * BLOCK
        if start + length > size:
            raise SourceError(
                f"is cut off within {name!r} at byte {size}; copy or download it again"
            )
        if kind == b"L":
            long["path"] = (
                os.pread(descriptor, length, start).rstrip(b"\0").decode("utf-8", "surrogateescape")
            )
        elif kind == b"x":
            long |= _pax(os.pread(descriptor, length, start))
        elif kind == b"S" or "GNU.sparse.major" in long:
            raise SourceError(f"{name!r} is a sparse file; write the tar without --sparse")
        elif kind not in (b"g", b"K"):
            name = long.pop("path", name)
            long = {}
            if kind in (b"0", b"\0", b"7"):
                yield name, start, length
    logging.warning(
        "%s: has no end mark; if it was cut off, samples are missing: copy it again", path
    )


def _header(header: bytes, at: int) -> tuple[str, bytes, int]:
    """Name, type and size. Raises SourceError for a block that is none."""
    if header[:2] == b"\x1f\x8b" and not at:
        raise SourceError(
            "is compressed: records in it cannot be found by position; gunzip it, pictures hardly "
            "shrink"
        )
    try:
        size = header[124:136]
        total = int(header[148:156].split(b"\0")[0], 8)
        large = size[0] & 0x80  # GNU's way to write 8 GiB and more
        number = int.from_bytes(size[1:], "big") if large else int(size.split(b"\0")[0] or b"0", 8)
        # Beyond the first header the magic will do: the sum would take as long as all the rest.
        good = (at and header[257:262] == b"ustar") or total == sum(header) - sum(
            header[148:156]
        ) + 8 * 32
    except (ValueError, IndexError):
        good = False
    good = good and number >= 0
    if not good or len(header) < BLOCK:
        why = "is damaged" if at else "is no tar"
        raise SourceError(f"{why} (at byte {at}: {header[:16]!r}); copy or download it again")
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    name = prefix + b"/" + name if prefix else name
    return name.decode("utf-8", "surrogateescape"), header[156:157], number


def _pax(data: bytes) -> dict[str, str]:
    """Records "<length> <key>=<value>\\n" (POSIX.1-2001)."""
    found = {}
    while data.strip(b"\0"):
        digits, _, rest = data.partition(b" ")
        length = _size(digits, "a pax header")
        if length <= len(digits) + 1:
            raise SourceError(
                f"is damaged (a pax record of {length} bytes); copy or download it again"
            )
        key, _, value = rest[: length - len(digits) - 2].partition(b"=")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return found


def _size(value, name: str) -> int:
    """A number of bytes in decimal. Raises SourceError."""
    try:
        if (size := int(value)) >= 0:
            return size
    except ValueError:
        pass
    raise SourceError(f"is damaged ({name!r} has size {value!r:.40}); copy or download it again")
