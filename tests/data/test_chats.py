"""Conversations in the forms that people have, and what is said of those that cannot be meant."""

import pytest
from support import quick
from support.formats import refused
from support.sets import said

from janus_jax.data import packing
from janus_jax.data import text as text_
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.messages import PICTURE, Turn
from janus_jax.data.sources import SourceError
from janus_jax.model import batch as bt

PAIR = [Turn("user", [PICTURE, "\n", "What?"]), Turn("assistant", ["A cat."])]
PLAIN = [Turn("user", ["What?"]), Turn("assistant", ["A cat."])]
ANSWER = {"role": "assistant", "content": "A cat."}
PARTS = [{"type": "image"}, {"type": "text", "text": "What?"}]


def parts(*content, **beside):
    return {"messages": [{"role": "user", "content": list(content)}, ANSWER]} | beside


FORMS = {
    "content parts beside images": parts(*PARTS, images=["a/1.png"]),
    "parts as Arrow unifies them": parts(
        {"type": "image", "text": None, "index": 0},
        {"type": "text", "text": "What?", "index": None},
        images=["a/1.png"],
    ),
    "a part that holds its picture": parts({"type": "image", "image": "a/1.png"}, PARTS[1]),
    "a part with a path": parts({"type": "image", "path": "a/1.png"}, PARTS[1]),
    "a part of OpenAI's": parts({"type": "image_url", "image_url": {"url": "a/1.png"}}, PARTS[1]),
    "parts of every message": {
        "messages": [
            {"role": "user", "content": PARTS},
            {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        ],
        "image": "a/1.png",
    },
    "the original's own form": {
        "conversations": [
            {"role": "<|User|>", "content": "<image_placeholder>\nWhat?", "images": ["a/1.png"]},
            {"role": "<|Assistant|>", "content": "A cat."},
        ]
    },
    "the original's placeholder": said("<image_placeholder>\nWhat?", "A cat."),
    "texts of user and assistant": {
        "images": ["a/1.png"],
        "texts": [{"user": "What?", "assistant": "A cat.", "source": "x"}],
    },
    "role and content in conversations": {
        "image": "a/1.png",
        "conversations": [{"role": "user", "content": "What?"}, ANSWER],
    },
    "from and value in messages": {
        "image": "a/1.png",
        "messages": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}],
    },
    "pairs in conversations": {
        "image": "a/1.png",
        "conversations": [{"human": "What?", "assistant": "A cat."}],
    },
    "Alpaca": {"image": "a/1.png", "instruction": "What?", "input": "", "output": "A cat."},
    "query and response": {"images": ["a/1.png"], "query": "<image>What?", "response": "A cat."},
    "JSON text in a cell": {
        "image": "a/1.png",
        "conversations": '[{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]',
    },
    "lists of roles and words": {
        "image": "a/1.png",
        "conversations": {"from": ["human", "gpt"], "value": ["What?", "A cat."]},
    },
    "one pair": {"image": "a/1.png", "texts": {"user": "What?", "assistant": "A cat."}},
    "a list of pictures as Python writes it": {
        "images": "['a/1.png']",
        "question": "What?",
        "answer": "A cat.",
    },
    "an empty image beside images": {
        "image": [],
        "images": ["a/1.png"],
        "question": "What?",
        "answer": "A cat.",
    },
}


def test_every_form_of_a_question_about_a_picture_becomes_the_same_turns(source):
    made = source("understanding", list(FORMS.values()))
    portable = [made.portable(i) for i in range(len(made))]
    # What is converted is read again as the same record.
    again = source("understanding", [p | {"image": ["a/1.png"]} for p in portable], "again.json")
    for i, form in enumerate(FORMS):
        assert made[i] == again[i] == {"messages": PAIR}, form
        assert made.image(i).size == (4, 5), form
        files = portable[i]["image"]
        assert b"PNG" in (files[0] if isinstance(files, list) else files), form


def test_content_parts_are_trained_on_as_they_are_asked(source):
    words = [{"type": "text", "text": text} for text in ("Look: ", "or this? ", "Which?")]
    picture = {"type": "image"}
    content = [words[0], picture, words[1], picture, words[2]]
    made = source("understanding", [parts(*content, images=["a/1.png", "a/2.png"])])
    processor = quick.processor()
    held = [part | ({"image": "x"} if part is picture else {}) for part in content]
    prompt, sources = processor.question([{"role": "user", "content": held}])
    flat = lambda spans: [i for ids, _, _ in spans for i in ids]
    assert len(sources) == 2 and made.image(0, 1).size == (8, 5)
    assert flat(processor.learned(made[0], "answers", "chat"))[: len(flat(prompt))] == flat(prompt)


def test_every_form_without_a_picture_is_a_chat_of_text(source):
    cases = {
        "ShareGPT": said("What?", "A cat.", image=None),
        "Alpaca": {"instruction": "What?", "output": "A cat.", "text": "### What?"},
        "prompt and completion": {"prompt": "What?", "completion": "A cat."},
        "texts": {"texts": [{"user": "What?", "assistant": "A cat."}], "images": []},
        "parts": parts({"type": "text", "text": "What?"}),
    }
    made = source("text", list(cases.values()))
    for i, form in enumerate(cases):
        assert made[i] == {"messages": PLAIN}, form
    more = {
        "instruction": "Sum.",
        "input": "1 2",
        "output": "3",
        "system": "Count.",
        "history": [["Hi", "Ho"]],
    }
    assert source("text", [more])[0]["messages"] == [
        Turn("system", ["Count."]),
        Turn("user", ["Hi"]),
        Turn("assistant", ["Ho"]),
        Turn("user", ["Sum.\n1 2"]),
        Turn("assistant", ["3"]),
    ]


def test_a_system_field_is_the_system_turn_in_every_form(source):
    records = [
        {**said("<image>\nWhat?", "A cat."), "system": "Be brief."},
        {"image": "a/1.png", "question": "What?", "answer": "A cat.", "system": "Be brief."},
        {"image": "a/1.png", "caption": "A cat.", "system": "Be brief."},
        {**said("<image>\nWhat?", "A cat."), "system_message": "Be brief."},
        {**said("<image>\nWhat?", "A cat."), "system": " "},
    ]
    made = source("understanding", records, prompt=("What?",))
    for i in range(4):
        assert made[i]["messages"] == [Turn("system", ["Be brief."]), *PAIR]
    assert made[4]["messages"] == PAIR
    newer = parts({"type": "text", "text": "What?"})  # OpenAI's word for system
    newer["messages"] = [{"role": "developer", "content": "Be brief."}, *newer["messages"]]
    made = source("text", [newer], "newer.json")
    assert made[0]["messages"] == [Turn("system", ["Be brief."]), *PLAIN]
    twice = {**parts({"type": "text", "text": "What?"}), "system": "Be brief."}
    twice["messages"] = [{"role": "system", "content": "Be long."}, *twice["messages"]]
    assert refused(lambda: source("text", [twice])[0]).cause == "two system texts"


REFUSED = {
    "a placeholder and no picture": (
        said("<image>\nWhat?", "A cat.", image=None) | {"image": []},
        '"conversations" has 1 <image> placeholders for 0 images',
    ),
    "a placeholder and no field for a picture": (
        said("<image>\nWhat?", "A cat.", image=None),
        '"conversations" has 1 <image> placeholders for 0 images',
    ),
    "the original's placeholder and no picture": (
        said("<image_placeholder>What?", "A cat.", image=None) | {"image": ""},
        "has 1 <image_placeholder> placeholders for 0 images",
    ),
    "fewer parts than pictures": (
        parts(*PARTS, images=["a/1.png", "a/2.png"]),
        "1 image parts for 2 images",
    ),
    "more parts than pictures": (
        parts(PARTS[0], *PARTS, images=["a/1.png"]),
        "2 image parts for 1 images",
    ),
    "parts that hold a picture beside images": (
        parts({"type": "image", "image": "a/1.png"}, PARTS[1], images=["a/2.png"]),
        "give them in one of the two ways",
    ),
    "parts of which one holds a picture": (
        parts({"type": "image", "image": "a/1.png"}, *PARTS),
        "2 places for pictures, of which 1 hold one",
    ),
    "parts in another order": (
        parts({"type": "image", "index": 1}, {"type": "image", "index": 0}, PARTS[1], images=["a/1.png", "a/2.png"]),
        "takes pictures [1, 0]; list them in their order",
    ),
    "a part of sound": (
        parts({"type": "audio", "audio": "x.wav"}, *PARTS, images=["a/1.png"]),
        "\"messages[0]\": part of type 'audio'; use 'text' or 'image'",
    ),
    "a picture in an answer": (
        {
            "messages": [
                {"role": "user", "content": "Draw."},
                {"role": "assistant", "content": [{"type": "image"}]},
            ],
            "image": "a/1.png",
        },
        "has a picture in role assistant; put it in a user turn",
    ),
    "an answer of a placeholder": (said("Draw", "<image>"), "nothing but <image>"),
    "half a loss": (
        {"image": "a/1.png", "messages": [{"role": "user", "content": "a"}, ANSWER | {"weight": 0.5}]},
        '"messages[1].weight" is \'0.5\' (float): words are predicted or not',
    ),
    "two losses": (
        {
            "image": "a/1.png",
            "messages": [{"role": "user", "content": "a"}, ANSWER | {"loss": True, "train": False}],
        },
        '"messages[1].loss" and "messages[1].train" contradict each other',
    ),
    "a flag of a record that is none": (
        {"image": "a/1.png", "question": "What?", "answer": "A cat.", "weight": 12.5},
        'field "weight" is \'12.5\' (float): words are predicted or not; give true or false, 1 or 0, or call',
    ),
    "a mark of another model": (
        said("<|image_1|>\nWhat?", "A cat."),
        "has <|image_1|>, which stands for a picture elsewhere, and 1 images have no place",
    ),
    "a mark in capitals": (said("<IMAGE> What?", "A cat."), "has <IMAGE>, which stands"),
    "a mark of MMMU's": (said("What is in <image 1>?", "A cat."), "has <image 1>, which stands"),
    "a mark of Pixtral's": (said("[IMG]What?", "A cat."), "has [IMG], which stands"),
    "a mark of InternVL's": (
        said("<img><IMG_CONTEXT></img>What?", "A cat."),
        "has <img><IMG_CONTEXT>, which stands",
    ),
    "a film": (said("What?", "A cat.") | {"videos": ["a.mp4"]}, '"videos" is'),
    "an answer that is not wanted": (said("What?", "A cat.") | {"kto_tag": False}, '"kto_tag" is false'),
    "texts without an answer": (
        {"images": ["a/1.png"], "texts": [{"user": "a", "assistant": "b"}, {"user": "What?"}]},
        '"texts[1]" is',
    ),
}  # fmt: skip


def test_what_cannot_be_meant_is_refused_and_not_left_out(source):
    good = said("<image>\nWhat?", "A cat.")
    made = source("understanding", [good, *(record for record, _ in REFUSED.values())])
    assert len(made) == 1 + len(REFUSED) and made.left_out == {}
    for i, (name, (_, why)) in enumerate(REFUSED.items(), 1):
        message = str(refused(lambda i=i: made[i]))
        assert why in message and message.startswith(f"data.json: record {i}: "), (name, message)


def test_a_chat_whose_answer_is_the_picture_is_a_request_to_draw_it(source):
    ask = {"role": "user", "content": "A red cat."}
    held = {"role": "assistant", "content": [{"type": "image", "image": "a/1.png"}]}
    records = [
        {"messages": [ask, held]},
        {
            "messages": [ask, {"role": "assistant", "content": [{"type": "image"}]}],
            "image": "a/1.png",
        },
        said("A red cat.", "<image>"),
        said("<image> What?", "A red cat."),
    ]
    made = source("generation", records)
    for i in range(len(records)):
        assert made[i] == {"captions": ["A red cat."]} and made.image(i).size == (4, 5)
    told = ['what to draw from the question in "messages"']
    assert made[0] and made.understood(0)[0] == told
    # Others are no such request.
    assert (
        refused(lambda: source("generation", [said("As <image>.", "<image>")])[0]).cause
        == "placeholders"
    )
    told = {"messages": [{"role": "system", "content": "Draw."}, ask, held]}
    assert [turn.role for turn in source("generation", [told])[0]["messages"]] == [
        "system",
        "user",
        "assistant",
    ]


def test_a_mark_where_it_can_be_none_is_text(source):
    answer = "Write an <image> tag."
    assert source("understanding", [said("How?", answer)])[0]["messages"][1].content == [answer]
    question = "What does <img src=x> or <img> show?"
    assert source("understanding", [said(question, "x")])[0]["messages"][0].content[2] == question
    chats = [
        said("What is <image> in HTML?", answer, image=None),
        {"instruction": "Close <image>.", "output": answer},
        {"system": "Say <image>.", "question": "Now.", "answer": answer},
    ]
    made = source("text", chats)
    assert made[0]["messages"][0].content == ["What is <image> in HTML?"]
    assert made[1]["messages"][0].content == ["Close <image>."]
    assert made[2]["messages"][0].content == ["Say <image>."]
    assert all(made[i]["messages"][-1].content == [answer] for i in range(3))
    # As text alone, a record that has room for a picture and speaks of one is a mistake.
    empty = said("<image>\nWhat?", "A cat.", image=None) | {"image": []}
    assert "1 <image> placeholders for 0" in str(refused(lambda: source("text", [empty])[0]))


def learned(processor, turns: list[Turn], form: str, supervise: str = "answers") -> str:
    example = text_.encode({"messages": turns}, processor, supervise, 200, form)
    ids = example["tokens"][example["supervised"] == 1]
    return processor.tokenizer.backend.decode(ids.tolist(), skip_special_tokens=False)


@pytest.mark.parametrize("form", ["chat", "plain"])
def test_a_turn_that_says_whether_it_is_learned_is_heard(source, form):
    def chat(first, second, user=None):
        turns = [
            {"role": "user", "content": "one"} | (user or {}),
            {"role": "assistant", "content": "red"} | first,
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": "blue"} | second,
        ]
        return {"messages": turns}

    records = [
        chat({}, {}),
        chat({"loss": False}, {}),
        chat({"weight": 0}, {"weight": 1}),
        chat({"train": True}, {"training": False}, {"train": True}),
        chat({"weight": None}, {"loss": None}),
        chat({"loss_mask": 0}, {"loss_mask": 1}),
    ]
    made = source("text", records)
    processor = quick.processor()
    end = "<｜end▁of▁sentence｜>"
    line = "\n" if form == "plain" else ""
    told = [learned(processor, made[i]["messages"], form).replace(" ", "") for i in range(6)]
    both = f"red{end}blue{end}"
    assert told == [both, f"blue{end}", f"blue{end}", f"one{line}red{end}", both, f"blue{end}"]
    pair = {"user": "one", "assistant": "red", "loss": False}
    pairs = [pair, {"user": "two", "assistant": "blue"}]
    made_of_pairs = source("text", [{"texts": pairs}, {"conversations": pairs}], "pairs.json")
    for i in range(2):
        assert learned(processor, made_of_pairs[i]["messages"], form).strip() == f"blue{end}"
    everything = learned(processor, made[1]["messages"], form, "all").replace(" ", "")
    assert "red" not in everything and "one" in everything and "two" in everything
    # What is not learned is still read, and may be cut.
    spans = processor.learned(made[1], "answers", form)
    assert [flag for ids, _, flag in spans if "red" in processor.tokenizer.decode(ids)] == [
        bt.GIVEN
    ]
    assert packing.shorten(spans, 200, processor.tokenizer.eos) == (spans, False)


FLAT = {
    "question and answer": {"question": "one", "answer": "red"},
    "Alpaca": {"instruction": "one", "input": "", "output": "red"},
    "ms-swift": {"query": "one", "response": "red"},
    "pairs": {"texts": [{"user": "one", "assistant": "red"}]},
    "a chat": {
        "messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "red"}]
    },
}


@pytest.mark.parametrize("form", FLAT)
def test_a_flag_beside_an_answer_is_of_that_answer(source, form):
    """Every such record was trained on, whatever it said."""
    processor = quick.processor()
    flags = [{"train": False}, {"weight": 0}, {"loss": 0}, {"loss_mask": "0"}, {}, {"loss": 1.0}]
    made = source("text", [FLAT[form] | flag for flag in flags])
    told = [learned(processor, made[i]["messages"], "chat") for i in range(len(flags))]
    assert told[:4] == [""] * 4 and told[4] == told[5] != "", told
    assert made[0] and made.understood(0)[1] == []
    told = learned(processor, made[0]["messages"], "chat", "all")
    assert told.split() == ["one"]
    # A turn's own word goes before that of the record.
    turn = {"user": "one", "assistant": "red", "loss": True}
    both = source("text", [{"texts": [turn, turn | {"loss": None}], "loss": False}], "both.json")
    assert [turn.learn for turn in both[0]["messages"]] == [None, True, None, False]


def test_a_record_of_which_nothing_is_learned_is_refused_as_a_record(source, processor):
    picture = {"image": "a/1.png", "caption": "a cat", "train": False}
    for kind in ("generation", "text"):
        error = refused(lambda kind=kind: source(kind, [picture], f"{kind}.json")[0])
        assert error.cause == "no answer"
        assert f'{kind}.json: record 0: field "train" is False: nothing of' in str(error)
    document = picture | {"caption": None, "text": "see <image>", "images": ["a/1.png"]}
    assert refused(lambda: source("understanding", [document])[0]).cause == "no answer"
    encode = ExampleEncoder(processor, quick.MODEL, quick.ROWS, "answers")
    asked = source("understanding", [picture], "asked.json")[0]
    assert refused(lambda: encode("understanding", asked, None)).cause == "no answer"
    # Of a chat of several answers the caption is the first that is to be predicted.
    chat = said("One?", "red", "Two?", "blue")
    chat["conversations"][1]["train"] = False
    assert source("generation", [chat], "chat.json")[0] == {"captions": ["blue"]}


def test_a_field_that_the_line_names_is_no_flag(source):
    record = {"image": "a/1.png", "caption": "a cat", "weight": 0}
    assert source("generation", [record], score="weight")[0] == {"captions": ["a cat"]}
    made = source("generation", [record], prompt=("{caption} of {weight} kg",))
    assert made[0] == {"captions": ["a cat of 0 kg"]}


def test_a_field_that_the_line_names_holds_what_it_is_named_for(source):
    record = {
        "img_path": "a/1.png",
        "prompt": "What?",
        "Task2": {"Caption": "A cat.", "Score": 3},
        "qa": [{"q": "What?", "a": "A cat."}, {"q": "Who?", "a": "Me."}],
        "meta": '{"said": "A cat."}',
        "a.b": "A cat.",
        "sentences": [{"raw": "A cat."}, {"raw": "A pet."}],
    }
    line = {"picture": "img_path"}
    draws = lambda **more: source("generation", [record], **line, **more)
    assert draws(caption="Task2.Caption")[0] == {"captions": ["A cat."]}
    assert draws(caption="meta.said")[0] == draws(caption="a.b")[0] == {"captions": ["A cat."]}
    assert draws(caption="sentences.raw")[0] == {"captions": ["A cat.", "A pet."]}
    assert draws(prompt=("{Task2.Caption} {Task2.Score}",))[0] == {"captions": ["A cat. 3"]}
    assert draws(caption="a.b").image(0).size == (4, 5)
    reads = lambda **more: source("understanding", [record], **line, **more)
    for names in (
        {"question": "prompt", "answer": "Task2.Caption"},
        {"question": "qa.0.q", "answer": "qa.0.a"},
        {"caption": "Task2.Caption", "prompt": ("What?",)},
        {"answer": "meta.said", "prompt": ("What?",)},
        {"question": "prompt", "caption": "Task2.Caption"},
    ):
        assert reads(**names)[0] == {"messages": PAIR}, names
    assert reads(answer="a.b")[0]["unasked"] is True
    cell = {"imgs": "['a/1.png', 'a/2.png']", "question": "Same?", "answer": "No."}
    made = source("understanding", [cell], picture="imgs")
    assert made[0]["messages"][0].count_pictures == 2 and made.image(0, 1).size == (8, 5)
    inner = [{"data": {"pic": "a/2.png", "id": 1}, "caption": "x"}, {"data": {}, "caption": "y"}]
    made = source("generation", inner, picture="data.pic")
    assert len(made) == 1 and made.image(0).size == (8, 5)
    assert made.portable(0)["data"] == {"id": 1} and made.left_out == {"not of kind generation": 1}


def test_a_line_that_names_what_is_not_there_is_told_what_is(source):
    record = {"img_path": "a/1.png", "prompt": "What?", "Task2": {"Caption": "A cat."}}
    there = "img_path, prompt, Task2.Caption"

    def told(kind, **line):
        return str(refused(lambda: source(kind, [record] * 3, **line), SourceError))

    assert f"the fields there are: {there}); name the one that holds it as picture" in told(
        "generation"
    )
    message = told("generation", picture="img_pth")
    assert "no record has" in message and there in message
    message = told("generation", picture="img_path", caption="Task2.Captoin")
    assert (
        "none of the first 3 records has the field \"Task2.Captoin\" (caption); did you mean 'Task2.Caption'?"
        in message
    )
    assert message.endswith("the fields there are: prompt, Task2.Caption, img_path")
    message = told("understanding", picture="img_path", question="ask", answer="said")
    assert '"ask" (question), nor "said" (answer)' in message
    assert "records of kind generation have captions" in told("generation", answer="prompt")
    assert "name one" in told("understanding", answer="prompt", caption="prompt")


def test_a_part_that_holds_its_picture_is_told_without_fields_that_it_does_not_have(source):
    made = source("understanding", [parts({"type": "image", "image": "a/1.png"}, PARTS[1])])
    assert made[0]["messages"] == PAIR and made.understood(0)[1] == []


def test_an_answer_of_another_name_answers_what_the_record_asks(source):
    """Not "Describe the picture."; and what belongs to the question stays with it."""
    record = {"image": "a/1.png", "query": "What?", "response": "A dog.", "gold": "A cat."}
    assert source("understanding", [record], answer="gold")[0] == {"messages": PAIR}
    more = {"instruction": "Sum.", "input": "1 2", "history": [["Hi", "Ho"]], "gold": "3"}
    turns = source("text", [more], answer="gold")[0]["messages"]
    assert [turn.content for turn in turns] == [["Hi"], ["Ho"], ["Sum.\n1 2"], ["3"]]
    asked = source("understanding", [record], answer="gold", prompt=("Which?",))[0]["messages"]
    assert asked[0].content[2] == "Which?"
    bad = said("What?", "A dog.") | {"kto_tag": False}
    assert refused(lambda: source("generation", [bad])[0]).cause == "unwanted answer"
