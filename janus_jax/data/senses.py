"""Inputs of further senses in records and in conversations (paper section 3.5; model/senses).

A message has them as parts, {"type": "points", "points": "a.npy"}, whose value is a path as pictures
have it, a file as bytes, or the numbers themselves; a record without messages as a field of the
sense's name that holds the paths of its files. Until a record is understood they stand among its
pictures, as `Input`s, so that they are found, counted and placed as these.
"""

import typing

import numpy as np

from janus_jax.data.mapping import CHATS, PICTURES, Raw
from janus_jax.data.messages import PICTURE, Slot, Turn
from janus_jax.data.sources import RecordError, shown, unreadable
from janus_jax.model.senses import known


class Input(typing.NamedTuple):
    """One of a sense, among the pictures of a record."""

    name: str
    source: object


def among(fields: dict) -> dict:
    """A record's fields with the parts of its messages that senses have as parts of pictures, which
    hold `Input`s. Raises RecordError."""
    found = {}
    for field in CHATS:
        turns = fields.get(field)
        if isinstance(turns, list):
            found[field] = [_turn(turn) for turn in turns]
    return fields | found


def _turn(turn):
    content = turn.get("content") if isinstance(turn, dict) else None
    if not isinstance(content, list):
        return turn
    return turn | {"content": [_part(part) or part for part in content]}


def _part(part) -> dict | None:
    """A message's part of a sense as that of a picture, None of other parts."""
    if (name := sense_of(part)) is None:
        return None
    return {"type": "image", "image": Input(name, value(part, name))}


def value(part: dict, name: str):
    """What a part of a sense holds. Raises RecordError."""
    if part.get(name) is None:
        raise RecordError(
            "missing field",
            f'a part of type {name!r} has no field "{name}" (fields: {shown(", ".join(part))}); give '
            f"the path of a file in it",
        )
    return part[name]


def sense_of(part) -> str | None:
    """The sense of a message's part, None of other parts."""
    name = part.get("type") if isinstance(part, dict) else None
    return name if isinstance(name, str) and name in known.names() else None


def beside(raw: Raw) -> Raw:
    """A record with the inputs in its own fields, of the name of a sense and with paths of its files,
    after its pictures. Other fields of such a name are left as they are."""
    inputs = []
    for name in known.names():
        value = dict.get(raw, name)
        values = value if isinstance(value, list) else [value]
        ends = known.sizes_of(name, {}).suffixes if value is not None else ()
        if values and all(isinstance(x, str) and x.lower().endswith(tuple(ends)) for x in values):
            inputs += [Input(name, x) for x in values]
    if not inputs:
        return raw
    field = next((name for name in PICTURES if dict.get(raw, name) not in (None, "", [])), None)
    given = dict.get(raw, field) if field else []
    gone = {*PICTURES, *(one.name for one in inputs)}
    out = Raw({name: value for name, value in raw.items() if name not in gone}, raw)
    return Raw(out | {"image": [*(given if isinstance(given, list) else [given]), *inputs]}, raw)


def placed(made: dict, media: list) -> dict:
    """A record of understanding with `Slot`s where the inputs among its media (fields.pictures) stand,
    and these in "senses", by name. Raises RecordError."""
    if not any(isinstance(x, Input) for x in media):
        return made
    if "document" in made:
        raise RecordError(
            "wrong type",
            "a document holds pictures and text alone; write messages for other senses",
        )
    sources = iter(media)
    found = {}
    for turn in made["messages"]:
        for k, piece in enumerate(turn.content):
            source = next(sources) if piece is PICTURE else None
            if isinstance(source, Input):
                turn.content[k] = Slot(source.name)
                found.setdefault(source.name, []).append(source.source)
    return made | {"senses": found}


def located(record: dict, model, most: int) -> dict:
    """A record of senses with slots that say how many tokens they take in a model. Raises RecordError
    where that has no such sense, and for more than `most` inputs of one."""
    slots = slots_of(model)
    for name, values in record["senses"].items():
        if name not in slots:
            raise unknown(name)
        if len(values) > most:
            raise RecordError(
                "too many inputs",
                f"has {len(values)} {name}, a row takes {most}; raise the stage's "
                f"rows.understanding_images, which goes for each sense",
            )
    fill = lambda piece: slots[piece.name] if isinstance(piece, Slot) else piece
    turns = [
        Turn(turn.role, [fill(piece) for piece in turn.content], turn.pictures, turn.learn)
        for turn in record["messages"]
    ]
    return record | {"messages": turns}


def unknown(name: str) -> RecordError:
    return RecordError(
        "another sense",
        f"has {name}, and this model has no such sense; give it one (--config.model.senses.{name}), "
        f"or leave such records out",
    )


def slots_of(model) -> dict[str, Slot]:
    """name -> what one input of each of a model's senses takes."""
    roles = known.roles(model)
    return {name: Slot(name, roles[name], of.tokens) for name, of in known.sizes(model).items()}


def counts(example: dict, model) -> np.ndarray:
    """int64 [senses of the model]: how many inputs of each an example reads, by name."""
    found = [(example["role"] == s.role).sum() // s.tokens for s in slots_of(model).values()]
    return np.array(found, np.int64)


def arrays(record: dict, example: dict, model) -> dict[str, list[np.ndarray]]:
    """name -> the inputs that fill an example's slots. Raises RecordError."""
    sizes = known.sizes(model)
    return {
        name: [array(of, name, source) for source in record.get("senses", {}).get(name, ())[:count]]
        for (name, of), count in zip(sizes.items(), example["senses"])
    }


def array(sizes, name: str, source) -> np.ndarray:
    """One input as its sense's `Sizes` read it. Raises RecordError that names sense and file."""
    where = f"{name} {shown(source)!r}" if isinstance(source, str) else f"{name} given here"
    try:
        return sizes.array(source)
    except OSError as error:
        raise unreadable(where, error) from None
    except ValueError as error:
        raise RecordError(f"wrong {name}", f"{where}: {error}") from None
