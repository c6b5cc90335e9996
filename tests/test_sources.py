"""Users' records: what each accepted form becomes for each kind, and what is said of each bad record."""

import base64
import io
import json
import pickle
import types

import numpy as np
import pytest
from PIL import Image

from janus_jax import batch as bt
from janus_jax.data import generation, text, understanding
from janus_jax.data.catalog import learn_tokenizer, open_dataset
from janus_jax.data.images import ImageError
from janus_jax.data.processor import Template
from janus_jax.data.sources import Dataset, RecordError, SourceError

IMAGE = {"type": "image"}
PNG = io.BytesIO()
Image.new("RGB", (3, 4), (9, 8, 7)).save(PNG, "PNG")
PNG = PNG.getvalue()


def said(*values, image="a/1.png"):
    """A LLaVA record whose turns alternate human, gpt."""
    turns = [{"from": ("human", "gpt")[k % 2], "value": value} for k, value in enumerate(values)]
    return {"id": "x", "conversations": turns} | ({"image": image} if image else {})


def text_part(text):
    return {"type": "text", "text": text}


def asked(content, answer):
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    for n in (1, 2):
        Image.new("RGB", (4 * n, 5), (n, 0, 0)).save(folder / "a" / f"{n}.png")
    return folder


@pytest.fixture
def source(tmp_path, root):
    """Records -> the Source over the file that holds them."""

    def make(kind, records, name="data.json", **options):
        path = tmp_path / name
        if isinstance(records, bytes):
            path.write_bytes(records)
        else:
            path.write_text(json.dumps(records))
        return open_dataset(Dataset(kind, str(path), images=str(root), **options), 24, 0)

    return make


def refused(make, error=RecordError):
    with pytest.raises(error) as caught:
        make()
    return caught.value


UNDERSTANDING = [
    (
        said("<image>\nWhat is it?", "A cat.", "Sure?", "Yes."),
        asked([IMAGE, text_part("What is it?")], "A cat.") + asked("Sure?", "Yes."),
    ),
    (said("Before <image> after", "ok"), asked([text_part("Before "), IMAGE, text_part("after")], "ok")),
    (said("No mark", "ok"), asked([IMAGE, text_part("No mark")], "ok")),
    (
        said("<image> or <image>?", "both", image=["a/1.png", "a/2.png"]),
        asked([IMAGE, text_part("or"), IMAGE, text_part("?")], "both"),
    ),
    (said("Same?", "no", image=["a/1.png", "a/2.png"]), asked([IMAGE, IMAGE, text_part("Same?")], "no")),
    (
        said("A: <image>", "1", "B: <image>", "2", image=["a/1.png", "a/2.png"]),
        asked([text_part("A: "), IMAGE], "1") + asked([text_part("B: "), IMAGE], "2"),
    ),
    (
        {"image": "a/1.png", "messages": [{"role": "system", "content": "Be brief."}, *asked("Hm?", "Hm.")]},
        [{"role": "system", "content": "Be brief."}, *asked([IMAGE, text_part("Hm?")], "Hm.")],
    ),
    ({"image": "a/1.png", "question": "Who?", "answer": "me"}, asked([IMAGE, text_part("Who?")], "me")),
    (
        {"image": "a/1.png", "caption": "an <image> tag"},
        asked([IMAGE, text_part("Describe the picture.")], "an <image> tag"),
    ),
    ({"file_name": "a/1.png", "text": "a dog"}, asked([IMAGE, text_part("Describe the picture.")], "a dog")),
]


def test_understanding_forms(source):
    records = [record for record, _ in UNDERSTANDING]
    made = source(
        "understanding", [*records, said("only text", "ok", image=None), {"image": None, "text": "x"}]
    )
    assert [made[i]["messages"] for i in range(len(made))] == [messages for _, messages in UNDERSTANDING]
    assert [made.image(3, k).size for k in (0, 1)] == [(4, 5), (8, 5)]
    assert np.asarray(made.image(3, 1)).tolist()[0][0] == [2, 0, 0]
    assert [len(s) for s in (made, pickle.loads(pickle.dumps(made)))] == [10, 10]


def test_a_caption_is_asked_for_in_alternating_words(source):
    records = [{"image": "a/1.png", "caption": "same", "dense": f"long {k}"} for k in range(4)]
    made = source("understanding", records, prompt=("What?", "Describe."), caption="dense")
    content = [made[i]["messages"][0]["content"][1]["text"] for i in range(4)]
    assert content == ["What?", "Describe."] * 2 and made[3]["messages"][1]["content"] == "long 3"


def test_documents(source):
    two = ["a/1.png", "a/2.png"]
    records = [
        {"texts": ["One", None, "two", None], "images": [None, "a/1.png", None, "a/2.png"]},
        {"text": "See <image> and <image> there", "image": two},
        {"text": "below", "image": two},
        {"text": "<image>one", "image": ["a/2.png"]},
    ]
    documents = [
        ["One", None, "two", None],
        ["See ", None, " and ", None, " there"],
        [None, None, "below"],
        [None, "one"],
    ]
    made = source("understanding", records)
    assert [made[i] for i in range(4)] == [{"document": document} for document in documents]
    assert made.image(0, 1).size == made.image(1, 1).size == made.image(3).size == (8, 5)
    assert made.portable(0)["image"][0] is None and made.portable(0)["image"][1].startswith(b"\x89PNG")
    assert source("text", records[:1])[0] == {"text": "One\n\ntwo"}


def test_generation_forms(source):
    records = [
        said("<image>\nWhat?", "A cat.", "Sure?", "Yes."),
        {"image": "a/2.png", "caption": ["a dog", "a good dog"]},
        said("Draw", "Answer", image="a/2.png") | {"caption": "the caption wins"},
        {"text": "no picture"},
        {"image": "a/1.png", "captions": ["one", "two"], "caption": "three"},
    ]
    made = source("generation", records)
    captions = [["A cat."], ["a dog", "a good dog"], ["the caption wins"], ["one", "two"]]
    assert [made[i]["captions"] for i in range(len(made))] == captions
    assert made.image(2).size == (8, 5) and made.where(3) == "data.json: record 4"


def test_templates_take_any_field_and_nothing_else(source):
    record = {"image": "a/1.png", "caption": ["a {style} dog", "b"], "style": "flat", "year": 1999}
    made = source("generation", [record], prompt=("{caption}, {style}", "from {year}"))
    assert made[0]["captions"] == ["a {style} dog, flat", "from 1999", "b, flat", "from 1999"]
    assert source("generation", [record], prompt=("{style}",), caption="no")[0]["captions"] == ["flat"]
    error = refused(lambda: source("generation", [record], prompt=("{caption} {artist}",))[0])
    assert error.cause == "missing field" and 'data.json: record 0: no field "artist"' in str(error)
    for wrong in ("x", "{caption} {a-b}", "{caption"):
        error = refused(lambda t=wrong: source("generation", [record], prompt=(t,)), SourceError)
        assert f"prompt is {wrong!r}: a template of generation names fields in braces" in str(error)


def test_text_forms(source):
    pictures = [{"image": "x.png", "caption": "a dog"}, said("<image>Who?", "A cat.", "And?", "A hat.")]
    made = source("text", [*pictures, {"text": "plain"}, said("Hi", "Ho", image=None)])
    assert [made[i] for i in range(len(made))] == [{"text": "plain"}, {"messages": asked("Hi", "Ho")}]
    fallback = source("text", pictures)
    assert [fallback[i] for i in range(len(fallback))] == [{"text": "a dog"}, {"text": "A cat.\nA hat."}]
    assert source("text", [{"text": "t", "body": "b"}], caption="body")[0] == {"text": "b"}
    for empty in ("", None, [], [""]):
        assert (
            source("text", [said("Hi", "Ho", image=None) | {"image": empty}])[0]["messages"][0]["content"]
            == "Hi"
        )
    # Arrow gives each row the fields of all.
    nulls = {"texts": None, "messages": None, "conversations": None, "captions": None, "image": None}
    assert source("text", [nulls | {"text": "t", "question": None}])[0] == {"text": "t"}
    assert (
        source("understanding", [nulls | {"image": "a/1.png", "caption": "c"}])[0]["messages"][1]["content"]
        == "c"
    )


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_json_lines_with_bom_crlf_and_nul_by_content(source, name):
    lines = ['{"text": "one\\u2028line \U0001f427"}', "", '{"text": "nul\0 inside"}', "\0\0\0"]
    made = source("text", "\ufeff".encode() + "\r\n".join(lines).encode(), name)
    assert [made[i]["text"] for i in range(len(made))] == ["one\u2028line \U0001f427", "nul inside"]
    assert [made.where(i) for i in range(2)] == [f"{name}:1", f"{name}:3"]
    raw = source(
        "text", '{"text": "a\u2028b\x85c"}'.encode(), "raw.jsonl"
    )  # line breaks to str.splitlines only
    assert raw[0]["text"] == "a\u2028b\x85c"


def test_a_list_larger_than_what_is_decoded_at_a_time(source):
    """Records that straddle the edges of the windows, one longer than a window, characters of one to four bytes."""
    texts = [f'{i} é \U0001f427 \\ " ],' * (1 + 997 * (i % 7) + 200_000 * (i == 11)) for i in range(200)]
    listed = json.dumps([{"text": text} for text in texts], ensure_ascii=False, indent=1).encode()
    made = source("text", listed)
    assert len(made) == 200 and all(made[i]["text"] == texts[i] for i in (0, 7, 11, 12, 150, 199))
    for end in (len(listed) - 2, listed.rindex(b"}") + 1, len(listed) // 2):
        error = refused(lambda end=end: source("text", listed[:end]), SourceError)
        assert "is not JSON: record" in str(error) and "mend or cut the list" in str(error)
    assert "goes on after the list" in str(refused(lambda: source("text", listed + b"[{}]"), SourceError))


def turns(*pairs):
    return {"image": "a/1.png", "conversations": [{"from": role, "value": value} for role, value in pairs]}


BAD = [
    ("unknown role", turns(("human", "<image>"), ("robot", "hi")), "[1].from\" is 'robot'; known are human"),
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
    ("turn out of order", turns(("gpt", "a"), ("human", "b"), ("gpt", "b")), "assistant turn out of order"),
    ("turn out of order", turns(("human", "a"), ("gpt", "b"), ("system", "c")), "system turn out of order"),
    ("no answer", turns(("human", "<image>\nwhat?")), "ends without an answer"),
    ("no answer", turns(), "ends without an answer"),
    ("no answer", {"image": "a/1.png", "question": "Who?"}, "ends without an answer"),
    ("placeholders", turns(("human", "<image><image>"), ("gpt", "a")), "2 <image> placeholders for 1 images"),
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
    ("placeholders", turns(("human", "a"), ("gpt", "<image>")), "<image> in role assistant"),
    ("blank text", turns(("human", "<image>"), ("gpt", " \n\u200b\x07")), 'value" is empty or blank'),
    ("blank text", {"texts": [None], "images": ["a/1.png"]}, "a document without words"),
    ("wrong type", turns(("human", "<image>"), ("gpt", 7)), "[1].value\" is '7' (int), needs a string"),
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
    ("missing field", {"image": "a/1.png", "conversations": [{"from": "human"}]}, 'needs "from" and "value"'),
    ("missing field", {"image": "a/1.png", "conversations": "hi"}, 'needs "from" and "value"'),
    ("blank caption", {"image": "a/1.png", "caption": ""}, '"caption" is empty or blank'),
    ("blank caption", {"image": "a/1.png", "caption": ["ok", " "]}, '"caption" is empty or blank'),
    ("missing field", {"image": "a/1.png", "caption": None}, "no caption in captions, caption, text"),
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
        assert f"bad.jsonl:{line}: is not JSON" in str(broken[0]) and "b'{\"broken'" in str(broken[0])
        offset = len(lines.encode())
        assert f"bad.jsonl:{line + 1}: byte 0xe9 at offset {offset} of the file is not UTF-8" in str(
            broken[1]
        )
    else:
        made = source("understanding", records)
    for i, (cause, _, why) in enumerate(BAD, 1):
        error = refused(lambda i=i: made[i])
        where = f"bad.jsonl:{2 * i + 1}: " if form == "lines" else f"data.json: record {i}: "
        assert len(str(error)) < 400
        assert error.cause == cause and why in str(error) and str(error).startswith(where), (str(error), why)


def test_pictures_outside_the_folder_are_refused(source, root, tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "a" / "inner.png").symlink_to(root / "a" / "1.png")
    names = [
        "../secret.png",
        "a/../../secret.png",
        str(tmp_path / "secret.png"),
        "a/link.png",
        "a\\..\\x.png",
    ]
    made = source("generation", [{"image": name, "caption": "x"} for name in [*names, "a/inner.png"]])
    for i, name in enumerate(names):
        error = refused(lambda i=i: made.image(i))
        assert error.cause == "outside the folder"
        assert f'data.json: record {i}: field "image" leaves the folder of the pictures: {name!r}' in str(
            error
        )
    assert made.image(5).size == (4, 5)


def test_pictures_inside_the_record(source):
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    records = [
        {"image": i, "caption": "x"} for i in (data, data[:-3] + "%", data[: len(data) // 2 // 4 * 4 + 2])
    ]
    made = source("generation", records)
    assert made.image(0).size == (3, 4) and made.portable(0) == {"image": PNG, "caption": "x"}
    for i in (1, 2):
        error = refused(lambda i=i: made.image(i), (RecordError, ImageError))
        assert f"data.json: record {i}" in str(error)
    assert refused(lambda: made.image(1)).cause == "bad base64"
    assert refused(lambda: made.image(0, 1)).cause == "no picture"


def test_rotten_pictures_name_their_file(source, root):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    photo.save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:2000])
    (root / "zero.png").write_bytes(b"")
    (root / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    names = ["cut.jpg", "zero.png", "page.jpg", "a", "gone.png"]
    made = source("generation", [{"image": name, "caption": "x"} for name in names])
    for i, (name, why) in enumerate(
        zip(names, ["truncated", "is empty", "HTML", "is a directory", "no such file"])
    ):
        assert made[i] == {"captions": ["x"]}
        error = str(refused(lambda i=i: made.image(i), ImageError))
        assert name in error and why in error
    assert refused(lambda: made.portable(4)).cause == "missing file"


@pytest.mark.parametrize("content", [b"", b" \n\r\n", b"[]", b"\0\0", b"\xef\xbb\xbf"])
def test_empty_files_are_refused(source, content):
    assert "data.json: is empty" in str(refused(lambda: source("text", content), SourceError))


def test_files_that_are_no_json_are_refused(source, tmp_path):
    for content, why in (
        (b"<html>\n<body>", "begins with b'<html>"), (b'{"images":\n[\n]\n}\n', "neither a JSON list"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"), (b"\x1f\x8b\x08x", "gunzip"),
        ('{"text": "x"}'.encode("utf-16"), "UTF-16"), (b'[{"text": "a"} x]', "is not JSON: record 1, at byte 15"),
    ):  # fmt: skip
        assert why in str(refused(lambda content=content: source("text", content), SourceError))
    error = refused(lambda: source("generation", [{"text": "a"}]), SourceError)
    assert 'no record has the field "image"; as text, use kind text' in str(error)
    line = Dataset("text", str(tmp_path / "data.json"), images=str(tmp_path / "no"))
    assert "images: no folder" in str(refused(lambda: open_dataset(line, 24, 0), SourceError))


def test_a_tokenizer_learns_from_every_good_record(source):
    lines = b'{"text": "zebra zebra zebra"}\n{"broken\n{"text": "' + b"quagga " * 9 + b'"}'
    made = source("text", lines, "words.jsonl")
    document = source("understanding", [{"texts": [None, "okapi " * 9], "images": ["a/1.png", None]}])
    tokenizer = learn_tokenizer({"a": made, "b": document}, Template(), 400)
    for word in (" zebra", "quagga ", "okapi "):
        assert len(tokenizer.encode(word)[0]) < len(word) / 2


def test_what_a_kind_leaves_out_is_said(source, caplog):
    source("generation", [{"image": "a/1.png", "caption": "x"}, {"text": "y"}])
    said = [r for r in caplog.records if r.levelname == "WARNING"]
    assert any("1 of 2 records are not of kind generation" in r.getMessage() for r in said)


def test_a_document_is_read_once_for_all_its_pictures(source, monkeypatch):
    two = {"texts": ["One", None, None], "images": [None, "a/1.png", "a/2.png"]}
    made = source("understanding", [two, two])
    reads = []
    read = type(made.reader).__getitem__
    monkeypatch.setattr(type(made.reader), "__getitem__", lambda self, i: reads.append(i) or read(self, i))
    for i in (0, 1, 0):
        assert made[i]["document"] == ["One", None, None]
        assert [made.image(i, k).size for k in (0, 1)] == [(4, 5), (8, 5)]
    assert reads == [0, 1, 0]


def test_home_is_expanded(source, root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data.json").write_text(json.dumps([{"image": str(root / "a/1.png"), "caption": "x"}]))
    made = open_dataset(Dataset("generation", "~/data.json", images="~/pictures"), 24, 0)
    assert made.image(0).size == (4, 5)  # a whole path that stays in the folder


def test_long_texts_are_cut_before_they_are_encoded():
    seen = []
    tokenizer = types.SimpleNamespace(
        bos=0, eos=1, encode=lambda s: (seen.append(len(s)) or [5] * (len(s) // 4), [])
    )
    processor = types.SimpleNamespace(tokenizer=tokenizer, context=100, generation_tokens=4)
    tokenizer.placeholder = tokenizer.end_of_image = 2
    processor.drawing = lambda caption: [(tokenizer.encode(caption)[0], bt.TEXT, 0)]
    long, short = (text.encode({"text": "x" * n}, processor, "all", 100) for n in (10**6, 40))
    assert seen == [1600, 40] and long["tokens"].tolist() == [0] + [5] * 99 and short["tokens"][-1] == 1
    assert (long["example"] >= bt.TRUNCATED).all() and (short["example"] < bt.TRUNCATED).all()
    cut = understanding.encode({"document": ["x" * 10**6, None]}, processor, "all", 100, 1)
    assert seen[-1] == 1600 and len(cut["tokens"]) == 100 and (cut["example"] >= bt.TRUNCATED).all()
    drawn = generation.encode({"captions": ["x" * 10**6]}, processor, np.random.default_rng(0), 0.0, 0.0)
    assert seen[-1] == 1600 and (drawn["example"] >= bt.TRUNCATED).all()
