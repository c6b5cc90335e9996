"""The conversation of a record, in the forms that people have, as turns.

Every function raises RecordError with the field, its value and why; who reads the record adds where
it stands.
"""

from janus_jax.data import messages as messages_
from janus_jax.data.mapping import CHATS, PICTURES, Raw, short_value, text, there
from janus_jax.data.messages import PICTURE, PLACEHOLDER, ROLES, Turn, blank
from janus_jax.data.sources import RecordError

MARK = "<image>"  # stands for a picture in LLaVA's files
# Where one question and its answer are looked for, in this order, as whole fields or as sides of a
# list of pairs: LLaVA, Alpaca, ms-swift and trl, The Cauldron.
QUESTIONS = ("question", "instruction", "query", "prompt", "input", "user", "human")
ANSWERS = ("answer", "output", "response", "completion", "assistant", "gpt")
_LEARN = ("loss", "train", "training", "weight")  # of a turn: whether it is to be predicted
_SYSTEM = ("system", "system_prompt")
_FORM = "needs [system,] human, gpt, ..."


def is_chat(raw: dict) -> bool:
    """Whether a record has a conversation, or a question."""
    return _sides(raw) is not None or any(name in raw for name in (*CHATS, "question"))


def conversation(raw: Raw, images: int) -> list[Turn]:
    """The conversation: user and assistant in turn, answered, with a place for each of so many
    pictures: the parts of messages, one `<image>` each in what users say, or none, and then they
    come before the first question.

    Forms: LLaVA's and ShareGPT's "conversations" of {"from", "value"}, "messages" of {"role",
    "content"}, "texts" of {"user", "assistant"}, and one of QUESTIONS beside one of ANSWERS, after
    the pairs of "history". A "system" field is the system text.
    """
    field, said = _said(raw)
    raw.note(f'a conversation in "{field}"')
    _require_order(field, said)
    system = next((name for name in _SYSTEM if name in raw), None)
    words = raw[system] if system else ""
    if system and not (isinstance(words, str) and blank(words)):
        words = text(words, system)
        if said and said[0].role == "system" and "".join(said[0].content) != words:
            raise RecordError(
                "two system texts",
                f'field "{system}" and the first turn of "{field}" are two system texts; keep one',
            )
        said = [Turn("system", [words]), *(turn for turn in said if turn.role != "system")]
    if not said or said[-1].role != "assistant":
        raise RecordError(
            "no answer",
            f'field "{field}" ends without an answer (gpt); add it, or cut the question, or name its '
            f"field as answer (fields: {there(raw)})",
        )
    return _with_pictures(raw, field, said, images)


def asked(question: str, answer: str, raw: Raw, images: int) -> list[Turn]:
    """The conversation of one question and its answer, about the pictures of a record."""
    beside = {name: raw[name] for name in (*_SYSTEM, *PICTURES) if name in raw}
    made = Raw({"question": question, "answer": answer} | beside)
    return conversation(made, images)


def of_field(raw: Raw, field: str, images: int) -> list[Turn]:
    """The conversation in one field."""
    beside = {name: raw[name] for name in (*_SYSTEM, *PICTURES) if name in raw}
    made = Raw({field: raw.get(field)} | beside)
    out = conversation(made, images)
    raw.read |= made.read
    return out


def marks(raw: Raw) -> tuple[str, str, int]:
    """(the field of the conversation, the mark that stands for a picture, how often users say
    it)."""
    field, said = _said(raw)
    return field, *_marks(said)


def _said(raw: Raw) -> tuple[str, list[Turn]]:
    """(the field, its turns as they stand)."""
    field = next((name for name in CHATS if name in raw), None)
    if field is None and (sides := _sides(raw)) is not None:
        return sides[0], _pairs(raw, *sides)
    if field is None:
        return "question", [Turn("user", [text(raw["question"], "question")])]
    value = dict.__getitem__(raw, field)
    out = []
    for k, turn in enumerate(value if isinstance(value, list) else [value]):
        at = f"{field}[{k}]"
        keys = _keys(turn, ("role", "from"), ("content", "value"))
        sides = _keys(turn, QUESTIONS, ANSWERS)
        if keys:
            out.append(_turn(turn, *keys, at))
        elif sides:
            out += _pair(turn, *sides, f"{at}.")
        else:
            raise RecordError(
                "missing field",
                f'field "{at}" is {short_value(turn)}, needs "from" and "value", or "role" and '
                f'"content"',
            )
        known = (*(keys or sides), *_LEARN, "images", "content[].type", "content[].text")
        raw.read |= {f"{field}[].{name}" for name in known}
    return field, out


def _keys(turn, one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, str] | None:
    """The two names, one of each list, that a turn has."""
    there = turn if isinstance(turn, dict) else {}
    value = lambda name: dict.get(there, name)  # a look at what is there reads nothing
    found = [next((n for n in known if value(n) is not None), None) for known in (one, other)]
    return None if None in found else tuple(found)


def _sides(raw: dict) -> tuple[str, str] | None:
    """The fields of a question and its answer, or "texts" twice, its pairs; None where a record
    has none."""
    texts = dict.get(raw, "texts")
    if isinstance(texts, list) and texts and all(isinstance(pair, dict) for pair in texts):
        return "texts", "texts"
    return _keys(raw, QUESTIONS, ANSWERS)


def _pairs(raw: Raw, question: str, answer: str) -> list[Turn]:
    """The turns of questions beside answers."""
    out = []
    if question == "texts":
        for k, pair in enumerate(dict.get(raw, "texts")):
            keys = _keys(pair, QUESTIONS, ANSWERS)
            if keys is None:
                raise RecordError(
                    "missing field",
                    f'field "texts[{k}]" is {short_value(pair)}, needs "user" and "assistant"',
                )
            raw.read |= {f"texts[].{name}" for name in keys}
            out += _pair(pair, *keys, f"texts[{k}].")
        return out
    for k, pair in enumerate(raw.get("history") or ()):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RecordError(
                "wrong type",
                f'field "history[{k}]" is {short_value(pair)}, needs a question and an answer',
            )
        out += _pair({"user": pair[0], "assistant": pair[1]}, "user", "assistant", f"history[{k}].")
    out += _pair(raw, question, answer, "")
    more = raw.get("input", "") if question == "instruction" else ""
    if more != "" and not (isinstance(more, str) and blank(more)):
        out[-2].content = [f"{out[-2].content[0]}\n{text(more, 'input')}"]
    return out


def _pair(fields: dict, question: str, answer: str, at: str) -> list[Turn]:
    roles = (("user", question), ("assistant", answer))
    return [Turn(role, [text(fields[name], f"{at}{name}")]) for role, name in roles]


def _turn(turn: dict, role_name: str, content: str, at: str) -> Turn:
    role = ROLES.get(turn[role_name]) if isinstance(turn[role_name], str) else None
    if role is None:
        known = ", ".join(ROLES)
        raise RecordError(
            "unknown role",
            f'field "{at}.{role_name}" is {repr(turn[role_name])[:60]}; known are {known}',
        )
    value = turn[content]
    if isinstance(value, list) or turn.get("images") is not None:
        message = {"role": role, "content": value}
        message |= {"images": turn["images"]} if turn.get("images") is not None else {}
        try:
            (out,) = messages_.turns([message])
        except ValueError as error:
            why = str(error).replace("message 0", f'field "{at}"')
            raise RecordError("wrong parts", why) from None
        if out.count_pictures and role != "user":
            raise RecordError(
                "placeholders",
                f'field "{at}" has a picture in role {role}; put it in a user turn, or, to learn to '
                f"draw it, give it a caption in a record of kind generation",
            )
        if out.count_pictures and isinstance(value, str):
            out.content = _content(value, PLACEHOLDER)
        elif not out.count_pictures:
            out.content = [text("".join(out.content), f"{at}.{content}")]
        out.pictures = [
            part.get("index") if isinstance(part, dict) else None for part in out.pictures
        ]
    else:
        out = Turn(role, [text(value, f"{at}.{content}")])
    out.learn = _learn(turn, role, at)
    return out


def _learn(turn: dict, role: str, at: str) -> bool | None:
    """Whether a turn says that it is to be predicted, or not; None where it says nothing."""
    said = {name: turn[name] for name in _LEARN if turn.get(name) is not None}
    for name, value in said.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise RecordError(
                "wrong type",
                f'field "{at}.{name}" is {short_value(value)}: a turn is predicted or not; give '
                f"true or false, 1 or 0",
            )
    if len({bool(value) for value in said.values()}) > 1:
        raise RecordError(
            "wrong type", f'field "{at}": {" and ".join(said)} contradict each other; keep one'
        )
    learn = next((bool(value) for value in said.values()), None)
    if learn and role == "system":
        raise RecordError(
            "wrong type", f'field "{at}.{next(iter(said))}": a system text is never predicted'
        )
    return learn


def _require_order(field: str, said: list[Turn]):
    for k, (turn, previous) in enumerate(zip(said, [None, *said])):
        role = turn.role
        before = previous.role if previous else "system"
        if role == before and previous:
            raise RecordError(
                "turn out of order", f'field "{field}[{k}]": two {role} turns in a row; join them'
            )
        if (role == "system" and previous) or (role == "assistant" and before == "system"):
            raise RecordError(
                "turn out of order", f'field "{field}[{k}]": {role} turn out of order; {_FORM}'
            )


def _marks(said: list[Turn]) -> tuple[str, int]:
    """(what stands for a picture in the users' texts, how often)."""
    words = [turn.content[0] for turn in said if turn.role == "user" and _is_text(turn)]
    found = {mark: sum(text.count(mark) for text in words) for mark in (MARK, PLACEHOLDER)}
    mark = MARK if found[MARK] else PLACEHOLDER
    return mark, found[mark]


def _is_text(turn: Turn) -> bool:
    return turn.content != [] and not turn.count_pictures


def _with_pictures(raw: Raw, field: str, said: list[Turn], images: int) -> list[Turn]:
    """The turns with a place for each picture. Where a record has no field for pictures, and in
    what others than users say, a mark is text."""
    parts = sum(turn.count_pictures for turn in said)
    mark, count = _marks(said)
    if parts or not any(name in raw for name in PICTURES):
        count = 0
    if (parts or count) and (parts or count) != images:
        have = f"{count} {mark} placeholders" if count else f"{parts} image parts"
        raise RecordError(
            "placeholders",
            f'field "{field}" has {have} for {images} images; write one for each, or none',
        )
    places = [index for turn in said for index in turn.pictures]
    if any(isinstance(index, int) and index != k for k, index in enumerate(places)):
        raise RecordError(
            "placeholders", f'field "{field}" takes pictures {places}; list them in their order'
        )
    if images:
        for turn in said:
            words = "".join(turn.texts)
            if turn.role == "assistant" and MARK in words and not words.replace(MARK, "").strip():
                raise RecordError(
                    "placeholders",
                    f'field "{field}": an answer is nothing but {MARK}; to learn to draw a picture, '
                    f"give it a caption in a record of kind generation",
                )
    if images and not parts and not count:
        raw.note(f"pictures before the first question, which has no {MARK}")
        first = next(turn for turn in said if turn.role == "user")
        first.content = [f"{MARK}\n" * images + first.content[0]]
        mark, count = MARK, images
    for turn in said:
        turn.pictures = []
        if count and turn.role == "user" and mark in turn.content[0]:
            turn.content = _content(turn.content[0], mark)
    return said


def _content(value: str, mark: str) -> list:
    """A user's content, in which a mark stands for a picture. Spaces and line breaks are the
    record's own; only words that follow pictures at the very front always begin a line."""
    before, *after = value.split(mark)
    pieces = [before] if before.strip() else []
    for piece in after:
        pieces.append(PICTURE)
        front = all(p is PICTURE or p.isspace() for p in pieces)
        if front and piece.strip():
            words = piece.lstrip(" \t\r")
            pieces += ["\n", words.removeprefix("\n")]
        elif piece:
            pieces.append(piece)
    return pieces
