"""Conversations as turns: the one form that records and chats are brought to, and how chats are
written.

Forms of a message's content: a string; parts {"type": "text", "text"}, or a string, and {"type":
"image", "image" | "path" | "url"} or OpenAI's {"type": "image_url"}; or the original code's string
with `<image_placeholder>` once for each entry of the message's own "images". In a message without
"images" a typed placeholder is text. Every problem of a chat is reported at once. What a record may
say, and what is said of it where it is wrong, stands in fields.py.
"""

import dataclasses
import typing
import unicodedata

SPECIALS = {
    "bos": "<｜begin▁of▁sentence｜>",
    "eos": "<｜end▁of▁sentence｜>",
    "pad": "<｜▁pad▁｜>",
    "begin_of_image": "<begin_of_image>",
    "end_of_image": "<end_of_image>",
    "placeholder": "<image_placeholder>",
}
ROLES = {  # as people write them: chats, LLaVA's records, the original code
    "human": "user", "user": "user", "User": "user", "<|User|>": "user",
    "gpt": "assistant", "assistant": "assistant", "Assistant": "assistant",
    "<|Assistant|>": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
# Where a part may hold its picture; null counts as absent.
PICTURE_FIELDS = ("image", "path", "url", "image_url", "bytes", "base64")
PICTURE = None  # stands for a picture among the strings of a turn
PLACEHOLDER = SPECIALS["placeholder"]
_BLANK = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # Unicode categories of control characters and spaces


class Slot(typing.NamedTuple):
    """Stands for an input of a further sense (data/senses.py): the sense, the role of its tokens and
    how many they are; none before a model's sizes tell."""

    name: str
    role: int = 0
    tokens: int = 0


@dataclasses.dataclass
class Turn:
    """What one side says.

    role: "user", "assistant" or "system".
    content: strings, PICTUREs and Slots.
    pictures: where the pictures come from, in order; empty in a record, whose source opens them.
    learn: whether the record says that its words are to be predicted, or not; None: by the role.
    """

    role: str
    content: list
    pictures: list = dataclasses.field(default_factory=list)
    learn: bool | None = None

    @property
    def texts(self) -> list[str]:
        """What is said, without the line breaks that follow pictures."""
        return [piece for piece in self.content if isinstance(piece, str) and piece != "\n"]

    @property
    def count_pictures(self) -> int:
        return sum(piece is PICTURE for piece in self.content)


def laid_out(pieces) -> list:
    """Strings, PICTUREs and Slots as a turn's content: what is no string stands on a line of its own
    unless nothing follows it."""
    out = []
    for i, piece in enumerate(pieces):
        out.append(piece)
        if not isinstance(piece, str) and i + 1 < len(pieces):
            out.append("\n")
    return out


def stripped(content) -> list:
    """A turn's content without outer white space and empty strings."""
    out = list(content)
    for end, strip in ((0, str.lstrip), (-1, str.rstrip)):
        while out and isinstance(out[end], str):
            out[end] = strip(out[end])
            if out[end]:
                break
            out.pop(end)
    return [piece for piece in out if piece != ""]


def plain(said: list[Turn], unasked: bool, flag_of, eos: int) -> list[tuple]:
    """(string, PICTURE or `eos`, flag) of pictures and words alone, as the papers write them before
    the last stage: <image><text>, <question><answer>. A line break ends the words of a question,
    end of sentence an answer; none follows a picture.

    said: the turns.
    unasked: leaves out the words of the first, which are not the record's.
    flag_of: gives a turn's flag.
    eos: the id of end of sentence.
    """
    pieces = []
    for k, turn in enumerate(said):
        flag = flag_of(turn)
        content = stripped(turn.content)
        if unasked and k == 0:
            content = [piece for piece in content if not isinstance(piece, str)]
        for before, piece in zip(["", *content], content):
            if piece != "\n" or isinstance(before, str):
                pieces.append((piece, flag))
        if turn.role == "assistant":
            pieces.append((eos, int(flag == 1)))
        elif content and isinstance(content[-1], str):
            pieces.append(("\n", flag))
    return pieces


def turns(messages) -> list[Turn]:
    """The turns of chat messages; what is a Turn already stays. Raises ValueError that lists what
    is wrong, by message and part."""
    if not isinstance(messages, list | tuple):
        raise ValueError(
            f"conversation: is a {type(messages).__name__}, needs a list of messages such as "
            '[{"role": "user", "content": "hi"}]'
        )
    out = []
    problems = []
    for k, message in enumerate(messages):
        try:
            out.append(message if isinstance(message, Turn) else _turn(message, f"message {k}"))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return out


def blank(text: str) -> bool:
    """Whether text shows nothing: spaces and control characters only."""
    return all(unicodedata.category(c) in _BLANK for c in text)


def check_text(text, where: str):
    """Raises ValueError unless `text` is a string that UTF-8 can write."""
    if isinstance(text, bytes):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}: byte {text[error.start]:#04x} at offset {error.start} is not UTF-8; "
                f"give a string"
            ) from None
        raise ValueError(f"{where}: is bytes, needs a string; use .decode()")
    if not isinstance(text, str):
        raise ValueError(f"{where}: is {str(text)[:60]!r} ({type(text).__name__}), needs a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: lone surrogate {text[error.start]!r} at offset {error.start} is no "
            f"character; remove "
            "it, or read the file with encoding='utf-8'"
        ) from None


def _turn(message, where: str) -> Turn:
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        raise ValueError(
            f'{where}: is {str(message)[:60]!r}, needs a dict with "role" and "content"'
        )
    role = ROLES.get(message["role"]) if isinstance(message["role"], str) else None
    if role is None:
        raise ValueError(
            f"{where}: role {repr(message['role'])[:60]} is none of user, assistant, system"
        )
    content = message["content"]
    if content is None and role == "assistant":  # as others write what is still to be said
        content = ""
    images = message.get("images")
    if images is not None and not isinstance(content, str):
        raise ValueError(
            f'{where}: has "images" beside parts; give pictures in one of the two ways'
        )
    if isinstance(content, str) and images is not None:
        turn = _placed(role, content, images, where)
    elif isinstance(content, str):
        turn = Turn(role, [content], [])
    elif isinstance(content, list | tuple):
        turn = _from_parts(role, content, where)
    else:
        raise ValueError(
            f"{where}: content is a {type(content).__name__}, needs a string or a list of parts"
        )
    if role == "system" and turn.pictures:
        raise ValueError(
            f"{where}: a system message holds text only; put the picture in a user message"
        )
    for text in turn.content:
        if text is not PICTURE and not isinstance(text, Slot):
            check_text(text, where)
    return turn


def _placed(role: str, content: str, images, where: str) -> Turn:
    """The original's form; the text between placeholders is kept to the letter."""
    if not isinstance(images, list | tuple):
        raise ValueError(f'{where}: "images" is a {type(images).__name__}, needs a list')
    first, *rest = content.split(PLACEHOLDER)
    if len(rest) != len(images):
        raise ValueError(
            f"{len(rest)} placeholders, {len(images)} images in {where}: write {PLACEHOLDER} once "
            f"for each"
        )
    return Turn(role, [first, *(piece for text in rest for piece in (PICTURE, text))], list(images))


def _from_parts(role: str, parts, where: str) -> Turn:
    pieces = []
    pictures = []
    problems = []
    for i, part in enumerate(parts):
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        kind = _kind(part) if isinstance(part, dict) else None
        if kind == "text" and "text" in part:
            check_text(part["text"], f"{where}: part {i}")
            pieces.append(part["text"])
        elif kind in ("image", "image_url"):
            pieces.append(PICTURE)
            pictures.append(part)
        elif isinstance(part, Slot):
            pieces.append(part)
        elif kind == "text":
            fields = ", ".join(map(str, part))[:200]
            problems.append(f"{where}: part {i} of type 'text' has no \"text\" (fields: {fields})")
        elif isinstance(part, dict):
            problems.append(f"{where}: part of type {repr(kind)[:60]}; use 'text' or 'image'")
        else:
            problems.append(
                f"{where}: part {i} is a {type(part).__name__}, needs a dict such as "
                '{"type": "text", "text": "what?"}'
            )
    if problems:
        raise ValueError("\n".join(problems))
    return Turn(role, laid_out(pieces), pictures)


def _kind(part: dict):
    """The type of a part; where it says none, by the one field that it has."""
    if part.get("type") is not None:
        return part["type"]
    fields = [name for name in ("text", *PICTURE_FIELDS) if part.get(name) is not None]
    return None if len(fields) != 1 else "text" if fields == ["text"] else "image"
