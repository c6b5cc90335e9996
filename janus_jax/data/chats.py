"""The conversation of a record, in the forms that people have, as turns.

Every function raises RecordError with the field, its value and why; who reads the record adds where
it stands.
"""

from janus_jax.data import messages as messages_
from janus_jax.data.mapping import CHATS, PICTURES, Raw, lookup, short_value, text, there
from janus_jax.data.messages import PICTURE, PLACEHOLDER, ROLES, Turn, blank
from janus_jax.data.places import MARK, mark_answers, placed_content, user_marks, with_pictures
from janus_jax.data.sources import RecordError

# Where one question and its answer are looked for, in this order, as whole fields or as sides of a
# list of pairs: LLaVA, Alpaca, ms-swift and trl, The Cauldron.
QUESTIONS = ("question", "instruction", "query", "prompt", "input", "user", "human")
ANSWERS = ("answer", "output", "response", "completion", "assistant", "gpt")
# Of a turn, or of a record beside its answers: whether words are to be predicted.
LEARN = ("loss", "train", "training", "weight", "loss_mask")
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_SYSTEM = ("system", "system_prompt", "system_message")
_FORM = "needs [system,] human, gpt, ..."


def is_chat(raw: dict) -> bool:
    """Whether a record has a conversation, or a question."""
    return _sides(raw) is not None or any(name in raw for name in (*CHATS, "question"))


def conversation(raw: Raw, images: int, drawn: bool = False) -> list[Turn]:
    """The conversation: user and assistant in turn, answered, with a place for each of so many
    pictures: the parts of messages, one `<image>` each in what users say, or none, and then they
    come before the first question. drawn: assistants may have pictures too, see `interleaved`.

    Forms: LLaVA's and ShareGPT's "conversations" of {"from", "value"}, "messages" of {"role",
    "content"}, "texts" of {"user", "assistant"}, and one of QUESTIONS beside one of ANSWERS, after
    the pairs of "history". A "system" field is the system text.
    """
    field, said = _said(raw)
    raw.note(f'a conversation in "{field}"')
    _require_order(field, said)
    if drawn:
        mark_answers(said, images)
    for k, turn in enumerate(said):
        if turn.count_pictures and turn.role not in ("user", "assistant" if drawn else ""):
            raise RecordError(
                "placeholders",
                f'field "{field}[{k}]" has a picture in role {turn.role}; put it in a user turn; to '
                f"learn to draw it, let an assistant give it, and read the record as kind generation",
            )
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
    if with_pictures(field, said, images, any(name in raw for name in PICTURES)):
        raw.note(f"pictures before the first question, which has no {MARK}")
    return said


def asked(question: str, answer: str, raw: Raw, images: int) -> list[Turn]:
    """The conversation of one question and its answer, about the pictures of a record."""
    return conversation(Raw(_beside(raw) | {"question": question, "answer": answer}), images)


def answered(raw: Raw, field: str, answer: str, images: int) -> list[Turn]:
    """The conversation of what a record asks, and of the answer in a field of another name."""
    others = {*CHATS, "texts", *ANSWERS, field}
    kept = {name: value for name, value in raw.items() if name not in others}
    return conversation(Raw(kept | {"answer": answer}, raw), images)


def of_field(raw: Raw, field: str, images: int) -> list[Turn]:
    """The conversation in one field."""
    made = Raw(_beside(raw) | {field: lookup(raw, field, "caption")})
    out = conversation(made, images)
    raw.read |= made.read
    return out


def _beside(raw: Raw) -> dict:
    pictures = {name: dict.get(raw, name) for name in PICTURES if name in raw}  # not read here
    return pictures | {name: raw[name] for name in _SYSTEM if name in raw}


def drawn(raw: Raw) -> str | None:
    """What a user asks to draw, of a chat of one question whose answer is the picture."""
    field, said = _said(raw)
    if [turn.role for turn in said] != ["user", "assistant"] or said[0].count_pictures:
        return None
    if user_marks(said)[1]:
        return None
    answer = said[1].content
    if answer == [PICTURE] or [piece and piece.strip() for piece in answer] == [MARK]:
        raw.note(f'what to draw from the question in "{field}"')
        return said[0].content[0]
    return None


def interleaved(raw: Raw, images: int) -> list[Turn] | None:
    """The conversation of a record whose assistants give pictures among their words, as parts or as
    `<image>`: they are to be drawn, see interleaved.py. None of another record."""
    if not is_chat(raw) or drawn(raw) is not None:
        return None
    _, said = _said(raw)
    mark_answers(said, images)
    if not any(turn.count_pictures for turn in said if turn.role == "assistant"):
        return None
    return conversation(raw, images, drawn=True)


def marks(raw: Raw) -> tuple[str, str, int]:
    """(the field of the conversation, the mark that stands for a picture, how often users say
    it)."""
    field, said = _said(raw)
    return field, *user_marks(said)


def _said(raw: Raw) -> tuple[str, list[Turn]]:
    """(the field, its turns as they stand)."""
    field = next((name for name in CHATS if name in raw), None)
    if field is None and (sides := _sides(raw)) is not None:
        return sides[0], _pairs(raw, *sides)
    if field is None:
        return "question", [Turn("user", [text(raw["question"], "question")])]
    value = dict.__getitem__(raw, field)
    out = []
    known = {*LEARN, "images", "content[].type", "content[].text", "content[].index"}
    for k, turn in enumerate(value if isinstance(value, list) else [value]):
        at = f"{field}[{k}]"
        if keys := _keys(turn, ("role", "from"), ("content", "value")):
            out.append(_turn(turn, *keys, at))
        elif keys := _keys(turn, QUESTIONS, ANSWERS):
            out += _pair(turn, *keys, f"{at}.", flag(turn, "assistant", f"{at}."))
        else:
            raise RecordError(
                "missing field",
                f'field "{at}" is {short_value(turn)}, needs "from" and "value", or "role" and '
                f'"content"',
            )
        known.update(keys)
    raw.read |= {f"{field}[].{name}" for name in known}
    return field, out


def _keys(turn, one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, str] | None:
    """The two names, one of each list, that a turn has."""
    if not isinstance(turn, dict):
        return None
    found = []
    for known in (one, other):
        for name in known:
            if dict.get(turn, name) is not None:  # a look at what is there reads nothing
                found.append(name)
                break
    return tuple(found) if len(found) == 2 else None


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
            raw.read |= {f"texts[].{name}" for name in (*keys, *LEARN)}
            learn = flag(pair, "assistant", f"texts[{k}].")
            out += _pair(pair, *keys, f"texts[{k}].", learn)
        return out
    before = raw.get("history") or []
    for k, pair in enumerate(before if isinstance(before, list) else [before]):
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


def _pair(
    fields: dict, question: str, answer: str, at: str, learn: bool | None = None
) -> list[Turn]:
    """learn: of the answer."""
    asked = Turn("user", [text(fields[question], f"{at}{question}")])
    return [asked, Turn("assistant", [text(fields[answer], f"{at}{answer}")], learn=learn)]


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
        if out.count_pictures and isinstance(value, str):
            out.content = placed_content(value, PLACEHOLDER)
        elif not out.count_pictures:
            out.content = [text("".join(out.content), f"{at}.{content}")]
        out.pictures = [
            part.get("index") if isinstance(part, dict) else None for part in out.pictures
        ]
    else:
        out = Turn(role, [text(value, f"{at}.{content}")])
    out.learn = flag(turn, role, f"{at}.")
    return out


def flag(fields: dict, role: str, at: str = "") -> bool | None:
    """Whether one of LEARN says that words are to be predicted, or not; None where none is there.

    fields: of a turn, or of a record.
    role: whose words they are.
    at: what stands before the names in messages.
    """
    said = {name: fields[name] for name in LEARN if dict.get(fields, name) is not None}
    found = {name: _FLAGS.get(str(value).lower()) for name, value in said.items()}
    for name, learn in found.items():
        if learn is None:
            raise RecordError(
                "wrong type",
                f'field "{at}{name}" is {short_value(said[name])}: words are predicted or not; give '
                f"true or false, 1 or 0, or call the field otherwise, where it means something else",
            )
        if learn and role == "system":
            raise RecordError("wrong type", f'field "{at}{name}": a system text is never predicted')
    if len(set(found.values())) > 1:
        names = " and ".join(f'"{at}{name}"' for name in found)
        raise RecordError("wrong type", f"fields {names} contradict each other; keep one")
    return next(iter(found.values()), None)


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
