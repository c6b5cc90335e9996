"""A caption and a picture to draw -> Sequence (paper sections 3.2 and 3.3; condition dropout as in LlamaGen)."""

import re

import numpy as np

from janus_jax import batch as bt
from janus_jax.data.tokenizer import CHARACTERS


def encode(record: dict, processor, rng, dropout: float, first_sentence: float) -> dict:
    """record: {"captions": [one or more alternatives]}, and perhaps {"image_ids": int [N]}.

    BOS, the prompt, begin_of_image, N image ids, end_of_image, EOS; only the ids are targets. With
    probability `first_sentence` a caption of several sentences is cut to its first; with probability
    `dropout` every token strictly between BOS and begin_of_image becomes pad and stays attended.
    """
    t = processor.tokenizer
    caption = record["captions"][rng.integers(len(record["captions"]))]
    if rng.random() < first_sentence:
        caption = first(caption)
    most = CHARACTERS * processor.context  # what is beyond is not worth encoding: no row takes it
    cut, caption = len(caption) > most, caption[:most]
    prompt = np.concatenate([span[0] for span in processor.drawing(caption)]).astype(np.int32)
    if rng.random() < dropout:
        prompt = processor.unconditional(prompt)
    spans = [
        (prompt, bt.TEXT, 0),
        ([t.placeholder] * processor.generation_tokens, bt.IMAGE, 1),
        ([t.end_of_image, t.eos], bt.TEXT, 0),
    ]
    return bt.sequence(spans, "generation", images=[0], truncated=cut)


def first(caption: str) -> str:
    """The first sentence: up to a full stop, question or exclamation mark that is followed by space."""
    return re.split(r"(?<=[.!?。！？])\s+", caption.strip(), maxsplit=1)[0]
