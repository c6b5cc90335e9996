"""OpenMoji pictures and their English names (openmoji.py): a small real data set.

There are about 1,650, each with one drawing: a model learns them by heart, so they show that the
machinery works, not that it generalises.
"""

import hashlib
import random

from janus_jax.data.messages import PICTURE, Turn, laid_out
from janus_jax.data.toy.openmoji import ATTRIBUTION, english, entries, names, render

_QUESTIONS = ("What is this?", "Which emoji is shown?", "Name the picture.")
_CACHE_BYTES = 256 * 2**20  # of rendered pictures a source keeps: every one up to 224 pixels


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
        entry = entries()[stem]
        points = " ".join(f"U+{point}" for point in stem.split("-"))
        others = [
            other for other in map(english, entry.get("alias", ())) if other.lower() != name.lower()
        ]
        called = f" It is also called {' or '.join(others)}." if others else ""
        return {"text": f"The {name} emoji is {points} and came with Emoji {entry['E']}.{called}"}

    def __repr__(self):
        return f"EmojiText(count={len(self)}, seed={self.seed})"
