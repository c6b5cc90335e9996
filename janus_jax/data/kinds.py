"""What a record becomes for a data set of each kind: its raw fields as sources.Source says.

raw: the fields, without those that are null. d: the line of the config. Raises RecordError.
"""

from janus_jax.config.schema import Dataset
from janus_jax.data import fields
from janus_jax.data.sources import RecordError

REQUEST = ("Describe the picture.",)  # asked where a record holds a picture and a caption only
_CHATS = ("conversations", "messages")  # fields of a chat, whose first answer may be the caption


def understanding_record(raw: dict, d: Dataset, i: int) -> dict:
    """A conversation, or an interleaved document. i: the record's number, by which prompts
    alternate."""
    images = fields.pictures(raw)
    if not any(image is not None for image in images):
        raise RecordError(
            "no picture",
            f"no picture (fields: {', '.join(raw)[:200] or 'none'}); as text, use kind text",
        )
    if "texts" in raw or (
        "text" in raw and isinstance(raw.get("images", raw.get("image")), list) and not _chat(raw)
    ):
        return {"document": fields.document(raw, images)}
    if None in images:
        raise RecordError(
            "wrong type", 'a picture of the list is null; only beside "texts" may it be'
        )
    if _chat(raw) and not d.caption:
        return {"messages": fields.conversation(raw, len(images))}
    prompts = d.prompt or REQUEST
    question = prompts[i % len(prompts)]
    if d.caption in _CHATS:
        answer = _first_answer(raw, d.caption, len(images))
    else:
        answer = fields.captions(raw, d.caption)[0]
    if "<image>" in answer:
        said = fields.described(question, answer, len(images))
    else:
        said = fields.conversation({"question": question, "answer": answer}, len(images))
    return {"messages": said} | ({} if d.prompt else {"unasked": True})  # the question is ours


def generation_record(raw: dict, d: Dataset) -> dict:
    """The captions of one picture."""
    images = fields.pictures(raw)
    if len(images) != 1 or None in images:
        raise RecordError("no picture", f"{len(images)} pictures: a record of generation needs one")
    named = d.caption or d.prompt or any(raw.get(name) is not None for name in fields.CAPTIONS)
    if d.caption in _CHATS or (_chat(raw) and not named):
        raw = {**raw, "caption": _first_answer(raw, d.caption, 1)}
        return {"captions": fields.fill(d.prompt, raw, "caption")}
    return {"captions": fields.fill(d.prompt, raw, d.caption)}


def text_record(raw: dict, d: Dataset) -> dict:
    """A text, or a conversation without pictures."""
    images = fields.pictures(raw)
    if "texts" in raw:
        return {"text": "\n\n".join(filter(None, fields.document(raw, images)))}
    images = [image for image in images if image is not None]
    if _chat(raw) and not images:
        return {"messages": fields.conversation(raw, 0)}
    if (
        _chat(raw)
        and not d.caption
        and not any(raw.get(name) is not None for name in fields.CAPTIONS)
    ):
        return {"text": "\n".join(_answers(fields.conversation(raw, len(images))))}
    return {"text": "\n".join(fields.captions(raw, d.caption or ("text" if "text" in raw else "")))}


def _first_answer(raw: dict, field: str, pictures: int) -> str:
    """Of the chat in a field, or of the record's where none is named."""
    chat = {field: raw.get(field)} if field else raw
    return _answers(fields.conversation(chat, pictures))[0]


def _chat(raw: dict) -> bool:
    return any(raw.get(name) is not None for name in ("conversations", "messages", "question"))


def _answers(turns: list) -> list[str]:
    return [turn.content[0] for turn in turns if turn.role == "assistant"]
