"""What the raw fields of a record mean: captions, conversations, documents and pictures, in the
forms that people have.

Every function raises RecordError with the field, its value and why; who reads the record adds where
it stands.
"""

import functools
import re

from janus_jax.data.image_types import base64_type
from janus_jax.data.messages import PICTURE, ROLES, Turn, blank, laid_out
from janus_jax.data.sources import RecordError, SourceError

CAPTIONS = (
    "captions",
    "caption",
    "text",
    "name",
    "class",
)  # where a caption is looked for, in this order
_PICTURES = ("image", "images", "file_name")
_BRACES = re.compile(r"\{(\w+)\}")
_MARK = "<image>"  # stands for a picture in LLaVA's files


def text(value, field: str) -> str:
    """A string that shows something and that UTF-8 can write; NULs are dropped."""
    if not isinstance(value, str):
        raise RecordError("wrong type", f'field "{field}" is {_short(value)}, needs a string')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            "lone surrogate",
            f'field "{field}" has the lone surrogate {value[error.start]!a} at character '
            f"{error.start} (byte "
            f"{len(value[: error.start].encode())}), which is no text; drop it",
        ) from None
    if blank(value):
        raise RecordError(
            "blank text",
            f'field "{field}" is empty or blank: {value[:20]!r}; fill it in, or remove the record',
        )
    return value.replace("\0", "")


def captions(raw: dict, field: str = "") -> list[str]:
    """The captions in `field`, by default the first of CAPTIONS that the record has: a string, or
    alternatives."""
    field = field or next((name for name in CAPTIONS if raw.get(name) is not None), "")
    if not field:
        found = ", ".join(raw)[:200] or "none"
        raise RecordError(
            "missing field",
            f"no caption in {', '.join(CAPTIONS)} (fields: {found}); name it as caption",
        )
    if field not in raw:
        raise RecordError(
            "missing field", f'no field "{field}" (fields: {", ".join(raw)[:200] or "none"})'
        )
    values = raw[field] if isinstance(raw[field], list) and raw[field] else [raw[field]]
    try:
        return [text(value, field) for value in values]
    except RecordError as error:
        raise RecordError(error.cause.replace("blank text", "blank caption"), str(error)) from None


def fill(templates: tuple[str, ...], raw: dict, field: str = "") -> list[str]:
    """Captions, each put into each template, whose braces name fields of the record or
    {caption}."""
    found = (
        captions(raw, field) if not templates or any("{caption}" in t for t in templates) else [""]
    )
    if not templates:
        return found

    def value(match, caption: str) -> str:
        name = match[1]
        if name == "caption":
            return caption
        if raw.get(name) is None:
            raise RecordError(
                "missing field",
                f'no field "{name}" for prompt (fields: {", ".join(raw)[:200] or "none"})',
            )
        return text(raw[name] if isinstance(raw[name], str) else str(raw[name]), name)

    return [_BRACES.sub(functools.partial(value, caption=c), t) for c in found for t in templates]


def check_templates(templates: tuple[str, ...], path: str):
    """Raises SourceError unless each names a field, and has no other braces."""
    for template in templates:
        rest = _BRACES.sub("", template)
        if rest == template or "{" in rest or "}" in rest:
            raise SourceError(
                f"{path}: prompt is {template!r}: a template of generation names fields in braces, "
                f"as in "
                "'a photo of {caption}', and has no others"
            )


def pictures(raw: dict) -> list:
    """References to a record's pictures in order, None where a document has text: paths, bytes, the
    struct {"bytes", "path"} of the hub's datasets, or what the reader's `open` knows. An empty path
    is no picture."""
    field = next((name for name in _PICTURES if raw.get(name) not in (None, "")), None)
    if field is None:
        return []
    values = raw[field] if isinstance(raw[field], list) else [raw[field]]
    return [None if v is None or v == "" else _reference(v, field) for v in values]


def conversation(raw: dict, images: int) -> list[Turn]:
    """The conversation: user and assistant in turn, answered, one `<image>` each picture or none.

    Forms: LLaVA's "conversations" of {"from", "value"}, "messages" of {"role", "content"},
    "question" and "answer".
    """
    if "conversations" in raw or "messages" in raw:
        field, role, content = (
            ("conversations", "from", "value")
            if "conversations" in raw
            else ("messages", "role", "content")
        )
        values = raw[field] if isinstance(raw[field], list) else [raw[field]]
        found = _in_order(values, field, role, content)
    else:
        field = "question"
        found = [("user", text(raw["question"], "question"))]
        if raw.get("answer") is not None:
            found.append(("assistant", text(raw["answer"], "answer")))
    marks = sum(value.count(_MARK) for role, value in found if role == "user")
    if marks and marks != images:
        raise RecordError(
            "placeholders",
            f'field "{field}" has {marks} {_MARK} placeholders for {images} images; write one for '
            f"each, or none",
        )
    if not found or found[-1][0] != "assistant":
        raise RecordError(
            "no answer",
            f'field "{field}" ends without an answer (gpt); add it, or cut the question',
        )
    if images and not marks:
        first = next(k for k, (role, _) in enumerate(found) if role == "user")
        found[first] = ("user", f"{_MARK}\n" * images + found[first][1])
    return [Turn(role, _content(role, value)) for role, value in found]


def described(question: str, answer: str, images: int) -> list[Turn]:
    """A conversation about pictures of which only a caption is known, which may say anything,
    `<image>` too."""
    content = [PICTURE] * images + [text(question, "prompt")]
    return [Turn("user", laid_out(content)), Turn("assistant", [answer])]


def _in_order(values: list, field: str, role_name: str, content: str) -> list[tuple[str, str]]:
    found = []
    for k, turn in enumerate(values):
        at = f"{field}[{k}]"
        if not isinstance(turn, dict) or not {role_name, content} <= set(turn):
            raise RecordError(
                "missing field",
                f'field "{at}" is {_short(turn)}, needs "{role_name}" and "{content}"',
            )
        role = ROLES.get(turn[role_name]) if isinstance(turn[role_name], str) else None
        if role is None:
            known = ", ".join(ROLES)
            raise RecordError(
                "unknown role",
                f'field "{at}.{role_name}" is {repr(turn[role_name])[:60]}; known are {known}',
            )
        previous = found[-1][0] if found else "system"
        if role == previous and found:
            raise RecordError(
                "turn out of order", f'field "{at}": two {role} turns in a row; join them'
            )
        if (role == "system" and found) or (role == "assistant" and previous == "system"):
            raise RecordError(
                "turn out of order",
                f'field "{at}": {role} turn out of order; needs [system,] human, gpt, ...',
            )
        value = text(turn[content], f"{at}.{content}")
        if role != "user" and _MARK in value:
            raise RecordError(
                "placeholders",
                f'field "{at}.{content}" has {_MARK} in role {role}; put it in a human turn',
            )
        found.append((role, value))
    return found


def _content(role: str, value: str) -> list:
    """A turn's content: in a user's text `<image>` stands for a picture. Spaces and line breaks are
    the record's own; only words that follow pictures at the very front always begin a line."""
    before, *after = value.split(_MARK) if role == "user" else [value]
    pieces = [before] if before.strip() or not after else []
    for piece in after:
        pieces.append(PICTURE)
        front = all(p is PICTURE or p.isspace() for p in pieces)
        if front and piece.strip():
            words = piece.lstrip(" \t\r")
            pieces += ["\n", words.removeprefix("\n")]
        elif piece:
            pieces.append(piece)
    return pieces


def document(raw: dict, images: list) -> list[str | None]:
    """An interleaved document, None where a picture stands: OBELICS's "texts" beside "images", each
    None where the other stands, or "text" with one `<image>` for each picture (as many before it
    when it has none)."""
    if "texts" not in raw:
        value = text(raw.get("text"), "text")
        pieces = value.split(_MARK) if _MARK in value else [""] * len(images) + [value]
        if len(pieces) - 1 != len(images):
            raise RecordError(
                "placeholders",
                f'field "text" has {len(pieces) - 1} {_MARK} placeholders for {len(images)} '
                f"images; write one for each",
            )
        found = [pieces[0], *(item for piece in pieces[1:] for item in (None, piece))]
    else:
        values = raw["texts"]
        if not isinstance(values, list) or (images and len(values) != len(images)):
            given = f"{len(values)} texts" if isinstance(values, list) else _short(values)
            raise RecordError(
                "wrong type",
                f'fields "texts" and "images": {given} for {len(images)} images; needs lists of '
                f"one length",
            )
        found = []
        for k, (value, image) in enumerate(zip(values, images or [None] * len(values))):
            if (value is None) == (image is None):
                raise RecordError(
                    "wrong type", f'fields "texts[{k}]" and "images[{k}]": one of them must be null'
                )
            found.append(None if value is None else text(value, f"texts[{k}]"))
    found = [item for item in found if item is None or item.strip()]
    if not any(found):
        raise RecordError("blank text", "a document without words; remove the record")
    return found


def _reference(value, field: str):
    """A picture's reference, if it has a form that can be opened."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
        if not value:
            raise RecordError("no picture", f'field "{field}" has neither "bytes" nor "path"')
    if not isinstance(value, str):
        if not isinstance(value, bytes | tuple):
            raise RecordError(
                "wrong type", f'field "{field}" is {_short(value)}, needs a path or a file as bytes'
            )
        return value
    if re.match(r"\s*data:", value, re.I):
        return value
    if base64_type(value) or max(map(len, value.split("/"))) > 255:
        raise RecordError(
            "no path",
            f'field "{field}" is no path: {len(value):,} characters, {value[:40]!r}...; base64 '
            f"needs "
            '"data:image/jpeg;base64," before it',
        )
    if "://" in value:
        remedy = (
            "give the path alone"
            if value[:5].lower() == "file:"
            else "download it and give its path"
        )
        raise RecordError("web address", f'field "{field}" is a URL: {value[:80]!r}; {remedy}')
    return text(value, field)


def _short(value) -> str:
    return f"{str(value)[:60]!r} ({type(value).__name__})"
