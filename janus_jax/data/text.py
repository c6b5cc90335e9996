"""Plain text or a dialogue without pictures -> Sequence."""

from janus_jax.data.packing import shorten
from janus_jax.data.sources import CHARACTERS
from janus_jax.model import batch as bt


def encode(
    record: dict, processor, supervise: str, length: int, form: str = "chat", at: int | None = None
) -> dict:
    """A Sequence of at most `length` tokens.

    record: {"text"}: BOS, text, EOS, all to be predicted; or {"messages"}, see Processor.learned.
    at: the character of a text at which this example begins, where texts go on from row to row:
        then "rest" is the character at which the next example does, 0 at the text's end. None: of
        a longer text only the beginning is taken, and it does not end.
    """
    t = processor.tokenizer
    if "messages" in record:
        spans, cut = shorten(processor.learned(record, supervise, form), length, t.eos)
        return bt.sequence(spans, "text", truncated=cut)
    text = record["text"]
    begin = at or 0
    window = text[begin : begin + CHARACTERS * length]
    ids, starts = t.encode(window)
    rest = 0
    whole = begin + len(window) == len(text) and len(ids) + 2 <= length
    if whole:
        ids = [*ids, t.eos]
    elif at is None:
        ids = ids[: length - 1]
    else:
        last = len(ids) - int(begin + len(window) == len(text))  # EOS does not stand alone
        n = _break(window, [*starts, len(window)], min(length - 1, last))
        ids = ids[:n]
        rest = begin + [*starts, len(window)][n]
    spans = [([t.bos], bt.TEXT, 0), (ids, bt.TEXT, 1)]
    out = bt.sequence(spans, "text", truncated=not whole and at is None)
    return out | {"example": out["example"] + bt.CONTINUED * (rest > 0), "rest": rest}


def _break(text: str, starts: list[int], most: int) -> int:
    """How many tokens to take of at most so many: those before a gap between words, so that the
    rest has the same ids by itself; where there is none in the second half, whole characters."""
    for n in range(most, most // 2, -1):
        if text[starts[n] : starts[n] + 1].isspace() and not text[starts[n] - 1].isspace():
            return n
    return next((n for n in range(most, 0, -1) if starts[n] > starts[n - 1]), most)
