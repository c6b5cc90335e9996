"""What a record becomes for a data set of each kind: its raw fields as sources.Source says.

raw: the fields, as mapping.mapped gives them. d: the line of the config. Raises RecordError.
"""

import importlib

from janus_jax.config.schema import Dataset
from janus_jax.data import chats, edits, fields, senses
from janus_jax.data.mapping import CHATS, PICTURES, Raw, lookup, short_value, text, there
from janus_jax.data.sources import RecordError

_OTHER_MEDIA = ("video", "videos", "audio", "audios")
_WANTED = ("kto_tag", "label")  # of LLaMA-Factory, of ms-swift and trl: false marks a bad answer
_ASKS = (
    "question",
    "instruction",
    "query",
)  # these hold what is asked, "prompt" may be for drawing
REQUEST = ("Describe the picture.",)  # asked where a record holds a picture and a caption only


def record(raw: Raw, d: Dataset, i: int) -> dict:
    """A record of the line's kind, see sources.Source. A flag beside its answers, such as "train", is
    of those that do not say it themselves.

    i: the record's number, by which prompts alternate.
    """
    if "chosen" in raw and "rejected" in raw and pairs().is_pair(raw, d):
        return pairs().pair_record(raw, d, i)
    if d.kind == "understanding":
        made = senses.placed(understanding_record(raw, d, i), fields.pictures(raw))
    else:
        made = generation_record(raw, d) if d.kind == "generation" else text_record(raw, d)
    named = {d.picture, d.caption, d.question, d.answer, d.score}
    others = [name for name in chats.LEARN if name in named or f"{{{name}}}" in "".join(d.prompt)]
    flags = {name: raw[name] for name in chats.LEARN if name in raw and name not in others}
    learn = chats.flag(flags, "assistant")
    if learn is False and "messages" not in made:
        raise RecordError(
            "no answer",
            f'field "{next(iter(flags))}" is {next(iter(flags.values()))}: nothing of the record is '
            f"to be predicted; leave such records out",
        )
    for turn in made.get("messages", ()):
        if turn.role == "assistant" and turn.learn is None:
            turn.learn = learn
    return made


def pairs():
    """Loaded where a record may be one of a chosen and a rejected thing."""
    return importlib.import_module("janus_jax.data.pairs")


def understanding_record(raw: Raw, d: Dataset, i: int) -> dict:
    """A conversation, or an interleaved document. i: the record's number, by which prompts
    alternate."""
    images = fields.pictures(raw)
    if not any(image is not None for image in images):
        raise _no_picture(raw, d)
    chat = chats.is_chat(raw)
    named = d.caption or d.question or d.answer
    is_list = any(isinstance(dict.get(raw, name), list) for name in PICTURES)
    if not named and not chat and ("texts" in raw or ("text" in raw and is_list)):
        return {"document": fields.document(raw, images)}
    if None in images:
        raise RecordError(
            "wrong type", 'a picture of the list is null; only beside "texts" may it be'
        )
    if chat and not named:
        return {"messages": _conversation(raw, len(images))}
    return _asked(raw, d, i, len(images))


def generation_record(raw: Raw, d: Dataset) -> dict:
    """The captions of one picture, an edit, or a conversation whose answers draw."""
    images = fields.pictures(raw)
    if raw.sources:
        said = fields.fill(d.prompt, raw, edits.instruction(raw, d))
        chances = {"source_ids": d.source_ids, "edit_dropout": d.edit_dropout}
        return {"captions": said, "sources": raw.sources, **chances}
    if not images:
        raise _no_picture(raw, d)
    if not (d.caption or d.prompt) and (said := chats.interleaved(raw, len(images))):
        return {"messages": said}
    if len(images) != 1 or None in images:
        raise RecordError(
            "no picture",
            f"{len(images)} pictures: a record of generation needs one; name it as picture, as in "
            f"picture=image.0",
        )
    named = d.caption or d.prompt or any(name in raw for name in fields.CAPTIONS)
    if d.caption in CHATS or (chats.is_chat(raw) and not named):
        said = None if d.caption else chats.drawn(raw)
        if said is None:
            said = _first_answer(raw, d.caption, 1)
            raw.note("caption from the first answer")
        return {"captions": fields.fill(d.prompt, raw, said=[said])}
    return {"captions": fields.fill(d.prompt, raw, d.caption)}


def text_record(raw: Raw, d: Dataset) -> dict:
    """A text, or a conversation without pictures."""
    images = fields.pictures(raw)
    chat = chats.is_chat(raw)
    named = d.caption or d.question or d.answer
    if "texts" in raw and not chat and not named:
        return {"text": "\n\n".join(filter(None, fields.document(raw, images)))}
    images = [image for image in images if image is not None]
    if (d.question or d.answer) and images:
        return {"text": _answer(raw, d, len(images))}
    if d.question or d.answer:
        made = _asked(raw, d, 0, 0)
        if "unasked" in made:
            raise RecordError(
                "missing field",
                f'no "question" to the answer "{d.answer}" (fields: {there(raw)}); name its field '
                f"as question",
            )
        return made
    if d.caption in CHATS:
        said = chats.of_field(raw, d.caption, len(images))
        return {"text": "\n".join(_answers(said))} if images else {"messages": said}
    if chat and not images and not named:
        return {"messages": _conversation(raw, 0)}
    if chat and not named and not any(name in raw for name in fields.CAPTIONS):
        return {"text": "\n".join(_answers(_conversation(raw, len(images))))}
    field = d.caption or ("text" if "text" in raw else "")
    return {"text": "\n".join(fields.captions(raw, field, is_data_said=True))}


def _conversation(raw: Raw, pictures: int) -> list:
    """The record's chat, unless one of its fields says that it is no example to learn from."""
    value = lambda name: dict.get(raw, name)
    if other := next((name for name in _OTHER_MEDIA if value(name)), None):
        raise RecordError(
            "another medium",
            f'field "{other}" is {short_value(value(other))}: pictures and words alone are read; '
            f"leave such records out",
        )
    if bad := next((name for name in _WANTED if value(name) is False), None):
        raise RecordError(
            "unwanted answer",
            f'field "{bad}" is false, which marks an answer that is not wanted; leave such records '
            f"out, or the field, where it means something else",
        )
    return chats.conversation(raw, pictures)


def _asked(raw: Raw, d: Dataset, i: int, pictures: int) -> dict:
    """The conversation of a question and an answer of which the line names one, or a caption. A
    record's own question goes before `prompt`."""
    known = _ASKS[:1] if d.prompt else _ASKS
    if d.answer and not d.question and any(name in raw for name in known if name != d.answer):
        said = chats.answered(raw, d.answer, _answer(raw, d, pictures), pictures)
        return {"messages": said}
    question, unasked = _question(raw, d, i)
    said = chats.asked(question, _answer(raw, d, pictures), raw, pictures)
    return {"messages": said} | ({"unasked": True} if unasked else {})  # the question is ours


def _question(raw: Raw, d: Dataset, i: int) -> tuple[str, bool]:
    """(what is asked, whether neither the record nor the line says so)."""
    if d.question:
        return text(lookup(raw, d.question, "question"), d.question), False
    prompts = d.prompt or REQUEST
    asked = prompts[i % len(prompts)]
    raw.note(f"asked {asked!r}")
    return asked, not d.prompt


def _answer(raw: Raw, d: Dataset, pictures: int) -> str:
    if d.answer:
        value = lookup(raw, d.answer, "answer")
        if isinstance(value, list) and value:
            raise RecordError(
                "wrong type",
                f'field "{d.answer}" is a list of {len(value)}: one of them is the answer; name it, '
                f"as in answer={d.answer}.0",
            )
        return text(value, d.answer)
    found = next((name for name in chats.ANSWERS if name in raw), None)
    if d.question and not d.caption and found:
        raw.note(f'answer from "{found}"')
        return text(raw[found], found)
    if d.caption in CHATS:
        return _first_answer(raw, d.caption, pictures)
    return fields.captions(raw, d.caption)[0]


def _no_picture(raw: Raw, d: Dataset) -> RecordError:
    field, mark, count = chats.marks(raw) if chats.is_chat(raw) else ("", "", 0)
    if count:
        return RecordError(
            "placeholders",
            f'field "{field}" has {count} {mark} placeholders for 0 images (fields: {there(raw)}); '
            f"give the pictures, or take the placeholders out",
        )
    looked = f'"{d.picture}"' if d.picture else ", ".join(f'"{name}"' for name in PICTURES)
    remedy = "name its field as picture" if not d.picture else "check the name"
    return RecordError(
        "no picture",
        f"no picture in {looked} (fields: {there(raw)}); {remedy}; as text, use kind text",
    )


def _first_answer(raw: Raw, field: str, pictures: int) -> str:
    """Of the chat in a field, or of the record's where none is named."""
    found = chats.of_field(raw, field, pictures) if field else _conversation(raw, pictures)
    return _answers(found)[0]


def _answers(turns: list) -> list[str]:
    """Those that are to be predicted."""
    said = [turn for turn in turns if turn.role == "assistant" and turn.learn is not False]
    if not said:
        raise RecordError(
            "no answer", "no answer of its chat is to be predicted; leave such records out"
        )
    return ["".join(turn.texts) for turn in said]
