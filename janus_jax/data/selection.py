"""Which records of a file a data set has: those of its kind, large enough, with a good enough
score; and whether they have the fields that its line names."""

import concurrent.futures
import logging

import numpy as np

from janus_jax.config.schema import Dataset
from janus_jax.data import chats, fields
from janus_jax.data.formats.found import split_of
from janus_jax.data.image_files import header
from janus_jax.data.mapping import PICTURES, Raw, field_names, require_named
from janus_jax.data.sources import RecordError, SourceError, refuse_open_files, shown

_LOOKED_AT = 20  # records in one of which each field that the line names must be
_SPLIT = ("split", "subset", "partition")  # fields that may say whose split a record is
_SPREAD = 1000  # records whose split is looked at, where the first has one
_THREADS = 16  # that look at sizes and scores: they wait for the disk


def require_used(d: Dataset):
    """Raises SourceError where a line names a field that its kind does not read."""
    chat = [name for name in ("question", "answer") if getattr(d, name)]
    if chat and d.kind == "generation":
        raise SourceError(
            f"{d.path}: {' and '.join(chat)}: records of kind generation have captions; name "
            f"the field as caption"
        )
    if d.target and d.kind != "generation":
        raise SourceError(
            f"{d.path}: target is {d.target!r}: edits alone have one, of kind generation; its kind is "
            f"{d.kind}"
        )
    if d.min_score and not d.score:
        raise SourceError(
            f"{d.path}: min_score is {d.min_score:g}, and no field is named that holds it; name it as score"
        )
    if d.answer and d.caption:
        raise SourceError(
            f"{d.path}: answer is {d.answer!r} and caption is {d.caption!r}, and one of them is to "
            f"be said; name one"
        )


def by_kind(records) -> tuple[np.ndarray | None, dict[str, int]]:
    """(the numbers of the records of the data set's kind, None for all; why others are left out,
    and how many).

    Understanding and generation leave out those without a picture where the reader can tell; text
    takes those, and where every record has a picture, all. Broken ones stay: training counts them.
    Raises SourceError where none has a picture, or the fields that the line names.
    """
    d = records.dataset
    kept = None
    if hasattr(records.reader, "pictured"):
        all_of = range(len(records.reader))
        known = (
            [_has_picture(records, i) for i in all_of] if d.picture else records.reader.pictured()
        )
        pictured = np.asarray(known, np.int8)
        if d.kind == "text":
            kept = np.flatnonzero(pictured < 1) if (pictured == 0).any() else None
        else:
            for i in np.flatnonzero(pictured == 0):
                pictured[i] = _should_have(records, int(i))
            if not (pictured == 1).any():
                raise _no_picture(records)
            kept = np.flatnonzero(pictured) if (pictured == 0).any() else None
    if d.picture or d.caption or d.question or d.answer:
        try:
            require_named(_first(records, kept), d)
        except RecordError as error:
            raise SourceError(f"{d.path}: {error}") from None
    _refuse_splits(records, kept)
    left = 0 if kept is None else len(records.reader) - len(kept)
    if not left:
        return None, {}
    what = f"{left} of {len(records.reader)} records are not of kind {d.kind}, and left out"
    logging.warning("%s: %s", d.path, what)
    return kept, {f"not of kind {d.kind}": left}


def _refuse_splits(records, kept: np.ndarray | None):
    """Raises SourceError where a field of the records, such as "split", says two splits. No more than
    the first is read where it has no such field."""
    numbers = range(len(records.reader)) if kept is None else kept
    said = {}
    for i in numbers[:: max(len(numbers) // _SPREAD, 1)]:
        try:
            raw = records.reader[int(i)]
        except RecordError:
            continue
        asked = said or {name: {} for name in _SPLIT if isinstance(raw.get(name), str)}
        if not asked:
            return
        said = asked
        for name, found in said.items():
            value = raw.get(name)
            if isinstance(value, str) and split_of(value):
                found.setdefault(split_of(value), value)
    for name, found in said.items():
        if len(found) > 1:
            raise SourceError(
                f'{records.dataset.path}: by their field "{name}" its records are of '
                f"{' and '.join(sorted(found.values()))}, and what is tested on must not be trained on; "
                "write those to train on into a file of their own, or take the field out"
            )


def by_size_and_score(records) -> tuple[np.ndarray | None, dict[str, int]]:
    """As by_kind, of those with `min_side` and `min_score`. Raises SourceError where none is
    left."""
    d = records.dataset
    if not (d.min_side or d.score):
        return None, {}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda i: _passes(records, i), range(len(records))))
    keep = np.array([f is not False for f in found])
    errors = [f for f in found if isinstance(f, str)]
    asked = []
    if d.min_side:
        asked.append(f"shorter side >= {d.min_side}")
    if d.score:
        asked.append(f"{d.score} >= {d.min_score}")
    asked = " and ".join(asked)
    logging.warning("%s: asked for %s: kept %d of %d records", d.path, asked, keep.sum(), len(keep))
    if True not in found:
        unread = f"; {len(errors)} cannot be read, such as {errors[0]}" if errors else ""
        raise SourceError(f"{d.path}: no record has {asked}; lower min_side or min_score{unread}")
    return np.flatnonzero(keep), {f"without {asked}": int((~keep).sum())}


def _passes(records, i: int) -> bool | str:
    """Whether record `i` stays, or why it cannot be read: then it stays too, training counts it."""
    d = records.dataset
    try:
        raw = records.raw(i)
        if d.score and not raw[d.score] >= d.min_score:  # nor is NaN
            return False
        return not d.min_side or all(
            min(_size(records, raw, ref)) >= d.min_side
            for ref in fields.pictures(raw)
            if ref is not None
        )
    except SourceError:
        raise
    except Exception as error:  # damaged headers make Pillow raise nearly anything
        refuse_open_files(error)
        return str(error)


def _size(records, raw: Raw, ref) -> tuple[int, int]:
    size = raw.get("width"), raw.get("height")
    if all(isinstance(side, int) for side in size):
        return size
    return header(records.opened(ref))[0]


def _has_picture(records, i: int) -> int:
    """1 or 0; -1 where it cannot be read."""
    try:
        return int(any(ref is not None for ref in fields.pictures(records.raw(i))))
    except RecordError:
        return -1


def _should_have(records, i: int) -> int:
    """Of a record that seems to have no picture: 1 where it has one, and -1 where it speaks of one,
    so that it is no text, and training counts it."""
    found = _has_picture(records, i)
    if found or records.dataset.kind != "understanding":
        return found
    raw = records.raw(i)
    try:
        return -int(chats.is_chat(raw) and chats.marks(raw)[2] > 0)
    except RecordError:
        return 0


def _no_picture(records) -> SourceError:
    d = records.dataset
    found = ", ".join({name: None for raw in _first(records, None) for name in field_names(raw)})
    looked = d.picture or ", ".join(PICTURES)
    return SourceError(
        f'{d.path}: no record has the field "image" (looked for a picture in {looked}; the fields '
        f"there are: {shown(found or 'none', 300)}); name the one that holds it as picture; as text, "
        f"use kind text"
    )


def _first(records, kept: np.ndarray | None) -> list[Raw]:
    """The first records that can be read, of those that are kept."""
    numbers = range(len(records)) if kept is None else kept
    out = []
    for i in numbers[:_LOOKED_AT]:
        try:
            out.append(records.raw(int(i)))
        except RecordError:
            continue
    return out
