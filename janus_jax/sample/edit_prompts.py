"""The prompts of an edit, with its pictures and without them, and the request of what guidance makes of
them."""

import os
import zlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

from janus_jax.data import editing
from janus_jax.data.image_parts import open_picture
from janus_jax.data.image_pixels import ImageError
from janus_jax.data.images import generation_image, understanding_image
from janus_jax.data.messages import blank, check_text
from janus_jax.data.sources import CHARACTERS
from janus_jax.model import batch as bt
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import serving
from janus_jax.sample import decode
from janus_jax.sample.engine import Request
from janus_jax.sample.programs import see_ids
from janus_jax.sample.reading import Prompt

PICTURE = os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray | dict


def edit_prompt(processor, images, instruction, source_ids: bool = True) -> tuple[list, list]:
    """(spans of the prompt, its pictures, RGB). Raises ValueError."""
    check_text(instruction, "instruction")
    pictures = _opened(images)
    most = CHARACTERS * processor.context
    if blank(instruction):
        raise ValueError(
            f"instruction is {instruction[:20]!r}: say what to do, such as 'make the circle red'"
        )
    if len(instruction) > most:
        raise ValueError(
            f"instruction: {len(instruction):,} characters, at most {most:,} are read; shorten it"
        )
    spans = editing.prompt(processor, instruction, len(pictures), source_ids)
    total = sum(len(ids) for ids, _, _ in spans)
    more = processor.generation_tokens
    if total + more > processor.context:
        each = processor.understanding_tokens + 2 + source_ids * (more + 2)
        raise ValueError(
            f"images and instruction: {len(pictures)} pictures x {each} + "
            f"{total - len(pictures) * each:,} of text = {total:,} tokens and {more:,} to come make "
            f"{total + more:,}, the context is {processor.context:,}: give fewer pictures, or shorten "
            f"the instruction{', or set source_ids to False' if source_ids else ''}"
        )
    return spans, pictures


def _opened(images) -> list:
    """The pictures, RGB. Raises ValueError for none, and for what is no picture."""
    several = isinstance(images, Iterable) and not isinstance(images, str | PICTURE)
    listed = list(images) if several else [images]
    if not listed:
        raise ValueError("images: 0 pictures were given; give one to edit, or draw with generate")
    found = []
    problems = []
    for k, image in enumerate(listed):
        where = f"images[{k}]" if several else "images"
        try:
            found.append(open_picture(image, where))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        raise ImageError("\n".join(problems))
    return found


def marks(pictures: list) -> str:
    """Which pictures these are, for the facts of what is drawn of them: by their pixels."""
    return " ".join(f"{zlib.crc32(picture.tobytes()):08x}" for picture in pictures)


def branches_of(model, processor, spans: list, pictures: list) -> tuple[Prompt, Prompt, Prompt]:
    """The prompt with its pictures and words, with its pictures alone, and with neither.

    spans, pictures: as `edit_prompt` gives them.
    """
    side = model.config.understanding_encoder.image_size
    seen = np.stack([understanding_image(x, side, processor.background) for x in pictures])
    shown = bt.pixels(seen, processor.image_mean, processor.image_std)
    features = {bt.UNDERSTANDING_SLOT: decode.features(model, shown)}
    if any(role == bt.GENERATION_SLOT for _, role, _ in spans):
        side = model.config.generation_encoder.image_size
        pixels = bt.pixels(np.stack([generation_image(x, side) for x in pictures]))
        with own_jax(model):
            features[bt.GENERATION_SLOT] = decode.one_by_one(see_ids, serving(model), pixels)
    ids = np.concatenate([span[0] for span in spans]).astype(np.int32)
    role = np.concatenate([np.full(len(span[0]), span[1], np.int8) for span in spans])

    def prompt(words: bool, pictures: bool) -> Prompt:
        tokens, own = ids.copy(), role.copy()
        gone = {"words": not words, "pictures": not pictures}
        editing.blank_parts(tokens, own, len(tokens) - 1, processor.tokenizer, **gone)
        if not pictures:
            return Prompt(tokens)
        rows = np.zeros((len(tokens), features[bt.UNDERSTANDING_SLOT].shape[-1]), np.float32)
        for kind, found in features.items():
            rows[own == kind] = found.reshape(-1, rows.shape[1])
        return Prompt(tokens, rows, own != bt.TEXT)

    return prompt(True, True), prompt(False, True), prompt(False, False)


def request(
    branches: tuple[Prompt, Prompt, Prompt], cfg_scale: float, image_cfg_scale: float, seed: int,
    number: int, temperature: float, count: int,
) -> Request:  # fmt: skip
    """The request for a picture of `branches_of`. Branches of no weight are left out."""
    shares = cfg_scale, image_cfg_scale - cfg_scale, 1 - image_cfg_scale
    kept = [(prompt, share) for prompt, share in zip(branches, shares) if share != 0]
    prompts, weights = zip(*kept)
    return Request(prompts, True, count, seed, number, temperature, weights=weights)
