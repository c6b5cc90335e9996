"""Pictures and what is said about them -> Sequence (paper sections 3.2, 3.3)."""

from janus_jax import batch as bt
from janus_jax.data.tokenizer import CHARACTERS


def encode(record: dict, processor, supervise: str, length: int, pictures: int) -> dict:
    """record: {"messages": [...]} with image parts, or {"document": [str, or None for a picture, ...]}.

    supervise "answers" (stage 3) leaves only answers and their closing token to predict; "all" (stages 1 and 2) adds
    every other text token after the pictures' own begin and end marks. An interleaved document is text to predict in
    both; it ends where the next picture would be more than `pictures`, or would not fit `length` tokens.
    """
    if "document" in record:
        return document(record["document"], processor, length, pictures)
    spans = mark(processor.conversation(record["messages"]), processor.tokenizer, supervise)
    return bt.sequence(spans, "understanding", pictures=range(images(spans)))


def mark(spans, tokenizer, supervise: str):
    """With "all", every text span is a target but BOS and the picture's marks."""
    if supervise == "answers":
        return spans
    control = ([tokenizer.bos], [tokenizer.begin_of_image], [tokenizer.end_of_image])
    return [(ids, role, int(role == bt.TEXT and ids not in control)) for ids, role, _ in spans]


def images(spans) -> int:
    return sum(role == bt.PICTURE for _, role, _ in spans)


def document(parts, processor, length: int, pictures: int) -> dict:
    """BOS, text and pictures in turn, EOS. What does not fit is left out from its end, a picture as a whole."""
    t = processor.tokenizer
    spans, room = [([t.bos], bt.TEXT, 0)], length - 1
    for part in [*parts, [t.eos]]:
        new = (
            processor.picture()
            if part is None
            else [(part if part == [t.eos] else t.encode(part[: CHARACTERS * length])[0], bt.TEXT, 1)]
        )
        size, cut = sum(len(ids) for ids, _, _ in new), part is not None and len(part) > CHARACTERS * length
        if size > room or cut or (part is None and images(spans) == pictures):
            if part is not None and room:
                spans.append((new[0][0][:room], bt.TEXT, 1))
            return bt.sequence(spans, "understanding", range(images(spans)), truncated=True)
        spans, room = spans + new, room - size
    return bt.sequence(spans, "understanding", range(images(spans)))
