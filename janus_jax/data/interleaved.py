"""Conversations whose answers hold pictures to draw -> Sequence: interleaved output (paper section 3.5).

Users' pictures are seen by the understanding encoder. In an answer a picture is drawn where it stands:
begin_of_image, which the text head predicts, so that the model chooses to draw; image ids, which the
image head predicts; end_of_image. What comes later sees a drawn picture through its ids, as the slots
of which it was drawn, and not through the understanding encoder.

A drawn picture stands on a line of its own: no white space before it, a line break behind it unless it
ends the answer.
"""

import dataclasses

import numpy as np

from janus_jax.data.messages import PICTURE, Slot, Turn, laid_out
from janus_jax.data.packing import shorten
from janus_jax.data.sources import RecordError
from janus_jax.model import batch as bt


def encode(record: dict, encoder, rng) -> dict:
    """record: {"messages": [Turn, ...]} of kind generation, see sources.Source. encoder: the
    `example_encoder.ExampleEncoder`.

    To predict: the answers' words, begin_of_image and ids of their pictures, and end of sentence; with
    `supervise` "all" what users say too. With the encoder's `dropout` one of the pictures, chosen at
    random, is all that is learned: everything between BOS and its begin_of_image becomes pad, as of a
    caption, and what comes after it is left out. Raises RecordError for more pictures than a row
    takes, and for a model that draws in another way.
    """
    processor = encoder.processor
    _require(record, encoder.model)
    said = record["messages"]
    spans = processor.learned(
        record | {"messages": with_drawings(said, processor)}, encoder.supervise, encoder.form
    )
    spans, cut = shorten(_to_draw(spans, said), encoder.rows.length, processor.tokenizer.eos)
    owners = [turn.role for turn in said for _ in range(turn.count_pictures)]
    count = {role: [span[1] for span in spans].count(role) for role in bt.SLOTS.values()}
    seen, drawn = (
        [k for k, owner in enumerate(owners) if owner == role][: count[slot]]
        for role, slot in (("user", bt.UNDERSTANDING_SLOT), ("assistant", bt.GENERATION_SLOT))
    )
    most = encoder.rows.generation_images
    if len(drawn) > most:
        raise RecordError(
            "too many pictures",
            f"its answers draw {len(drawn)} pictures, a row takes {most}; raise the stage's "
            "rows.generation_images",
        )
    out = bt.sequence(spans, "generation", seen, drawn, truncated=cut)
    if rng.random() < encoder.dropout:
        return _of_one_picture(out, processor, rng)
    return out


def with_drawings(said: list[Turn], processor) -> list[Turn]:
    """The turns with a Slot for each picture of an answer, on a line of its own."""
    slot = Slot("drawn", bt.GENERATION_SLOT, processor.generation_tokens)
    return [_drawing(turn, slot) if turn.role == "assistant" else turn for turn in said]


def _drawing(turn: Turn, slot: Slot) -> Turn:
    if not turn.count_pictures:
        return turn
    pieces = [""]
    for piece in turn.content:
        if piece is PICTURE:
            pieces += [slot, ""]
        else:
            pieces[-1] += piece
    pieces = [piece.strip() if isinstance(piece, str) else piece for piece in pieces]
    content = laid_out([piece for piece in pieces if piece != ""])
    return dataclasses.replace(turn, content=content, pictures=[])


def _to_draw(spans: list[tuple], said: list[Turn]) -> list[tuple]:
    """The spans with ids and begin_of_image to predict, of the answers that are learned."""
    learn = [
        turn.learn is not False
        for turn in said
        if turn.role == "assistant"
        for _ in range(turn.count_pictures)
    ]
    out = list(spans)
    slots = (k for k, (_, role, _) in enumerate(spans) if role == bt.GENERATION_SLOT)
    for k, learned in zip(slots, learn, strict=True):
        for at in (k - 1, k):
            out[at] = (*spans[at][:2], 1 if learned else bt.GIVEN)
    return out


def _of_one_picture(example: dict, processor, rng) -> dict:
    """Of an example, a picture to predict and nothing else, behind blanks."""
    ids = (example["role"] == bt.GENERATION_SLOT) & (example["supervised"] == 1)
    begins = np.flatnonzero(ids)[:: processor.generation_tokens]
    if not len(begins):
        return example
    begin = begins[rng.integers(len(begins))]
    end = begin + processor.generation_tokens
    number = (example["role"][:begin] == bt.GENERATION_SLOT).sum() // processor.generation_tokens
    out = {name: example[name][: end + 1].copy() for name in ("tokens", "role", "supervised")}
    out["tokens"][:begin] = processor.unconditional(out["tokens"][:begin])
    out["role"][:begin] = bt.TEXT
    out["supervised"][:begin] = 0
    drawn = example["generation_images"][number : number + 1]
    return example | out | {"generation_images": drawn, "understanding_images": drawn[:0]}


def _require(record: dict, model):
    """Raises RecordError for what cannot be drawn between words."""
    vq = model.generation_encoder
    why = {
        f"model.drawing is {model.drawing!r}": model.drawing != "causal",
        f"model.image_head is {model.image_head!r}": model.image_head != "softmax",
        f"model.generation_encoder.sizes is {vq.sizes}": vq.sizes,
    }
    for told in (told for told, is_so in why.items() if is_so):
        raise RecordError(
            "a conversation that draws",
            f"its answers hold pictures to draw, and {told}: between words square pictures are drawn, "
            "one id after the other; leave the data set's line out, or take that out of the model",
        )
    if "image_ids" in record:
        raise RecordError(
            "stored ids",
            "image_ids hold one picture a record, and a conversation has more; take image_ids out of "
            "the data set's line: its pictures are encoded as they come",
        )
