"""Opens the sources that a config names, and learns a tokenizer from their words when none is given."""

from janus_jax.data import shapes, tokenizer
from janus_jax.data.processor import Template


def open_sources(data, side: int, seed: int, needed) -> dict:
    """Task name -> source for each task in `needed`; "pictures" is what the VQ tokenizer trains on.

    data: experiment.Data; side: pixels of a picture the model draws.
    """
    if data.source == "shapes":
        sources = {
            "understanding": shapes.ShapesUnderstanding(seed),
            "text": shapes.ShapesText(seed),
            "generation": shapes.ShapesGeneration(seed),
        }
        return {**sources, "pictures": shapes.ShapesPictures(seed)}
    if data.source == "emoji":
        from janus_jax.data import emoji

        limit = data.limit or None
        sources = {
            "understanding": emoji.EmojiUnderstanding(side, limit, seed),
            "text": emoji.EmojiText(limit, seed),
            "generation": emoji.EmojiGeneration(side, limit, seed),
        }
    else:
        from janus_jax.data import llava as files

        sources = {
            "understanding": lambda: files.LlavaUnderstanding(data.understanding, data.images),
            "text": lambda: files.LlavaText(data.text),
            "generation": lambda: files.LlavaGeneration(data.generation, data.images),
        }
        sources = {task: sources[task]() for task in needed}
    return {**sources, "pictures": sources.get("generation")}


def learn_tokenizer(
    sources: dict, template: Template, vocabulary: int, records: int = 2000
) -> tokenizer.Tokenizer:
    """A byte-level BPE of at most `vocabulary` ids from the first records of every source."""
    return tokenizer.train(_texts(sources, template, records), vocabulary)


def _texts(sources: dict, template: Template, records: int):
    yield f"{template.system}\n\n{template.user}: \n\n{template.assistant}: "
    for task in ("understanding", "text", "generation"):
        source = sources.get(task)
        for i in range(min(records, len(source)) if source is not None else 0):
            yield from _strings(source[i])


def _strings(record: dict):
    if "text" in record:
        yield record["text"]
    for caption in record.get("captions", ()):
        yield f" {caption}\n\n"
    for message in record.get("messages", ()):
        content = message["content"]
        parts = [content] if isinstance(content, str) else [p["text"] for p in content if p["type"] == "text"]
        for part in parts:
            yield f": {part}\n\n"
