"""Fields by name, and records of any content: each is read, or refused as a record."""

import collections
import random

import pytest

from janus_jax.config.schema import Dataset
from janus_jax.data import fields, kinds, mapping
from janus_jax.data.sources import RecordError

NAMES = [
    "image",
    "images",
    "file_name",
    "conversations",
    "messages",
    "conversation",
    "texts",
    "text",
    "caption",
    "captions",
    "question",
    "answer",
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "name",
    "class",
    "query",
    "response",
    "kto_tag",
    "train",
    "id",
]
INNER = [
    "from",
    "value",
    "role",
    "content",
    "images",
    "loss",
    "train",
    "weight",
    "user",
    "assistant",
    "human",
    "gpt",
    "type",
    "text",
    "image",
    "image_url",
    "path",
    "url",
    "index",
    "bytes",
    "base64",
]
LEAVES = (
    *("", " ", "a", "<image>", "<image>\nq", "<image_placeholder>x", "a.png", "user", "gpt", "system"),
    *("text", "image", "[1]", '["a"]', '{"a": 1}', "[", "['x'", "\ud800", "\0"),
    *("data:image/png;base64,xx", 0, 1, -1, 2.5, True, False, None, [], {}, [None], b"x"),
    *(10**30, float("nan")),
)  # fmt: skip
LINES = (
    Dataset("understanding", "x"),
    Dataset("generation", "x", prompt=("{id} {caption}",)),
    Dataset("text", "x"),
    Dataset("understanding", "x", picture="image.0", question="question.text", answer="answer"),
    Dataset("generation", "x", caption="captions.text", picture="images"),
    Dataset("understanding", "x", caption="conversations"),
    Dataset("text", "x", answer="output", question="input"),
)


def value(rng, deep: int):
    chance = rng.random()
    if not deep or chance < 0.45:
        return rng.choice(LEAVES)
    if chance < 0.7:
        return [value(rng, deep - 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(INNER): value(rng, deep - 1) for _ in range(rng.randint(0, 4))}


def record(rng) -> dict:
    out = {rng.choice(NAMES): value(rng, 3) for _ in range(rng.randint(1, 5))}
    if rng.random() < 0.6:
        roles = [rng.choice(("user", "human", "gpt", "assistant", value(rng, 1))) for _ in range(2)]
        turns = [{rng.choice(("from", "role")): role, "content": value(rng, 2)} for role in roles]
        out["messages"] = [turn | {rng.choice(INNER): value(rng, 1)} for turn in turns]
    if rng.random() < 0.6:
        out["image"] = rng.choice(("a.png", ["a.png"], ["a.png", "b.png"]))
    return out


def test_whatever_a_record_holds_it_is_read_or_refused_as_a_record():
    rng = random.Random(7)
    causes = collections.Counter()
    for number in range(3000):
        d = rng.choice(LINES)
        try:
            raw = mapping.mapped(record(rng), d)
            made = kinds.record(raw, d, number)
        except RecordError as error:
            assert len(str(error)) < 1500
            causes[error.cause] += 1
            continue
        causes["read"] += 1
        shown = sum(turn.count_pictures for turn in made.get("messages", ()))
        if "messages" in made:
            assert shown == (len(fields.pictures(raw)) if d.kind == "understanding" else 0)
        assert all(text.strip() for text in made.get("captions", ()))
    assert causes["read"] > 25 and len(causes) > 10, causes


@pytest.mark.parametrize(
    "name, found",
    [
        ("a", 1),
        ("b.c", 2),
        ("b.c.d", 3),  # a name with dots comes first
        ("e.1.f", "y"),
        ("e.f", ["x", "y"]),
        ("g.h", 5),  # JSON text
        ("b.x", None),
        ("e.7.f", None),
        ("a.b", None),
    ],
)
def test_a_dotted_name_is_within_another(name, found):
    raw = {"a": 1, "b": {"c": 2}, "b.c.d": 3, "e": [{"f": "x"}, {"f": "y"}], "g": '{"h": 5}'}
    assert mapping.has(raw, name) == (found is not None)
    if found is not None:
        assert mapping.lookup(raw, name, "caption") == found
        return
    with pytest.raises(
        RecordError, match=r"named as caption \(fields: a, b\.c, b\.c\.d, e\[\]\.f, g\)"
    ):
        mapping.lookup(raw, name, "caption")
