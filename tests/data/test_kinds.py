"""What each accepted form of a record becomes for each kind of data set."""

import pickle

import numpy as np
import pytest
from support import quick
from support.sets import said

from janus_jax.config.schema import Rows
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.messages import PICTURE, SPECIALS, Turn, laid_out
from janus_jax.data.tools.view import as_text, pieces_of

IMAGE = PICTURE


def asked(content, answer):
    """Two turns; each picture of the question but one at its end is followed by a line break."""
    content = laid_out(content) if isinstance(content, list) else [content]
    return [Turn("user", content), Turn("assistant", [answer])]


UNDERSTANDING = [
    (
        said("<image>\nWhat is it?", "A cat.", "Sure?", "Yes."),
        asked([IMAGE, "What is it?"], "A cat.") + asked("Sure?", "Yes."),
    ),
    (
        said("Before <image> after", "ok"),
        [Turn("user", ["Before ", IMAGE, " after"]), Turn("assistant", ["ok"])],
    ),
    (said("No mark", "ok"), asked([IMAGE, "No mark"], "ok")),
    (
        said("<image> or <image>?", "both", image=["a/1.png", "a/2.png"]),
        [Turn("user", [IMAGE, "\n", "or ", IMAGE, "?"]), Turn("assistant", ["both"])],
    ),
    (
        said("Same?", "no", image=["a/1.png", "a/2.png"]),
        asked([IMAGE, IMAGE, "Same?"], "no"),
    ),
    (
        said("A: <image>", "1", "B: <image>", "2", image=["a/1.png", "a/2.png"]),
        asked(["A: ", IMAGE], "1") + asked(["B: ", IMAGE], "2"),
    ),
    (
        {
            "image": "a/1.png",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hm?"},
                {"role": "assistant", "content": "Hm."},
            ],
        },
        [Turn("system", ["Be brief."]), *asked([IMAGE, "Hm?"], "Hm.")],
    ),
    (
        {"image": "a/1.png", "question": "Who?", "answer": "me"},
        asked([IMAGE, "Who?"], "me"),
    ),
    (
        {"image": "a/1.png", "caption": "an <image> tag"},
        asked([IMAGE, "Describe the picture."], "an <image> tag"),
    ),
    (
        {"file_name": "a/1.png", "text": "a dog"},
        asked([IMAGE, "Describe the picture."], "a dog"),
    ),
]


def test_understanding_forms(source):
    records = [record for record, _ in UNDERSTANDING]
    made = source(
        "understanding",
        [*records, said("only text", "ok", image=None), {"image": None, "text": "x"}],
    )
    assert [made[i]["messages"] for i in range(len(made))] == [
        messages for _, messages in UNDERSTANDING
    ]
    assert [made.image(3, k).size for k in (0, 1)] == [(4, 5), (8, 5)]
    assert np.asarray(made.image(3, 1)).tolist()[0][0] == [2, 0, 0]
    assert [len(s) for s in (made, pickle.loads(pickle.dumps(made)))] == [10, 10]


@pytest.mark.parametrize(
    "value, chat",  # as a record has it, and as one asks in the original code's form
    [
        ("Compare <image> and <image>, please.", "Compare <> and <>, please."),
        ("<image>\nSame as <image>?", "<>\nSame as <>?"),
        ("<image>Same as <image>?", "<>\nSame as <>?"),
        ("<image> Same as <image>?", "<>\nSame as <>?"),
        ("<image><image>\nSame?", "<><>\nSame?"),
        ("<image><image>Same?", "<><>\nSame?"),
        ("<image>\n<image>\nSame?", "<>\n<>\nSame?"),
        ("A:\n<image>\n\nB:\t<image>  \nSame?", "A:\n<>\n\nB:\t<>  \nSame?"),
        ("Look:<image>and<image>", "Look:<>and<>"),
        ("Same?", "<>\n<>\nSame?"),
    ],
)
def test_what_is_asked_in_the_original_form_has_the_ids_that_were_trained(source, value, chat):
    record = source("understanding", [said(value, "ok", image=["a/1.png", "a/2.png"])])[0]
    processor = quick.processor()
    content = chat.replace("<>", "<image_placeholder>")
    asked_for = {"role": "user", "content": content, "images": ["a", "b"]}
    prompt, _ = processor.question([asked_for])
    flat = lambda spans: [i for ids, _, _ in spans for i in ids]
    trained = flat(processor.conversation(record["messages"]))
    assert trained[: len(flat(prompt))] == flat(prompt)


def test_a_caption_is_asked_for_in_alternating_words(source):
    records = [{"image": "a/1.png", "caption": "same", "dense": f"long {k}"} for k in range(4)]
    made = source("understanding", records, prompt=("What?", "Describe."), caption="dense")
    content = [made[i]["messages"][0].content[2] for i in range(4)]
    assert content == ["What?", "Describe."] * 2 and made[3]["messages"][1].content == ["long 3"]


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
    assert made.portable(0)["image"][0] is None and made.portable(0)["image"][1].startswith(
        b"\x89PNG"
    )
    assert source("text", records[:1])[0] == {"text": "One\n\ntwo"}


PAIR = {"image": "a/1.png", "caption": "A cat."}
CHAT = said("<image>\nWhat is it?", "A cat.", "Sure?", "Yes.")


@pytest.mark.parametrize(
    "kind, record, options, expected",
    [
        ("understanding", PAIR, {}, "{picture}«A cat.{end}»"),
        ("understanding", CHAT, {"caption": "conversations"}, "{picture}«A cat.{end}»"),
        (
            "understanding",
            PAIR,
            {"prompt": ("Describe the image in detail.",)},
            "{picture}«Describe the image in detail.\nA cat.{end}»",
        ),
        (
            "understanding",
            CHAT,
            {},
            "{picture}«What is it?\nA cat.{end}Sure?\nYes.{end}»",
        ),
        ("text", said("Who?", "Me.", image=None), {}, "«Who?\nMe.{end}»"),
        ("generation", PAIR, {}, "A cat.<begin_of_image>«{slots}»<end_of_image>{end}"),
        ("generation", CHAT, {}, "A cat.<begin_of_image>«{slots}»<end_of_image>{end}"),
    ],
)
def test_the_papers_forms_have_neither_roles_nor_a_system_text(
    source, kind, record, options, expected
):
    made = source(kind, [record], **options)
    rows = Rows(1, 200, 1, 1)
    encoder = ExampleEncoder(quick.processor(), quick.MODEL, rows, "all", form="plain")
    example = encoder(kind, made[0], np.random.default_rng(0))
    n = {"understanding": quick.N, "text": 0, "generation": quick.G}[kind]
    slots = f"[{n} x image]"
    picture = f"<begin_of_image>{slots}<end_of_image>"
    expected = expected.format(picture=picture, slots=slots, end=SPECIALS["eos"])
    parts = (example[name] for name in ("tokens", "role", "supervised"))
    shown = as_text(pieces_of(*parts, encoder.processor.tokenizer))
    assert shown == SPECIALS["bos"] + expected


def test_a_blanked_plain_caption_keeps_its_length_and_the_marks(source):
    made = source("generation", [PAIR])[0]
    processor = quick.processor()
    t = processor.tokenizer
    rows = Rows(1, 200, 1, 1)
    whole, empty = (
        ExampleEncoder(processor, quick.MODEL, rows, "all", p, form="plain")(
            "generation", made, np.random.default_rng(0)
        )["tokens"].tolist()
        for p in (0.0, 1.0)
    )
    begin = whole.index(t.begin_of_image)
    assert empty == [t.bos, *[t.pad] * (begin - 1), *whole[begin:]] and begin > 2


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


def test_text_forms(source):
    pictures = [
        {"image": "x.png", "caption": "a dog"},
        said("<image>Who?", "A cat.", "And?", "A hat."),
    ]
    made = source("text", [*pictures, {"text": "plain"}, said("Hi", "Ho", image=None)])
    assert [made[i] for i in range(len(made))] == [
        {"text": "plain"},
        {"messages": asked("Hi", "Ho")},
    ]
    fallback = source("text", pictures)
    assert [fallback[i] for i in range(len(fallback))] == [
        {"text": "a dog"},
        {"text": "A cat.\nA hat."},
    ]
    assert source("text", [{"text": "t", "body": "b"}], caption="body")[0] == {"text": "b"}
    for empty in ("", None, [], [""]):
        assert source("text", [said("Hi", "Ho", image=None) | {"image": empty}])[0]["messages"][
            0
        ].content == ["Hi"]
    # Arrow gives each row the fields of all.
    nulls = {
        "texts": None,
        "messages": None,
        "conversations": None,
        "captions": None,
        "image": None,
    }
    assert source("text", [nulls | {"text": "t", "question": None}])[0] == {"text": "t"}
    assert source("understanding", [nulls | {"image": "a/1.png", "caption": "c"}])[0]["messages"][
        1
    ].content == ["c"]


def test_the_field_that_a_line_names_goes_before_other_forms_of_the_record(source):
    """A document or a chat beside it was learned instead, without a word."""
    seen = {"image": ["a/1.png"], "text": "letters in it", "caption": "A cat."}
    made = source("understanding", [seen], caption="caption", prompt=("What?",))
    assert made[0]["messages"] == asked([IMAGE, "What?"], "A cat.")
    chat = {"question": "Who?", "answer": "Me.", "summary": "He."}
    assert source("text", [chat], caption="summary")[0] == {"text": "He."}
    pieces = {"texts": ["One", "two"], "summary": "Both."}
    assert source("text", [pieces], caption="summary")[0] == {"text": "Both."}
    said_twice = {**said("Who?", "Me.", image=None), "messages": said("Hi", "Ho")["conversations"]}
    made = source("text", [said_twice], caption="messages")
    assert made[0]["messages"] == asked("Hi", "Ho")
    said_twice["image"] = "a/1.png"
    assert source("text", [said_twice], caption="messages")[0] == {"text": "Ho"}
    pictured = {"image": "a/1.png", "caption": "A cat.", "gold": "A pet."}
    assert source("text", [pictured], answer="gold")[0] == {"text": "A pet."}
