"""Pictures to draw of several sizes in one run (paper section 3.5's "any resolution", for drawing).

A picture takes the size among the model's whose aspect is nearest to its own. What size is to be drawn
stands as words, "24x16" (width, height), behind begin_of_image, as Emu3 (arXiv 2409.18869) has it;
nothing stands there for the square of `generation_encoder.image_size`. Guidance's other branch keeps
these words.
"""

import math

import numpy as np

from janus_jax.data.images import generation_image
from janus_jax.data.sources import RecordError
from janus_jax.data.tiles import picture_size
from janus_jax.model import batch as bt
from janus_jax.model.config import GenerationEncoderConfig


def nearest(size: tuple[int, int], encoder: GenerationEncoderConfig) -> int:
    """The number, in `encoder.all_sizes`, of the size whose aspect is nearest to (width, height); the
    first of equals."""
    aspect = lambda size: math.log(size[0] / size[1])
    return int(np.argmin([abs(aspect(size) - aspect(other)) for other in encoder.all_sizes]))


def sized(record: dict, source, index: int, processor, encoder: GenerationEncoderConfig) -> dict:
    """A record to draw, of a source, with the number of its picture's size as "size" and its spans as "drawn".
    Raises RecordError, ImageError."""
    if "sources" in record:
        raise RecordError(
            "an edit of a sized model",
            "edits are of squares, and model.generation_encoder.sizes names other sizes: leave the data "
            "set's line out, or sizes out of the model",
        )
    if "image_ids" in record:
        raise RecordError(
            "stored ids",
            "its image_ids are of a square, and model.generation_encoder.sizes names other sizes: "
            "leave image_ids out of the data set's line, or sizes out of the model",
        )
    number = nearest(picture_size(source, index, 0), encoder)
    return record | {"size": number, "drawn": spans(processor, number, encoder)}


def size_words(processor, size: tuple[int, int], encoder: GenerationEncoderConfig) -> list[int]:
    """The ids that say which size is to be drawn; none for the first of `encoder.all_sizes`."""
    if size == encoder.all_sizes[0]:
        return []
    return list(processor.tokenizer.encode("{}x{}".format(*size))[0])


def require(size, encoder: GenerationEncoderConfig) -> tuple[int, int]:
    """A size that is asked for, (width, height) or "WxH", as one of those that a model draws. Raises
    ValueError."""
    told = size if isinstance(size, str) else "x".join(map(str, size))
    known = {"{}x{}".format(*one): one for one in encoder.all_sizes}
    if told not in known:
        raise ValueError(
            f"size is {told}: this model draws {', '.join(known)} (width x height in pixels); take one of "
            "these, or train one with it in model.generation_encoder.sizes"
        )
    return known[told]


def drawn_grid(size, encoder: GenerationEncoderConfig) -> tuple[int, int]:
    """Rows and columns of the image tokens of a size that is asked for, see `require`."""
    width, height = require(size, encoder)
    return height // encoder.stride, width // encoder.stride


def grid_and_words(
    size, encoder: GenerationEncoderConfig, processor
) -> tuple[tuple[int, int], list[int]]:
    """`drawn_grid` a size, and the ids of its words."""
    return drawn_grid(size, encoder), size_words(processor, require(size, encoder), encoder)


def spans(processor, number: int, encoder: GenerationEncoderConfig) -> list[tuple]:
    """Of the size's words and the picture's slots, to be predicted."""
    size = encoder.all_sizes[number]
    said = size_words(processor, size, encoder)
    columns, rows = (x // encoder.stride for x in size)
    slots = ([processor.tokenizer.placeholder] * (rows * columns), bt.GENERATION_SLOT, 1)
    return [(said, bt.TEXT, 0), slots] if said else [slots]


def sized_pixels(source, index: int, number: int, encoder: GenerationEncoderConfig) -> dict:
    """As `example_encoder.ExampleEncoder.pixels`: the picture, uint8 [height, width, 3], and 1 + the number
    of its size, int32 []. Raises ImageError."""
    picture = generation_image(source.image(index), encoder.all_sizes[number], fast=True)
    return {"generation_images": [picture], "generation_sizes": [np.array(1 + number, np.int32)]}


def sized_row(row: dict, most: int) -> dict:
    """What `packing.assemble` makes of such examples, whose pictures have fewer than `most` tokens
    perhaps: slots that index into pictures of `most`."""
    slots = row["generation_slots"]
    here = slots > 0
    begins = here & ~np.append(False, here[:-1])
    number = np.cumsum(begins) - 1  # of the picture at each slot
    first = slots[begins]
    moved = np.zeros(slots.max(initial=0) + 1, np.int32)  # old slot -> new
    moved[slots[here]] = number[here] * most + slots[here] - first[number[here]] + 1
    return row | {name: moved[row[name]] for name in ("generation_slots", "image_targets")}
