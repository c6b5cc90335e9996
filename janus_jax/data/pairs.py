"""Records of preferences: a prompt and two things made of it, one of which is preferred.

    {"prompt": "a red circle", "chosen": "a.png", "rejected": "b.png"}               generation
    {"prompt": "what is it?", "image": "a.png", "chosen": "a boat", "rejected": "a car"}
                                                                                     understanding
    {"prompt": "how are you?", "chosen": "well", "rejected": "red"}                  text

A data set's kind says what its records are. The prompt may also be called "question", "instruction"
or "query". A record is a pair where its line names no field that holds what is to be said or drawn
(`caption`, `answer`, `target`) and it has neither a caption nor a chat or an answer of its own.
"""

from janus_jax.config.schema import Dataset
from janus_jax.data import chats, fields
from janus_jax.data.mapping import CAPTIONS, CHATS, Raw, lookup, short_value, text, there
from janus_jax.data.sources import RecordError

HALVES = ("chosen", "rejected")
PROMPTS = ("prompt", "question", "instruction", "query")


class Pair(dict):
    """{"chosen", "rejected"}: two records, see sources.Source, of one prompt. Who asks for anything
    else would learn from both alike, and is refused."""

    def __missing__(self, name):
        raise RecordError(
            "a pair",
            "is a pair of a chosen and a rejected one, from which tasks dpo and dpo_lora learn; to "
            "learn from the chosen alone name it as the line's answer, or its picture as picture",
        )


def is_pair(raw: Raw, d: Dataset) -> bool:
    named = d.caption or d.answer or d.target or (d.kind == "generation" and d.picture)
    others = any(name in raw for name in (*CHATS, *chats.ANSWERS, *CAPTIONS))
    return all(name in raw for name in HALVES) and not (named or others)


def of_pictures(raw: Raw, d: Dataset) -> bool:
    return d.kind == "generation" and is_pair(raw, d)


def with_both_pictures(raw: Raw, d: Dataset) -> Raw:
    """A pair of pictures to draw with both in "image", the chosen first; others as they are."""
    if not of_pictures(raw, d):
        return raw
    for name in HALVES:
        if not isinstance(raw[name], str | bytes | dict):
            raise RecordError(
                "wrong type",
                f'field "{name}" is {short_value(raw[name])}, needs the path of a picture',
            )
    out = Raw(raw, raw)
    out |= {"image": [raw[name] for name in HALVES]}
    return out


def pair_record(raw: Raw, d: Dataset, i: int) -> Pair:
    """A pair as records of the line's kind. i: the record's number, by which the line's prompts
    alternate. Raises RecordError."""
    asked = _prompt(raw, d, i)
    if all(_same(raw[name], raw[HALVES[0]]) for name in HALVES):
        raise RecordError(
            "equal pair",
            f'fields "chosen" and "rejected" are both {short_value(raw[HALVES[0]])}: nothing is '
            "preferred; leave such records out",
        )
    if d.kind == "generation":
        one = {"captions": fields.fill(d.prompt, raw | {"caption": asked}, said=[asked])}
        return Pair(dict.fromkeys(HALVES, one))
    pictures = len(fields.pictures(raw)) if d.kind == "understanding" else 0
    said = {name: chats.asked(asked, text(raw[name], name), raw, pictures) for name in HALVES}
    return Pair({name: {"messages": turns} for name, turns in said.items()})


def _prompt(raw: Raw, d: Dataset, i: int) -> str:
    name = d.question or next((name for name in PROMPTS if name in raw), "")
    if name:
        return text(lookup(raw, name, "question"), name)
    if d.kind == "understanding" and d.prompt:
        return d.prompt[i % len(d.prompt)]
    raise RecordError(
        "missing field",
        f"a pair without its prompt: none in {', '.join(PROMPTS)} (fields: {there(raw)}); name its "
        "field as question",
    )


def _same(a, b) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        return a.strip() == b.strip()
    return a == b
