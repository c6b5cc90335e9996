"""Prompts that are read into a KV cache of their own, stretch by stretch."""

import dataclasses
import functools
import hashlib

import jax
import numpy as np

from janus_jax.model import sharding as sh
from janus_jax.sample.cache import cache_length, put
from janus_jax.sample.programs import READ, read

SHORT = 256  # tokens of a prompt up to which it is read in short stretches


@dataclasses.dataclass(eq=False)
class Prompt:
    """ids: int32 [n]. shown: the features [n, D] of its pictures, used where `is_shown`, bool [n]."""

    ids: np.ndarray
    shown: np.ndarray | None = None
    is_shown: np.ndarray | None = None

    @functools.cached_property
    def key(self) -> tuple:
        """Equal for equal prompts."""
        pictures = b"" if self.shown is None else self.shown.tobytes()
        return self.ids.tobytes(), hashlib.blake2b(pictures).digest()


@dataclasses.dataclass(eq=False)
class Reading:
    """A prompt that is read: its cache of so many `places`, the hidden state `last` of its last token,
    each the same on every device of the batch axes. takers: (request, row) that wait for it."""

    prompt: Prompt
    takers: list = dataclasses.field(default_factory=list)
    at: int = 0
    cache: list | None = None
    last: jax.Array | None = None

    @property
    def left(self) -> int:
        """Tokens that are not read yet."""
        return max(len(self.prompt.ids) - self.at, 0)

    @property
    def places(self) -> int:
        return cache_length(len(self.prompt.ids))

    def stretch(self, model, leaves, tree):
        """Reads the next stretch; a cache is there. leaves, tree: the model, taken apart."""
        prompt = self.prompt
        count = len(prompt.ids)
        shards = sh.batch_shards()
        size = READ[count > SHORT]
        at = min(self.at, self.places - size)  # what two stretches share is read twice
        here = slice(at, at + size)
        there = min(size, count - at)
        ids = np.zeros(size, np.int32)
        shown = np.zeros((size, model.transformer.config.width), model.transformer.dtype)
        is_shown = np.arange(size) >= there  # what fills it up is zeros
        ids[:there] = prompt.ids[here]
        if prompt.shown is not None:
            shown[:there] = prompt.shown[here]
            is_shown[:there] = prompt.is_shown[here]
        some = put([np.repeat(x[None], shards, 0) for x in (ids, shown, is_shown)])
        numbers = np.int32(at), np.int32(there - 1)
        self.cache, self.last = read(leaves, self.cache, *some, *numbers, tree=tree)
        self.at = at + size
