"""LLaVA files to records: what each accepted form becomes, and bad files refused with all their faults."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from janus_jax.data.llava import LlavaGeneration, LlavaText, LlavaUnderstanding
from janus_jax.data.sources import SourceError

IMAGE = {"type": "image"}


def said(*values, image="a/1.png"):
    """A LLaVA record whose turns alternate human, gpt."""
    turns = [{"from": ("human", "gpt")[k % 2], "value": value} for k, value in enumerate(values)]
    return {"id": "x", "conversations": turns} | ({"image": image} if image else {})


def text_part(text):
    return {"type": "text", "text": text}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    for n in (1, 2):
        Image.new("RGB", (4 * n, 5), (n, 0, 0)).save(folder / "a" / f"{n}.png")
    return folder


@pytest.fixture
def write(tmp_path):
    def write(records, name="data.json"):
        path = tmp_path / name
        path.write_text(records if isinstance(records, str) else json.dumps(records), encoding="utf-8")
        return path

    return write


def refusal(make, *arguments):
    with pytest.raises(SourceError) as error:
        make(*arguments)
    return str(error.value)


def test_understanding_forms(write, root):
    records = [
        said("<image>\nWhat is it?", "A cat.", "Sure?", "Yes."),
        said("Before <image> after", "ok", image="a/2.png"),
        said("No mark", "ok"),
        {"image": "a/1.png", "caption": "a <image> of a cat"},
        {"image": "a/2.png", "text": "a dog"},
        said("only text", "ok", image=None),
    ]
    records[2]["conversations"].insert(0, {"from": "system", "value": "Be brief."})
    source = LlavaUnderstanding(write(records), root)
    turns = [[(m["role"], m["content"]) for m in source[i]["messages"]] for i in range(len(source))]
    assert turns == [
        [
            ("user", [IMAGE, text_part("What is it?")]),
            ("assistant", "A cat."),
            ("user", "Sure?"),
            ("assistant", "Yes."),
        ],
        [("user", [text_part("Before "), IMAGE, text_part("after")]), ("assistant", "ok")],
        [("system", "Be brief."), ("user", [IMAGE, text_part("No mark")]), ("assistant", "ok")],
        [("user", [IMAGE, text_part("Describe the picture.")]), ("assistant", "a <image> of a cat")],
        [("user", [IMAGE, text_part("Describe the picture.")]), ("assistant", "a dog")],
    ]
    assert [source.image(i).size for i in range(5)] == [(4, 5), (8, 5), (4, 5), (4, 5), (8, 5)]
    assert np.asarray(source.image(1)).tolist()[0][0] == [2, 0, 0]


def test_generation_forms(write, root):
    records = [
        said("<image>\nWhat?", "A cat.", "Sure?", "Yes."),
        {"image": "a/2.png", "caption": ["a dog", "a good dog"]},
        said("Draw", "Answer", image="a/2.png") | {"caption": "the caption wins"},
        {"text": "no picture"},
    ]
    source = LlavaGeneration(write(records), root)
    assert [source[i]["captions"] for i in range(len(source))] == [
        ["A cat."],
        ["a dog", "a good dog"],
        ["the caption wins"],
    ]
    assert source.image(2).size == (8, 5)


def test_text_forms(write):
    pictures = [{"image": "x.png", "caption": "a dog"}, said("<image>Who?", "A cat.", "And?", "A hat.")]
    source = LlavaText(write([*pictures, {"text": "plain"}, said("Hi", "Ho", image=None)]))
    assert [source[i] for i in range(len(source))] == [
        {"text": "plain"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
    ]
    fallback = LlavaText(write(pictures))
    assert [fallback[i] for i in range(len(fallback))] == [{"text": "a dog"}, {"text": "A cat.\nA hat."}]


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_json_lines_with_bom_crlf_and_nul_by_content(tmp_path, name):
    path = tmp_path / name
    lines = ['{"text": "one\\u2028line \U0001f427"}', "", '{"text": "nul\0 inside"}', "\0\0\0"]
    path.write_bytes("﻿".encode() + "\r\n".join(lines).encode())
    source = LlavaText(path)
    assert [source[i]["text"] for i in range(len(source))] == ["one\u2028line \U0001f427", "nul inside"]
    raw = tmp_path / "raw.jsonl"
    raw.write_text(
        '{"text": "a\u2028b\x85c"}', encoding="utf-8"
    )  # line breaks to str.splitlines, not to JSON
    assert LlavaText(raw)[0]["text"] == "a\u2028b\x85c"


def test_sources_pickle_and_repr_is_stable(write, root):
    path = write([said("<image>", "ok"), {"text": "plain"}])
    sources = [LlavaUnderstanding(path, root), LlavaGeneration(path, root), LlavaText(path)]
    for source in sources:
        copy = pickle.loads(pickle.dumps(source))
        assert repr(copy) == repr(source) and [copy[i] for i in range(len(copy))] == [source[0]]
    assert repr(sources[0]) == f"LlavaUnderstanding({str(path)!r}, {str(root)!r}, records=1)"
    assert repr(sources[2]) == f"LlavaText({str(path)!r}, records=1)"


def test_missing_files_are_counted_and_the_first_twenty_listed(write, root):
    records = [said("<image>", "ok", image=f"gone/{i}.png") for i in range(25)] + [said("<image>", "ok")]
    message = refusal(LlavaUnderstanding, path := write(records), root)
    assert f"{path}: 26 records read" in message and "25 missing image files; check image_root" in message
    assert "record 0: gone/0.png" in message and "record 19: gone/19.png" in message
    assert "gone/20.png" not in message and message.endswith("... and 5 more")


def test_pictures_outside_the_root_are_refused(write, root, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    (root / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "a" / "inner.png").symlink_to(root / "a" / "1.png")
    names = [
        "../secret.png",
        "a/../../secret.png",
        str(tmp_path / "secret.png"),
        "a/link.png",
        "a\\..\\x.png",
    ]
    message = refusal(LlavaGeneration, write([said("<image>", "ok", image=name) for name in names]), root)
    assert "5 bad records" in message
    for i, name in enumerate(names):
        assert f'record {i}: field "image" leaves the image root: {name!r}' in message
    assert len(LlavaGeneration(write([said("<image>", "ok", image="a/inner.png")]), root)) == 1


def test_urls_and_directories_are_refused(write, root):
    names = ["http://x.org/a.png", "https://x.org/a.png", "data:image/png;base64,xx", "a"]
    message = refusal(LlavaUnderstanding, write([said("<image>", "ok", image=name) for name in names]), root)
    for i, name in enumerate(names[:3]):
        assert f'record {i}: field "image" is a URL: {name!r}; download it' in message
    assert "record 3: field \"image\" is a directory, or not readable: 'a'" in message
    assert "give the folder of the pictures" in refusal(LlavaUnderstanding, write([]), root / "no")


def turns(*pairs):
    return {"image": "a/1.png", "conversations": [{"from": role, "value": value} for role, value in pairs]}


BAD = [
    (turns(("human", "<image>"), ("robot", "hi")), """"conversations[1].from" is 'robot'; known are human"""),
    (turns(("human", "<image>"), ("gpt", "a"), ("gpt", "b")), "two assistant turns in a row"),
    (turns(("human", "<image>"), ("human", "b"), ("gpt", "b")), "two user turns in a row"),
    (turns(("gpt", "a"), ("human", "b"), ("gpt", "b")), "assistant turn out of order"),
    (turns(("human", "a"), ("gpt", "b"), ("system", "c")), "system turn out of order"),
    (turns(("human", "<image>\nwhat?")), "ends without an answer"),
    (turns(), "ends without an answer"),
    (turns(("human", "<image><image>"), ("gpt", "a")), "2 <image> placeholders for 1 images"),
    (turns(("human", "a"), ("gpt", "<image>")), "<image> in role assistant"),
    (said("<image>", "a", image=None), "1 <image> placeholders for 0 images"),
    (turns(("human", "<image>"), ("gpt", " \n\u200b\x07")), '"conversations[1].value" is empty or blank'),
    (turns(("human", "<image>"), ("gpt", 7)), '"conversations[1].value" is a int, needs a string'),
    (
        {"image": "a/1.png", "conversations": [{"from": "human"}]},
        '"conversations[0]" needs "from" and "value"',
    ),
    ({"image": "a/1.png", "conversations": "hi"}, '"conversations[0]" needs "from" and "value"'),
    ({"image": "a/1.png", "caption": ""}, '"caption" is empty or blank'),
    ({"image": "a/1.png", "caption": ["ok", " "]}, '"caption" is empty or blank'),
    ({"image": "a/1.png", "caption": None}, '"caption" is a NoneType'),
    ({"image": "a/1.png", "caption": "x\ud800"}, '"caption" has a lone surrogate at 1'),
    ({"image": "a/1.png", "id": 3}, 'no "conversations", "caption" or "text" (fields: image, id)'),
    ({"img": "a/1.png"}, 'no "conversations", "caption" or "text" (fields: img)'),
    ({"image": ["a/1.png", "a/2.png"], "caption": "x"}, '"image" is a list of 2'),
    ({"image": "", "caption": "x"}, '"image" is empty'),
    (["a/1.png"], "is a list, needs an object"),
]


def test_every_bad_record_is_reported_at_once(write, root):
    for start in (0, len(BAD) - 12):
        records = [record for record, _ in BAD[start : start + 12]]
        lines = "\n".join(["", *(json.dumps(record) for record in records), '{"broken'])
        message = refusal(LlavaUnderstanding, path := write(lines, "bad.jsonl"), root)
        assert message.startswith(f"{path}: 12 records read\n13 bad records; mend or remove them:")
        for i, (_, why) in enumerate(BAD[start : start + 12]):
            assert any(
                f"record {i}, line {i + 2}: " in line and why in line for line in message.split("\n")
            ), why
        assert "record 12, line 14: is not JSON" in message and "'{\"broken'" in message


@pytest.mark.parametrize("content", ["", " \n\r\n", "[]", "\0\0"])
def test_empty_files_are_refused(write, root, content):
    path = write(content)
    for make in (lambda: LlavaText(path), lambda: LlavaUnderstanding(path, root)):
        assert refusal(make).startswith(f"{path}: is empty; needs a JSON list")


def test_unreadable_files_are_refused(write, root, tmp_path):
    assert "No such file" in (message := refusal(LlavaText, tmp_path / "no.json")) and "no.json" in message
    assert "Is a directory" in refusal(LlavaText, tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    assert "latin.jsonl: byte 0xe9 at offset 13 is not UTF-8" in refusal(LlavaText, tmp_path / "latin.jsonl")
    assert "is not JSON (Expecting" in refusal(LlavaText, write('[{"text": "a"},]'))
    no_image = refusal(LlavaGeneration, path := write([{"text": "a"}]), root)
    assert no_image == f'{path}: no record has the field "image"; for text use LlavaText'


def test_no_permission_is_refused(write, root, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # chmod does not stop root
    assert "or not readable: 'a/1.png'" in refusal(LlavaUnderstanding, write([said("<image>", "ok")]), root)
