"""Pictures and what is said about them -> Sequence (paper sections 3.2, 3.3)."""

from janus_jax.data.packing import shorten
from janus_jax.data.sources import CHARACTERS
from janus_jax.model import batch as bt


def encode(record: dict, processor, supervise: str, length: int, form: str, pictures: int) -> dict:
    """record: {"messages": [...]} with image parts, see Processor.learned, or {"document": [str,
    or None for a picture, ...]}; "tiles" where its pictures are cut, see tiles.py.

    An interleaved document is text to predict throughout; it ends where the next picture would be
    more than `pictures`, tiles counted, or would not fit `length` tokens.
    """
    if "document" in record:
        tiles = record.get("tiles", ())
        return encode_document(record["document"], processor, length, pictures, tiles)
    spans = processor.learned(record, supervise, form)
    spans, cut = shorten(spans, length, processor.tokenizer.eos)
    return bt.sequence(spans, "understanding", processor.shown(spans), truncated=cut)


def images(spans) -> int:
    return sum(role == bt.UNDERSTANDING_SLOT for _, role, _ in spans)


def encode_document(parts, processor, length: int, pictures: int, tiles=()) -> dict:
    """BOS, text and pictures in turn, EOS. What does not fit is left out from its end, a picture as
    a whole."""
    t = processor.tokenizer
    counts = iter(tiles)
    spans = [([t.bos], bt.TEXT, 0)]
    room = length - 1
    for part in [*parts, [t.eos]]:
        if part is None:
            new = processor.picture(next(counts, 1))
            pictures -= len(processor.shown(new))
        else:
            ids = part if part == [t.eos] else t.encode(part[: CHARACTERS * length])[0]
            new = [(ids, bt.TEXT, 1)]
        size = sum(len(ids) for ids, _, _ in new)
        cut = part is not None and len(part) > CHARACTERS * length
        if size > room or cut or pictures < 0:
            if part is not None and room:
                spans.append((new[0][0][:room], bt.TEXT, 1))
            return bt.sequence(spans, "understanding", processor.shown(spans), truncated=True)
        spans = spans + new
        room = room - size
    return bt.sequence(spans, "understanding", processor.shown(spans))
