"""Pictures that are there twice: the same pixels, or the same picture at another size or quality."""

import hashlib

import numpy as np
from PIL import Image

# Bits of the hash: pairs further apart are never alike. Those that differ in three or fewer are always compared,
# since one of its four parts is equal.
FAR = 12
# Of thumbnails, 0 to 255. Resized to 0.3 to 1.7 times and saved as JPEG of quality 70, scikit-image's photographs
# differ by at most 3 on average and 20 anywhere, drawings on white by 6 and 34; another face or digit by 40 or more.
MEAN, MOST = 6, 36
CROWD = 2000  # of the pictures that share a quarter of the hash, this many are compared with each other


def picture(image) -> Image.Image:
    """What `Source.image` gives (an RGB `PIL.Image`, or uint8 [H, W, 3]) as an RGB `PIL.Image`."""
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def pixels(image: Image.Image) -> bytes:
    """16 bytes of the SHA-256 of an RGB picture's size and pixels."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()[:16]


def digest(text: str) -> bytes:
    """16 bytes of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16]


def look(image: Image.Image) -> tuple[int, bytes]:
    """A 64-bit difference hash (is a cell of the 9x8 grey picture brighter than its left neighbour?) and a 16x16 grey
    thumbnail (256 bytes)."""
    grey = image.convert("L")
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX))
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    return int.from_bytes(bits.tobytes(), "big"), grey.resize((16, 16), Image.Resampling.BOX).tobytes()


def same(keys: list) -> list[list[int]]:
    """Groups of at least two indices whose keys are equal, in order."""
    groups: dict = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def near(hashes: list[int], thumbnails: list[bytes]) -> tuple[list[list[int]], int]:
    """Groups of indices whose pictures look like the group's first; and how many pictures were left out because more
    than CROWD share a part of the hash (plain backgrounds)."""
    codes = np.array(hashes, np.uint64)
    thumbs = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(len(codes), 256).astype(np.int16)
    first, crowded = np.arange(len(codes)), set()
    for shift in (0, 16, 32, 48):
        part = (codes >> np.uint64(shift)) & np.uint64(0xFFFF)
        order = np.argsort(part, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            crowded.update(bucket[CROWD:].tolist())
            _join(bucket[:CROWD], codes, thumbs, first)
    while (first[first] != first).any():  # who leads a group and then joins another brings the group along
        first = first[first]
    return same(first.tolist()), len(crowded)


def _join(bucket: np.ndarray, codes: np.ndarray, thumbs: np.ndarray, first: np.ndarray):
    """Puts every picture of a bucket (ascending) that has no group into that of one it looks like. Groups do not
    chain: a series of small steps would end in one of everything."""
    for k, i in enumerate(bucket[:-1]):
        if first[i] != i:
            continue
        rest = bucket[k + 1 :]
        close = rest[(np.bitwise_count(codes[rest] ^ codes[i]) <= FAR) & (first[rest] == rest)]
        differ = np.abs(thumbs[close] - thumbs[i])
        alike = close[(differ.mean(axis=1) <= MEAN) & (differ.max(axis=1, initial=0) <= MOST)]
        first[alike] = i
