"""What is said of each field of a record that is wrong."""

import base64
import io
import json

import pytest
from PIL import Image
from support.formats import refused
from support.sets import said

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.sources import SourceError

PNG = io.BytesIO()
Image.new("RGB", (3, 4), (9, 8, 7)).save(PNG, "PNG")
PNG = PNG.getvalue()


def test_templates_take_any_field_and_nothing_else(source):
    record = {"image": "a/1.png", "caption": ["a {style} dog", "b"], "style": "flat", "year": 1999}
    made = source("generation", [record], prompt=("{caption}, {style}", "from {year}"))
    assert made[0]["captions"] == ["a {style} dog, flat", "from 1999", "b, flat", "from 1999"]
    assert source("generation", [record], prompt=("{style}",), caption="no")[0]["captions"] == [
        "flat"
    ]
    error = refused(lambda: source("generation", [record], prompt=("{caption} {artist}",))[0])
    assert error.cause == "missing field" and 'data.json: record 0: no field "artist"' in str(error)
    for wrong in ("x", "{caption} {a-b}", "{caption"):
        error = refused(lambda t=wrong: source("generation", [record], prompt=(t,)), SourceError)
        assert f"prompt is {wrong!r}: a template of generation names fields in braces" in str(error)


def turns(*pairs):
    return {
        "image": "a/1.png",
        "conversations": [{"from": role, "value": value} for role, value in pairs],
    }


BAD = [
    (
        "unknown role",
        turns(("human", "<image>"), ("robot", "hi")),
        "[1].from\" is 'robot'; known are human",
    ),
    (
        "turn out of order",
        turns(("human", "<image>"), ("gpt", "a"), ("gpt", "b")),
        "two assistant turns in a row",
    ),
    (
        "turn out of order",
        turns(("human", "<image>"), ("human", "b"), ("gpt", "b")),
        "two user turns in a row",
    ),
    (
        "turn out of order",
        turns(("gpt", "a"), ("human", "b"), ("gpt", "b")),
        "assistant turn out of order",
    ),
    (
        "turn out of order",
        turns(("human", "a"), ("gpt", "b"), ("system", "c")),
        "system turn out of order",
    ),
    ("no answer", turns(("human", "<image>\nwhat?")), "ends without an answer"),
    ("no answer", turns(), "ends without an answer"),
    ("no answer", {"image": "a/1.png", "question": "Who?"}, "ends without an answer"),
    (
        "placeholders",
        turns(("human", "<image><image>"), ("gpt", "a")),
        "2 <image> placeholders for 1 images",
    ),
    (
        "placeholders",
        said("<image>", "a", image=["a/1.png", "a/2.png"]),
        "1 <image> placeholders for 2 images; write one for each, or none",
    ),
    (
        "placeholders",
        {"text": "<image>", "image": ["a/1.png", "a/2.png"]},
        "1 <image> placeholders for 2 images",
    ),
    ("placeholders", turns(("human", "a"), ("gpt", "<image>")), "an answer is nothing but <image>"),
    (
        "blank text",
        turns(("human", "<image>"), ("gpt", " \n\u200b\x07")),
        'value" is empty or blank',
    ),
    ("blank text", {"texts": [None], "images": ["a/1.png"]}, "a document without words"),
    (
        "wrong type",
        turns(("human", "<image>"), ("gpt", 7)),
        "[1].value\" is '7' (int), needs a string",
    ),
    (
        "wrong type",
        {"texts": ["a"], "images": ["a/1.png"]},
        '"texts[0]" and "images[0]": one of them must be null',
    ),
    (
        "wrong type",
        {"texts": ["a", None], "images": ["a/1.png"]},
        "2 texts for 1 images; needs lists of one length",
    ),
    ("wrong type", {"image": 7, "caption": "x"}, "\"image\" is '7' (int), needs a path"),
    (
        "missing field",
        {"image": "a/1.png", "conversations": [{"from": "human"}]},
        'needs "from" and "value"',
    ),
    ("missing field", {"image": "a/1.png", "conversations": "hi"}, 'needs "from" and "value"'),
    ("blank caption", {"image": "a/1.png", "caption": ""}, '"caption" is empty or blank'),
    ("blank caption", {"image": "a/1.png", "caption": [None, " "]}, '"caption" is empty or blank'),
    (
        "missing field",
        {"image": "a/1.png", "caption": None},
        "no caption in captions, caption, text",
    ),
    ("lone surrogate", {"image": "a/1.png", "caption": "é\ud800"}, "at character 1 (byte 2)"),
    ("missing field", {"image": "a/1.png", "id": 3}, "(fields: image, id); name it as caption"),
    ("blank text", {"image": " ", "caption": "x"}, '"image" is empty'),
    ("not an object", ["a/1.png"], "is a list, needs an object"),
    (
        "web address",
        {"image": "http://x.org/a.png", "caption": "x"},
        "is a URL: 'http://x.org/a.png'; download",
    ),
    ("web address", {"image": "s3://x/a.png", "caption": "x"}, "is a URL"),
    ("no path", {"image": base64.b64encode(PNG).decode(), "caption": "x"}, "base64 needs"),
    ("no path", {"image": "x" * 10**6, "caption": "x"}, f"1,000,000 characters, '{'x' * 40}'..."),
]


@pytest.mark.parametrize("form", ["list", "lines"])
def test_each_bad_record_says_what_is_wrong_with_it_when_it_is_read(source, form):
    records = [{"image": "a/1.png", "caption": "good"}, *(record for _, record, _ in BAD)]
    if form == "lines":
        lines = "\n\n".join(map(json.dumps, records)) + '\n{"broken\n{"text": "caf'
        made = source("understanding", lines.encode() + b'\xe9"}', "bad.jsonl")
        assert made[0]["messages"] and len(made) == len(records) + 2
        broken = [refused(lambda i=i: made[len(records) + i]) for i in (0, 1)]
        assert [error.cause for error in broken] == ["not JSON", "not UTF-8"]
        line = 2 * len(records)
        assert f"bad.jsonl:{line}: is not JSON" in str(broken[0]) and "b'{\"broken'" in str(
            broken[0]
        )
        offset = len(lines.encode())
        assert (
            f"bad.jsonl:{line + 1}: byte 0xe9 at offset {offset} of the file is not UTF-8"
            in str(broken[1])
        )
    else:
        made = source("understanding", records)
    for i, (cause, _, why) in enumerate(BAD, 1):
        error = refused(lambda i=i: made[i])
        where = f"bad.jsonl:{2 * i + 1}: " if form == "lines" else f"data.json: record {i}: "
        assert len(str(error)) < 400
        assert error.cause == cause and why in str(error) and str(error).startswith(where), (
            str(error),
            why,
        )


def test_of_alternatives_the_blank_ones_are_left_out(source):
    for values in (["a dog", " ", "a hound"], ["", "a dog", None, "a hound"]):
        record = {"image": "a/1.png", "caption": values}
        made = source("generation", [record], prompt=("{caption}!",))
        assert made[0] == {"captions": ["a dog!", "a hound!"]}
        assert made.understood(0)[0] == [
            'caption from "caption"',
            'blank alternatives left out of "caption"',
        ]
    error = refused(lambda: source("generation", [{"image": "a/1.png", "caption": ["a", 7]}])[0])
    assert error.cause == "wrong type"


def test_a_caption_that_is_data_is_unpacked_or_refused(source):
    draws = lambda value, **line: source(
        "generation", [{"image": "a/1.png", "captions": value}], **line
    )[0]
    for value in ('["a dog", "a hound"]', "['a dog', \"a hound\"]", ' [ "a dog", "", "a hound" ] '):
        assert draws(value) == {"captions": ["a dog", "a hound"]}
    for value in (
        '{"en": "a dog"}',
        '[{"raw": "a dog"}]',
        '[["a dog"]]',
        "[1, 2]",
        "{'en': 'a dog'}",
    ):
        error = refused(lambda value=value: draws(value))
        assert error.cause == "data, no caption" and "holds data and no words" in str(error), value
        within = "name the field within it as caption (captions." in str(error)
        assert within == any(name in value for name in ("en", "raw"))
    assert draws('{"en": {"long": "a dog"}}', caption="captions.en.long") == {"captions": ["a dog"]}
    assert draws('[{"raw": "a dog"}, {"raw": "a hound"}]', caption="captions.raw")["captions"] == [
        "a dog",
        "a hound",
    ]
    # Python cannot build "{{}}": no dict is a key.
    for words in ("[a dog] on {grass}", "{", "{{}}", "[sic]", '"a dog"', "12"):
        assert draws(words) == {"captions": [words]}
    # An answer may be data: models learn to say it.
    said = {"image": "a/1.png", "truth": '{"total": 3}'}
    made = source("understanding", [said], answer="truth", prompt=("Read it.",))
    assert made[0]["messages"][1].content == ['{"total": 3}']


def test_how_records_are_understood_and_which_fields_nothing_reads_is_known(source):
    records = [
        {"id": 1, "image": "a/1.png", "text": "a cat", "meta": {"url": "x", "dense": "a grey cat"}},
        said("What?", "A cat.") | {"width": 4},
        {"image": "a/1.png", "texts": [{"user": "What?", "assistant": "A cat.", "source": "x"}]},
    ]
    records[1]["conversations"][0]["lang"] = "en"
    made = source("understanding", records)
    told = [(made[i], made.understood(i))[1] for i in range(3)]
    assert told[0] == (
        ["asked 'Describe the picture.'", 'caption from "text"'],
        ["id", "meta.url", "meta.dense"],
    )
    assert told[1] == (
        [
            'a conversation in "conversations"',
            "pictures before the first question, which has no <image>",
        ],
        ["id", "conversations[].lang", "width"],
    )
    assert told[2][1] == ["texts[].source"]
    made = source("generation", records[:1], caption="meta.dense", prompt=("{caption} {id}",))
    assert made[0]["captions"] == ["a grey cat 1"]
    assert made.understood(0) == ([], ["text", "meta.url"])


def test_a_caption_that_is_the_name_of_a_folder_is_told(root):
    made = open_dataset(Dataset("generation", str(root)), 24, 0)
    assert made[0] == {"captions": ["a"]}
    assert made.understood(0) == (['caption from "name", the name of its class'], [])


@pytest.mark.parametrize(
    "value",
    [
        "['a dog' 'a hound']",
        "['a dog'\n 'a hound']",
        "[\"a dog\"\n 'a hound']",
        "('a dog', 'a hound')",
    ],
)
def test_a_list_as_numpy_prints_it_is_its_strings_and_not_one_word_of_them(source, value):
    """pandas writes cells with lists so; Python joins strings with no comma between: "a doga hound"."""
    assert source("generation", [{"image": "a/1.png", "caption": value}])[0] == {
        "captions": ["a dog", "a hound"]
    }
    inner = """['it is "x" "y" here', 'a hound']"""
    made = source("generation", [{"image": "a/1.png", "caption": inner}], "inner.json")
    assert made[0]["captions"] == ['it is "x" "y" here', "a hound"]


def test_data_that_is_cut_or_printed_is_no_caption(source):
    """Excel cuts cells at 32,767 characters, and TensorFlow's texts are bytes."""
    for value in ('["a dog", "a ho', "{'raw': array(['a dog'], dtype=object)}", "b'a dog'"):
        error = refused(
            lambda value=value: source("generation", [{"image": "a/1.png", "caption": value}])[0]
        )
        assert error.cause == "data, no caption", value


def test_what_tables_write_for_nothing_is_a_blank_caption(source):
    for value in ("nan", "None", " <NA> ", ["nan", None]):
        record = {"image": "a/1.png", "caption": value}
        error = refused(lambda record=record: source("generation", [record])[0])
        assert error.cause == "blank caption" and str(value) in str(error), value
    made = source("generation", [{"image": "a/1.png", "caption": ["nan", "a dog"]}])
    assert made[0]["captions"] == ["a dog"]
    for label in ({"name": "None"}, {"label": "None", "name": "None"}):  # a class may be called so
        made = source("generation", [{"image": "a/1.png"} | label], caption=next(iter(label)))
        assert made[0]["captions"] == ["None"]


def test_pictures_that_stand_beside_others_are_told_as_unread(source):
    record = {"image": "a/1.png", "images": ["a/2.png"], "question": "What?", "answer": "A cat."}
    for line in ({}, {"question": "question"}):
        made = source("understanding", [record], **line)
        assert made[0]["messages"] and made.understood(0)[1] == ["images"]
