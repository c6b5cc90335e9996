"""Pictures and what to do with them -> Sequence: text and pictures to a picture.

BOS, "User: " with the pictures as the understanding encoder sees them and the instruction, perhaps
the same pictures as VQ ids too, "Assistant:", and the ids to draw. The encoder says what is there,
ids how it looks. A model that has learned with and without ids edits either way; so was Janus-4o
trained (arXiv 2506.18095).
"""

import numpy as np

from janus_jax.data.image_pixels import ImageError
from janus_jax.data.messages import PICTURE, Turn, laid_out
from janus_jax.data.packing import shorten
from janus_jax.data.sources import CHARACTERS, RecordError
from janus_jax.model import batch as bt

_LOOKED_AT = 20  # records, of which one can be read


def encode(record: dict, encoder, rng) -> dict:
    """record: an edit, see sources.Source. encoder: the `example_encoder.ExampleEncoder`.

    The record's pictures before the last are shown; with its probability `source_ids` their ids
    stand in GENERATION_SLOTs that are read and not predicted. The last one's ids are the targets.
    `edit_dropout` gives the probabilities that the words, the pictures, and both are blanked: what
    guidance leads away from; where the encoder's dropout is 0, as on held-out records, nothing is.
    Raises RecordError for more pictures than a row takes.
    """
    processor = encoder.processor
    rows = encoder.rows
    _require_causal(encoder.model)
    t = processor.tokenizer
    count = record["sources"]
    if "image_ids" in record:
        raise RecordError(
            "stored ids of an edit",
            "image_ids hold one picture a record, and an edit has more; take image_ids out of the "
            "data set's line: its pictures are encoded as they come",
        )
    _require_room(count, count + 1 if record["source_ids"] else 1, rows)
    told = record["captions"][rng.integers(len(record["captions"]))]
    most = CHARACTERS * processor.context
    with_ids = rng.random() < record["source_ids"]
    spans = [
        *prompt(processor, told[:most], count, with_ids, encoder.form),
        ([t.placeholder] * processor.generation_tokens, bt.GENERATION_SLOT, 1),
        ([t.end_of_image, t.eos], bt.TEXT, 0),
    ]
    spans, cut = shorten(spans, rows.length, t.eos)
    words, pictures = _dropped(rng, record["edit_dropout"] if encoder.dropout else ())
    seen = range(0 if pictures else count)
    drawn = [*(seen if with_ids else ()), count]
    out = bt.sequence(spans, "generation", seen, drawn, truncated=cut or len(told) > most)
    end = int(out["supervised"].argmax()) - 1
    blank_parts(out["tokens"], out["role"], end, t, words=words, pictures=pictures)
    return out


def _dropped(rng, chances) -> tuple[bool, bool]:
    """Whether words and pictures are blanked. chances: of words alone, pictures alone, both; or
    none."""
    at = rng.random()
    which = (True, False), (False, True), (True, True)
    found = [told for told, end in zip(which, np.cumsum(chances)) if at < end]
    return found[0] if found else (False, False)


def prompt(processor, instruction: str, count: int, with_ids: bool, form: str = "chat") -> list:
    """Spans up to and including the begin_of_image of what is drawn. count: of the pictures."""
    t = processor.tokenizer
    asked = Turn("user", laid_out([PICTURE] * count + [instruction]))
    if form == "plain":
        spans = processor.learned({"messages": [asked]}, "answers", form)
    else:
        spans = processor.conversation([asked, Turn("assistant", [""])], "", bt.GIVEN)
    if with_ids:
        said = max(k for k, span in enumerate(spans) if span[2] == bt.GIVEN)
        ids = [
            ([t.begin_of_image], bt.TEXT, 0),
            ([t.placeholder] * processor.generation_tokens, bt.GENERATION_SLOT, 0),
            ([t.end_of_image], bt.TEXT, 0),
        ]
        spans[said + 1 : said + 1] = ids * count
    return [*spans, ([t.begin_of_image], bt.TEXT, 0)]


def blank_parts(tokens, role, end: int, tokenizer, *, words: bool, pictures: bool):
    """Makes pad, in place, of a prompt's words and template, of its pictures, or of both. It keeps
    its length, and what is blanked stays attended, as in condition dropout.

    tokens, role: int [n] of a Sequence; end: the place of its last begin_of_image.
    """
    marks = tokenizer.begin_of_image, tokenizer.end_of_image
    shown = (role != bt.TEXT) | np.isin(tokens, marks)
    gone = (shown & pictures) | (~shown & words)
    gone[0] = False
    gone[end:] = False
    tokens[gone] = tokenizer.pad
    role[gone] = bt.TEXT


def are_edits(source) -> bool:
    """Whether a source's records are edits, by the first that can be read."""
    return "sources" in _first(source)


def are_captions(source) -> bool:
    """Whether a source of kind generation has captions of one picture each, neither edits nor
    conversations that draw, by the first record that can be read."""
    return not _first(source).keys() & {"sources", "messages"}


def _first(source) -> dict:
    for i in range(min(len(source), _LOOKED_AT)):
        try:
            return source[i]
        except (RecordError, ImageError):
            continue
    return {}


def _require_room(seen: int, drawn: int, rows):
    """Raises RecordError where a row takes fewer pictures than an edit has."""
    for name, count in (("understanding_images", seen), ("generation_images", drawn)):
        most = getattr(rows, name)
        if count > most:
            of = f"{seen} to edit" + (f" and {drawn} as ids" if name[0] == "g" else "")
            raise RecordError(
                "too many pictures",
                f"has {of}, a row takes {most}; raise the stage's rows.{name}",
            )


def _require_causal(model):
    """Raises RecordError for a model that draws no edits."""
    if (model.drawing, model.image_head) != ("causal", "softmax"):
        raise RecordError(
            "an edit of such a model",
            f"model.drawing is {model.drawing!r} and model.image_head {model.image_head!r}: edits are "
            "drawn one id after the other; leave the data set's line out, or take 'causal' and 'softmax'",
        )
