"""Plain text or a dialogue without pictures -> Sequence."""

from janus_jax import batch as bt
from janus_jax.data.tokenizer import CHARACTERS


def encode(record: dict, processor, supervise: str, length: int) -> dict:
    """record: {"text"}: BOS, text, EOS, all to be predicted; or {"messages"}: the chat template, of which
    `supervise` "answers" predicts the answers only, "all" everything but BOS. A text of which `length` tokens can
    use the beginning only is cut before it is encoded."""
    t, cut = processor.tokenizer, False
    if "messages" in record:
        spans = processor.conversation(record["messages"])
        if supervise == "all":
            spans = [(ids, role, int(ids != [t.bos])) for ids, role, _ in spans]
    else:
        text, most = record["text"], CHARACTERS * length
        cut, ids = len(text) > most, t.encode(text[:most])[0]
        ids = ids[: length - 1] if cut else [*ids, t.eos]  # what is cut does not end
        spans = [([t.bos], bt.TEXT, 0), (ids, bt.TEXT, 1)]
    return bt.sequence(spans, "text", truncated=cut)
