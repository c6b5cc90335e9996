"""A picture and a conversation about it -> Sequence (paper sections 3.2, 3.3)."""

from janus_jax import batch as bt


def encode(record: dict, index: int, processor, supervise: str) -> dict:
    """record: {"messages": [...]} with one image part. supervise "answers" (stage 3) leaves only answers and
    their closing token to predict; "all" (stages 1 and 2) adds every other text token after the picture's
    own begin and end marks."""
    spans = processor.conversation(record["messages"])
    return bt.sequence(mark(spans, processor.tokenizer, supervise), "understanding", pictures=[index])


def mark(spans, tokenizer, supervise: str):
    """With "all", every text span is a target but BOS and the picture's marks."""
    if supervise == "answers":
        return spans
    control = ([tokenizer.bos], [tokenizer.begin_of_image], [tokenizer.end_of_image])
    return [(ids, role, int(role == bt.TEXT and ids not in control)) for ids, role, _ in spans]
