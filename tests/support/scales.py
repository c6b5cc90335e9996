"""A model that draws scale by scale, and what reads its rows."""

import dataclasses
import functools

from support import tiny

from janus_jax.data.processor import Processor

SCALES = (1, 2, 4)
N = sum(s * s for s in SCALES)
CONFIG = tiny.small(
    drawing="scales",
    generation_encoder=dataclasses.replace(
        tiny.CONFIG.generation_encoder, scales=SCALES, codebook_l2_norm=False
    ),
)
ALL = tuple(name for name in CONFIG.children if name != "generation_encoder")


@functools.cache
def processor() -> Processor:
    own = tiny.processor()
    return Processor(own.tokenizer, own.template, CONFIG.understanding_encoder.tokens, N)
