"""The pictures of a conversation as tiles: counted before any is decoded, then cut (see tiles.py)."""

import dataclasses

import numpy as np

from janus_jax.data.image_parts import open_picture, readable
from janus_jax.data.messages import Turn, turns
from janus_jax.data.tiles import count_tiles, cut, require_count, size_of


@dataclasses.dataclass(frozen=True)
class Cut:
    """A picture that was cut already, in the place of its file. tiles: uint8 [K, S, S, 3]."""

    tiles: np.ndarray

    @classmethod
    def of(cls, picture, tower, background) -> "Cut":
        return cls(cut(picture, tower, background))


def opened(conversation, tower) -> tuple[list[Turn], list[int]]:
    """The turns of chat messages, their pictures ready to be read, and K of each of these. What cannot
    be read counts as one: it is told where it is decoded. Raises ValueError as `messages.turns` does.

    tower: the UnderstandingEncoderConfig.
    """
    said = []
    found = []
    for turn in turns(conversation):
        pictures = []
        for part in turn.pictures:
            part, count = _counted(part, tower)
            pictures.append(part)
            found.append(count)
        said.append(dataclasses.replace(turn, pictures=pictures))
    return said, found


def _counted(part, tower) -> tuple:
    if isinstance(part, dict) and isinstance(part.get("image"), Cut):
        return part["image"], len(part["image"].tiles)
    try:
        part = readable(part)
        return part, count_tiles(size_of(part), tower)
    except Exception:  # damaged headers make Pillow raise nearly anything
        return part, 1


def tiles_of(source, where: str, tower, background, count: int) -> np.ndarray:
    """The tiles of a picture that `opened` gave, uint8 [K, S, S, 3]. Raises ImageError.

    where: the message it stands in.
    count: K, as `opened` found it.
    """
    if isinstance(source, Cut):
        return source.tiles
    tiles = cut(open_picture(source, where), tower, background)
    require_count(len(tiles), count, where)
    return tiles
