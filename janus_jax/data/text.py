"""Plain text or a dialogue without pictures -> Sequence."""

from janus_jax import batch as bt


def encode(record: dict, processor, supervise: str) -> dict:
    """record: {"text"}: BOS, text, EOS, all to be predicted; or {"messages"}: the chat template, of which
    `supervise` "answers" predicts the answers only, "all" everything but BOS."""
    t = processor.tokenizer
    if "messages" in record:
        spans = processor.conversation(record["messages"])
        if supervise == "all":
            spans = [(ids, role, int(ids != [t.bos])) for ids, role, _ in spans]
    else:
        spans = [([t.bos], bt.TEXT, 0), (t.encode(record["text"])[0], bt.TEXT, 1), ([t.eos], bt.TEXT, 1)]
    return bt.sequence(spans, "text")
