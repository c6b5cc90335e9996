"""The raw fields of a record before they are understood: found by the names that a data set's line
gives, unpacked where they are JSON text, and noted where they are read."""

from janus_jax.common.text import near
from janus_jax.data.messages import PICTURE_FIELDS, blank
from janus_jax.data.notation import as_data
from janus_jax.data.sources import RecordError, shown

PICTURES = ("image", "images", "file_name")  # where pictures are looked for, in this order
CAPTIONS = "captions", "caption", "text", "name", "class"  # likewise
CHATS = ("conversations", "messages", "conversation")  # lists of turns
_STRUCTURED = (*CHATS, "texts", "history", *PICTURES)  # whose JSON text is unpacked
_OF_CLASS = {"class", "name", "names"}
_DEEP = 4  # levels of fields within fields that are listed


class Raw(dict):
    """The fields of a record, without those that are null.

    read: the names of those that were read, "a.b" within another, "a[].b" of the items of a list.
    notes: how the record was understood where it does not say so itself, a few words each.
    moved: the field whose pictures now stand in "image", empty for none.
    sources: of an edit, how many pictures come before the one to draw, see edits.py.
    """

    def __init__(self, fields, like: "Raw | None" = None):
        super().__init__({name: value for name, value in fields.items() if value is not None})
        self.read = like.read if like else set()
        self.notes = like.notes if like else {}
        self.moved = like.moved if like else ""
        self.sources = like.sources if like else 0

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.read.add(name)
        return super().get(name, default)

    def note(self, words: str):
        self.notes[words] = None

    def unread(self) -> list[str]:
        """The fields that nothing read; those that readers make of a class apart."""
        made = _OF_CLASS if self.keys() >= _OF_CLASS else set()
        told = lambda name: {name, name.split(".")[0], name.split("[]")[0]} & (self.read | made)
        return [name for name in _names(self) if not told(name)]


def field_names(raw: dict) -> list[str]:
    """The names of all fields of a record as it stood."""
    moved = getattr(raw, "moved", "")
    return [moved if name == "image" and moved else name for name in _names(raw)]


def _names(value: dict, before: str = "", deep: int = _DEEP) -> list[str]:
    """The names of fields: those of another as "a.b", of the items of a list as "a[].b"."""
    out = []
    for name, inner in value.items():
        name = f"{before}{name}"
        if isinstance(inner, dict) and inner and deep:
            out += _names(inner, f"{name}.", deep - 1)
        elif isinstance(inner, list) and inner and all(isinstance(x, dict) for x in inner) and deep:
            found = {key: None for item in inner for key in _names(item, f"{name}[].", deep - 1)}
            out += found or [name]
        else:
            out.append(name)
    return out


def there(raw: dict) -> str:
    """The fields that a record has, for a message."""
    return shown(", ".join(field_names(raw)) or "none", 300)


def has(raw: dict, name: str) -> bool:
    """Whether a record has a field, which may be "a.b"."""
    return _find(raw, name) is not None


def lookup(raw: dict, name: str, of: str):
    """The value of a field: its name as it stands, or "a.b" for b within a, where a number counts
    the items of a list, and a name means that of each item. Raises RecordError.

    of: what the field is named as, such as "caption".
    """
    value = _find(raw, name)
    if value is None:
        raise RecordError(
            "missing field", f'no field "{name}", named as {of} (fields: {there(raw)})'
        )
    if isinstance(raw, Raw):
        first = name.split(".")[0]
        plain = ".".join(part for part in name.split(".") if not part.isdecimal())
        raw.read |= {name, plain, plain.replace(".", "[].")}
        raw.read |= {first} if isinstance(dict.get(raw, first), str) else set()
    return value


def _find(value, name: str):
    """None where there is nothing."""
    if isinstance(value, dict) and dict.get(value, name) is not None:
        return dict.get(value, name)
    first, dot, rest = name.partition(".")
    if isinstance(value, str):
        value = as_data(value)
    if isinstance(value, list) and first.isdecimal():
        inner = value[int(first)] if int(first) < len(value) else None
    elif isinstance(value, list):
        found = [x for x in (_find(item, name) for item in value) if x is not None]
        return found or None
    else:
        inner = dict.get(value, first) if isinstance(value, dict) else None
    return _find(inner, rest) if dot and inner is not None else None if dot else inner


def mapped(fields: dict, d) -> Raw:
    """A record's fields with its pictures in "image", wherever they stood: in the field that the
    line names, or in the messages' parts and "images", which then say their places only. Raises
    RecordError."""
    raw = Raw(fields)
    for name in _STRUCTURED:
        value = dict.get(raw, name)
        found = as_data(value) if isinstance(value, str) else None
        if found is not None:
            raw |= {name: found}
            raw.note(f'unpacked the JSON text in "{name}"')
    for name in (*CHATS, "texts"):
        if isinstance(dict.get(raw, name), dict):
            raw |= {name: _items(dict.get(raw, name))}
    if d.picture and has(raw, d.picture):
        pictures = lookup(raw, d.picture, "picture")
        unpacked = as_data(pictures) if isinstance(pictures, str) else None
        raw = _replaced(raw, d.picture, pictures if unpacked is None else unpacked)
    return _gathered(raw)


def _items(columns: dict) -> list[dict]:
    """A list of dicts that is stored as a dict of lists, as the hub's `Sequence` does; one dict that
    is none is the only item."""
    values = list(columns.values())
    if not values or not all(isinstance(value, list) for value in values):
        return [columns]
    if len({len(value) for value in values}) > 1:
        return [columns]
    return [dict(zip(columns, row)) for row in zip(*values)]


def require_named(raws: list[Raw], d):
    """Raises a RecordError where a field that the line names is in none of these records."""
    named = {name: getattr(d, name) for name in ("picture", "caption", "question", "answer")}
    if d.prompt and d.kind == "generation" and not any("{caption}" in text for text in d.prompt):
        del named["caption"]
    if d.kind == "text":
        del named["picture"]
    lost = []
    for of, name in named.items():
        if name and raws and not any(has(raw, name) or raw.moved == name for raw in raws):
            meant = near(name, _all(raws))
            lost.append(f'"{name}" ({of}){meant if "mean" in meant else ""}')
    if lost:
        raise RecordError(
            "missing field",
            f"none of the first {len(raws)} records has the field {', nor '.join(lost)}; the fields "
            f"there are: {shown(', '.join(_all(raws)), 300)}",
        )


def _all(raws: list[Raw]) -> list[str]:
    return list({name: None for raw in raws for name in field_names(raw)})


def _replaced(raw: Raw, name: str, pictures) -> Raw:
    """The record with these pictures in "image" alone."""
    out = Raw({key: value for key, value in raw.items() if key not in PICTURES}, raw)
    out |= {"image": pictures}
    out.moved = name
    if name not in raw:
        first, _, rest = name.partition(".")
        if isinstance(dict.get(out, first), dict):
            out |= {first: _without(dict.get(out, first), rest)}
    elif name not in PICTURES:
        del out[name]
    return out


def _without(fields: dict, name: str) -> dict:
    first, dot, rest = name.partition(".")
    if dot and name not in fields and isinstance(fields.get(first), dict):
        return fields | {first: _without(fields[first], rest)}
    return {key: value for key, value in fields.items() if key != name}


def _gathered(raw: Raw) -> Raw:
    """The record with the pictures of its messages in "image"."""
    field = next((name for name in CHATS if isinstance(dict.get(raw, name), list)), None)
    if field is None:
        return raw
    found = []
    values = [_emptied(turn, found) for turn in dict.get(raw, field)]
    given = [source for source in found if source is not None]
    if not given:
        return raw
    if any(dict.get(raw, name) not in (None, "", []) for name in PICTURES):
        raise RecordError(
            "two ways",
            f'field "{field}" holds pictures, and the record has others beside it; give them in one '
            f"of the two ways",
        )
    if len(given) != len(found):
        raise RecordError(
            "placeholders",
            f'field "{field}" has {len(found)} places for pictures, of which {len(given)} hold one',
        )
    return Raw(raw | {field: values, "image": given}, raw)


def _emptied(turn, found: list):
    """A message without its pictures, whose sources, or None for each that has none, go to
    `found`."""
    if not isinstance(turn, dict):
        return turn
    key = "content" if turn.get("content") is not None else "value"
    content = turn.get(key)
    images = turn.get("images")
    if isinstance(content, str) and isinstance(images, list):
        found += [_source(image) for image in images]
        return turn | {"images": [None] * len(images)}
    if not isinstance(content, list):
        return turn
    parts = []
    for part in content:
        source = _source(part)
        is_picture = isinstance(part, dict) and (
            source is not None or part.get("type") in ("image", "image_url")
        )
        if is_picture:
            found.append(source)
            part = {"type": "image"} | {n: x for n, x in part.items() if n == "index"}
        parts.append(part)
    return turn | {key: parts}


def _source(part):
    """What a picture's part holds: a path, bytes, a URI, or the hub's struct; None where it holds
    nothing."""
    while isinstance(part, dict):
        if part.get("bytes"):
            return part["bytes"]
        name = next((name for name in PICTURE_FIELDS if part.get(name)), None)
        if name is None or part.get("type") == "text":
            return None
        part = f"data:;base64,{part[name]}" if name == "base64" else part[name]
    return part or None


def text(value, field: str) -> str:
    """A string that shows something and that UTF-8 can write; NULs are dropped."""
    if not isinstance(value, str):
        raise RecordError("wrong type", f'field "{field}" is {short_value(value)}, needs a string')
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


def short_value(value) -> str:
    return f"{str(value)[:60]!r} ({type(value).__name__})"
