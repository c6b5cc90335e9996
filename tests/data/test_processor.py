"""The chat template word for word, what of it is learned, and text to ids and back."""

import pickle

import numpy as np
import pytest

from janus_jax.config.schema import SYSTEM, Template
from janus_jax.data import messages as messages_
from janus_jax.data import tokenizer as tok
from janus_jax.data.processor import Processor
from janus_jax.model import batch as bt

N, G = 4, 5  # tokens of a picture read, ids of a picture drawn
IMAGE = {"type": "image"}
BOS, EOS, PAD, BOI, EOI, SLOT = messages_.SPECIALS.values()
ROLES = {"1.3b": ("User", "Assistant"), "pro": ("<|User|>", "<|Assistant|>")}


@pytest.fixture(scope="module")
def tokenizer():
    words = "User: what color is the circle?\n\nAssistant: a red circle and two blue squares " * 3
    return tok.train([words], 340)


@pytest.fixture(params=ROLES)
def processor(request, tokenizer):
    return Processor(tokenizer, Template(*ROLES[request.param]), N, G)


def part(text):
    return {"type": "text", "text": text}


def user(*content):
    return {"role": "user", "content": list(content) if len(content) > 1 else content[0]}


def said(content):
    return {"role": "assistant", "content": content}


def ids(spans):
    return [i for span in spans for i in span[0]]


def shown(processor, spans):
    """Ids as text, with the special strings."""
    return processor.tokenizer.backend.decode(ids(spans), skip_special_tokens=False)


PICTURE = BOI + SLOT * N + EOI
TEMPLATE = {  # name: (messages, system text, the text after BOS; U and A stand for the role names)
    "open prompt": ([user("hi"), said("")], "Be kind.", "Be kind.\n\nU: hi\n\nA:"),
    "lone user": ([user("hi")], "", "U: hi"),
    "answered": ([user("hi"), said("yo")], "", "U: hi\n\nA: yo" + EOS),
    "two turns": (
        [user("hi"), said("yo"), user("more"), said("no")],
        "S",
        f"S\n\nU: hi\n\nA: yo{EOS}U: more\n\nA: no{EOS}",
    ),
    "asked again": (
        [user("hi"), said("yo"), user("more"), said("")],
        "",
        f"U: hi\n\nA: yo{EOS}U: more\n\nA:",
    ),
    "parity, not role": ([said("a"), user("b"), said("c")], "", f"A: a\n\nU: b{EOS}A: c"),
    "empty in the middle": ([user(" "), said("yo"), user("x")], "", f"U:A: yo{EOS}U: x"),
    "outer whitespace": ([user(" \n hi \n"), said(" yo\n ")], " S ", f"S \n\nU: hi\n\nA: yo{EOS}"),
    "inner whitespace": ([user("a \n b"), said("")], "", "U: a \n b\n\nA:"),
    "blank system": ([user("hi"), said("")], " \n", "U: hi\n\nA:"),
    "picture first": ([user(IMAGE, part("what?")), said("")], "", f"U: {PICTURE}\nwhat?\n\nA:"),
    "picture last": ([user(part("what? "), IMAGE), said("")], "", f"U: what? {PICTURE}\n\nA:"),
    "picture between": ([user(part("is"), IMAGE, part("red?"))], "", f"U: is{PICTURE}\nred?"),
    "picture alone": ([user([IMAGE])], "", f"U: {PICTURE}"),
    "picture and blank text": ([user(IMAGE, part(" ")), said("")], "", f"U: {PICTURE}\n\nA:"),
    "picture and blank text alone": ([user(IMAGE, part(" "))], "", f"U: {PICTURE}"),
    "two pictures": ([user(IMAGE, IMAGE, part("same?"))], "", f"U: {PICTURE}\n{PICTURE}\nsame?"),
    "own system": (
        [{"role": "system", "content": "Mine."}, user("hi"), said("")],
        "Not this.",
        "Mine.\n\nU: hi\n\nA:",
    ),
}


@pytest.mark.parametrize("case", TEMPLATE)
def test_template_word_for_word(processor, case):
    messages, system, expected = TEMPLATE[case]
    t = processor.template
    # Only the role slots: a "U" or "A" stands alone before ":" in the table above.
    expected = expected.replace("U:", t.user + ":").replace("A:", t.assistant + ":")
    assert shown(processor, processor.conversation(messages, system=system)) == BOS + expected


def test_system_text_comes_from_the_template_and_is_the_original_one(tokenizer):
    assert SYSTEM == (
        "You are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using natural "
        "language."
    )
    processor = Processor(tokenizer, Template(), N, G)
    assert shown(processor, processor.conversation([user("hi")])) == f"{BOS}{SYSTEM}\n\nUser: hi"


def test_ids_are_those_of_the_text_between_control_tokens_tokenised_whole(processor):
    t, names = processor.tokenizer, processor.template
    spans = processor.conversation(
        [user(IMAGE, part("what color?")), said("a red circle")], system=""
    )
    before = t.encode(f"{names.user}: ")[0]
    after = t.encode(f"\nwhat color?\n\n{names.assistant}: a red circle")[0]
    picture = [t.begin_of_image, *[t.placeholder] * N, t.end_of_image]
    assert ids(spans) == [t.bos, *before, *picture, *after, t.eos]
    assert [len(s[0]) for s in spans if s[1] == bt.UNDERSTANDING_SLOT] == [N]


@pytest.mark.parametrize("typed", messages_.SPECIALS.values())
def test_special_strings_typed_by_a_user_stay_text(processor, typed):
    t = processor.tokenizer
    for again in (processor, pickle.loads(pickle.dumps(processor))):
        plain = ids(again.conversation([user("see  it"), said("ok")], system=""))
        found = ids(again.conversation([user(f"see {typed} it"), said("ok")], system=""))
        for special in (t.bos, t.eos, t.pad, t.begin_of_image, t.end_of_image, t.placeholder):
            assert found.count(special) == plain.count(special)
        assert typed in again.tokenizer.decode(found)


@pytest.mark.parametrize(
    "messages, learned",
    [
        (
            [user("hi"), said("a red circle"), user("more"), said("two")],
            [" a red circle" + EOS, " two" + EOS],
        ),
        ([user("hi"), said("")], []),
        ([user(IMAGE, part("what?")), said("red")], [" red" + EOS]),
        ([user("hi"), said([part("a"), part(" red")])], [" a red" + EOS]),
        ([said("a"), user("b"), said("c")], [" a", " c"]),  # the separators here close no answer
    ],
)
def test_only_answers_and_their_closing_token_are_supervised(processor, messages, learned):
    spans, found = processor.conversation(messages, system="S"), []
    for (_, _, before), span in zip([([], 0, 0), *spans], spans):
        if span[2]:
            found += [""] if not before else []
            found[-1] += shown(processor, [span])
    assert found == learned


def test_drawing_prompt_and_its_unconditional_twin(processor):
    names, t = processor.template, processor.tokenizer
    spans = processor.drawing(" a red circle\n")
    assert shown(processor, spans) == f"{BOS}{names.user}: a red circle\n\n{names.assistant}:{BOI}"
    prompt = np.asarray(ids(spans), np.int32)
    before, empty = prompt.copy(), processor.unconditional(prompt)
    assert empty.tolist() == [t.bos, *[t.pad] * (len(prompt) - 2), t.begin_of_image]
    assert empty.dtype == np.int32 and (prompt == before).all()
    assert not any(supervised for _, _, supervised in spans)


def test_save_and_load(processor, tmp_path):
    processor.save(tmp_path)
    again = Processor.load(tmp_path)
    assert again.template == processor.template
    assert (again.understanding_tokens, again.generation_tokens) == (N, G)
    assert again.tokenizer.backend.to_str() == processor.tokenizer.backend.to_str()
    messages = [user(IMAGE, part(f"what {EOS} color?")), said("a red circle")]
    assert again.conversation(messages) == processor.conversation(messages)


def test_a_processor_file_of_another_kind_is_named(processor, tmp_path):
    processor.save(tmp_path)
    file = tmp_path / "processor.json"
    file.write_text('{"chat_template": "x", "generation_tokens": 5}')
    with pytest.raises(
        ValueError, match=r"processor.json.*'chat_template'.*'understanding_tokens'"
    ):
        Processor.load(tmp_path)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"processor.json: cannot be read as JSON"):
        Processor.load(tmp_path)
    processor.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json: .*copy the file again"):
        Processor.load(tmp_path)


def test_unknown_role_and_part_are_named(processor):
    with pytest.raises(ValueError, match=r"message 1: role 'bot'.*user, assistant, system"):
        processor.conversation([user("hi"), {"role": "bot", "content": "x"}])
    with pytest.raises(ValueError, match=r"message 0: part of type 'video'.*'text' or 'image'"):
        processor.conversation([user(part("hi"), {"type": "video"})])
