"""Answers against a loop without a cache, whatever the company they are asked in."""

import base64
import copy
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from support import tiny
from support.sampling import (
    CONVERSATIONS,
    PROMPTS,
    WORDS,
    answer_by_hand,
    picture,
    said,
)

from janus_jax import understand
from janus_jax.sample import understand as understanding
from janus_jax.sample.understand import prepare, understand_batch

TOWER = tiny.CONFIG.understanding_encoder


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_greedy_answers_are_those_of_a_loop_without_cache(model, processor, name):
    ids = answer_by_hand(model, CONVERSATIONS[name])
    assert len(set(ids)) > 2 and processor.tokenizer.eos not in ids, "an answer that shows nothing"
    got = understand(model, processor, CONVERSATIONS[name], max_new_tokens=WORDS)
    assert got == processor.tokenizer.decode(ids).strip()


def test_the_picture_matters(model, processor):
    a, b = (
        understand(model, processor, said("what?", picture(s)), max_new_tokens=WORDS)
        for s in (1, 2)
    )
    assert a != b


def test_answers_do_not_depend_on_their_company(model, processor):
    asked = [
        said(text, picture(k))
        for k, text in enumerate(["what?", PROMPTS[3], "is it red or is it blue?"])
    ]
    options = dict(max_new_tokens=WORDS)
    alone = [understand(model, processor, c, **options) for c in asked]
    assert understand_batch(model, processor, asked, **options) == alone
    assert len(set(alone)) == 3


def test_a_conversation_that_cannot_be_used_leaves_the_others_of_its_batch(model, processor):
    asked = [
        said(text, picture(k))
        for k, text in enumerate(["what?", PROMPTS[3], "is it red or is it blue?"])
    ]
    with_bad = [asked[0], said("what?", "no such.png"), *asked[1:]]
    numbers = dict(max_new_tokens=WORDS, temperature=1.0)
    told = {0: [], 1: [], 2: [], 3: []}
    got = understand_batch(
        model, processor, with_bad, seed=[1, 2, 3, 4], return_exceptions=True,
        stream=lambda row, text: told[row].append(text), **numbers,
    )  # fmt: skip
    alone = understand_batch(model, processor, asked, seed=[1, 3, 4], **numbers)
    error = got.pop(1)
    assert got == alone and isinstance(error, ValueError) and "no such.png" in str(error)
    assert ["".join(told[row]) for row in (0, 2, 3)] == alone and not told[1]
    (only,) = understand_batch(model, processor, [with_bad[1]], return_exceptions=True)
    assert str(only) == str(error)
    with pytest.raises(ValueError, match=r"conversations\[1\]: message 0: no such\.png"):
        understand_batch(model, processor, with_bad, **numbers)


def test_conversations_of_any_number_of_pictures_share_a_batch(model, processor):
    asked = [
        said("what?"),
        said(PROMPTS[3], picture(1)),
        CONVERSATIONS["turns"],
        said("are these two the same?", picture(2), picture(3), picture(1)),
    ]
    numbers = dict(max_new_tokens=WORDS)
    alone = [understand(model, processor, c, **numbers) for c in asked]
    assert understand_batch(model, processor, asked, **numbers) == alone and len(set(alone)) == 4
    same = [asked[0]] * 4
    seeded = understand_batch(model, processor, same, temperature=1.0, seed=[3, 5, 3, 6], **numbers)
    assert seeded[0] == seeded[2] and len(set(seeded)) == 3
    assert seeded[1] == understand(model, processor, asked[0], temperature=1.0, seed=5, **numbers)


def test_answers_stream_as_they_come_and_sum_to_the_answer(model, processor):
    asked = [said("what?"), said("is it red?", picture(1))]
    told = {0: [], 1: []}
    numbers = dict(temperature=1.0, seed=1, max_new_tokens=WORDS)
    answers = understand_batch(
        model, processor, asked, stream=lambda row, text: told[row].append(text), **numbers
    )
    assert ["".join(parts) for parts in told.values()] == answers and len(told[0]) > 3
    alone = []
    assert (
        understand(model, processor, asked[1], stream=alone.append, **numbers)
        == "".join(alone)
        == answers[1]
    )
    stop = answers[0][2:4]
    assert (
        understand(model, processor, asked[0], stop=stop, **numbers)
        == answers[0].partition(stop)[0].strip()
    )


def test_pictures_are_read_by_the_processors_numbers(model, processor, monkeypatch):
    own = copy.copy(processor)
    own.image_mean, own.image_std, own.background = (0.1, 0.2, 0.3), (1.0, 0.5, 0.25), (9, 8, 7)
    wide = picture(1).crop((0, 0, 16, 8))
    seen = []

    def stop(model, pictures):
        seen.append(pictures)
        raise InterruptedError

    monkeypatch.setattr(understanding, "features", stop)
    with pytest.raises(InterruptedError):
        understand_batch(model, own, [said("what?", wide), said("hi")])
    whole = np.broadcast_to(np.array(own.background, np.float32), (16, 16, 3)).copy()
    whole[1:15] = np.asarray(
        wide.resize((16, 14), Image.Resampling.BICUBIC)
    )  # 14 is the least side
    np.testing.assert_allclose(
        seen[0][0], (whole / 255 - own.image_mean) / own.image_std, atol=1e-5
    )


def test_the_next_users_tag_ends_an_answer_also_where_it_is_one_token(
    model, processor, monkeypatch
):
    ids = answer_by_hand(model, CONVERSATIONS["text"])
    cut = next(i for i in range(2, WORDS) if ids[i] not in ids[:i])
    pro = copy.copy(processor)
    pro.tokenizer = copy.copy(processor.tokenizer)
    pro.tokenizer._control = processor.tokenizer._control | {"<tag>": ids[cut]}
    pro.template = dataclasses.replace(processor.template, user="<tag>")
    plain = understand(model, processor, CONVERSATIONS["text"], max_new_tokens=WORDS)
    assert plain == processor.tokenizer.decode(ids).strip()
    seen = []

    def fixed(*args, **_):
        seen.append(args[-1](0, np.array(ids)))

    monkeypatch.setattr(understanding, "text_ids", fixed)
    ended = understand(model, pro, CONVERSATIONS["text"], max_new_tokens=WORDS, stop="never said")
    assert ended == processor.tokenizer.decode(ids[:cut]).strip() and seen == [True]


def test_the_original_form_of_a_conversation_is_the_same_question(model, processor):
    picture_ = picture(1)
    ours = prepare(processor, said("what?", picture_), TOWER)
    theirs = [
        {"role": "<|User|>", "content": "<image_placeholder>\nwhat?", "images": [picture_]},
        {"role": "<|Assistant|>", "content": ""},
    ]
    for got, want in zip(prepare(processor, theirs, TOWER), ours):
        np.testing.assert_array_equal(got, want)


def test_an_answer_stays_within_the_context(model, processor):
    asked = said("how many circles are there?")
    long = understand(model, processor, asked, max_new_tokens=WORDS)
    tight = copy.copy(processor)
    tight.context = len(prepare(processor, asked, TOWER)[0]) + 5
    short = understand(model, tight, asked, max_new_tokens=WORDS)
    assert 0 < len(short) < len(long) and long.startswith(short)


def test_an_answer_ends_at_the_end_of_sentence(model, processor):
    asked = [said("what?"), said("how many circles are there?")]
    ids = answer_by_hand(model, asked[0])
    cut = next(i for i in range(2, WORDS) if ids[i] not in ids[:i])
    short = copy.copy(processor)
    short.tokenizer = copy.copy(processor.tokenizer)
    short.tokenizer.eos = ids[cut]
    want = processor.tokenizer.decode(ids[:cut]).strip()
    assert want and understand(model, short, asked[0], max_new_tokens=WORDS) == want
    both = understand_batch(model, short, asked, max_new_tokens=WORDS)
    assert both == [want, understand(model, short, asked[1], max_new_tokens=WORDS)]


def test_sampling_with_the_smallest_mass_is_greedy(model, processor):
    options = dict(max_new_tokens=WORDS)
    greedy = understand(model, processor, CONVERSATIONS["picture"], **options)
    narrow = dict(temperature=1.0, top_p=1e-6)
    for seed in (0, 1):
        got = understand(model, processor, CONVERSATIONS["picture"], seed=seed, **narrow, **options)
        assert got == greedy
    wide = [
        understand(model, processor, CONVERSATIONS["picture"], temperature=1.0, seed=s, **options)
        for s in (0, 1)
    ]
    assert len({greedy, *wide}) == 3


def answer(model, processor, monkeypatch, text: str, **options) -> str:
    """What `understand` makes of a model that says `text` and goes on."""
    ids = processor.tokenizer.encode(text)[0]
    monkeypatch.setattr(understanding, "text_ids", lambda *args, **_: args[-1](0, np.array(ids)))
    return understand(model, processor, said("what does it say?"), **options)


def test_a_role_that_an_answer_spells_out_does_not_end_it(model, processor, monkeypatch):
    text = "It says: User: alice\n\nAssistant: hello"
    assert processor.tokenizer.control(processor.template.user) is None
    assert answer(model, processor, monkeypatch, text) == text
    assert answer(model, processor, monkeypatch, text, stop="alice") == "It says: User:"


def test_a_picture_may_come_as_file_data_or_openai_part(model, processor, tmp_path):
    file = tmp_path / "p.png"
    picture(1).save(file)
    buffer = io.BytesIO()
    picture(1).save(buffer, "PNG")
    data = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    want = prepare(processor, said("what?", picture(1)), TOWER)
    for part in (
        {"type": "image", "image": str(file)},
        {"type": "image", "path": file},
        {"type": "image", "url": data},
        {"type": "image_url", "image_url": {"url": data}},
    ):
        message = {"role": "user", "content": [part, {"type": "text", "text": "what?"}]}
        for got, same in zip(prepare(processor, [message], TOWER), want):
            np.testing.assert_array_equal(got, same)


# What cannot be done


def part(**fields):
    return [{"role": "user", "content": [fields, {"type": "text", "text": "what?"}]}]


@pytest.mark.parametrize(
    "conversation, words",
    [
        ([], ["conversation"]),
        ([*said("a"), {"role": "assistant", "content": "b"}], ["last message", "user"]),
        ([{"role": "tool", "content": "a"}, *said("b")], ["message 0", "'tool'"]),
        (part(type="image", image="http://x.org/a.png"), ["message 0", "http://x.org/a.png"]),
        (
            part(type="image_url", image_url={"url": "https://x.org/a"}),
            ["message 0", "https://x.org/a"],
        ),
        (part(type="image", url="data:image/png;base64,@@@"), ["message 0", "base64"]),
        (part(type="image", image="no/such.png"), ["no/such.png"]),
        (part(type="image"), ["message 0", "picture"]),
        (part(type="video", video="a.mp4"), ["message 0"]),
    ],
    ids=lambda x: str(x)[:40],
)
def test_understand_names_the_message_it_cannot_use(model, processor, conversation, words):
    with pytest.raises(ValueError) as error:
        understand(model, processor, conversation)
    assert all(word in str(error.value) for word in words), error.value
