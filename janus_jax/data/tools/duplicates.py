"""Records and pictures that are there twice, exactly."""

import hashlib

from PIL import Image


def picture(image) -> Image.Image:
    """What `Source.image` gives (an RGB `PIL.Image`, or uint8 [H, W, 3]) as an RGB `PIL.Image`."""
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def pixels(image: Image.Image) -> bytes:
    """16 bytes of the SHA-256 of an RGB picture's size and pixels."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()[:16]


def digest(text: str) -> bytes:
    """16 bytes of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16]


def same(keys: list) -> list[list[int]]:
    """Groups of at least two indices whose keys are equal, in order."""
    groups: dict = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [group for group in groups.values() if len(group) > 1]
