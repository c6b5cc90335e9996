"""What the raw fields of a record mean: captions, documents and pictures, in the forms that people
have; conversations are in chats.py.

Every function raises RecordError with the field, its value and why; who reads the record adds where
it stands.
"""

import functools
import re

from janus_jax.data.image_types import base64_type
from janus_jax.data.mapping import (
    CAPTIONS,
    PICTURES,
    Raw,
    field_names,
    has,
    lookup,
    short_value,
    text,
    there,
)
from janus_jax.data.messages import PICTURE, Turn, blank, laid_out
from janus_jax.data.notation import as_data
from janus_jax.data.places import MARK
from janus_jax.data.sources import RecordError, SourceError

_BRACES = re.compile(r"\{([\w.]+)\}")
# A list or dict of strings that is cut, or bytes as Python writes them: no caption begins so.
_DATA = re.compile(r"""\s*([\[{]\s*['"]|b(['"]).*\2\s*$)""", re.S)
# What is absent, as tables write it; a class may be called so.
_ABSENT = {"nan", "NaN", "None", "null", "NULL", "<NA>", "N/A", "#N/A"}


def captions(raw: dict, field: str = "", is_data_said: bool = False) -> list[str]:
    """The captions in `field`, by default the first of CAPTIONS that the record has: a string, or
    alternatives, of which those that are blank are left out. is_data_said: JSON text is words too,
    as in a document."""
    if not field:
        field = next((name for name in CAPTIONS if raw.get(name) is not None), "")
        if isinstance(raw, Raw) and field:
            of = ", the name of its class" if field == "name" and "class" in raw else ""
            raw.note(f'caption from "{field}"{of}')
    if not field:
        raise RecordError(
            "missing field",
            f"no caption in {', '.join(CAPTIONS)} (fields: {there(raw)}); name it as caption, or a "
            f"chat's fields as question and answer",
        )
    value = lookup(raw, field, "caption")
    if field == "class" and isinstance(value, int) and isinstance(raw.get("name"), str):
        value = raw["name"]  # of a class that goes by its number
    if isinstance(value, str) and not is_data_said:
        value = _alternatives(value, field)
    items = value if isinstance(value, list) and value else [value]
    if any(isinstance(x, dict | list) and x for x in items):
        raise _no_caption(value, field)
    of_class = field in ("name", "names", "class") or value == dict.get(raw, "name")
    absent = () if is_data_said or of_class else _ABSENT
    shown = [x for x in items if x is not None and not _is_blank(x, absent)]
    if shown and len(shown) < len(items) and isinstance(raw, Raw):
        raw.note(f'blank alternatives left out of "{field}"')
    if not shown and any(isinstance(x, str) and not blank(x) for x in items):
        raise RecordError(
            "blank caption",
            f'field "{field}" is {short_value(value)}, as tables write what is not there; fill it in, '
            f"or remove the record",
        )
    try:
        return [text(x, field) for x in shown or ["" if x is None else x for x in items]]
    except RecordError as error:
        raise RecordError(error.cause.replace("blank text", "blank caption"), str(error)) from None


def _alternatives(value: str, field: str):
    """The list of strings that a string is as JSON or as Python writes it, or itself."""
    found = as_data(value)
    if found is None and _DATA.match(value):
        raise _no_caption(value, field)
    if found is None or found == []:
        return value
    if isinstance(found, dict) or not all(isinstance(x, str | None) for x in found):
        raise _no_caption(value, field)
    return found


def _no_caption(value, field: str) -> RecordError:
    data = as_data(value) if isinstance(value, str) else value
    inner = [name.replace("[]", "") for name in field_names({field: data}) if name != field]
    remedy = f"name the field within it as caption ({', '.join(inner)[:100]})" if inner else ""
    return RecordError(
        "data, no caption",
        f'field "{field}" holds data and no words: {str(value)[:60]!r}; {remedy or "give words"}, or '
        f"where a model shall learn to say it as it stands, name it as answer",
    )


def _is_blank(value, absent) -> bool:
    return isinstance(value, str) and (blank(value) or value.strip() in absent)


def fill(
    templates: tuple[str, ...], raw: dict, field: str = "", said: list[str] | None = None
) -> list[str]:
    """Captions, each put into each template, whose braces name fields of the record or
    {caption}. said: the captions, where they are not those in `field`."""
    needed = not templates or any("{caption}" in template for template in templates)
    found = (said or captions(raw, field)) if needed else [""]
    if not templates:
        return found

    def value(match, caption: str) -> str:
        name = match[1]
        if name == "caption":
            return caption
        if not has(raw, name):
            raise RecordError(
                "missing field", f'no field "{name}" for prompt (fields: {there(raw)})'
            )
        found = lookup(raw, name, "prompt")
        return text(found if isinstance(found, str) else str(found), name)

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
    field = next((name for name in PICTURES if raw.get(name) not in (None, "", [])), None)
    if field is None:
        return []
    values = raw[field] if isinstance(raw[field], list) else [raw[field]]
    return [None if v is None or v == "" else _reference(v, field) for v in values]


def described(question: str, answer: str, images: int) -> list[Turn]:
    """A conversation about pictures of which only a caption is known, which may say anything,
    `<image>` too."""
    content = [PICTURE] * images + [text(question, "prompt")]
    return [Turn("user", laid_out(content)), Turn("assistant", [answer])]


def document(raw: dict, images: list) -> list[str | None]:
    """An interleaved document, None where a picture stands: OBELICS's "texts" beside "images", each
    None where the other stands, or "text" with one `<image>` for each picture (as many before it
    when it has none)."""
    if "texts" not in raw:
        value = text(raw.get("text"), "text")
        pieces = value.split(MARK) if MARK in value else [""] * len(images) + [value]
        if len(pieces) - 1 != len(images):
            raise RecordError(
                "placeholders",
                f'field "text" has {len(pieces) - 1} {MARK} placeholders for {len(images)} '
                f"images; write one for each",
            )
        found = [pieces[0], *(item for piece in pieces[1:] for item in (None, piece))]
    else:
        values = raw["texts"]
        if not isinstance(values, list) or (images and len(values) != len(images)):
            given = f"{len(values)} texts" if isinstance(values, list) else short_value(values)
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
                "wrong type",
                f'field "{field}" is {short_value(value)}, needs a path or a file as bytes',
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
