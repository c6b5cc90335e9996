"""What a drawing's size changes: the grid of its tokens, and the words of its prompts."""

import importlib
from collections.abc import Callable

import numpy as np

from janus_jax.sample.reading import Prompt


def grid_of(model, size: str | None = None) -> tuple[int, int]:
    """Rows and columns of the image tokens of a size, as of `generate`. Raises ValueError."""
    vq = model.config.generation_encoder
    return vq.grid if size is None else _sizes().drawn_grid(size, vq)


def prompts_to_draw(
    model, processor, prompt: str, other: Callable, size: str | None
) -> tuple[tuple[Prompt, Prompt], int]:
    """The prompts of both branches of guidance, and how many ids are drawn after them. other: of the
    one's ids the other prompt. Raises ValueError."""
    rows, columns = grid_of(model, size)
    words = []
    if size is not None:
        words = _sizes().grid_and_words(size, model.config.generation_encoder, processor)[1]
    asked = processor.request(prompt, new=rows * columns + len(words))
    pair = Prompt(asked), other(asked)
    if words:
        pair = tuple(Prompt(np.append(x.ids, words).astype(np.int32)) for x in pair)
    return pair, rows * columns


def _sizes():
    """What pictures of several sizes need, loaded where one is asked for."""
    return importlib.import_module("janus_jax.data.sizes")
