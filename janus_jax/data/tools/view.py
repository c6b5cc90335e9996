"""What the model sees of a record: its tokens one by one, control ids by name, the pictures as the
encoders get them, what is predicted, and where a text was cut."""

import dataclasses
import itertools

import numpy as np

from janus_jax.data.row_stream import BAD, IN_A_ROW
from janus_jax.data.sources import Source
from janus_jax.data.tools import duplicates, survey
from janus_jax.model import batch as bt

_PARTS = 3  # of a text that goes on from row to row
_CHARACTER = 8  # tokens that may spell one character, at most
_ENDLESS = 1 << 20  # tokens of a row in which nothing is cut


@dataclasses.dataclass
class Piece:
    """Tokens that are read as one: those of a character, a control id, the slots of a picture.

    text: what they say, a control id's name; of a picture empty.
    ids: their ids.
    at: the position of the first.
    role: batch.TEXT, one of batch.SLOTS, or that of a further sense.
    control: whether it is a control id.
    predicted: whether the model learns to predict them.
    """

    text: str
    ids: list[int]
    at: int
    role: int
    control: bool
    predicted: bool


@dataclasses.dataclass
class Shown:
    """One example, as the model sees it.

    where: the file and the record, for people.
    told: its length, what is predicted, whether it was cut, in words.
    pieces: its tokens.
    pictures: (uint8 [S, S, 3], how the picture became that, in words) of its slots, in order.
    cut: (the position before which the text was first cut, how many tokens are left out), or None.
    """

    where: str
    told: str
    pieces: list[Piece]
    pictures: list[tuple]
    cut: tuple[int, int] | None = None


@dataclasses.dataclass
class Segment:
    """One example of a row.

    number: in segment_ids.
    begin, end: its first place in the row, and the one after its last.
    positions: the first and the last.
    kind, name, where: of the example, its data set, its record.
    predicted: how many tokens are.
    pieces: its tokens.
    """

    number: int
    begin: int
    end: int
    positions: tuple[int, int]
    kind: str
    name: str
    where: str
    predicted: int
    pieces: list[Piece]


@dataclasses.dataclass
class PackedRow:
    """title: whose row it is. length: its tokens. segments: its examples; padding fills the rest."""

    title: str
    length: int
    segments: list[Segment]

    @property
    def padding(self) -> int:
        return self.length - sum(s.end - s.begin for s in self.segments)


def look(line, source: Source, encoder, count: int) -> tuple[list[Shown], list[int], list[str]]:
    """(the examples of the first `count` usable records, the numbers of these records, why others
    before them cannot be used).

    line: of the data set.
    source: its records.
    encoder: a example_encoder.ExampleEncoder.
    """
    found = []
    used = []
    bad = []
    for i in range(len(source)):
        if len(used) == count:
            break
        if len(bad) == IN_A_ROW:
            bad.append(f"these are {IN_A_ROW} records, and no more are tried")
            break
        try:
            record = encoder.read(source, i)
            examples = list(survey.parts(encoder, line, record, i))
            pictures = as_encoded(line, source, i, record, encoder, examples[0])
        except BAD as error:
            bad.append(f"{source.where(i)} cannot be used: {error}")
            continue
        used.append(i)
        for k, example in enumerate(examples[:_PARTS]):
            rest = "; the others are not shown" if k + 1 == _PARTS < len(examples) else ""
            part = f" (part {k + 1} of {len(examples)}{rest})" if len(examples) > 1 else ""
            cut = _cut(line, record, i, encoder, example)
            pieces = pieces_of(
                example["tokens"],
                example["role"],
                example["supervised"],
                encoder.processor.tokenizer,
            )
            told = _told(example, cut, encoder.rows.length)
            found.append(Shown(f"{source.where(i)}{part}", told, pieces, pictures, cut))
    return found, used, bad


def pieces_of(tokens, role, supervised, tokenizer, first: int = 0) -> list[Piece]:
    """Tokens as pieces.

    tokens, role, supervised: [n], of a Sequence (see batch.py).
    tokenizer: the data.tokenizer.Tokenizer.
    first: the position of the first of them.
    """
    out = []
    names = [tokenizer.control_name(int(i)) for i in tokens]
    kinds = [(int(r), bool(s), name) for r, s, name in zip(role, supervised, names, strict=True)]
    at = 0
    for (r, predicted, name), span in itertools.groupby(kinds):
        n = len(list(span))
        ids = [int(i) for i in tokens[at : at + n]]
        if r != bt.TEXT:
            out.append(Piece("", ids, first + at, r, False, predicted))
        elif name is not None:
            out += [Piece(name, [i], first + at + k, r, True, predicted) for k, i in enumerate(ids)]
        else:
            begin = at
            for text, some in _characters(ids, tokenizer):
                out.append(Piece(text, some, first + begin, r, False, predicted))
                begin += len(some)
        at += n
    return out


def _characters(ids: list[int], tokenizer):
    """(text, its ids) of as few ids each as spell whole characters."""
    run = []
    for i in ids:
        run.append(i)
        text = tokenizer.decode(run)
        if "\ufffd" not in text or len(run) == _CHARACTER:
            yield text, run
            run = []
    if run:
        yield tokenizer.decode(run), run


def as_text(pieces: list[Piece]) -> str:
    """Pieces as one text: a picture's slots as [576 x image], of another sense as [64 x input], what is
    predicted in «guillemets»."""
    out = ""
    for (r, predicted), group in itertools.groupby(pieces, lambda p: (p.role, p.predicted)):
        group = list(group)
        part = "".join(visible(p.text) for p in group)
        if r != bt.TEXT:
            what = "image" if r in bt.SLOTS.values() else "input"
            part = f"[{sum(len(p.ids) for p in group)} x {what}]"
        out += f"«{part}»" if predicted else part
    return out


def visible(text: str) -> str:
    """Text without what a terminal or a page would obey and not show: control characters and others
    that cannot be printed become their escapes, line breaks stay."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def as_encoded(line, source: Source, i: int, record: dict, encoder, example: dict) -> list:
    """(uint8 [S, S, 3], how the picture became that) of an example's slots. Raises ImageError,
    RecordError."""
    kind = line.kind
    stored = "image_ids" in record
    if stored:
        encoder.pixels(kind, source, i, record, example)  # raises what training would
        record = {name: value for name, value in record.items() if name != "image_ids"}
    found = encoder.pixels(kind, source, i, record, example)
    pictures = [
        (name == "generation_images", int(k), x)
        for name, arrays in found.items()
        if name in example  # inputs of other senses are no pictures
        for k, x in zip(example[name], arrays)
    ]
    out = []
    for drawn, k, x in pictures:
        width, height = duplicates.picture(source.image(i, k)).size
        side = x.shape[0]
        how = f"{width} x {height}"
        if drawn and "size" in record:
            how += f", made to cover {x.shape[1]} x {side}, its middle"
        elif drawn:
            least = min(width, height)
            how += f", its middle {least} x {least}" if width != height else ""
            how += f", made {side} x {side}" if least != side else ""
            how += "; its stored ids are learned from" if stored or line.image_ids else ""
        elif "tiles" in record:
            how += (
                f", cut into {sum(k == n for n in example['understanding_images'])} tiles of {side}"
            )
        elif (width, height) != (side, side):
            filled = " and filled up" if width != height else ""
            how += f", made {side} pixels long{filled}"
        out.append((x, how))
    return out


def _told(example: dict, cut: tuple | None, length: int) -> str:
    tokens = len(example["tokens"])
    out = f"{tokens} tokens, {int(example['supervised'].sum())} to predict"
    if cut:
        out += f"; CUT to a row of {length}: {cut[1]} tokens are left out"
    elif example["example"][0] & bt.TRUNCATED:
        out += f"; CUT to a row of {length}"
    if example.get("rest"):
        out += "; the rest of its text comes in later rows"
    return out


def _cut(line, record: dict, i: int, encoder, example: dict) -> tuple[int, int] | None:
    """Where a truncated example first differs from the whole one, and by how many tokens it is
    shorter; None where it was not truncated, or what is left out is more than can be counted."""
    if not example["example"][0] & bt.TRUNCATED:
        return None
    rows = dataclasses.replace(encoder.rows, length=_ENDLESS, understanding_images=_ENDLESS)
    whole = dataclasses.replace(encoder, rows=rows)
    try:
        tokens = whole(line.kind, record, np.random.default_rng(i))["tokens"]
    except BAD:
        return None
    here = example["tokens"]
    least = min(len(here), len(tokens))
    differs = np.flatnonzero(here[:least] != tokens[:least])
    return (int(differs[0]) if len(differs) else least), len(tokens) - len(here)
