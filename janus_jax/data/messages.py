"""Chat messages in the forms that people write, to plain turns; every problem is reported at once.

Forms of a message's content: a string; parts {"type": "text", "text"} and {"type": "image", "image" | "path" |
"url"} or OpenAI's {"type": "image_url"}; or the original code's string with `<image_placeholder>` once for each
entry of the message's own "images". In a message without "images" a typed placeholder is text.
"""

import base64
import binascii
import dataclasses
import io
import unicodedata

from janus_jax.data.images import ImageError, read_image
from janus_jax.data.tokenizer import SPECIALS

ROLES = {
    "user": "user", "User": "user", "<|User|>": "user",
    "assistant": "assistant", "Assistant": "assistant", "<|Assistant|>": "assistant",
    "system": "system",
}  # fmt: skip
PICTURE = None  # stands for a picture among the strings of a turn
PLACEHOLDER = SPECIALS["placeholder"]
_BLANK = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # Unicode categories of control characters and spaces


@dataclasses.dataclass
class Turn:
    """role "user", "assistant" or "system"; content: strings and PICTUREs; pictures: their sources in order."""

    role: str
    content: list
    pictures: list


def turns(messages) -> list[Turn]:
    """The turns of chat messages. Raises ValueError that lists what is wrong, by message and part."""
    if not isinstance(messages, list | tuple):
        raise ValueError(
            f"conversation: is a {type(messages).__name__}, needs a list of messages such as "
            '[{"role": "user", "content": "hi"}]'
        )
    out, problems = [], []
    for k, message in enumerate(messages):
        try:
            out.append(_turn(message, f"message {k}"))
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
                f"{where}: byte {text[error.start]:#04x} at offset {error.start} is not UTF-8; give a string"
            ) from None
        raise ValueError(f"{where}: is bytes, needs a string; use .decode()")
    if not isinstance(text, str):
        raise ValueError(f"{where}: is {str(text)[:60]!r} ({type(text).__name__}), needs a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: lone surrogate {text[error.start]!r} at offset {error.start} is no character; remove "
            "it, or read the file with encoding='utf-8'"
        ) from None


def _turn(message, where: str) -> Turn:
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        raise ValueError(f'{where}: is {str(message)[:60]!r}, needs a dict with "role" and "content"')
    role = ROLES.get(message["role"]) if isinstance(message["role"], str) else None
    if role is None:
        raise ValueError(f"{where}: role {message['role']!r} is none of user, assistant, system")
    content, images = message["content"], message.get("images")
    if images is not None and not isinstance(content, str):
        raise ValueError(f'{where}: has "images" beside parts; give pictures in one of the two ways')
    if isinstance(content, str) and images is not None:
        turn = _placed(role, content, images, where)
    elif isinstance(content, str):
        turn = Turn(role, [content], [])
    elif isinstance(content, list | tuple):
        turn = _from_parts(role, content, where)
    else:
        raise ValueError(f"{where}: content is a {type(content).__name__}, needs a string or a list of parts")
    if role == "system" and turn.pictures:
        raise ValueError(f"{where}: a system message holds text only; put the picture in a user message")
    for text in turn.content:
        if text is not PICTURE:
            check_text(text, where)
    return turn


def _placed(role: str, content: str, images, where: str) -> Turn:
    """The original's form; the text between placeholders is kept to the letter."""
    if not isinstance(images, list | tuple):
        raise ValueError(f'{where}: "images" is a {type(images).__name__}, needs a list')
    first, *rest = content.split(PLACEHOLDER)
    if len(rest) != len(images):
        raise ValueError(
            f"{len(rest)} placeholders, {len(images)} images in {where}: write {PLACEHOLDER} once for each"
        )
    return Turn(role, [first, *(piece for text in rest for piece in (PICTURE, text))], list(images))


def _from_parts(role: str, parts, where: str) -> Turn:
    """Parts; a picture stands on a line of its own unless nothing follows it."""
    turn, problems = Turn(role, [], []), []
    for i, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and "text" in part:
            check_text(part["text"], f"{where}: part {i}")
            turn.content.append(part["text"])
        elif kind in ("image", "image_url"):
            turn.content += [PICTURE, *(["\n"] if i + 1 < len(parts) else [])]
            turn.pictures.append(part)
        elif kind == "text":
            problems.append(f"{where}: part {i} of type 'text' has no \"text\" (fields: {', '.join(part)})")
        else:
            problems.append(f"{where}: part of type {kind!r}; use 'text' or 'image'")
    if problems:
        raise ValueError("\n".join(problems))
    return turn


def open_picture(source, where: str):
    """A picture of a message, RGB: a part, a path, a data URI, a file's bytes, a PIL image or a uint8 array.
    Raises ImageError that names the message."""
    if isinstance(source, dict):
        fields = sorted(source)
        source = next((source[f] for f in ("image", "path", "url", "image_url") if f in source), None)
        source = source.get("url") if isinstance(source, dict) else source
        if source is None:
            raise ImageError(f"{where}: part {fields} holds no picture; give 'image' a PIL image or a path")
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    if isinstance(source, str) and source.startswith("data:"):
        try:
            source = io.BytesIO(base64.b64decode(source.partition(",")[2], validate=True))
        except (binascii.Error, ValueError) as error:
            raise ImageError(
                f"{where}: the data URI is not valid base64 ({error}); encode the file's bytes again"
            ) from None
    elif isinstance(source, str) and source.startswith(("http://", "https://")):
        raise ImageError(f"{where}: {source} is a web address; download the picture and give its path")
    try:
        return read_image(source)
    except ImageError as error:
        raise ImageError(f"{where}: {error}", cause=error.cause) from None
    except TypeError:
        raise ImageError(
            f"{where}: a picture is a path, a data URI, a PIL image or a uint8 array, not a "
            f"{type(source).__name__}"
        ) from None
