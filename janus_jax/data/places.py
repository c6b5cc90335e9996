"""Where the pictures of a record's conversation stand."""

import re

from janus_jax.data.messages import PICTURE, PLACEHOLDER, Turn
from janus_jax.data.sources import RecordError

MARK = "<image>"  # stands for a picture in LLaVA's files
# What stands for one in files for other models: <|image_1|>, <image 1>, <|image_pad|>, <ImageHere>,
# <start_of_image>, [IMG].
_FOREIGN = re.compile(
    r"<\|?(image|vision)_?(pad|start|here)?[_ ]?\d*\|?>|<img>(<IMG_CONTEXT>|[^<]*</img>)|"
    r"<\|media_pad\|>|<start_of_image>|\[IMG\]",
    re.IGNORECASE,
)


def user_marks(said: list[Turn]) -> tuple[str, int]:
    """(what stands for a picture in the users' texts, how often)."""
    words = [turn.content[0] for turn in said if turn.role == "user" and _is_text(turn)]
    found = {mark: sum(text.count(mark) for text in words) for mark in (MARK, PLACEHOLDER)}
    mark = MARK if found[MARK] else PLACEHOLDER
    return mark, found[mark]


def _is_text(turn: Turn) -> bool:
    return turn.content != [] and not turn.count_pictures


def mark_answers(said: list[Turn], images: int):
    """Gives a place to a picture for each `<image>` that users and assistants say, where these are as
    many as there are pictures, no part holds one, and an assistant says one. Changes the turns."""
    words = [turn for turn in said if turn.role != "system" and _is_text(turn)]
    count = lambda turns: sum("".join(turn.content).count(MARK) for turn in turns)
    answers = [turn for turn in words if turn.role == "assistant"]
    if any(turn.count_pictures for turn in said) or not count(answers) or count(words) != images:
        return
    for turn in words:
        turn.content = placed_content("".join(turn.content), MARK)


def with_pictures(field: str, said: list[Turn], images: int, is_pictured: bool) -> bool:
    """Gives the turns a place for each of so many pictures. Where a record has no field for
    pictures, and in what others than users say, a mark is text. Returns whether nothing said where
    they stand: then they come before the first question. Raises RecordError.

    field: the name of the conversation's.
    said: its turns, which are changed.
    images: how many pictures the record has.
    is_pictured: whether it has a field for pictures.
    """
    parts = sum(turn.count_pictures for turn in said)
    mark, count = user_marks(said)
    if parts or not is_pictured:
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
                    f'field "{field}": an answer is nothing but {MARK}; to learn to draw the picture, '
                    f"read the record as kind generation",
                )
    unsaid = bool(images and not parts and not count)
    if unsaid:
        for turn in said:
            if turn.role == "user" and (other := _FOREIGN.search(turn.content[0])):
                raise RecordError(
                    "placeholders",
                    f'field "{field}" has {other[0][:40]}, which stands for a picture elsewhere, and '
                    f"{images} images have no place; write {MARK} for each",
                )
        first = next(turn for turn in said if turn.role == "user")
        first.content = [f"{MARK}\n" * images + first.content[0]]
        mark, count = MARK, images
    for turn in said:
        turn.pictures = []
        if count and turn.role == "user" and mark in turn.content[0]:
            turn.content = placed_content(turn.content[0], mark)
    return unsaid


def placed_content(value: str, mark: str) -> list:
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
